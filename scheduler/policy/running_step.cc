#include "scheduler/policy/running_step.h"

#include <algorithm>
#include <numeric>

namespace orrery {
namespace {

// Blocks that `count` more tokens of a running sequence take.
int32_t NewBlocks(const WorkerView& worker, const SequenceView& sequence, int32_t count) {
  return std::max(0,
                  BlocksFor(sequence.num_computed + count, worker.limits.block_tokens) - sequence.num_blocks);
}

int32_t BudgetOf(const BatchLimits& limits, int32_t token_budget) {
  return token_budget == 0 ? limits.max_step_tokens : std::min(token_budget, limits.max_step_tokens);
}

}  // namespace

int64_t RoomInStep(const BatchLimits& limits, int32_t token_budget, size_t num_running, size_t used_tokens) {
  const int64_t rows = limits.max_num_seqs - static_cast<int64_t>(num_running);
  const int64_t tokens = BudgetOf(limits, token_budget) - static_cast<int64_t>(used_tokens);
  return std::max<int64_t>(0, std::min(rows, tokens));
}

DecisionRecord AdmissionRecord(std::string_view policy, size_t num_waiting, size_t num_admitted, int64_t room,
                               int64_t work) {
  const auto waiting = static_cast<int64_t>(num_waiting);
  return {.policy = policy,
          .objective = "sequences left waiting",
          .value = static_cast<double>(num_waiting - num_admitted),
          .bound = static_cast<double>(std::max<int64_t>(0, waiting - room)),
          .work = work};
}

void RunningStep::Begin(const WorkerView& worker, int32_t token_budget) {
  budget_ = BudgetOf(worker.limits, token_budget);
  used_ = worker.beside;
  ledger_ = BlockLedger(worker.blocks_free);
  free_slots_ = worker.free_slots;
  order_.resize(worker.running.size());
  std::iota(order_.begin(), order_.end(), 0);
  num_running_ = order_.size() + static_cast<size_t>(worker.beside);
}

void RunningStep::GrantRunning(const WorkerView& worker, BatchDecision* decision, size_t active) {
  GrantDecodes(worker, 0, active, decision);
  for (size_t i = 0; i < order_.size(); ++i) {
    if (view(worker, i).tokens_to_compute() > 1) {
      GrantPrefill(worker, i, decision, i < active ? INT32_MAX : 0);
    }
  }
}

void RunningStep::PreemptLast(const WorkerView& worker, BatchDecision* decision) {
  const SequenceView& victim = view(worker, order_.size() - 1);
  order_.pop_back();
  --num_running_;
  decision->preempt.push_back(victim.id);
  ledger_.Return(victim.num_blocks - victim.shared_blocks);
}

void RunningStep::GrantDecodes(const WorkerView& worker, size_t begin, size_t end, BatchDecision* decision) {
  for (size_t i = begin; i < std::min(end, order_.size()); ++i) {
    const SequenceView& sequence = view(worker, i);
    if (sequence.tokens_to_compute() != 1) continue;
    if (used_ == worker.limits.max_step_tokens) return;
    while (!ledger_.Reserve(NewBlocks(worker, sequence, 1))) {
      if (order_.size() == 1) return;  // alone: blocks of ended sequences are about to come back
      PreemptLast(worker, decision);
      if (i == order_.size()) return;  // it was the last itself
    }
    decision->run.push_back({sequence.id, 1});
    ++used_;
  }
}

bool RunningStep::TryGrantDecode(const WorkerView& worker, size_t i, BatchDecision* decision) {
  const SequenceView& sequence = view(worker, i);
  const int32_t need = NewBlocks(worker, sequence, 1);
  // Owed blocks do not concern who needs none.
  if (used_ >= budget_ || (need > 0 && !ledger_.Reserve(need))) return false;
  decision->run.push_back({sequence.id, 1});
  ++used_;
  return true;
}

void RunningStep::GrantPrefill(const WorkerView& worker, size_t i, BatchDecision* decision, int32_t limit) {
  const SequenceView& sequence = view(worker, i);
  int32_t count = std::max(0, std::min({sequence.tokens_to_compute(), budget_ - used_, limit}));
  // Decodes have grown into what its admission had reserved: later prefills make room, decodes do not.
  while (NewBlocks(worker, sequence, count) > ledger_.available() && order_.size() > i + 1 &&
         view(worker, order_.size() - 1).tokens_to_compute() > 1) {
    PreemptLast(worker, decision);
  }
  if (NewBlocks(worker, sequence, count) > ledger_.available()) {
    const int64_t room =
        (int64_t{sequence.num_blocks} + std::max(0, ledger_.available())) * worker.limits.block_tokens -
        sequence.num_computed;
    count = static_cast<int32_t>(std::min<int64_t>(count, std::max<int64_t>(room, 0)));
  }
  if (count > 0) {
    decision->run.push_back({sequence.id, count});
    used_ += count;
  }
  // The rest of its prompt keeps its claim against admissions.
  ledger_.Owe(Claim(worker, i));
}

int32_t RunningStep::Claim(const WorkerView& worker, size_t i) const {
  const SequenceView& sequence = view(worker, i);
  return NewBlocks(worker, sequence, sequence.tokens_to_compute());
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
