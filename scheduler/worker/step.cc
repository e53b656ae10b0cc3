// What a finished step means: tokens out, blocks published, sequences ended.
#include <algorithm>
#include <string>
#include <utility>

#include "scheduler/base/check.h"
#include "scheduler/base/text.h"
#include "scheduler/journal.h"
#include "scheduler/predict/length_predictor.h"
#include "scheduler/worker/impl.h"

namespace orrery {
namespace {

// Ended samples kept for the next snapshot. Beyond this a reader learns of an end by absence from `running`.
constexpr size_t kMaxFinished = 1 << 16;

}  // namespace

absl::Status WorkerCore::Impl::ValidateResult(const Flight& flight, const StepResult& result) const {
  if (result.step != flight.plan.step) {
    return absl::InvalidArgumentError(Cat("result of step ", Value(result.step), " while step ",
                                          Value(flight.plan.step), " is the oldest in flight"));
  }
  const auto num_samples = static_cast<size_t>(flight.plan.num_samples);
  if (result.sampled.size() < num_samples || (result.sampled.size() > num_samples && flight.beside == 0)) {
    return absl::InvalidArgumentError(Cat("step ", Value(result.step), " sampled ", result.sampled.size(),
                                          " tokens instead of ", flight.plan.num_samples));
  }
  if (result.scored.size() != static_cast<size_t>(flight.plan.num_scoring)) {
    return absl::InvalidArgumentError(Cat("step ", Value(result.step), " scored ", result.scored.size(),
                                          " prompts instead of ", flight.plan.num_scoring));
  }
  size_t next = result.sampled.size() - num_samples, next_scored = 0;
  for (const SampledToken& ended : absl::MakeSpan(result.sampled).first(next)) {
    const Sequence* sequence = Find(ended.sequence);
    if (sequence == nullptr || sequence->apart_since < 0 || ended.status != SampleStatus::kOk) {
      return absl::InvalidArgumentError(
          Cat("step ", Value(result.step), " ended sequence ", Value(ended.sequence), " beside it"));
    }
  }
  for (const Slice& slice : flight.plan.slices) {
    if (slice.num_scored > 0) {
      const ScoredPrompt& scored = result.scored[next_scored++];
      const bool fits = scored.logprobs == nullptr ||
                        scored.logprobs->chosen.size() == static_cast<size_t>(slice.num_scored);
      if (scored.sequence != slice.sequence || !fits) {
        return absl::InvalidArgumentError(Cat("step ", Value(result.step), " did not score ",
                                              slice.num_scored, " rows of sequence ", Value(slice.sequence)));
      }
    }
    if (!slice.sample) continue;
    const SampledToken& sampled = result.sampled[next++];
    if (sampled.sequence != slice.sequence) {
      return absl::InvalidArgumentError(Cat("step ", Value(result.step), " sampled for sequence ",
                                            Value(sampled.sequence), " instead of ", Value(slice.sequence)));
    }
    const bool in_vocabulary =
        sampled.token >= 0 && (options_.vocab_size == 0 || sampled.token < options_.vocab_size);
    if (sampled.status == SampleStatus::kOk && !in_vocabulary) {
      return absl::InvalidArgumentError(
          Cat("step ", Value(result.step), " sampled id ", sampled.token, " outside the vocabulary"));
    }
  }
  return absl::OkStatus();
}

absl::Status WorkerCore::Impl::OnStepDone(const StepResult& result, Time now, TokenEvents* events) {
  if (num_flights_ == 0) return absl::InvalidArgumentError("result of a step while none is in flight");
  Flight& flight = flights_[first_flight_];
  if (absl::Status status = ValidateResult(flight, result); !status.ok()) return status;
  if (journal_ != nullptr) journal_->StepDone(result, now);
  kv_.AdvanceTo(now);
  ++counters_.steps;
  counters_.computed_tokens += static_cast<uint64_t>(flight.plan.num_tokens + flight.beside);
  CountStep(flight, result);

  size_t next = result.sampled.size() - static_cast<size_t>(flight.plan.num_samples);
  size_t next_scored = 0;
  if (flight.beside > 0) {
    EndApartStep(now);
    EndAfterKnownStep(absl::MakeSpan(result.sampled).first(next), events);
  }
  for (size_t i = 0; i < flight.rows.size(); ++i) {
    if (i + kPrefetchAhead < flight.rows.size()) Prefetch(flight.rows[i + kPrefetchAhead].sequence);
    const Slice& slice = flight.plan.slices[i];
    Sequence* sequence = flight.rows[i].sequence;
    const SampledToken* sampled = slice.sample ? &result.sampled[next++] : nullptr;
    const ScoredPrompt* scored = slice.num_scored > 0 ? &result.scored[next_scored++] : nullptr;
    --sequence->flying;
    if (sequence->state == SequenceState::kEnded) {
      counters_.wasted_rows += static_cast<uint64_t>(slice.count);
      if (sequence->flying == 0) Retire(sequence);
      continue;
    }
    sequence->poisoned = (sampled != nullptr && sampled->status != SampleStatus::kOk) ||
                         (scored != nullptr && scored->status != SampleStatus::kOk);
    if (sequence->epoch == flight.rows[i].epoch && !sequence->poisoned)
      Landed(sequence, slice.begin + slice.count);
    if (scored != nullptr && !Scored(sequence, slice, *scored, now, events)) continue;
    if (sampled != nullptr && !Sampled(sequence, *sampled, now, events)) continue;
    if (flight.beside > 0) JoinIfDecoding(sequence);
    if (sequence->state == SequenceState::kHidden && !sequence->follower && sequence->flying == 0) {
      --num_hidden_;  // preempted in flight: all its tokens are known now
      Queue(sequence);
    }
  }
  CloseFlight();
  return absl::OkStatus();
}

void WorkerCore::Impl::CountStep(const Flight& flight, const StepResult& result) {
  last_step_ = result.step;
  last_step_time_ = result.end - result.start;
  last_step_shape_ = {};
  if (flight.plan.slices.empty() && flight.beside == 0) return;
  // Of two steps in flight the second waits for the first: that is not time it takes.
  last_step_time_ = Duration{std::max<int64_t>(
      0, (result.end - std::max(result.start, std::exchange(last_step_end_, result.end))).ns)};
  ++totals_.steps;
  totals_.time = totals_.time + last_step_time_;
  // Scoring takes time that the shape does not show.
  if (flight.plan.num_scoring == 0) {
    last_step_shape_ = flight.shape;
    if (parts_.cost != nullptr) parts_.cost->Observe(flight.shape, last_step_time_);
  }
  if (flight.shape.prefill_tokens == 0) return;
  totals_.prefill_tokens += flight.shape.prefill_tokens;
  totals_.prefill_time = totals_.prefill_time + last_step_time_;
}

void WorkerCore::Impl::Landed(Sequence* sequence, int32_t num_resident) {
  const bool was_resident = PromptResident(*sequence);
  sequence->num_resident = num_resident;
  Publish(sequence);
  // Decodes, which are most, need not look at the group.
  if (!was_resident && PromptResident(*sequence)) ReleaseFollowers(sequence->group);
}

bool WorkerCore::Impl::Scored(Sequence* sequence, const Slice& slice, const ScoredPrompt& scored, Time now,
                              TokenEvents* events) {
  if (scored.status != SampleStatus::kOk) {
    sequence->pending -= slice.sample;
    EndBroken(sequence, now, events);
    return false;
  }
  if (scored.logprobs == nullptr) return true;
  TokenEvent& event = events->emplace_back();
  event.prompt_logprobs = scored.logprobs;
  event.key = sequence->key;
  event.at = now;
  return true;
}

void WorkerCore::Impl::EndBroken(Sequence* sequence, Time now, TokenEvents* events) {
  TokenEvent event;
  event.error = "numerical error: logits are not finite";
  End(sequence, FinishReason::kError, now, std::move(event), events);
}

bool WorkerCore::Impl::Sampled(Sequence* sequence, const SampledToken& sampled, Time now,
                               TokenEvents* events) {
  --sequence->pending;
  if (sampled.status != SampleStatus::kOk) {
    EndBroken(sequence, now, events);
    return false;
  }
  ++sequence->num_made;
  if (sequence->has_ids) sequence->made.push_back(sampled.token);
  if (sequence->report.first_token.is_never()) sequence->report.first_token = now;
  sequence->last_token = now;
  ++counters_.generated_tokens;
  const int32_t emitted = sequence->num_emitted + sequence->num_made;
  if (Stops(*sequence, sampled.token) || emitted >= sequence->max_tokens) {
    EndSampled(sequence, sampled, now, events);
    return false;
  }
  TokenEvent& event = events->emplace_back();
  event.index = emitted - 1;
  event.token = sampled.token;
  event.logprobs = sampled.logprobs;
  event.key = sequence->key;
  event.at = now;
  return true;
}

void WorkerCore::Impl::EndSampled(Sequence* sequence, const SampledToken& sampled, Time now,
                                  TokenEvents* events) {
  TokenEvent event;
  event.index = sequence->num_emitted + sequence->num_made - 1;
  event.token = sampled.token;
  event.logprobs = sampled.logprobs;
  const FinishReason why = Stops(*sequence, sampled.token) ? FinishReason::kStop : FinishReason::kLength;
  End(sequence, why, now, std::move(event), events);
}

void WorkerCore::Impl::ExtendChain(Sequence* sequence, int32_t num_blocks) const {
  if (!kv_.enabled() || !sequence->has_ids) return;
  while (static_cast<int32_t>(sequence->chain.size()) < num_blocks) {
    const Hash128 parent = sequence->chain.empty()
                               ? ChainRoot(options_.hash_key, sequence->submit->cache_salt)
                               : sequence->chain.back();
    sequence->chain.push_back(BlockHash(options_.hash_key, parent, sequence->ids(),
                                        static_cast<int32_t>(sequence->chain.size()), options_.block_tokens));
  }
}

void WorkerCore::Impl::Publish(Sequence* sequence) {
  const int32_t full = sequence->num_resident / options_.block_tokens;
  if (full == sequence->num_published || !kv_.enabled() || !sequence->has_ids) return;
  ExtendChain(sequence, full);
  for (int32_t i = sequence->num_published; i < full; ++i) {
    sequence->blocks[i] = kv_.Publish(sequence->blocks[i], sequence->chain[i], sequence->ids(), i);
  }
  sequence->num_published = full;
}

bool WorkerCore::Impl::PromptResident(const Sequence& sequence) const {
  return sequence.num_resident / options_.block_tokens >= (sequence.num_given - 1) / options_.block_tokens;
}

void WorkerCore::Impl::ReleaseFollowers(SampleGroup* group) {
  if (group->num_followers == 0) return;
  // As long as a member computes the prompt the others wait for it; when none is left, one takes over.
  bool led = false;
  for (const Sequence* member : group->members) led |= !member->follower && !PromptResident(*member);
  if (led) return;
  bool resident = false;
  for (const Sequence* member : group->members) resident |= !member->follower;
  for (Sequence* member : group->members) {
    if (!member->follower) continue;
    member->follower = false;
    --group->num_followers;
    --num_hidden_;
    Queue(member);
    if (!resident) return;
  }
}

absl::Status WorkerCore::Impl::OnStepFailed(StepId step, std::string_view error, Time now,
                                            TokenEvents* events) {
  if (num_flights_ == 0 || flights_[first_flight_].plan.step != step) {
    return absl::InvalidArgumentError(Cat("step ", Value(step), " is not the oldest in flight"));
  }
  if (journal_ != nullptr) journal_->StepFailed(step, error, now);
  kv_.AdvanceTo(now);
  ++counters_.failed_steps;
  for (const FlightRow& row : flights_[first_flight_].rows) {
    Sequence* sequence = row.sequence;
    --sequence->flying;
    if (sequence->state == SequenceState::kEnded) {
      if (sequence->flying == 0) Retire(sequence);
      continue;
    }
    TokenEvent event;
    event.error = std::string(error);
    End(sequence, FinishReason::kError, now, std::move(event), events);
  }
  CloseFlight();
  return absl::OkStatus();
}

void WorkerCore::Impl::CloseFlight() {
  flights_[first_flight_].rows.clear();
  first_flight_ = (first_flight_ + 1) % 2;
  --num_flights_;
}

void WorkerCore::Impl::End(Sequence* sequence, FinishReason reason, Time now, TokenEvent event,
                           TokenEvents* events) {
  const Submit& submit = *sequence->submit;
  ++counters_.finished[static_cast<size_t>(reason)];
  sequence->report.finished = now;
  kv_.AdvanceTo(now);
  switch (sequence->state) {
    case SequenceState::kWaiting:
      waiting_.Remove(sequence->id);
      waiting_with_slot_ -= sequence->slot >= 0;
      waiting_tokens_ -= sequence->queued_tokens;
      break;
    case SequenceState::kHidden:
      --num_hidden_;
      waiting_tokens_ -= sequence->queued_tokens;
      break;
    case SequenceState::kRunning:
      kv_tokens_ -= sequence->num_computed;
      prompt_left_ -= sequence->prompt_left();
      running_.erase(std::find(running_.begin(), running_.end(), sequence));
      running_by_key_.erase(std::find(running_by_key_.begin(), running_by_key_.end(), sequence));
      if (apart_) std::erase(fresh_, sequence);
      break;
    case SequenceState::kEnded:
      ORRERY_CHECK(false);
  }
  sequence->state = SequenceState::kEnded;
  undisturbed_ = false;
  if (reason == FinishReason::kStop || reason == FinishReason::kLength) {
    const SequenceView view = ViewOf(*sequence);
    parts_.policy->OnFinished(view, now);
    if (parts_.predictor != nullptr) parts_.predictor->OnFinished(view);
  }
  by_key_.erase(submit.key);
  if (!submit.deadline.is_never()) deadlines_.erase({submit.deadline, sequence->id});
  LeaveGroup(sequence);
  reports_[submit.key] = sequence->report;
  if (finished_.size() < kMaxFinished) finished_.push_back(submit.key);
  event.key = submit.key;
  event.finish = reason;
  event.at = now;
  events->push_back(std::move(event));
  if (sequence->flying == 0) Retire(sequence);
}

void WorkerCore::Impl::LeaveGroup(Sequence* sequence) {
  SampleGroup* group = std::exchange(sequence->group, nullptr);
  group->members.erase(std::find(group->members.begin(), group->members.end(), sequence));
  if (std::exchange(sequence->follower, false)) --group->num_followers;
  if (group->members.empty()) {
    groups_.erase(group->request);
  } else {
    ReleaseFollowers(group);
  }
}

void WorkerCore::Impl::Retire(Sequence* sequence) {
  if (sequence->poisoned) {
    kv_.Discard(sequence->blocks);
  } else {
    kv_.Release(sequence->blocks);
  }
  if (sequence->slot >= 0) released_slots_.push_back(static_cast<uint32_t>(sequence->slot));
  sequences_.erase(sequence->id);
}

}  // namespace orrery
