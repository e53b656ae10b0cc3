// The unit-step memory model, in which hindsight is computed: a round takes one unit of time, a running
// request makes one token a round, and while it makes its j-th it holds prompt + j tokens of the KV cache.
// Started at round p it holds memory in rounds p + 1 .. p + output_tokens and completes at the last of them;
// once started it is never paused. Latency is completion minus arrival; what is minimised is its sum.
// arXiv:2502.07115, section 2.
#ifndef ORRERY_SCHEDULER_PLANNING_UNIT_STEP_H_
#define ORRERY_SCHEDULER_PLANNING_UNIT_STEP_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace orrery {

struct UnitRequest {
  int64_t arrival = 0;  // round, >= 0
  int64_t prompt_tokens = 1;
  int64_t output_tokens = 1;
  int64_t peak() const { return prompt_tokens + output_tokens; }
  // Token-rounds of memory the request needs in all.
  int64_t volume() const { return prompt_tokens * output_tokens + output_tokens * (output_tokens + 1) / 2; }
};

struct UnitInstance {
  int64_t kv_capacity_tokens = 0;
  std::vector<UnitRequest> requests;
};

inline constexpr size_t kMaxUnitRequests = 100'000;
inline constexpr int64_t kMaxUnitTokens = 1'000'000;     // of a prompt, an output, the capacity / 1000
inline constexpr int64_t kMaxUnitRound = 1'000'000'000;  // of an arrival

// INVALID_ARGUMENT: a number out of range; RESOURCE_EXHAUSTED: too many requests; FAILED_PRECONDITION: a
// request that can never run. The message names the request.
absl::Status ValidateUnitInstance(const UnitInstance& instance);

// Sum of latencies of these starts. FAILED_PRECONDITION when one is before its arrival or a round overflows.
absl::StatusOr<int64_t> JudgeStarts(const UnitInstance& instance, const std::vector<int64_t>& starts);

// Whom an admission in rounds prefers; all of them start the longest feasible prefix of the waiting line,
// where feasible means that the predicted peak of everything running stays within the capacity (Eq. 5).
enum class UnitOrder : uint8_t {
  kShortestOutput,  // mc-sf: output tokens, arrival, index
  kArrival,         // fcfs: arrival, index
};
// Starts by request. REQUIRES: ValidateUnitInstance(instance).ok().
std::vector<int64_t> RunUnitStep(const UnitInstance& instance, UnitOrder order);

// The best starts found by placing requests one after another at their earliest feasible round, in orders
// that a seeded local search improves: `trials` orders in all. Never worse than `starts`, which it begins
// from.
std::vector<int64_t> ImproveStarts(const UnitInstance& instance, const std::vector<int64_t>& starts,
                                   int trials, uint64_t seed);

// A lower bound on the sum of latencies of every schedule, without a solver, O(n log n): memory is one
// machine of speed kv_capacity_tokens, a request a job of its volume, and shortest-remaining-first has at
// every moment completed as many jobs as any schedule can; nor can the k-th completion be earlier than the
// k-th smallest arrival + output_tokens. With all arrivals at 0 it is sum_k max(o_(k), ceil((v_(1) + .. +
// v_(k)) / M)).
int64_t AreaBound(const UnitInstance& instance);

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_PLANNING_UNIT_STEP_H_
