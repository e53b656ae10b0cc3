// How many workers a load needs: the three limits of one worker and what follows for a fleet of equal ones.
//
//   memory   mu = M / (b E[g]), g(s, o) = [(1 + s / c) s + 2 o s + (1 + o) o] / 2 token-steps of KV cache, c
//   the
//            prefill chunk, b the mean time of a saturated step. Above mu no policy is stable; below mu (1 -
//            delta), delta = ess sup (s + o) / M, every work-conserving one is. arXiv:2605.04595.
//   tokens   (B / t_B) / (E[s] + E[o]), B the step's token budget, t_B the time of a full step: the boundary
//   of
//            stability for every work-conserving policy without a memory limit. arXiv:2504.07347.
//   slots    K / (b E[ceil(s / c) + o]): K sequences at a time, each there for its steps.
#ifndef ORRERY_SCHEDULER_PLANNING_CAPACITY_H_
#define ORRERY_SCHEDULER_PLANNING_CAPACITY_H_

#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "scheduler/planning/lengths.h"

namespace orrery {

struct CapacityInput {
  double arrival_rate_per_s = 0.0;  // of the fleet
  int64_t kv_capacity_tokens = 0;
  int64_t prefill_chunk_tokens = 0;
  double mean_step_s = 0.0;
  LengthMoments lengths;  // with the same chunk
  std::optional<int64_t> max_step_tokens, max_num_seqs;
  std::optional<double> full_step_s;  // with max_step_tokens
};

struct CapacityPlan {
  double memory_rate_per_s = 0.0;      // mu
  double delta = 0.0;                  // infinite when no request is the longest
  double sufficient_rate_per_s = 0.0;  // mu (1 - delta); 0 when delta >= 1
  std::optional<double> token_rate_per_s, slot_rate_per_s;
  double rate_per_worker_limit_per_s = 0.0;  // least of memory (mu), tokens and slots
  std::string_view binding;                  // which: "memory", "tokens", "slots"
  int64_t workers_necessary = 0;             // fewer are unstable under every policy
  // Enough for every work-conserving policy with a balanced split; none when delta >= 1 gives no promise.
  std::optional<int64_t> workers_sufficient;
};

// Token-steps of KV cache that the mean request needs, E[g].
double MeanTokenSteps(const LengthMoments& lengths, int64_t prefill_chunk_tokens);

// INVALID_ARGUMENT names the field; FAILED_PRECONDITION when a request can never fit, so that no fleet will
// do.
absl::StatusOr<CapacityPlan> PlanCapacity(const CapacityInput& input);

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_PLANNING_CAPACITY_H_
