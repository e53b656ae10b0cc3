// Checks the flags of `orrery simulate` and makes a simulation of them.
#ifndef ORRERY_SERVER_SIMULATE_RESOLVE_H_
#define ORRERY_SERVER_SIMULATE_RESOLVE_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "router/sim/simulation.h"
#include "scheduler/cost/step_cost.h"
#include "server/simulate/simulate_options.h"
#include "server/simulate/workload.h"

namespace orrery::simulate {

// Everything that the runs of one command share.
struct Scenario {
  sim::SimOptions sim;
  std::shared_ptr<const StepCostModel> cost;
  std::unique_ptr<Workload> workload;
  bool saturated = false;
  std::vector<uint64_t> seeds;
  // What is compared, as given; empty: one policy. True: routers, else schedulers.
  std::vector<std::string> compared;
  bool compares_routers = false;
  // The question of the plan that a router decides by; none where none does.
  std::optional<MixedPoolsInput> pools;
};

// The plan at the workload's rate. FAILED_PRECONDITION: nothing meets its constraints.
absl::StatusOr<RoutePlan> PlanPools(const Scenario& scenario);

// INVALID_ARGUMENT or NOT_FOUND, one line that begins with the flag or the file.
absl::StatusOr<Scenario> Resolve(const SimulateOptions& options);

}  // namespace orrery::simulate

#endif  // ORRERY_SERVER_SIMULATE_RESOLVE_H_
