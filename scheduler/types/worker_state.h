// The snapshot a worker publishes after every step. Route policies see these plus what was sent since: a
// worker is never asked. Increments newer than `last_submission` are added on top by the reader, older ones
// dropped.
#ifndef ORRERY_SCHEDULER_TYPES_WORKER_STATE_H_
#define ORRERY_SCHEDULER_TYPES_WORKER_STATE_H_

#include <array>
#include <cstdint>
#include <vector>

#include "scheduler/base/ids.h"
#include "scheduler/base/time.h"
#include "scheduler/types/prefix_event.h"
#include "scheduler/types/request.h"
#include "scheduler/types/step_shape.h"

namespace orrery {

inline constexpr int32_t kLookaheadSteps = 10;

enum class WorkerRole : uint8_t { kMixed, kPrefill, kDecode };

struct RunningSample {
  SampleKey key;
  int32_t kv_tokens = 0;
  int32_t generated = 0;
  int32_t prefill_left = 0;  // tokens
};

struct WorkerState {
  WorkerId worker{};
  uint64_t incarnation = 0;
  WorkerRole role = WorkerRole::kMixed;
  GroupId group{};
  uint32_t rank = 0;
  uint64_t sequence_number = 0;  // ascending within an incarnation
  Time at;
  StepId step{};                 // last finished step
  uint64_t last_submission = 0;  // last Submit applied
  int64_t kv_tokens = 0;         // exact, resident
  int32_t blocks_total = 0, blocks_free = 0, blocks_cached = 0, blocks_reserved = 0, blocks_held = 0;
  int32_t free_slots = 0;
  int32_t num_running = 0, num_waiting = 0;
  int64_t waiting_prompt_tokens = 0;
  int64_t running_prompt_tokens = 0;  // of running samples' prompts, not yet computed nor in flight
  // Of kv_tokens, what belongs to samples that will have ended 1, 2... steps from now: tokens times the
  // chance of it by the length predictor. Zero beyond WorkerOptions::lookahead.
  std::array<int64_t, kLookaheadSteps> leaving_tokens{};
  std::vector<RunningSample> running;  // ascending (request, sample)
  std::vector<SampleKey> finished;     // since the last snapshot
  Duration step_time;                  // of the last step, without what it waited for the one before it
  StepShape step_shape;                // of the last step; empty where it does not tell all that took time
  bool draining = false;
  // Of the prefix cache since the last snapshot, in order, once WorkerCore::TellPrefixes has asked. Numbered
  // one after the other: the last one is prefix_event_sequence. `prefixes_anew`: what was told before is
  // void.
  std::vector<PrefixEvent> prefix_events;
  uint64_t prefix_event_sequence = 0;
  bool prefixes_anew = false;
  uint64_t expert_map_epoch = 0;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_TYPES_WORKER_STATE_H_
