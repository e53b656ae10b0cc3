// Nested WAIT (arXiv:2504.11320): WAIT without knowing lengths. The stages of generation are cut into
// segments at the quantiles of the outputs that finished lately; a sequence enters a segment when it has
// survived the one before, and a segment advances only when enough of them wait at its entrance, and only if
// all segments before it do. Thresholds follow the survival curve (wait_limits.h, after the authors' code).
//
//   for segments in order:
//     remain = total_k - residents inside; stop if fewer than min(per_stage_k, remain) are at the entrance
//     take min(remain, per_stage_k) from the entrance, at most per_stage_k from every later stage of it
//
// The entrance of the first segment is the queue. Those that do not advance keep their KV; when blocks run
// out they are preempted first, the latest admitted before others. Who has been idle for `timeout_ms`
// advances in any case, so nothing starves. Until `min_history` outputs are known, arrival order without
// waiting. O(waiting + running log(running)).
#ifndef ORRERY_SCHEDULER_POLICY_NESTED_WAIT_H_
#define ORRERY_SCHEDULER_POLICY_NESTED_WAIT_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "scheduler/base/options.h"
#include "scheduler/policy/batch_policy.h"
#include "scheduler/policy/running_step.h"
#include "scheduler/policy/wait_limits.h"

namespace orrery {

struct NestedWaitOptions {
  int32_t token_budget = 0;  // tokens of a step; 0: the worker's max_step_tokens
  int32_t total = 0;         // L, requests; 0: from the pool
  int32_t segments = 4;
  int32_t window = 256;  // finished outputs that count
  int32_t min_history = 16;
  double timeout_ms = 10;
  double watermark = 0.01;  // share of the pool that admission leaves free
};

class NestedWaitPolicy final : public BatchPolicy {
 public:
  static absl::Span<const OptionField<NestedWaitOptions>> Fields();

  explicit NestedWaitPolicy(const NestedWaitOptions& options) : options_(options) {}
  void Plan(const WorkerView& worker, Time now, BatchDecision* decision) override;
  void OnFinished(const SequenceView& sequence, Time now) override;

 private:
  void CutSegments(const WorkerView& worker);
  double Total(const WorkerView& worker) const;
  void SortStages(const WorkerView& worker);
  void SelectResidents(const WorkerView& worker, Time now, int32_t* admissions);
  size_t OrderSelectedFirst();
  Time NextTimeout(const WorkerView& worker, Time now) const;
  bool Overdue(const SequenceView& sequence, Time now) const;

  NestedWaitOptions options_;
  RunningStep step_;
  std::vector<std::pair<int32_t, int32_t>> finished_;  // ring: output, prompt
  size_t next_ = 0;
  double total_ = 0;   // L of the segments
  bool stale_ = true;  // something finished since the segments were cut
  std::vector<LengthClass> classes_;
  std::vector<int32_t> sorted_;  // scratch of CutSegments
  std::vector<Segment> segments_;
  std::vector<std::pair<int32_t, int32_t>> stages_;  // (tokens generated, index) of decodes, ascending
  std::vector<uint8_t> selected_;                    // of worker.running
  std::vector<int32_t> paused_;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_NESTED_WAIT_H_
