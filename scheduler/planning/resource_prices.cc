#include "scheduler/planning/resource_prices.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>

#include "scheduler/base/text.h"
#include "scheduler/solver/solver.h"

namespace orrery {
namespace {

enum Resource : int32_t { kBlockSeconds, kPrefillTokens, kSlots };

absl::Status CheckAmount(std::string_view field, double value) {
  if (std::isfinite(value) && value >= 0.0) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat(field, " must be a finite number of at least 0, not ", value));
}

absl::Status CheckAmounts(const WorkerResources& worker, const std::vector<TrafficClass>& classes) {
  std::vector<std::pair<std::string, double>> amounts = {
      {"kv_blocks", worker.kv_blocks},
      {"prefill_tokens_per_s", worker.prefill_tokens_per_s},
      {"slots", worker.slots},
      {"mean_step_s", worker.mean_step_s},
  };
  for (size_t i = 0; i < classes.size(); ++i) {
    const TrafficClass& c = classes[i];
    const auto add = [&](std::string_view field, double value) {
      amounts.emplace_back(Cat("classes[", i, "].", field), value);
    };
    add("arrival_rate_per_s", c.arrival_rate_per_s);
    add("prompt_tokens", c.prompt_tokens);
    add("output_tokens", c.output_tokens);
    add("steps", c.steps);
    add("block_steps", c.block_steps);
  }
  for (const auto& [field, value] : amounts) {
    if (absl::Status status = CheckAmount(field, value); !status.ok()) return status;
  }
  if (worker.mean_step_s > 0.0) return absl::OkStatus();
  return absl::InvalidArgumentError("mean_step_s must be above 0");
}

}  // namespace

RequestUse UseOf(double prompt_tokens, double cached_tokens, double output_tokens, double chunk_tokens,
                 double block_tokens) {
  const double fresh = prompt_tokens - cached_tokens;
  const double chunks = std::ceil(fresh / chunk_tokens);
  // Chunk by chunk cached + c, cached + 2 c, ..., then a token more in every step.
  const double in_prefill = chunks * cached_tokens + (fresh / chunk_tokens + 1.0) * fresh / 2.0;
  const double in_decode = output_tokens * prompt_tokens + output_tokens * (output_tokens + 1.0) / 2.0;
  const double steps = chunks + output_tokens;
  return {steps,
          (in_prefill + in_decode) / block_tokens + steps * (block_tokens - 1.0) / (2.0 * block_tokens)};
}

absl::StatusOr<ResourcePrices> PriceResources(const WorkerResources& worker,
                                              const std::vector<TrafficClass>& classes) {
  if (absl::Status status = CheckAmounts(worker, classes); !status.ok()) return status;
  LinearProgram program(Sense::kMaximize);
  program.Add(Constraint{"KV block-seconds", -kInfinity, worker.kv_blocks});
  program.Add(Constraint{"prefill tokens", -kInfinity, worker.prefill_tokens_per_s});
  program.Add(Constraint{"slots", -kInfinity, worker.slots});
  for (size_t i = 0; i < classes.size(); ++i) {
    const TrafficClass& c = classes[i];
    const VariableId served =
        program.Add(Variable{Cat("class ", i), 0.0, c.arrival_rate_per_s, c.output_tokens, false});
    const auto uses = [&](Resource resource, double amount) {
      program.AddTerm(static_cast<ConstraintId>(resource), served, amount);
    };
    uses(kBlockSeconds, worker.mean_step_s * c.block_steps);
    uses(kPrefillTokens, c.prompt_tokens);
    uses(kSlots, worker.mean_step_s * c.steps);
  }
  auto solution = SolveLp(program);
  if (!solution.ok()) return solution.status();
  if (solution->status != SolveStatus::kOptimal) {
    return absl::InternalError(Cat("resource prices: program is ", SolveStatusName(solution->status)));
  }
  const auto price = [&](Resource resource) { return std::max(0.0, solution->duals[resource]); };
  return ResourcePrices{.kv_block_second = price(kBlockSeconds),
                        .prefill_token = price(kPrefillTokens),
                        .slot_second = price(kSlots),
                        .output_tokens_per_s = solution->objective,
                        .served_rate_per_s = std::move(solution->values)};
}

}  // namespace orrery
