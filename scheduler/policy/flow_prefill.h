// FlowPrefill (arXiv:2602.16603): long prefills give way to urgent ones; priorities change at events only. A
// reconstruction from the abstract; the key is that of the worked example (UT-8.4 of the design).
//
//   deadline_i  of its first token; of a request with a deadline at most that - output * TPOT
//   slack_i = deadline_i - event - T(tokens left of i),  late_i = slack_i < 0
//   key(i) = deadline_i, of late ones + late_s: running and waiting prompts alike, the least first
//   a step: a token for every decode, then prompts in key order; the first always, another while the step
//     with it ends in time for every prompt of the step that is not late anyway
//
// `event` is the last arrival, or the last time that a prompt ended, disappeared or gave way: time alone
// changes no order. The paper preempts between operators, here at the end of a chunk: token_budget
// bounds how long an urgent prompt waits. There late prompts come after all others and can starve, here
// behind those of the next `late_s` seconds. T is the worker's cost model, without one the pace so far.
// Paused prefills keep KV, not activations: their number is bounded by memory, and the least urgent gives way
// when decodes need blocks. O(running + prefills log prefills + waiting log waiting).
#ifndef ORRERY_SCHEDULER_POLICY_FLOW_PREFILL_H_
#define ORRERY_SCHEDULER_POLICY_FLOW_PREFILL_H_

#include <cstdint>
#include <limits>

#include "absl/types/span.h"
#include "scheduler/base/options.h"
#include "scheduler/cost/step_cost.h"
#include "scheduler/policy/batch_policy.h"
#include "scheduler/policy/deadlines.h"
#include "scheduler/policy/prompt_merge.h"
#include "scheduler/policy/running_step.h"
#include "scheduler/policy/step_pace.h"

namespace orrery {

struct FlowPrefillOptions {
  int32_t token_budget = 0;  // tokens of a step; 0: the worker's max_step_tokens
  double ttft_ms = 2000;     // of a request that states none
  double tpot_ms = 100;      // the same; first tokens come so much before a deadline as the rest takes
  double late_s = 60;
  double watermark = 0.01;  // share of the pool that admission leaves free
};

class FlowPrefillPolicy final : public BatchPolicy {
 public:
  static absl::Span<const OptionField<FlowPrefillOptions>> Fields();

  explicit FlowPrefillPolicy(const FlowPrefillOptions& options)
      : options_(options), slo_{options.ttft_ms * 1e-3, options.tpot_ms * 1e-3, options.tpot_ms * 1e-3} {}
  void Plan(const WorkerView& worker, Time now, BatchDecision* decision) override;
  void OnArrival(const SequenceView&, Time now) override { event_ = now; }

 private:
  // When the first token is due, seconds; asks for the predicted length of those with a deadline.
  double FirstToken(const WorkerView& worker, const SequenceView& sequence) const;
  double Takes(const WorkerView& worker, const SequenceView& sequence) const;
  double Slack(const WorkerView& worker, const SequenceView& sequence, Time now) const;
  // Whether the step may grow by a chunk of this prompt; what it would be then is left in next_.
  bool Joins(const WorkerView& worker, const SequenceView& sequence, Time now);

  FlowPrefillOptions options_;
  DefaultSlo slo_;
  StepPace pace_;
  RunningStep step_;
  PromptMerge merge_;
  Time event_;
  size_t num_begun_ = 0;  // prompts that ran at the last plan or were admitted by it
  struct Step {
    StepShape shape;
    // The first deadline of its prompts that are not late, seconds.
    double due = std::numeric_limits<double>::infinity();
  };
  Step step_so_far_, next_;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_FLOW_PREFILL_H_
