// `orrery plan capacity|mixed-pools|hindsight`: reads a question, prints the answer. No server needed.
//
// Exit codes: 0 answered; 2 malformed input (the line or the field is named); 3 no plan is feasible (the
// constraints that cannot be met are named); 4 the instance is too large, or a limit was hit before the
// optimum was proven: the bounds are printed all the same.
#ifndef ORRERY_SERVER_CLI_PLAN_COMMAND_H_
#define ORRERY_SERVER_CLI_PLAN_COMMAND_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

namespace orrery::cli {

struct PlanOptions {
  std::string kind, input = "-";
  double time_limit_s = 60.0;  // of all solves together
  int64_t node_limit = 1'000'000;
  bool bounds_only = false;  // hindsight: no integer program
  bool json = false;
};
CLI::App* RegisterPlan(CLI::App& app, PlanOptions* options);
int RunPlan(const PlanOptions& options);

}  // namespace orrery::cli

#endif  // ORRERY_SERVER_CLI_PLAN_COMMAND_H_
