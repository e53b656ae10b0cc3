// Steps that are known beforehand. With every sequence decoding and nobody to admit, a step changes counts by
// one and nothing else: a simulator passes it in O(1), and what each sequence would show is written when the
// next event comes. Everything, the order of the free blocks included, is then as if each step had been
// planned; a test compares whole runs.
#include <algorithm>
#include <utility>

#include "scheduler/base/check.h"
#include "scheduler/worker/impl.h"

namespace orrery {

int32_t WorkerCore::Impl::KnownSteps(DecisionRecord* why) const {
  const auto num_running = static_cast<int32_t>(running_.size());
  if (num_running == 0 || num_running > limits_.max_step_tokens || num_flights_ > 0 || num_hidden_ > 0 ||
      known_passed_ > 0 || journal_ != nullptr || !released_slots_.empty() || !preempted_.empty()) {
    return 0;
  }
  if (waiting_.size() > 0 && !undisturbed_) return 0;
  // As Decide shows them: without a free slot those that need one are left out.
  const int32_t seen = free_slots_.empty() && waiting_with_slot_ > 0 ? waiting_with_slot_ : waiting_.size();
  const auto decision = parts_.policy->SteadyDecision({running_.size(), static_cast<size_t>(seen), limits_});
  if (!decision.has_value()) return 0;
  // Blocks that are free now are enough: nothing cached is evicted, and what waits finds the same prefixes.
  int64_t steps = int64_t{kv_.pool().num_free() / num_running} * options_.block_tokens;
  for (const Sequence* sequence : running_) {
    if (sequence->has_ids || sequence->num_tokens() - sequence->num_computed != 1) return 0;
    steps = std::min<int64_t>(steps, sequence->max_new() - sequence->num_generated());
  }
  *why = *decision;
  return static_cast<int32_t>(std::max<int64_t>(0, steps));
}

void WorkerCore::Impl::PassKnownStep(Time start, Time end) {
  ORRERY_CHECK(num_flights_ == 0 && journal_ == nullptr);
  const size_t num_running = running_.size();
  ++known_passed_;
  known_end_ = end;
  kv_tokens_ += static_cast<int64_t>(num_running);
  ++counters_.steps;
  counters_.computed_tokens += num_running;
  counters_.generated_tokens += num_running;
  last_step_ = StepId{next_step_++};
  last_step_time_ = end - start;
  last_step_end_ = end;
  ++totals_.steps;
  totals_.time = totals_.time + last_step_time_;
}

void WorkerCore::Impl::EndAfterKnownStep(absl::Span<const SampledToken> ended, TokenEvents* events) {
  Settle();
  for (const SampledToken& sampled : ended) {
    Sequence* sequence = Find(sampled.sequence);
    ORRERY_CHECK(sequence != nullptr && sequence->state == SequenceState::kRunning);
    EndSampled(sequence, sampled, known_end_, events);
  }
}

void WorkerCore::Impl::WritePassedSteps() {
  const int32_t steps = std::exchange(known_passed_, 0);
  const int32_t block_tokens = options_.block_tokens;
  crossings_.clear();
  for (size_t i = 0; i < running_.size(); ++i) {
    if (i + kPrefetchAhead < running_.size()) Prefetch(running_[i + kPrefetchAhead]);
    Sequence* sequence = running_[i];
    const int32_t room =
        static_cast<int32_t>(sequence->blocks.size()) * block_tokens - sequence->num_computed;
    for (int32_t step = room; step < steps; step += block_tokens) crossings_.push_back({step, sequence});
    sequence->num_computed += steps;
    sequence->num_resident += steps;
    sequence->num_made += steps;
    sequence->last_token = known_end_;
  }
  // Step by step blocks go to the oldest first.
  std::sort(crossings_.begin(), crossings_.end(), [](const Crossing& a, const Crossing& b) {
    return a.step != b.step ? a.step < b.step : a.sequence->id < b.sequence->id;
  });
  for (const Crossing& crossing : crossings_) {
    ORRERY_CHECK(kv_.Allocate(1, &crossing.sequence->blocks));
  }
}

}  // namespace orrery
