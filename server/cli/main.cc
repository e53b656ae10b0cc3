// orrery: the command line. Each subcommand registers its flags and runs; this file only puts them together.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/version.h"
#include "server/bench/bench_command.h"
#include "server/bench/run_bench.h"
#include "server/cli/generate_command.h"
#include "server/cli/output.h"
#include "server/cli/plan_command.h"
#include "server/cli/text_commands.h"
#include "server/config/option_table.h"
#include "server/simulate/run_simulate.h"
#include "server/simulate/simulate_command.h"

namespace orrery::cli {
namespace {

// CLI11's own message, plus the nearest name when something is unknown.
std::string Explain(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  std::string message = error.what();
  for (char& c : message) {
    if (c == '\n') c = ' ';
  }
  const CLI::App* command = &app;
  for (const CLI::App* sub : app.get_subcommands()) command = sub;
  std::vector<std::string> names;
  for (const CLI::Option* option : command->get_options()) names.push_back(option->get_name());
  if (command == &app) {
    for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
      names.push_back(sub->get_name());
    }
  }
  const std::vector<absl::string_view> known(names.begin(), names.end());
  for (int i = 1; i < argc; ++i) {
    const std::string given = std::string(argv[i]).substr(0, std::string(argv[i]).find('='));
    const bool looks_named = given.rfind("--", 0) == 0 || (i == 1 && command == &app);
    if (!looks_named || std::find(names.begin(), names.end(), given) != names.end()) continue;
    const absl::string_view nearest = NearestName(given, known);
    if (!nearest.empty()) absl::StrAppend(&message, "; did you mean '", nearest, "' for '", given, "'?");
    break;
  }
  return message;
}

int Main(int argc, char** argv) {
  CLI::App app("orrery: talks to an Orrery server and works on its files", "orrery");
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("orrery ") + kVersion);
  GenerateOptions generate;
  TokenizeOptions tokenize;
  DetokenizeOptions detokenize;
  PoliciesOptions policies;
  PlanOptions plan;
  bench::BenchOptions bench;
  simulate::SimulateOptions simulate;
  const CLI::App* generate_command = RegisterGenerate(app, &generate);
  const CLI::App* tokenize_command = RegisterTokenize(app, &tokenize);
  const CLI::App* detokenize_command = RegisterDetokenize(app, &detokenize);
  const CLI::App* policies_command = RegisterPolicies(app, &policies);
  const CLI::App* plan_command = RegisterPlan(app, &plan);
  const CLI::App* bench_command = bench::RegisterBench(app, &bench);
  const CLI::App* simulate_command = simulate::RegisterSimulate(app, &simulate);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    const bool json = std::find(arguments.begin(), arguments.end(), "--json") != arguments.end();
    return Fail(absl::InvalidArgumentError(Explain(app, error, argc, argv)), json);
  }
  if (generate_command->parsed()) return RunGenerate(generate);
  if (tokenize_command->parsed()) return RunTokenize(tokenize);
  if (detokenize_command->parsed()) return RunDetokenize(detokenize);
  if (policies_command->parsed()) return RunPolicies(policies);
  if (plan_command->parsed()) return RunPlan(plan);
  if (bench_command->parsed()) return bench::RunBench(bench);
  if (simulate_command->parsed()) return simulate::RunSimulate(simulate);
  return kInternal;
}

}  // namespace
}  // namespace orrery::cli

int main(int argc, char** argv) { return orrery::cli::Main(argc, argv); }
