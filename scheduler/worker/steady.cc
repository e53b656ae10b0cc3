// Decodes that stand apart. A sequence that decodes changes by one token a step and needs a block every
// block_tokens steps, whatever the others do, as long as its policy lets all decode. So a simulator's steps
// leave them out: one clock counts for all of them, a calendar of block_tokens phases knows who needs a block
// when, and what each would show is written when somebody asks. Everything, the order of the free blocks
// included, is then as if each step had listed them; a test compares whole runs.
#include <algorithm>
#include <limits>
#include <utility>

#include "scheduler/base/check.h"
#include "scheduler/worker/impl.h"

namespace orrery {
namespace {

bool Earlier(const Sequence* a, const Sequence* b) { return a->id < b->id; }

}  // namespace

bool WorkerCore::Impl::CanStandApart(const Sequence& sequence) {
  return sequence.state == SequenceState::kRunning && !sequence.has_ids && sequence.pending == 0 &&
         sequence.num_made > 0 && sequence.num_tokens() - sequence.num_computed == 1;
}

bool WorkerCore::Impl::SetApart() {
  if (apart_) return num_apart_ > 0;
  if (num_flights_ > 0 || num_hidden_ > 0 || ids_seen_ || journal_ != nullptr || options_.max_in_flight > 1 ||
      !preempted_.empty() || !parts_.policy->SteadyDecision({1, 0, limits_}).has_value()) {
    return false;
  }
  clock_ = num_apart_ = 0;
  apart_tokens_ = 0;
  first_bound_ = std::numeric_limits<int32_t>::max();
  crossing_.resize(static_cast<size_t>(options_.block_tokens));
  fresh_.clear();
  for (Sequence* sequence : running_) {
    if (CanStandApart(*sequence)) {
      JoinApart(sequence);
    } else {
      fresh_.push_back(sequence);
    }
  }
  apart_ = num_apart_ > 0;
  return apart_;
}

size_t WorkerCore::Impl::PhaseOf(const Sequence& sequence) const {
  const auto room =
      static_cast<int32_t>(sequence.blocks.size()) * options_.block_tokens - sequence.num_computed;
  return static_cast<size_t>((sequence.apart_since + room) % options_.block_tokens);
}

void WorkerCore::Impl::JoinApart(Sequence* sequence) {
  sequence->apart_since = clock_;
  ++num_apart_;
  apart_tokens_ += sequence->num_computed;
  first_bound_ = std::min(first_bound_, clock_ + sequence->max_new() - sequence->num_generated());
  std::vector<Sequence*>& phase = crossing_[PhaseOf(*sequence)];
  phase.insert(std::upper_bound(phase.begin(), phase.end(), sequence, Earlier), sequence);
}

void WorkerCore::Impl::JoinIfDecoding(Sequence* sequence) {
  if (!CanStandApart(*sequence)) return;
  std::erase(fresh_, sequence);
  JoinApart(sequence);
}

void WorkerCore::Impl::LeaveApart(Sequence* sequence) {
  ShowPassed(sequence);
  std::erase(crossing_[PhaseOf(*sequence)], sequence);
  --num_apart_;
  apart_tokens_ -= sequence->num_computed;
  sequence->apart_since = -1;
  if (clock_ + sequence->max_new() - sequence->num_generated() == first_bound_) FindFirstBound();
}

void WorkerCore::Impl::ShowPassed(Sequence* sequence) {
  const int32_t steps = clock_ - std::exchange(sequence->apart_since, clock_);
  if (steps == 0) return;
  sequence->num_computed += steps;
  sequence->num_resident += steps;
  sequence->num_made += steps;
  sequence->last_token = apart_end_;
}

void WorkerCore::Impl::FindFirstBound() {
  first_bound_ = std::numeric_limits<int32_t>::max();
  for (const std::vector<Sequence*>& phase : crossing_) {
    for (const Sequence* sequence : phase) {
      first_bound_ =
          std::min(first_bound_, sequence->apart_since + sequence->max_new() - sequence->num_generated());
    }
  }
}

// Step by step blocks go to the oldest first.
void WorkerCore::Impl::StartApartStep() {
  for (Sequence* sequence : crossing_[PhaseNow()]) ORRERY_CHECK(kv_.Allocate(1, &sequence->blocks));
}

void WorkerCore::Impl::EndApartStep(Time end) {
  ++clock_;
  apart_tokens_ += num_apart_;
  apart_end_ = end;
  counters_.generated_tokens += static_cast<uint64_t>(num_apart_);
}

int32_t WorkerCore::Impl::KnownSteps(DecisionRecord* why) {
  const auto num_running = static_cast<int32_t>(running_.size());
  if (num_flights_ > 0 || !SetApart() || !fresh_.empty() || num_running > limits_.max_step_tokens ||
      !released_slots_.empty()) {
    return 0;
  }
  if (waiting_.size() > 0 && !undisturbed_) return 0;
  // As Decide shows them: without a free slot those that need one are left out.
  const int32_t seen = free_slots_.empty() && waiting_with_slot_ > 0 ? waiting_with_slot_ : waiting_.size();
  *why = *parts_.policy->SteadyDecision({running_.size(), static_cast<size_t>(seen), limits_});
  // Blocks that are free now are enough: nothing cached is evicted.
  const int64_t backed = int64_t{kv_.pool().num_free() / num_running} * options_.block_tokens;
  return static_cast<int32_t>(std::clamp<int64_t>(first_bound_ - clock_, 0, backed));
}

void WorkerCore::Impl::PassKnownStep(Time start, Time end) {
  ORRERY_CHECK(num_flights_ == 0 && apart_ && fresh_.empty());
  StartApartStep();
  kv_tokens_ += num_apart_;
  last_step_shape_ = {.decodes = num_apart_, .decode_context = apart_tokens_ + num_apart_};
  EndApartStep(end);
  ++counters_.steps;
  counters_.computed_tokens += static_cast<uint64_t>(num_apart_);
  last_step_ = StepId{next_step_++};
  last_step_time_ = end - start;
  last_step_end_ = end;
  ++totals_.steps;
  totals_.time = totals_.time + last_step_time_;
}

void WorkerCore::Impl::EndAfterKnownStep(absl::Span<const SampledToken> ended, TokenEvents* events) {
  for (const SampledToken& sampled : ended) {
    Sequence* sequence = Find(sampled.sequence);
    ORRERY_CHECK(sequence != nullptr && sequence->state == SequenceState::kRunning);
    if (sequence->apart_since >= 0) LeaveApart(sequence);
    EndSampled(sequence, sampled, apart_end_, events);
  }
}

void WorkerCore::Impl::Settle() {
  if (!std::exchange(apart_, false)) return;
  fresh_.clear();
  for (Sequence* sequence : running_) {
    if (sequence->apart_since >= 0) ShowPassed(sequence);
  }
  if (num_flights_ > 0 && flights_[first_flight_].beside > 0) List(&flights_[first_flight_]);
  for (Sequence* sequence : running_) sequence->apart_since = -1;
  for (std::vector<Sequence*>& phase : crossing_) phase.clear();
}

// Their blocks and tokens are counted already; they come first, as a policy grants decodes.
void WorkerCore::Impl::List(Flight* flight) {
  std::vector<Sequence*> listed;
  for (Sequence* sequence : running_) {
    if (sequence->apart_since >= 0) listed.push_back(sequence);
  }
  std::sort(listed.begin(), listed.end(), Earlier);
  std::vector<Slice> slices;
  std::vector<FlightRow> rows;
  for (Sequence* sequence : listed) {
    slices.push_back(NextSlice(*sequence, 1));
    rows.push_back({sequence, sequence->epoch});
    ++sequence->num_computed;
    ++sequence->pending;
    ++sequence->flying;
  }
  StepPlan& plan = flight->plan;
  plan.slices.insert(plan.slices.begin(), slices.begin(), slices.end());
  flight->rows.insert(flight->rows.begin(), rows.begin(), rows.end());
  plan.num_tokens += flight->beside;
  plan.num_samples += std::exchange(flight->beside, 0);
}

}  // namespace orrery
