// SLAI, SLO-aware LLM inference (arXiv:2508.01002, section 5; rules as in the authors' code): decodes wait
// until they must run, so that prompts get the budget meanwhile; short prompts first.
//
//   LST(r) = last token of r + TPOT(r) - offset * mean step     last schedulable time of a decode
//   1. decodes with LST <= now, earliest first (ties: arrival): a token each
//   2. running prefills in admission order: chunks from the budget
//   3. waiting prompts by tokens - aging * seconds waited: admitted while the budget lasts and all blocks of
//      the prompt are there; stops at the first that does not fit
//   4. what is left of the budget: the other decodes, earliest LST first, as far as blocks are free
//
// The offset is `offset` while less than `memory_limit` of the pool is used and `offset_full` beyond: near
// full memory decodes become urgent sooner and give their memory back. The mean step is the running mean of
// the measured ones (the last 1,000 count). Where a decode of 1. finds no block, the last prefill gives way,
// then the decode with the latest LST; the authors' code takes the urgent decode itself, which loses more.
// Aging is ours: shortest first alone starves long prompts. With it, whoever waits becomes the head of 3,
// and nothing is admitted before it. O(running log running + waiting).
#ifndef ORRERY_SCHEDULER_POLICY_SLAI_H_
#define ORRERY_SCHEDULER_POLICY_SLAI_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "scheduler/base/options.h"
#include "scheduler/policy/batch_policy.h"
#include "scheduler/policy/running_step.h"
#include "scheduler/policy/step_pace.h"
#include "scheduler/policy/waiting_order.h"

namespace orrery {

struct SlaiOptions {
  int32_t token_budget = 0;  // tokens of a step; 0: the worker's max_step_tokens (the paper: 512)
  double tpot_ms = 200;      // of a sequence that states none
  double offset = 5, offset_full = 10;
  double memory_limit = 0.96;
  double aging = 100;       // tokens per second
  double watermark = 0.01;  // share of the pool that admission leaves free
};

class SlaiPolicy final : public BatchPolicy {
 public:
  static absl::Span<const OptionField<SlaiOptions>> Fields();

  explicit SlaiPolicy(const SlaiOptions& options) : options_(options) {}
  void Plan(const WorkerView& worker, Time now, BatchDecision* decision) override;

 private:
  // The step's order: decodes by LST, then prefills. What is counted is left in num_decodes_, num_urgent_.
  void Arrange(const WorkerView& worker, Time now);
  void Admit(const WorkerView& worker, Time now, BatchDecision* decision);
  void GrantLater(const WorkerView& worker, BatchDecision* decision);

  SlaiOptions options_;
  StepPace pace_;
  RunningStep step_;
  WaitingOrder waiting_;
  std::vector<std::pair<Time, int32_t>> decodes_;  // LST, index into worker.running
  size_t num_urgent_ = 0;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_SLAI_H_
