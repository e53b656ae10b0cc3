// One sequence as a policy or a predictor sees it: plain numbers, scanned every step.
#ifndef ORRERY_SCHEDULER_TYPES_SEQUENCE_VIEW_H_
#define ORRERY_SCHEDULER_TYPES_SEQUENCE_VIEW_H_

#include <cstdint>

#include "scheduler/base/ids.h"
#include "scheduler/base/time.h"

namespace orrery {

// num_tokens = num_prompt + num_generated at all times.
struct SequenceView {
  SequenceId id{};  // ascending in arrival order
  Time arrival, first_token_deadline, next_token_deadline, deadline;
  Time first_scheduled = Time::Never();  // Never() while it has never run
  Time first_token = Time::Never();      // Never() before the first output token is known
  Time last_token = Time::Never();       // the same
  int32_t num_prompt = 0;                // tokens, emitted ones of earlier attempts included
  int32_t num_tokens = 0;                // known tokens: prompt + output, the one in flight counted
  // Tokens whose KV is resident or in flight. Running: a cached prefix is included. Waiting: 0.
  int32_t num_computed = 0;
  // Waiting only: prefix that need not be computed, since it is in the cache now (block multiple) or comes
  // with the sequence from another worker.
  int32_t cached_tokens = 0;
  int32_t num_generated = 0;   // output tokens made by this worker so far
  int32_t max_new_tokens = 0;  // output tokens this worker makes at most, in all
  int32_t num_blocks = 0;      // blocks it holds
  // Running: of those, also held by others. Waiting: blocks of the cached prefix that running sequences
  // hold; admission gets them for nothing.
  int32_t shared_blocks = 0;
  int32_t priority = 0;
  uint32_t tenant = 0;
  uint32_t application = 0;  // 0: the sequence stands for itself
  int32_t num_preemptions = 0;
  // Tokens left to compute before it can sample; 1 for a decode.
  int32_t tokens_to_compute() const { return num_tokens - num_computed; }
  bool is_decode() const { return num_generated > 0 && tokens_to_compute() == 1; }
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_TYPES_SEQUENCE_VIEW_H_
