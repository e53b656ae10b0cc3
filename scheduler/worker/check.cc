// Every invariant of WorkerCore's bookkeeping, recomputed from scratch.
#include <algorithm>
#include <vector>

#include "scheduler/base/text.h"
#include "scheduler/kv/block_ledger.h"
#include "scheduler/worker/impl.h"

namespace orrery {
namespace {

absl::Status CheckSequence(const Sequence& s, int32_t block_tokens) {
  const auto broken = [&](std::string_view what) {
    return absl::InternalError(Cat("sequence ", Value(s.id), ": ", what));
  };
  if (s.pending < 0 || s.flying < 0 || s.flying > 2) return broken("counts of steps in flight are wrong");
  if (s.state == SequenceState::kEnded) {
    return s.flying > 0 ? absl::OkStatus() : broken("ended but not retired");
  }
  if (s.has_ids && s.made.size() != static_cast<size_t>(s.num_made)) return broken("lost an output id");
  if (s.pending > s.flying) return broken("waits for a token that no step makes");
  if (s.num_generated() > s.max_new()) return broken("generates more than max_tokens");
  if (s.num_unscored < 0 || (s.num_unscored > 0 && s.num_computed > s.first_unscored())) {
    return broken("skipped a row of the prompt whose log-probabilities are wanted");
  }
  if (s.num_resident > s.num_computed || s.num_computed > s.num_tokens()) return broken("token counts");
  if (s.num_published * block_tokens > s.num_resident) return broken("published a block before it was full");
  if (static_cast<int32_t>(s.blocks.size()) != BlocksFor(s.num_computed, block_tokens)) {
    return broken("blocks do not match computed tokens");
  }
  if (s.state != SequenceState::kRunning && (s.num_computed != 0 || !s.blocks.empty())) {
    return broken("holds KV without running");
  }
  if (s.state == SequenceState::kRunning && s.slot < 0) return broken("runs without a slot");
  if (s.state == SequenceState::kWaiting && (s.flying > 0 || s.follower)) return broken("waits too early");
  if (s.state == SequenceState::kHidden && !s.follower && s.flying == 0) return broken("hidden for nothing");
  if (s.follower && s.state != SequenceState::kHidden) return broken("a follower is not hidden");
  return absl::OkStatus();
}

}  // namespace

absl::Status WorkerCore::Impl::CheckInvariants() const {
  std::vector<int32_t> references(options_.num_blocks, 0);
  std::vector<int32_t> slot_uses(limits_.max_num_seqs, 0);
  absl::flat_hash_map<SequenceId, int32_t> flying;
  size_t live = 0, waiting = 0, running = 0, with_deadline = 0;
  int32_t hidden = 0, with_slot = 0;
  int64_t tokens = 0, kv_tokens = 0, prompt_left = 0;
  for (const auto& [id, owned] : sequences_) {
    const Sequence& s = *owned;
    if (absl::Status status = CheckSequence(s, options_.block_tokens); !status.ok()) return status;
    for (const BlockId block : s.blocks) ++references[Value(block)];
    if (s.slot >= 0) ++slot_uses[s.slot];
    flying[id] = s.flying;
    if (s.state == SequenceState::kEnded) continue;
    ++live;
    with_deadline += !s.deadline.is_never();
    waiting += s.state == SequenceState::kWaiting;
    with_slot += s.state == SequenceState::kWaiting && s.slot >= 0;
    running += s.state == SequenceState::kRunning;
    kv_tokens += s.num_computed;
    if (s.state == SequenceState::kRunning) prompt_left += s.prompt_left();
    hidden += s.state == SequenceState::kHidden;
    if (s.state != SequenceState::kRunning) tokens += s.num_tokens();
    if (s.state == SequenceState::kRunning && s.shared_version == kv_.sharing_version()) {
      int32_t shared = 0;
      while (shared < static_cast<int32_t>(s.blocks.size()) && kv_.pool().references(s.blocks[shared]) > 1)
        ++shared;
      if (shared != s.num_shared) {
        return absl::InternalError(
            Cat("sequence ", Value(id), " shares ", shared, " blocks, not ", s.num_shared));
      }
    }
    const auto keyed = by_key_.find(s.key);
    if (keyed == by_key_.end() || keyed->second != &s)
      return absl::InternalError("live sample without a key");
  }
  if (absl::Status status = kv_.CheckInvariants(references); !status.ok()) return status;

  for (const uint32_t slot : free_slots_) ++slot_uses[slot];
  for (const uint32_t slot : released_slots_) ++slot_uses[slot];
  for (size_t slot = 0; slot < slot_uses.size(); ++slot) {
    if (slot_uses[slot] != 1) {
      return absl::InternalError(Cat("slot ", slot, " is accounted for ", slot_uses[slot], " times"));
    }
  }
  for (int32_t i = 0; i < num_flights_; ++i) {
    for (const FlightRow& row : flights_[(first_flight_ + i) % 2].rows) --flying[row.sequence->id];
  }
  for (const auto& [id, count] : flying) {
    if (count != 0) return absl::InternalError(Cat("sequence ", Value(id), " miscounts its steps in flight"));
  }
  if (by_key_.size() != live || deadlines_.size() != with_deadline || hidden != num_hidden_ ||
      waiting != static_cast<size_t>(waiting_.size()) || running != running_.size() ||
      running != running_by_key_.size() || with_slot != waiting_with_slot_ || tokens != waiting_tokens_ ||
      kv_tokens != kv_tokens_ || prompt_left != prompt_left_) {
    return absl::InternalError("a list or a count does not match the sequences");
  }
  if (running > static_cast<size_t>(limits_.max_num_seqs)) return absl::InternalError("too many running");
  size_t members = 0;
  for (const auto& [request, group] : groups_) {
    members += group->members.size();
    int32_t followers = 0;
    for (const Sequence* member : group->members) followers += member->follower;
    if (followers != group->num_followers || followers == static_cast<int32_t>(group->members.size())) {
      return absl::InternalError(Cat("request ", Value(request), " follows nobody"));
    }
  }
  return members == live ? absl::OkStatus() : absl::InternalError("a live sample is in no group");
}

}  // namespace orrery
