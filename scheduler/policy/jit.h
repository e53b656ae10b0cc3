// JITServe (arXiv:2504.20068): every request gets just the bandwidth its objective needs, ranked by the
// goodput gained per bandwidth, and prompts of similar length are admitted together (grouped margin goodput
// maximisation). The structure is the paper's, the exact forms are reconstructed.
//
//   need = 1 token until the next deadline of a stream, or all predicted tokens left until a request's own
//   bw = (T_pre of tokens not computed + need * v) / (deadline - now)       v = mean step so far
//   prio = (prompt + predicted output) / bw; bw > 1 cannot be met: best effort, in arrival order, last
//   1. running sequences go on: decodes by prio, victims from the other end; then prefills
//   2. of all that run or wait, p_B = the B-th largest prio (B = rows); of those that wait and have
//      prio >= cutoff * p_B, by prompt length, the window of as many as rows are free with the largest sum
//      goes first, by prio, then the other feasible ones by prio; stops at the first that does not fit
//   3. for the first of 2., when its blocks are not there, the running sequence with the least prio gives way
//      if that makes room and prio_new - prio_old > prio_new * T_pre(old) / (deadline_new - now): the gain
//      less what computing the victim again costs. It starts in the next step: room is what the others leave
//      there
//
// Lengths are the `quantile` of the predictor, asked anew in every step. Who has waited for `patience_s`
// comes before all others, in arrival order, and is not a victim of 3.; nor is who once gave way and is that
// old: nobody starves. Compound requests have no stages here: their deadline counts as one.
// O(running log running + waiting log waiting) in steps that can admit.
#ifndef ORRERY_SCHEDULER_POLICY_JIT_H_
#define ORRERY_SCHEDULER_POLICY_JIT_H_

#include <compare>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "scheduler/base/options.h"
#include "scheduler/policy/batch_policy.h"
#include "scheduler/policy/deadlines.h"
#include "scheduler/policy/running_step.h"
#include "scheduler/policy/step_pace.h"

namespace orrery {

struct JitOptions {
  int32_t token_budget = 0;              // tokens of a step; 0: the worker's max_step_tokens
  double ttft_ms = 2000, tpot_ms = 100;  // of a request that states none
  double quantile = 0.9;                 // of the predicted length
  double cutoff = 0.95;
  bool preempt = true;
  double patience_s = 30;
  double watermark = 0.01;  // share of the pool that admission leaves free
};

struct JitCandidate {
  double prio = 0;
  int32_t prompt = 0;
};
// The `rows`-th largest of them (the least when there are fewer); reorders them.
double JitFloor(absl::Span<double> prios, size_t rows);
// Of the candidates with at least this prio, by prompt length, the window of `count` neighbours with the
// largest sum, the shorter prompts among equals. No allocation once grown.
class JitGroup {
 public:
  // Indices, ascending prompt; valid until the next call.
  absl::Span<const int32_t> Pick(absl::Span<const JitCandidate> candidates, double least, size_t count);

 private:
  std::vector<uint64_t> keys_;
  std::vector<int32_t> kept_;
};

class JitPolicy final : public BatchPolicy {
 public:
  static absl::Span<const OptionField<JitOptions>> Fields();

  explicit JitPolicy(const JitOptions& options)
      : options_(options), slo_{options.ttft_ms * 1e-3, options.tpot_ms * 1e-3, options.tpot_ms * 1e-3} {}
  void Plan(const WorkerView& worker, Time now, BatchDecision* decision) override;

  struct Rank {
    double prio = 0;
    double left_s = 0;  // until its deadline
    double bandwidth = 0;
  };
  Rank RankOf(const WorkerView& worker, const SequenceView& sequence, Time now) const;

 private:
  struct Queued {
    int32_t rank;   // 0: waited too long, 1: the group, 2: feasible, 3: best effort
    double worse;   // within a rank, least first
    int32_t index;  // into worker.waiting
    friend auto operator<=>(const Queued&, const Queued&) = default;
  };
  int32_t Watermark(const WorkerView& worker) const {
    return static_cast<int32_t>(options_.watermark * worker.blocks_total);
  }
  double Compute(const WorkerView& worker, int32_t begin, int32_t count) const;
  void ArrangeRunning(const WorkerView& worker, Time now);
  void Enqueue(const WorkerView& worker, Time now);
  void Admit(const WorkerView& worker, BatchDecision* decision);
  // Rule 3.
  void MakePlace(const WorkerView& worker, const Queued& newcomer, Time now, BatchDecision* decision);
  // Waits since its arrival or, having given way, since it made progress that can be seen.
  bool WaitsTooLong(const SequenceView& sequence, Time now) const;
  // Had waited too long when it was scheduled; how long after giving way is not known, its age bounds it.
  bool WaitedTooLong(const SequenceView& sequence, Time now) const;

  JitOptions options_;
  DefaultSlo slo_;
  StepPace pace_;
  RunningStep step_;
  std::vector<Rank> running_;  // of worker.running
  std::vector<Rank> waiting_;  // of worker.waiting
  std::vector<Queued> queue_;  // heap, the first to start in front
  std::vector<double> prios_;  // scratch of Enqueue
  std::vector<JitCandidate> candidates_;
  JitGroup group_;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_JIT_H_
