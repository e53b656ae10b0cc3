// One accepted sample inside WorkerCore, with everything that is known of it.
#ifndef ORRERY_SCHEDULER_WORKER_SEQUENCE_H_
#define ORRERY_SCHEDULER_WORKER_SEQUENCE_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "scheduler/base/hash.h"
#include "scheduler/base/ids.h"
#include "scheduler/base/time.h"
#include "scheduler/kv/block_hash.h"
#include "scheduler/types/request.h"
#include "scheduler/types/sequence_view.h"

namespace orrery {

enum class SequenceState : uint8_t {
  // Not offered to the policy: waits until the first sample of its request has computed the prompt they
  // share, or was preempted while a step with it is in flight.
  kHidden,
  kWaiting,
  kRunning,
  kEnded,  // its last event is out; kept only for the steps in flight that still name it
};

struct Sequence;

// The live samples of one request and attempt, in arrival order.
struct SampleGroup {
  RequestId request{};
  std::vector<Sequence*> members;
  int32_t num_followers = 0;  // hidden behind the prompt of another member
};

// What every step reads and writes comes first and lies together: with thousands of sequences a step is as
// fast as the cache lines it touches. Facts of the submit that are needed there are repeated there.
struct alignas(64) Sequence {
  SequenceId id{};
  SequenceState state = SequenceState::kWaiting;
  bool follower = false;      // hidden for the sake of the shared prompt
  bool poisoned = false;      // its KV gave logits that are not finite: nobody else may find it
  bool has_ids = false;       // the prompt's ids are known; else nothing is shared, as in most simulations
  bool penalised = false;     // how a token is chosen depends on all before it
  int32_t num_given = 0;      // prompt tokens and those emitted by earlier attempts
  int32_t num_made = 0;       // output tokens sampled here and known to the host
  int32_t pending = 0;        // output tokens in flight: the newest ones, not yet known
  int32_t flying = 0;         // steps in flight that name this sequence
  uint32_t epoch = 0;         // preemptions so far: rows of an earlier epoch wrote blocks that are gone
  int32_t slot = -1;          // engine slot; -1: never admitted
  int32_t num_computed = 0;   // resident or in flight
  int32_t num_resident = 0;   // written by finished steps
  int32_t num_published = 0;  // leading blocks offered to the prefix cache
  int32_t num_shared = 0;     // leading blocks that others hold too, as of shared_version
  int32_t num_emitted = 0, min_tokens = 0, max_tokens = 0;  // of the submit
  TokenId first_stop = -1;
  int32_t apart_since = -1;  // clock of the decoders apart (steady.cc) that its counts show; -1: not apart
  int32_t num_unscored = 0;  // last rows of the prompt whose log-probabilities no plan has asked for

  std::vector<BlockId> blocks;  // covers tokens [0, num_computed)
  uint64_t planned_by = 0;      // serial of the last plan with a slice for it: one slice per plan
  uint64_t shared_version = ~0ull;
  Time last_token = Time::Never();
  Slo slo;

  SampleReport report;
  Time deadline = Time::Never();
  int32_t priority = 0;
  uint32_t tenant = 0, application = 0;
  SampleKey key;
  absl::Span<const TokenId> stop_ids;  // ascending; the first is first_stop
  std::shared_ptr<const Submit> submit;

  SampleGroup* group = nullptr;
  int32_t transferred = 0;         // waiting: leading tokens whose KV another worker computed for it
  std::vector<TokenId> made;       // [num_made] with ids, else empty
  std::vector<Hash128> chain;      // names of the leading blocks whose tokens are known
  std::vector<BlockId> match;      // waiting: the cached prefix as last looked up
  uint64_t match_version = ~0ull;  // of the prefix cache at that time
  int64_t queued_tokens = 0;       // what it adds to the waiting tokens while it waits

  int32_t num_generated() const { return num_made + pending; }
  int32_t num_tokens() const { return num_given + num_generated(); }
  int32_t max_new() const { return max_tokens - num_emitted; }
  // With num_unscored > 0 (then nothing was emitted): the row of the last prompt token makes the first output
  // token, those before it the prompt's log-probabilities, and from here on they are still to be computed.
  int32_t first_unscored() const { return num_given - 1 - num_unscored; }
  int32_t prompt_left() const { return std::max(0, num_given - num_computed); }
  bool StopsAt(TokenId id) const {
    return id == first_stop ||
           (stop_ids.size() > 1 && std::binary_search(stop_ids.begin(), stop_ids.end(), id));
  }
  // All its tokens are known or in flight: it ends when they arrive.
  bool ending() const { return num_generated() >= max_new(); }
  TokenList ids() const { return {*submit->tokens, made}; }
};

// How many sequences ahead memory is asked for: enough for a trip to the outer cache.
inline constexpr size_t kPrefetchAhead = 6;
// Starts loading what a step touches of a sequence that comes up soon.
inline void Prefetch(const Sequence* sequence) {
  const char* line = reinterpret_cast<const char*>(sequence);
  for (int i = 0; i < 4; ++i) __builtin_prefetch(line + 64 * i, 1);
}

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_WORKER_SEQUENCE_H_
