// Deciding and committing a step: the policy answers, the answer is checked against the pool, and only then
// anything changes.
#include <algorithm>
#include <utility>

#include "scheduler/base/check.h"
#include "scheduler/journal.h"
#include "scheduler/kv/block_ledger.h"
#include "scheduler/worker/impl.h"

namespace orrery {

const StepPlan& WorkerCore::Impl::Plan(Time now, bool beside) {
  ORRERY_CHECK(CanPlan());
  kv_.AdvanceTo(now);
  old_reports_.swap(reports_);
  reports_.clear();
  wake_ = Time::Never();
  Flight* flight = &flights_[(first_flight_ + num_flights_) % 2];
  flight->plan.Clear();
  flight->rows.clear();
  flight->shape = {};
  flight->beside = 0;
  flight->holds_next = false;

  // Slots of sequences that ended: the plan announces them before anybody gets them.
  flight->plan.released_slots.swap(released_slots_);
  free_slots_.insert(free_slots_.end(), flight->plan.released_slots.begin(),
                     flight->plan.released_slots.end());

  if (!running_.empty() || waiting_.size() > 0) {
    if (!beside || options_.block_tables || !SetApart() || !DecideBeside(now, flight)) {
      Settle();
      Decide(parts_.policy.get(), now, flight);
    }
    last_decision_ = decision_.why;
    const bool stuck = flight->rows.empty() && flight->beside == 0 && num_flights_ == 0 && wake_.is_never();
    if (stuck && (!running_.empty() || waiting_.size() > 0)) {
      ++counters_.fallbacks;
      Decide(&fallback_, now, flight);
    }
  }
  counters_.evicted_blocks = kv_.evicted();
  undisturbed_ = flight->plan.num_samples + flight->beside == static_cast<int32_t>(running_.size()) &&
                 flight->plan.num_tokens == flight->plan.num_samples && flight->plan.admitted.empty() &&
                 decision_.admit.empty() && preempted_.empty();
  FinishPlan(flight);
  if (journal_ != nullptr) journal_->Plan(flight->plan, now);
  return flight->plan;
}

void WorkerCore::Impl::FinishPlan(Flight* flight) {
  StepPlan& plan = flight->plan;
  if (!plan.slices.empty() && options_.block_tables)
    plan.block_begin.push_back(static_cast<int32_t>(plan.blocks.size()));
  if (plan.empty() && flight->beside == 0) return;
  plan.preempted.swap(preempted_);
  plan.step = StepId{next_step_++};
  plan.group_step = Value(plan.step);
  ++num_flights_;
}

// The policy's decision about `running` and those who wait, while `beside` others decode.
void WorkerCore::Impl::Ask(BatchPolicy* policy, absl::Span<Sequence* const> running, int32_t beside,
                           Time now) {
  waiting_.Compact();
  RefreshMatches();
  BuildViews(running);
  WorkerView view;
  view.waiting = waiting_.views();
  if (free_slots_.empty() && waiting_with_slot_ > 0) view.waiting = admissible_;
  view.running = running_views_;
  view.beside = beside;
  view.blocks_free = kv_.available();
  if (beside > 0) view.blocks_free -= static_cast<int32_t>(crossing_[PhaseNow()].size());
  view.blocks_total = options_.num_blocks;
  view.free_slots = static_cast<int32_t>(free_slots_.size());
  view.limits = limits_;
  view.totals = totals_;
  view.cost = parts_.cost.get();
  view.predictor = parts_.predictor.get();
  decision_.Clear();
  policy->Plan(view, now, &decision_);
  ++plan_serial_;
}

void WorkerCore::Impl::Decide(BatchPolicy* policy, Time now, Flight* flight) {
  Ask(policy, running_, 0, now);
  wake_ = decision_.wake;
  CommitPreemptions(decision_);
  CommitRun(decision_, flight, now);
  CommitAdmissions(decision_, flight, now);
}

bool WorkerCore::Impl::DecideBeside(Time now, Flight* flight) {
  // Blocks that are free now are enough: nothing cached is evicted, and what waits finds the same prefixes.
  const auto crossing = static_cast<int32_t>(crossing_[PhaseNow()].size());
  if (kv_.pool().num_free() < crossing) return false;
  // One token from the end of its prompt, a sequence takes turns with those who decode.
  for (const Sequence* sequence : fresh_) {
    if (sequence->num_tokens() - sequence->num_computed == 1) return false;
  }
  Ask(parts_.policy.get(), fresh_, num_apart_, now);
  int64_t need = crossing;
  for (const Grant& grant : decision_.run) {
    const Sequence* sequence = Find(grant.sequence);
    if (sequence != nullptr) need += NewBlocks(*sequence, grant.count);
  }
  if (!decision_.preempt.empty() || need > kv_.available()) return false;
  wake_ = decision_.wake;
  flight->beside = num_apart_;
  flight->shape.decodes = num_apart_;
  flight->shape.decode_context = apart_tokens_ + num_apart_;
  StartApartStep();
  kv_tokens_ += num_apart_;
  CommitRun(decision_, flight, now);
  CommitAdmissions(decision_, flight, now);
  return true;
}

void WorkerCore::Impl::RefreshMatches() {
  if (!kv_.enabled()) return;
  const absl::Span<SequenceView> views = waiting_.views();
  const absl::Span<Sequence* const> sequences = waiting_.sequences();
  for (size_t i = 0; i < views.size(); ++i) {
    Sequence* sequence = sequences[i];
    if (sequence->chain.empty()) continue;
    std::vector<BlockId>& match = sequence->match;
    if (sequence->match_version != kv_.version()) {
      // A block is published before its children and evicted after them, so the last one vouches for all.
      // Should an eviction policy break that, the view is too hopeful; admission looks at every block.
      if (!match.empty() && !kv_.Has(match.back(), sequence->chain[match.size() - 1])) match.clear();
      kv_.Match(absl::MakeSpan(sequence->chain).first(ReusableBlocks(*sequence)), sequence->ids(), &match);
      sequence->match_version = kv_.version();
    }
    views[i].cached_tokens =
        std::max(static_cast<int32_t>(match.size()) * options_.block_tokens, sequence->transferred);
    // Whoever holds a block holds its parents: held ones come first.
    const auto held_end = std::partition_point(
        match.begin(), match.end(), [&](BlockId block) { return kv_.pool().references(block) > 0; });
    views[i].shared_blocks = static_cast<int32_t>(held_end - match.begin());
  }
}

void WorkerCore::Impl::BuildViews(absl::Span<Sequence* const> running) {
  running_views_.clear();
  for (size_t i = 0; i < running.size(); ++i) {
    if (i + kPrefetchAhead < running.size()) Prefetch(running[i + kPrefetchAhead]);
    Sequence* sequence = running[i];
    if (sequence->ending()) continue;
    // Blocks that a sequence gets are its own until somebody else holds them.
    if (sequence->shared_version != kv_.sharing_version()) {
      const auto shared_end =
          std::partition_point(sequence->blocks.begin(), sequence->blocks.end(),
                               [&](BlockId block) { return kv_.pool().references(block) > 1; });
      sequence->num_shared = static_cast<int32_t>(shared_end - sequence->blocks.begin());
      sequence->shared_version = kv_.sharing_version();
    }
    SequenceView& view = running_views_.emplace_back();
    FillView(*sequence, &view);
    view.shared_blocks = sequence->num_shared;
  }
  if (!free_slots_.empty() || waiting_with_slot_ == 0) return;
  // No slot is free: only those preempted with one can be admitted, whoever waits before them.
  admissible_.clear();
  for (int32_t i = 0; i < waiting_.size(); ++i) {
    if (waiting_.sequences()[i]->slot >= 0) admissible_.push_back(waiting_.views()[i]);
  }
}

Sequence* WorkerCore::Impl::Find(SequenceId id) const {
  const auto found = sequences_.find(id);
  return found == sequences_.end() ? nullptr : found->second.get();
}

int32_t WorkerCore::Impl::NewBlocks(const Sequence& sequence, int32_t count) const {
  return std::max(0, BlocksFor(sequence.num_computed + count, options_.block_tokens) -
                         static_cast<int32_t>(sequence.blocks.size()));
}

size_t WorkerCore::Impl::ReusableBlocks(const Sequence& sequence) const {
  // The last token makes the next one; a row whose log-probabilities are wanted is computed too.
  const int32_t tokens = sequence.num_unscored > 0 ? sequence.first_unscored() : sequence.num_tokens() - 1;
  return std::min(sequence.chain.size(), static_cast<size_t>(tokens / options_.block_tokens));
}

void WorkerCore::Impl::CommitPreemptions(const BatchDecision& decision) {
  for (const SequenceId id : decision.preempt) {
    Sequence* sequence = Find(id);
    if (sequence == nullptr || sequence->state != SequenceState::kRunning || sequence->ending()) {
      ++counters_.repairs;
      continue;
    }
    Preempt(sequence);
  }
}

void WorkerCore::Impl::CommitRun(const BatchDecision& decision, Flight* flight, Time now) {
  rows_.clear();
  int32_t tokens = 0;
  int64_t need = 0;
  const std::vector<Sequence*>& listed = flight->beside > 0 ? fresh_ : running_;
  size_t next = 0;  // policies mostly grant in admission order: there the search is over before it began
  for (const Grant& grant : decision.run) {
    while (next < listed.size() && listed[next]->id < grant.sequence) ++next;
    Sequence* sequence =
        next < listed.size() && listed[next]->id == grant.sequence ? listed[next] : Find(grant.sequence);
    const bool usable = sequence != nullptr && sequence->state == SequenceState::kRunning &&
                        !sequence->ending() && sequence->planned_by != plan_serial_;
    const int32_t room = limits_.max_step_tokens - flight->beside - tokens;
    const int32_t count =
        usable ? std::min({grant.count, sequence->num_tokens() - sequence->num_computed, room}) : 0;
    if (count < 1) {
      ++counters_.repairs;
      continue;
    }
    counters_.repairs += count != grant.count;
    sequence->planned_by = plan_serial_;
    rows_.push_back({sequence, count, NewBlocks(*sequence, count)});
    tokens += count;
    need += rows_.back().need;
  }
  // The policy promised more blocks than there are: the latest admitted gives way. The last one running
  // cannot: it waits for the blocks of ended sequences that a step in flight still holds.
  while (need > kv_.available()) {
    ++counters_.repairs;
    Sequence* victim = running_.size() > 1 ? running_.back() : nullptr;
    const auto row = victim == nullptr ? rows_.end() - 1
                                       : std::find_if(rows_.begin(), rows_.end(), [&](const Row& candidate) {
                                           return candidate.sequence == victim;
                                         });
    if (row != rows_.end()) {
      need -= row->need;
      rows_.erase(row);
    }
    if (victim != nullptr) Preempt(victim);
  }
  for (const Row& row : rows_) {
    ORRERY_CHECK(kv_.Allocate(row.need, &row.sequence->blocks));
    CommitSlice(row.sequence, row.count, flight, now);
  }
}

void WorkerCore::Impl::CommitAdmissions(const BatchDecision& decision, Flight* flight, Time now) {
  for (const Grant& grant : decision.admit) {
    Sequence* sequence = Find(grant.sequence);
    const bool usable = sequence != nullptr && sequence->state == SequenceState::kWaiting &&
                        static_cast<int32_t>(running_.size()) < limits_.max_num_seqs &&
                        (sequence->slot >= 0 || !free_slots_.empty());
    const int32_t count =
        std::min(grant.count, limits_.max_step_tokens - flight->beside - flight->plan.num_tokens);
    if (!usable || count < 1 || !AdmitOne(sequence, count, flight, now)) ++counters_.repairs;
  }
}

bool WorkerCore::Impl::AdmitOne(Sequence* sequence, int32_t count, Flight* flight, Time now) {
  std::vector<BlockId>& match = sequence->match;
  match.clear();
  if (!sequence->chain.empty()) {
    kv_.Match(absl::MakeSpan(sequence->chain).first(ReusableBlocks(*sequence)), sequence->ids(), &match);
  }
  const auto found = static_cast<int32_t>(match.size()) * options_.block_tokens;
  const int32_t cached = std::max(found, sequence->transferred);
  count = std::min(count, sequence->num_tokens() - cached);
  // Holding the match first keeps it from being evicted by the blocks asked for next.
  kv_.Hold(match);
  sequence->blocks = match;
  sequence->shared_version = ~0ull;
  if (!kv_.Allocate(BlocksFor(cached + count, options_.block_tokens) - static_cast<int32_t>(match.size()),
                    &sequence->blocks)) {
    kv_.Release(sequence->blocks);
    sequence->blocks.clear();
    sequence->match_version = ~0ull;
    return false;
  }
  waiting_.Remove(sequence->id);
  waiting_with_slot_ -= sequence->slot >= 0;
  waiting_tokens_ -= std::exchange(sequence->queued_tokens, 0);
  if (sequence->slot < 0) {
    sequence->slot = static_cast<int32_t>(free_slots_.back());
    free_slots_.pop_back();
    flight->plan.admitted.push_back({sequence->id, static_cast<uint32_t>(sequence->slot), sequence->submit});
    sequence->report.first_scheduled = now;
    sequence->report.cached_tokens = found;
    if (sequence->has_ids) sequence->made.reserve(static_cast<size_t>(std::min(sequence->max_new(), 1024)));
  }
  counters_.prefix_hit_tokens += static_cast<uint64_t>(found);
  if (cached > found) {
    const KvSource& source = *sequence->submit->kv_source;
    flight->plan.kv_loads.push_back({source.transfer, sequence->id, source.worker, found, cached - found});
  }
  sequence->transferred = 0;  // after a preemption it is computed here
  sequence->state = SequenceState::kRunning;
  sequence->num_computed = sequence->num_resident = cached;
  kv_tokens_ += cached;
  prompt_left_ += sequence->prompt_left();
  sequence->num_published = static_cast<int32_t>(match.size());
  sequence->planned_by = plan_serial_;
  running_.push_back(sequence);
  if (apart_) fresh_.push_back(sequence);
  const auto by_key = [](const Sequence* a, const Sequence* b) { return a->key < b->key; };
  running_by_key_.insert(std::upper_bound(running_by_key_.begin(), running_by_key_.end(), sequence, by_key),
                         sequence);
  CommitSlice(sequence, count, flight, now);
  return true;
}

Slice WorkerCore::Impl::NextSlice(const Sequence& sequence, int32_t count) {
  Slice slice;
  slice.sequence = sequence.id;
  slice.slot = static_cast<uint32_t>(sequence.slot);
  slice.begin = sequence.num_computed;
  slice.count = count;
  slice.sample = slice.begin + count == sequence.num_tokens();
  slice.input = sequence.pending > 0 ? InputSource::kPreviousStep : InputSource::kHost;
  slice.output_index = slice.sample ? sequence.num_emitted + sequence.num_generated() : 0;
  return slice;
}

// How many rows of a slice that ends at `end` are scored. Asked once for each row: a result is delivered even
// if its sequence is preempted meanwhile.
int32_t WorkerCore::Impl::TakeScored(Sequence* sequence, int32_t end) {
  const int32_t first = sequence->first_unscored();
  const int32_t rows = std::clamp(end - first, 0, sequence->num_unscored);
  sequence->num_unscored -= rows;
  return rows;
}

void WorkerCore::Impl::CommitSlice(Sequence* sequence, int32_t count, Flight* flight, Time) {
  StepPlan& plan = flight->plan;
  Slice& slice = plan.slices.emplace_back(NextSlice(*sequence, count));
  if (sequence->num_unscored > 0) slice.num_scored = TakeScored(sequence, slice.begin + count);
  if (options_.block_tables) {
    plan.block_begin.push_back(static_cast<int32_t>(plan.blocks.size()));
    plan.blocks.insert(plan.blocks.end(), sequence->blocks.begin(), sequence->blocks.end());
  }
  plan.num_tokens += count;
  plan.num_samples += slice.sample;
  plan.num_scoring += slice.num_scored > 0;
  if (slice.sample && slice.count == 1) {
    flight->shape.AddDecode(slice.begin + 1);
  } else {
    flight->shape.AddChunk(slice.begin, slice.count);
  }
  flight->rows.push_back({sequence, sequence->epoch});
  prompt_left_ -= std::min(count, sequence->prompt_left());
  sequence->num_computed += count;
  kv_tokens_ += count;
  sequence->pending += slice.sample;
  flight->holds_next |= slice.sample && sequence->penalised && !sequence->ending();
  ++sequence->flying;
}

void WorkerCore::Impl::Preempt(Sequence* sequence) {
  ++counters_.preemptions;
  counters_.recomputed_tokens += static_cast<uint64_t>(sequence->num_computed);
  ++sequence->report.num_preemptions;
  ++sequence->epoch;
  preempted_.push_back(sequence->id);
  kv_.Release(sequence->blocks);
  sequence->blocks.clear();
  kv_tokens_ -= sequence->num_computed;
  prompt_left_ -= sequence->prompt_left();
  sequence->num_computed = sequence->num_resident = sequence->num_published = 0;
  running_.erase(std::find(running_.begin(), running_.end(), sequence));
  running_by_key_.erase(std::find(running_by_key_.begin(), running_by_key_.end(), sequence));
  if (sequence->flying == 0) {
    Queue(sequence);
    return;
  }
  // Its newest token is still in flight: back in the queue when that step is done.
  sequence->state = SequenceState::kHidden;
  sequence->queued_tokens = sequence->num_tokens();
  waiting_tokens_ += sequence->queued_tokens;
  ++num_hidden_;
}

}  // namespace orrery
