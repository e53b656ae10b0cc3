#include "server/cli/plan_command.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/errors.h"
#include "server/bench/unknown_name.h"
#include "server/cli/output.h"
#include "server/cli/plan_json.h"

namespace orrery::cli {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kMaxInputBytes = 256 << 20;
constexpr absl::string_view kKinds[] = {"capacity", "mixed-pools", "hindsight"};

// An answer, and what is wrong with it all the same: bounds without the optimum that was asked for.
struct Solution {
  ordered_json document;
  absl::Status shortfall;
};

absl::StatusOr<Solution> Solve(const PlanOptions& options, const json& document) {
  if (options.kind == "capacity") {
    const auto input = ReadCapacity(document);
    if (!input.ok()) return input.status();
    const auto plan = PlanCapacity(*input);
    if (!plan.ok()) return plan.status();
    return Solution{cli::ToJson(*plan), absl::OkStatus()};
  }
  if (options.kind == "mixed-pools") {
    const auto input = ReadMixedPools(document);
    if (!input.ok()) return input.status();
    const auto plan = PlanMixedPools(*input);
    if (!plan.ok()) return plan.status();
    return Solution{cli::ToJson(*input, *plan), absl::OkStatus()};
  }
  const auto instance = ReadHindsight(document);
  if (!instance.ok()) return instance.status();
  HindsightOptions hindsight;
  const auto begin = std::chrono::steady_clock::now();
  hindsight.seconds_left = [&] {
    return options.time_limit_s -
           std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  hindsight.limits.nodes = options.node_limit;
  hindsight.exact = !options.bounds_only;
  const auto plan = PlanHindsight(*instance, hindsight);
  if (!plan.ok()) return plan.status();
  Solution answer{cli::ToJson(*plan), absl::OkStatus()};
  if (!plan->unproven.empty())
    answer.shortfall = absl::ResourceExhaustedError(absl::StrCat("hindsight: ", plan->unproven));
  return answer;
}

// A planner's message opens with the field at fault, where it is one.
std::string FieldOf(absl::string_view message) {
  const absl::string_view first = message.substr(0, message.find_first_of(" :"));
  return first == "the" ? "" : std::string(first);
}

// What Fail prints.
absl::Status WithInfo(const absl::Status& status) {
  orrery::v1::ErrorInfo info;
  const absl::string_view message = status.message();
  switch (status.code()) {
    case absl::StatusCode::kFailedPrecondition:
      info.set_reason("infeasible");
      break;
    case absl::StatusCode::kResourceExhausted:
      info.set_reason("too_large");
      break;
    case absl::StatusCode::kInvalidArgument:
      info.set_reason("invalid_argument");
      info.set_field(FieldOf(message));
      break;
    default:
      return status;
  }
  return ErrorWithInfo(status.code(), message, info);
}

int FailPlan(const absl::Status& status, bool as_json) {
  const int usual = Fail(WithInfo(status), as_json);
  if (status.code() == absl::StatusCode::kFailedPrecondition) return kInfeasible;
  if (status.code() == absl::StatusCode::kResourceExhausted) return kTooLarge;
  return usual;
}

// One line for each number; lists on one line.
void PrintLines(const ordered_json& document, const std::string& prefix) {
  for (const auto& [key, value] : document.items()) {
    if (value.is_object()) {
      PrintLines(value, absl::StrCat(prefix, key, "."));
    } else {
      std::printf("%-32s %s\n", absl::StrCat(prefix, key).c_str(), value.dump().c_str());
    }
  }
}

}  // namespace

CLI::App* RegisterPlan(CLI::App& app, PlanOptions* o) {
  CLI::App* command = app.add_subcommand("plan", "How many workers, which pools, what was best in hindsight");
  command->add_option("kind", o->kind, "capacity, mixed-pools or hindsight")->required();
  command->add_option("--input", o->input, "File with the question in JSON; - is standard input")->required();
  command->add_option("--time-limit", o->time_limit_s, "Seconds for all solves together")
      ->check(CLI::Range(0.001, 1e6))
      ->capture_default_str();
  command->add_option("--node-limit", o->node_limit, "Nodes of branch and bound")
      ->check(CLI::Range(int64_t{0}, int64_t{1'000'000'000}))
      ->capture_default_str();
  command->add_flag("--bounds-only", o->bounds_only, "hindsight: bounds and policies, no exact optimum");
  command->add_flag("--json", o->json, "One JSON document on standard output");
  return command;
}

int RunPlan(const PlanOptions& options) {
  if (std::find(std::begin(kKinds), std::end(kKinds), options.kind) == std::end(kKinds))
    return Fail(bench::UnknownName("plan", options.kind, kKinds), options.json);
  std::string text;
  if (absl::Status status = ReadFile(options.input, kMaxInputBytes, &text); !status.ok())
    return Fail(status, options.json);
  const auto document = ParseDocument(options.input, text);
  if (!document.ok()) return Fail(document.status(), options.json);
  auto answer = Solve(options, *document);
  if (!answer.ok()) return FailPlan(answer.status(), options.json);
  if (!answer->shortfall.ok()) {
    std::fprintf(stderr, "orrery: %s\n", std::string(answer->shortfall.message()).c_str());
    answer->document["error"] = {{"code", absl::StatusCodeToString(answer->shortfall.code())},
                                 {"field", "requests"},
                                 {"limit", ""},
                                 {"reason", "too_large"},
                                 {"message", std::string(answer->shortfall.message())}};
  }
  if (options.json) {
    std::puts(answer->document.dump(2).c_str());
  } else {
    PrintLines(answer->document, "");
  }
  return answer->shortfall.ok() ? kDone : kTooLarge;
}

}  // namespace orrery::cli
