#include "scheduler/policy/fcfs.h"

#include <algorithm>

namespace orrery {

absl::Span<const OptionField<FcfsOptions>> FcfsPolicy::Fields() {
  static constexpr OptionField<FcfsOptions> kFields[] = {
      {"token_budget", &FcfsOptions::token_budget, 0, 1 << 20, "tokens of a step; 0: --max-step-tokens"},
      {"watermark", &FcfsOptions::watermark, 0, 0.5, "share of the pool that admission leaves free"},
  };
  return kFields;
}

void FcfsPolicy::Plan(const WorkerView& worker, Time, BatchDecision* decision) {
  const int32_t budget = options_.token_budget == 0
                             ? worker.limits.max_step_tokens
                             : std::min(options_.token_budget, worker.limits.max_step_tokens);
  BlockLedger ledger(worker.blocks_free);
  int32_t used = 0;
  OrderByArrival(worker.running);
  GrantDecodes(worker, &ledger, &used, decision);
  GrantPrefills(worker, &ledger, budget, &used, decision);
  // Who was preempted came before anyone who waits: first it gets its place back.
  if (decision->preempt.empty()) Admit(worker, &ledger, budget, &used, decision);
  decision->why = {.policy = "fcfs",
                   .objective = "sequences left waiting",
                   .value = static_cast<double>(worker.waiting.size() - decision->admit.size()),
                   .work = static_cast<int64_t>(worker.running.size() + decision->admit.size())};
}

void FcfsPolicy::OrderByArrival(absl::Span<const SequenceView> running) {
  order_.resize(running.size());
  for (size_t i = 0; i < running.size(); ++i) order_[i] = static_cast<int32_t>(i);
  const auto earlier = [&](int32_t a, int32_t b) { return running[a].id < running[b].id; };
  // Admission order is nearly arrival order: the check saves the sort in almost every step.
  if (!std::is_sorted(order_.begin(), order_.end(), earlier)) {
    std::sort(order_.begin(), order_.end(), earlier);
  }
}

void FcfsPolicy::GrantDecodes(const WorkerView& worker, BlockLedger* ledger, int32_t* used,
                              BatchDecision* decision) {
  for (size_t i = 0; i < order_.size(); ++i) {
    const SequenceView& sequence = worker.running[order_[i]];
    if (sequence.tokens_to_compute() != 1) continue;
    if (*used == worker.limits.max_step_tokens) return;
    const int32_t need =
        BlocksFor(sequence.num_computed + 1, worker.limits.block_tokens) - sequence.num_blocks;
    while (!ledger->Reserve(need)) {
      if (order_.size() == 1) return;  // alone: blocks of ended sequences are about to come back
      const SequenceView& victim = worker.running[order_.back()];
      order_.pop_back();
      decision->preempt.push_back(victim.id);
      ledger->Return(victim.num_blocks - victim.shared_blocks);
      if (i == order_.size()) return;  // it was the latest arrival itself
    }
    decision->run.push_back({sequence.id, 1});
    ++*used;
  }
}

void FcfsPolicy::GrantPrefills(const WorkerView& worker, BlockLedger* ledger, int32_t budget, int32_t* used,
                               BatchDecision* decision) {
  const int32_t block_tokens = worker.limits.block_tokens;
  for (size_t i = 0; i < order_.size(); ++i) {
    const SequenceView& sequence = worker.running[order_[i]];
    if (sequence.tokens_to_compute() <= 1) continue;
    int32_t count = std::max(0, std::min(sequence.tokens_to_compute(), budget - *used));
    const auto need = [&] {
      return std::max(0, BlocksFor(sequence.num_computed + count, block_tokens) - sequence.num_blocks);
    };
    // Decodes have grown into what its admission had reserved: later prefills make room, decodes do not.
    while (need() > ledger->available() && order_.size() > i + 1 &&
           worker.running[order_.back()].tokens_to_compute() > 1) {
      const SequenceView& victim = worker.running[order_.back()];
      order_.pop_back();
      decision->preempt.push_back(victim.id);
      ledger->Return(victim.num_blocks - victim.shared_blocks);
    }
    if (need() > ledger->available()) {
      const int64_t room = (int64_t{sequence.num_blocks} + std::max(0, ledger->available())) * block_tokens -
                           sequence.num_computed;
      count = static_cast<int32_t>(std::min<int64_t>(count, std::max<int64_t>(room, 0)));
    }
    const int32_t reserved = need();
    ledger->Owe(reserved);
    if (count > 0) {
      decision->run.push_back({sequence.id, count});
      *used += count;
    }
    // The rest of its prompt keeps its claim against admissions.
    ledger->Owe(std::max(0, BlocksFor(sequence.num_tokens, block_tokens) - sequence.num_blocks - reserved));
  }
}

void FcfsPolicy::Admit(const WorkerView& worker, BlockLedger* ledger, int32_t budget, int32_t* used,
                       BatchDecision* decision) {
  const auto watermark = static_cast<int32_t>(options_.watermark * worker.blocks_total);
  size_t running = order_.size();
  int32_t free_slots = worker.free_slots;
  for (const SequenceView& sequence : worker.waiting) {
    if (running >= static_cast<size_t>(worker.limits.max_num_seqs)) return;
    if (sequence.first_scheduled.is_never() && free_slots-- == 0) return;
    const int32_t count = std::min(sequence.num_tokens - sequence.cached_tokens, budget - *used);
    if (count <= 0) return;
    const int32_t need = BlocksFor(sequence.num_tokens, worker.limits.block_tokens) - sequence.shared_blocks;
    if (running > 0 && need + watermark > ledger->available()) return;
    if (!ledger->Reserve(need)) return;
    decision->admit.push_back({sequence.id, count});
    *used += count;
    ++running;
  }
}

}  // namespace orrery
