// Gives the budget of a step to prompts by key, whether they have begun or wait: a running prefill whose key
// is worse than that of a waiting prompt pauses (its KV stays), and goes on when it is the best again. What
// the policies with preemption of prefills at chunk boundaries share.
//
//   merge.Arrange(worker, key, &step);                  // running decodes as they are, then prefills by key
//   step.GrantDecodes(worker, 0, merge.num_decodes(), decision);
//   merge.Grant(worker, key, watermark, &step, decision);
//
// `key(view)` is a double, the smallest first, ties by arrival. Admission stops at the first waiting prompt
// whose blocks are not there, those claimed by prompts begun not counted, and does not happen in a step that
// preempts. `accept(view)` may pass over a prompt in this step, `took(view)` hears of those that had their
// turn. O(running + prefills log prefills + waiting + seen log waiting), seen: admitted or passed over.
#ifndef ORRERY_SCHEDULER_POLICY_PROMPT_MERGE_H_
#define ORRERY_SCHEDULER_POLICY_PROMPT_MERGE_H_

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "scheduler/policy/batch_policy.h"
#include "scheduler/policy/running_step.h"
#include "scheduler/policy/waiting_order.h"

namespace orrery {

class PromptMerge {
 public:
  template <typename Key>
  void Arrange(const WorkerView& worker, Key key, RunningStep* step) {
    prefills_.clear();
    std::vector<int32_t>& order = step->order();
    order.clear();
    for (size_t i = 0; i < worker.running.size(); ++i) {
      const SequenceView& sequence = worker.running[i];
      if (sequence.tokens_to_compute() > 1) {
        prefills_.push_back({key(sequence), sequence.id, static_cast<int32_t>(i)});
      } else {
        order.push_back(static_cast<int32_t>(i));
      }
    }
    num_decodes_ = order.size();
    std::sort(prefills_.begin(), prefills_.end());
    for (const Prefill& prefill : prefills_) order.push_back(prefill.index);
  }

  size_t num_decodes() const { return num_decodes_; }

  template <typename Key>
  void Grant(const WorkerView& worker, Key key, int32_t watermark, RunningStep* step,
             BatchDecision* decision) {
    Grant(
        worker, key, watermark, step, decision, [](const SequenceView&) { return true; },
        [](const SequenceView&) {});
  }
  template <typename Key, typename Accept, typename Took>
  void Grant(const WorkerView& worker, Key key, int32_t watermark, RunningStep* step, BatchDecision* decision,
             Accept accept, Took took) {
    bool admits = decision->preempt.empty() && !step->full(worker);
    waiting_.Clear();
    if (admits) waiting_.Build(worker.waiting, key);
    int32_t claims = 0;
    for (size_t i = num_decodes_; i < step->order().size(); ++i) claims += step->Claim(worker, i);
    for (size_t i = num_decodes_; i < step->order().size(); ++i) {
      const Prefill& next = prefills_[i - num_decodes_];
      while (admits && BeforeNext(worker, next))
        admits = AdmitNext(worker, watermark + claims, step, decision, accept, took);
      claims -= step->Claim(worker, i);
      const bool goes = accept(step->view(worker, i));
      step->GrantPrefill(worker, i, decision, goes ? INT32_MAX : 0);
      if (goes) took(step->view(worker, i));
      admits = admits && decision->preempt.empty();
    }
    while (admits && !waiting_.empty()) admits = AdmitNext(worker, watermark, step, decision, accept, took);
  }

 private:
  struct Prefill {
    double key;
    SequenceId id;
    int32_t index;
    friend bool operator<(const Prefill& a, const Prefill& b) {
      return a.key != b.key ? a.key < b.key : a.id < b.id;
    }
  };
  bool BeforeNext(const WorkerView& worker, const Prefill& next) const {
    if (waiting_.empty()) return false;
    return Prefill{waiting_.best_key(), worker.waiting[waiting_.best()].id, 0} < next;
  }
  template <typename Accept, typename Took>
  bool AdmitNext(const WorkerView& worker, int32_t watermark, RunningStep* step, BatchDecision* decision,
                 Accept accept, Took took) {
    if (step->full(worker)) return false;
    const SequenceView& sequence = worker.waiting[waiting_.Pop()];
    if (!accept(sequence)) return true;
    if (step->TryAdmit(worker, sequence, watermark, decision) != AdmitResult::kAdmitted) return false;
    took(sequence);
    return true;
  }

  std::vector<Prefill> prefills_;
  size_t num_decodes_ = 0;
  WaitingOrder waiting_;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_PROMPT_MERGE_H_
