// One decision of a batch policy about views made by hand, in words: "preempt 2", "run 1:1", "admit 3:10".
#ifndef ORRERY_TESTS_SCHEDULER_POLICY_DECIDE_H_
#define ORRERY_TESTS_SCHEDULER_POLICY_DECIDE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "scheduler/kv/block_ledger.h"
#include "scheduler/policy/batch_policy.h"

namespace orrery {

inline Time AtMs(int64_t ms) { return Time{} + Duration::Milliseconds(ms); }

// Everything that a worker shows, with plenty of room.
struct Scene {
  std::vector<SequenceView> running{}, waiting{};
  Time now{};
  BatchLimits limits = {.max_step_tokens = 512, .max_num_seqs = 64, .block_tokens = 16};
  int32_t blocks_free = 10000, blocks_total = 10000, free_slots = 64;
  StepTotals totals{};
  const StepCostModel* cost = nullptr;
  const LengthPredictor* predictor = nullptr;

  WorkerView view() const {
    return {.waiting = waiting,
            .running = running,
            .blocks_free = blocks_free,
            .blocks_total = blocks_total,
            .free_slots = free_slots,
            .limits = limits,
            .totals = totals,
            .cost = cost,
            .predictor = predictor};
  }
};

inline SequenceView WaitingView(uint64_t id, int32_t prompt, Time arrival = {}, int32_t max_new = 100) {
  SequenceView view;
  view.id = SequenceId{id};
  view.arrival = arrival;
  view.first_token_deadline = view.next_token_deadline = view.deadline = Time::Never();
  view.num_prompt = view.num_tokens = prompt;
  view.max_new_tokens = max_new;
  return view;
}

inline SequenceView PrefillingView(uint64_t id, int32_t prompt, int32_t computed, Time arrival = {}) {
  SequenceView view = WaitingView(id, prompt, arrival);
  view.first_scheduled = arrival;
  view.num_computed = computed;
  view.num_blocks = BlocksFor(computed, 16);
  return view;
}

// `tpot` infinite: none stated.
inline SequenceView DecodingView(uint64_t id, int32_t prompt, int32_t generated, Time last_token,
                                 Duration tpot = Duration::Infinite()) {
  SequenceView view = WaitingView(id, prompt);
  view.first_scheduled = Time{};
  view.first_token = view.last_token = last_token;
  view.next_token_deadline = last_token + tpot;
  view.num_generated = generated;
  view.num_tokens = prompt + generated;
  view.num_computed = view.num_tokens - 1;
  view.num_blocks = BlocksFor(view.num_computed, 16);
  return view;
}

inline std::vector<std::string> InWords(const BatchDecision& decision) {
  std::vector<std::string> words;
  const auto add = [&](const char* verb, SequenceId id, const std::string& more) {
    words.push_back(verb + std::to_string(Value(id)) + more);
  };
  for (const SequenceId id : decision.preempt) add("preempt ", id, "");
  for (const Grant& grant : decision.run) add("run ", grant.sequence, ":" + std::to_string(grant.count));
  for (const Grant& grant : decision.admit) add("admit ", grant.sequence, ":" + std::to_string(grant.count));
  return words;
}

inline std::vector<std::string> Decide(BatchPolicy* policy, const Scene& scene) {
  BatchDecision decision;
  policy->Plan(scene.view(), scene.now, &decision);
  return InWords(decision);
}

}  // namespace orrery

#endif  // ORRERY_TESTS_SCHEDULER_POLICY_DECIDE_H_
