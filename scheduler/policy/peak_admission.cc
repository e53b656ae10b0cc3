#include "scheduler/policy/peak_admission.h"

#include <algorithm>

#include "scheduler/predict/length_predictor.h"

namespace orrery {
namespace {

constexpr size_t kFewChanges = 8;

// Tokens it still has to compute as chunks.
int32_t Prefill(const SequenceView& sequence) {
  if (sequence.num_computed > 0 && sequence.tokens_to_compute() == 1) return 0;
  return sequence.tokens_to_compute() - sequence.cached_tokens;
}

}  // namespace

int32_t PredictedOutput(const WorkerView& worker, const SequenceView& sequence, double quantile,
                        int32_t stretch) {
  const int32_t bound = sequence.max_new_tokens;
  const int32_t length = worker.predictor == nullptr ? bound : worker.predictor->Quantile(sequence, quantile);
  return static_cast<int32_t>(
      std::min<int64_t>(bound, std::max<int64_t>(length, int64_t{sequence.num_generated} + stretch)));
}

PrefillQueue::PrefillQueue(const WorkerView& worker, int32_t token_budget) {
  int32_t decodes = 0;
  for (const SequenceView& sequence : worker.running) decodes += sequence.tokens_to_compute() == 1;
  const int32_t limit = worker.limits.max_step_tokens;
  room_ = std::max(1, (token_budget == 0 ? limit : std::min(token_budget, limit)) - decodes);
}

int64_t PrefillQueue::Delay(const SequenceView& sequence) const {
  const int32_t left = Prefill(sequence);
  return left == 0 ? 0 : (backlog_ + left - 1) / room_;
}

void PrefillQueue::Join(const SequenceView& sequence) { backlog_ += Prefill(sequence); }

int64_t PrivateTokens(const SequenceView& sequence, int32_t block_tokens) {
  const int64_t shared = int64_t{sequence.shared_blocks} * block_tokens;
  return std::max<int64_t>(0, int64_t{sequence.num_tokens} - 1 - shared);
}

int64_t SharedBlocks(const WorkerView& worker) {
  int64_t blocks = int64_t{worker.blocks_total} - worker.blocks_free;
  for (const SequenceView& sequence : worker.running) blocks -= sequence.num_blocks - sequence.shared_blocks;
  return std::max<int64_t>(0, blocks);
}

void PeakAdmission::Follow(const WorkerView& worker, const PeakRule& rule, int32_t token_budget) {
  if (peak_.block_tokens() != worker.limits.block_tokens) {
    peak_ = FuturePeak(worker.limits.block_tokens);
    followed_.clear();
  }
  limit_ = static_cast<int64_t>((1 - rule.protection) * worker.blocks_total);
  if (ForgetGone(worker)) {
    ++now_;
    peak_.Advance(1);
  }
  peak_.set_shared_blocks(SharedBlocks(worker));
  prefills_ = PrefillQueue(worker, token_budget);
  followed_.resize(worker.running.size());
  for (size_t i = 0; i < followed_.size(); ++i) {
    const SequenceView& sequence = worker.running[i];
    Followed& followed = followed_[i];
    if (followed.id != sequence.id || followed.predicted <= sequence.num_generated) {
      followed.predicted = PredictedOutput(worker, sequence, rule.quantile, rule.stretch);
    }
    Look(sequence, &followed);
    prefills_.Join(sequence);
  }
  TellPeak();
}

// Both lists are in admission order, so those still running are met in turn. True: somebody made a step.
bool PeakAdmission::ForgetGone(const WorkerView& worker) {
  bool moved = false;
  size_t kept = 0;
  for (const Followed& followed : followed_) {
    if (kept < worker.running.size() && followed.id == worker.running[kept].id) {
      moved |= worker.running[kept].num_generated > followed.generated;
      followed_[kept++] = followed;
    } else {
      peak_.Remove(followed.id);
    }
  }
  followed_.resize(kept);
  return moved;
}

int64_t PeakAdmission::Remaining(const SequenceView& sequence, int32_t predicted) const {
  return int64_t{predicted} - sequence.num_generated + prefills_.Delay(sequence);
}

void PeakAdmission::Look(const SequenceView& sequence, Followed* followed) {
  const int64_t held = PrivateTokens(sequence, peak_.block_tokens());
  const int64_t end = now_ + Remaining(sequence, followed->predicted);
  const bool known = followed->id == sequence.id;
  followed->generated = sequence.num_generated;
  followed->changed = !known || followed->held + now_ - followed->added != held || followed->end != end;
  followed->id = sequence.id;
  if (!followed->changed) return;
  followed->held = held;
  followed->end = end;
  followed->added = now_;
}

void PeakAdmission::TellPeak() {
  const auto changed = static_cast<size_t>(
      std::count_if(followed_.begin(), followed_.end(), [](const Followed& f) { return f.changed; }));
  // A change moves half of the entries, a fresh start sorts them all.
  if (changed > kFewChanges) {
    entries_.clear();
    for (const Followed& f : followed_) entries_.push_back({f.id, f.held + now_ - f.added, f.end - now_});
    peak_.Assign(entries_);
    return;
  }
  for (const Followed& f : followed_) {
    if (!f.changed) continue;
    peak_.Remove(f.id);
    peak_.Add(f.id, f.held, f.end - now_);
  }
}

bool PeakAdmission::Fits(const SequenceView& candidate, int32_t predicted_output) const {
  if (followed_.empty()) return true;
  return peak_.PeakWith(PrivateTokens(candidate, peak_.block_tokens()),
                        Remaining(candidate, predicted_output)) <= limit_;
}

void PeakAdmission::Admit(const SequenceView& candidate, int32_t predicted_output) {
  Followed& followed = followed_.emplace_back();
  followed.predicted = predicted_output;
  Look(candidate, &followed);
  peak_.Add(followed.id, followed.held, followed.end - now_);
  prefills_.Join(candidate);
}

}  // namespace orrery
