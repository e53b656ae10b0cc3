#include "scheduler/planning/capacity.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "scheduler/base/text.h"

namespace orrery {
namespace {

constexpr double kMaxRate = 1e9;   // requests per second
constexpr double kMinStep = 1e-9;  // seconds
constexpr double kMaxStep = 1e6;
constexpr int64_t kMaxTokens = 1'000'000'000'000;
constexpr double kMaxWorkers = 1e15;

absl::Status CheckNumber(std::string_view field, double value, double low, double high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat(field, " must be in [", low, ", ", high, "], not ", value));
}

absl::Status CheckCount(std::string_view field, int64_t value) {
  if (value >= 1 && value <= kMaxTokens) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat(field, " must be in [1, ", kMaxTokens, "], not ", value));
}

absl::Status Check(const CapacityInput& in) {
  for (const absl::Status& status :
       {CheckNumber("arrival_rate_per_s", in.arrival_rate_per_s, 0.0, kMaxRate),
        CheckCount("kv_capacity_tokens", in.kv_capacity_tokens),
        CheckCount("prefill_chunk_tokens", in.prefill_chunk_tokens),
        CheckNumber("mean_step_s", in.mean_step_s, kMinStep, kMaxStep),
        CheckCount("max_step_tokens", in.max_step_tokens.value_or(1)),
        CheckCount("max_num_seqs", in.max_num_seqs.value_or(1)),
        CheckNumber("full_step_s", in.full_step_s.value_or(1.0), kMinStep, kMaxStep)}) {
    if (!status.ok()) return status;
  }
  if (in.full_step_s && !in.max_step_tokens)
    return absl::InvalidArgumentError("full_step_s needs max_step_tokens, the tokens of that step");
  const double longest = in.lengths.longest_total;
  if (std::isfinite(longest) && longest > static_cast<double>(in.kv_capacity_tokens)) {
    return absl::FailedPreconditionError(Cat("kv_capacity_tokens ", in.kv_capacity_tokens, ": a request of ",
                                             longest, " tokens can never fit, no number of workers will do"));
  }
  return absl::OkStatus();
}

}  // namespace

double MeanTokenSteps(const LengthMoments& m, int64_t prefill_chunk_tokens) {
  return (m.prompt + m.prompt_squared / static_cast<double>(prefill_chunk_tokens) + 2.0 * m.product +
          m.output + m.output_squared) /
         2.0;
}

absl::StatusOr<CapacityPlan> PlanCapacity(const CapacityInput& in) {
  if (absl::Status status = Check(in); !status.ok()) return status;
  const auto capacity = static_cast<double>(in.kv_capacity_tokens);
  CapacityPlan plan;
  plan.memory_rate_per_s = capacity / (in.mean_step_s * MeanTokenSteps(in.lengths, in.prefill_chunk_tokens));
  plan.delta = in.lengths.longest_total / capacity;
  plan.sufficient_rate_per_s = plan.memory_rate_per_s * std::max(0.0, 1.0 - plan.delta);
  plan.rate_per_worker_limit_per_s = plan.memory_rate_per_s;
  plan.binding = "memory";
  const auto limit = [&plan](double rate, std::string_view what) {
    if (rate >= plan.rate_per_worker_limit_per_s) return;
    plan.rate_per_worker_limit_per_s = rate;
    plan.binding = what;
  };
  if (in.max_step_tokens && in.full_step_s) {
    plan.token_rate_per_s =
        static_cast<double>(*in.max_step_tokens) / *in.full_step_s / (in.lengths.prompt + in.lengths.output);
    limit(*plan.token_rate_per_s, "tokens");
  }
  if (in.max_num_seqs) {
    plan.slot_rate_per_s =
        static_cast<double>(*in.max_num_seqs) / (in.mean_step_s * (in.lengths.chunks + in.lengths.output));
    limit(*plan.slot_rate_per_s, "slots");
  }

  const double necessary = std::floor(in.arrival_rate_per_s / plan.rate_per_worker_limit_per_s) + 1.0;
  const double promised = std::min(plan.rate_per_worker_limit_per_s, plan.sufficient_rate_per_s);
  const double sufficient =
      promised > 0.0 ? std::ceil(in.arrival_rate_per_s / promised) : std::numeric_limits<double>::infinity();
  if (!(necessary <= kMaxWorkers))
    return absl::FailedPreconditionError(
        Cat("arrival_rate_per_s ", in.arrival_rate_per_s, ": needs more than ", kMaxWorkers, " workers"));
  plan.workers_necessary = static_cast<int64_t>(necessary);
  if (sufficient <= kMaxWorkers)
    plan.workers_sufficient = std::max(plan.workers_necessary, static_cast<int64_t>(sufficient));
  return plan;
}

}  // namespace orrery
