#include "scheduler/policy/running_step.h"

#include <algorithm>
#include <numeric>

namespace orrery {

void RunningStep::Begin(const WorkerView& worker, int32_t token_budget) {
  const int32_t limit = worker.limits.max_step_tokens;
  budget_ = token_budget == 0 ? limit : std::min(token_budget, limit);
  used_ = 0;
  ledger_ = BlockLedger(worker.blocks_free);
  free_slots_ = worker.free_slots;
  order_.resize(worker.running.size());
  std::iota(order_.begin(), order_.end(), 0);
  num_running_ = order_.size();
}

void RunningStep::GrantRunning(const WorkerView& worker, BatchDecision* decision, size_t active) {
  GrantDecodes(worker, active, decision);
  GrantPrefills(worker, active, decision);
  num_running_ = order_.size();
}

void RunningStep::PreemptLast(const WorkerView& worker, BatchDecision* decision) {
  const SequenceView& victim = worker.running[static_cast<size_t>(order_.back())];
  order_.pop_back();
  decision->preempt.push_back(victim.id);
  ledger_.Return(victim.num_blocks - victim.shared_blocks);
}

void RunningStep::GrantDecodes(const WorkerView& worker, size_t active, BatchDecision* decision) {
  for (size_t i = 0; i < std::min(active, order_.size()); ++i) {
    const SequenceView& sequence = worker.running[static_cast<size_t>(order_[i])];
    if (sequence.tokens_to_compute() != 1) continue;
    if (used_ == worker.limits.max_step_tokens) return;
    const int32_t need =
        BlocksFor(sequence.num_computed + 1, worker.limits.block_tokens) - sequence.num_blocks;
    while (!ledger_.Reserve(need)) {
      if (order_.size() == 1) return;  // alone: blocks of ended sequences are about to come back
      PreemptLast(worker, decision);
      if (i == order_.size()) return;  // it was the last itself
    }
    decision->run.push_back({sequence.id, 1});
    ++used_;
  }
}

void RunningStep::GrantPrefills(const WorkerView& worker, size_t active, BatchDecision* decision) {
  const int32_t block_tokens = worker.limits.block_tokens;
  for (size_t i = 0; i < order_.size(); ++i) {
    const SequenceView& sequence = worker.running[static_cast<size_t>(order_[i])];
    if (sequence.tokens_to_compute() <= 1) continue;
    int32_t count = i < active ? std::max(0, std::min(sequence.tokens_to_compute(), budget_ - used_)) : 0;
    const auto need = [&] {
      return std::max(0, BlocksFor(sequence.num_computed + count, block_tokens) - sequence.num_blocks);
    };
    // Decodes have grown into what its admission had reserved: later prefills make room, decodes do not.
    while (need() > ledger_.available() && order_.size() > i + 1 &&
           worker.running[static_cast<size_t>(order_.back())].tokens_to_compute() > 1) {
      PreemptLast(worker, decision);
    }
    if (need() > ledger_.available()) {
      const int64_t room = (int64_t{sequence.num_blocks} + std::max(0, ledger_.available())) * block_tokens -
                           sequence.num_computed;
      count = static_cast<int32_t>(std::min<int64_t>(count, std::max<int64_t>(room, 0)));
    }
    const int32_t reserved = need();
    ledger_.Owe(reserved);
    if (count > 0) {
      decision->run.push_back({sequence.id, count});
      used_ += count;
    }
    // The rest of its prompt keeps its claim against admissions.
    ledger_.Owe(std::max(0, BlocksFor(sequence.num_tokens, block_tokens) - sequence.num_blocks - reserved));
  }
}

bool RunningStep::full(const WorkerView& worker) const {
  return num_running_ >= static_cast<size_t>(worker.limits.max_num_seqs) || used_ >= budget_;
}

AdmitResult RunningStep::TryAdmit(const WorkerView& worker, const SequenceView& sequence, int32_t watermark,
                                  BatchDecision* decision) {
  const bool needs_slot = sequence.first_scheduled.is_never();
  if (full(worker) || (needs_slot && free_slots_ == 0)) return AdmitResult::kFull;
  const int32_t need = BlocksFor(sequence.num_tokens, worker.limits.block_tokens) - sequence.shared_blocks;
  if (num_running_ > 0 && need + watermark > ledger_.available()) return AdmitResult::kNoBlocks;
  if (!ledger_.Reserve(need)) return AdmitResult::kNoBlocks;
  const int32_t count = std::min(sequence.num_tokens - sequence.cached_tokens, budget_ - used_);
  decision->admit.push_back({sequence.id, count});
  used_ += count;
  free_slots_ -= needs_slot;
  ++num_running_;
  return AdmitResult::kAdmitted;
}

}  // namespace orrery
