// One accepted sample inside WorkerCore, with everything that is known of it.
#ifndef ORRERY_SCHEDULER_WORKER_SEQUENCE_H_
#define ORRERY_SCHEDULER_WORKER_SEQUENCE_H_

#include <cstdint>
#include <memory>
#include <vector>

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

struct Sequence {
  SequenceId id{};
  std::shared_ptr<const Submit> submit;
  SampleGroup* group = nullptr;
  SequenceState state = SequenceState::kWaiting;
  bool follower = false;  // hidden for the sake of the shared prompt

  int32_t num_given = 0;      // prompt tokens and those emitted by earlier attempts
  std::vector<TokenId> made;  // output ids sampled here and known to the host
  int32_t pending = 0;        // output ids in flight: the newest tokens, not yet known
  int32_t flying = 0;         // steps in flight that name this sequence
  uint32_t epoch = 0;         // preemptions so far: rows of an earlier epoch wrote blocks that are gone

  int32_t slot = -1;               // engine slot; -1: never admitted
  std::vector<BlockId> blocks;     // covers tokens [0, num_computed)
  int32_t transferred = 0;         // waiting: leading tokens whose KV another worker computed for it
  int32_t num_computed = 0;        // resident or in flight
  int32_t num_resident = 0;        // written by finished steps
  int32_t num_published = 0;       // leading blocks offered to the prefix cache
  std::vector<Hash128> chain;      // names of the leading blocks whose tokens are known
  std::vector<BlockId> match;      // waiting: the cached prefix as last looked up
  uint64_t match_version = ~0ull;  // of the prefix cache at that time
  uint64_t planned_by = 0;         // serial of the last plan with a slice for it: one slice per plan
  int64_t queued_tokens = 0;       // what it adds to the waiting tokens while it waits

  bool poisoned = false;  // its KV gave logits that are not finite: nobody else may find it
  Time last_token = Time::Never();
  SampleReport report;

  int32_t num_generated() const { return static_cast<int32_t>(made.size()) + pending; }
  int32_t num_tokens() const { return num_given + num_generated(); }
  int32_t max_new() const { return submit->stop.max_tokens - submit->num_emitted; }
  // All its tokens are known or in flight: it ends when they arrive.
  bool ending() const { return num_generated() >= max_new(); }
  bool has_ids() const { return submit->tokens != nullptr && !submit->tokens->empty(); }
  TokenList ids() const { return {*submit->tokens, made}; }
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_WORKER_SEQUENCE_H_
