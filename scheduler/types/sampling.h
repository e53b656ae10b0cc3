// How the next token of a sequence is chosen. Plain data: validated at the edge (server/grpc), obeyed by the
// engine's sampler, identical on every backend.
#ifndef ORRERY_SCHEDULER_TYPES_SAMPLING_H_
#define ORRERY_SCHEDULER_TYPES_SAMPLING_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "scheduler/base/ids.h"

namespace orrery {

struct Sampling {
  float temperature = 1.0f;                           // 0 is greedy, lowest id on ties
  int32_t top_k = 0;                                  // 0: off
  float top_p = 1.0f;                                 // (0, 1]
  float min_p = 0.0f;                                 // [0, 1]
  float presence_penalty = 0.0f;                      // over output ids
  float frequency_penalty = 0.0f;                     // over output ids
  float repetition_penalty = 1.0f;                    // over prompt and output ids
  std::vector<std::pair<TokenId, float>> logit_bias;  // ascending id, each id once
  uint64_t seed = 0;  // resolved at admission; draw j of a sequence is Philox(seed, j)
  int32_t num_logprobs =
      -1;  // -1: none; k: the chosen token's and the k best, from the unmodified log-softmax
  int32_t num_prompt_logprobs = -1;  // the same of every prompt token but the first, given those before it

  bool greedy() const { return temperature == 0.0f; }
  bool has_penalties() const {
    return presence_penalty != 0.0f || frequency_penalty != 0.0f || repetition_penalty != 1.0f;
  }
};

// When a sequence ends, besides being cancelled. min_tokens and max_tokens count every output id, those
// emitted by an earlier attempt included; stop ids end the sequence with the stop id as its last output.
struct StopRules {
  int32_t max_tokens = 0;         // >= 1
  int32_t min_tokens = 0;         // stop ids are masked until this many output ids exist
  std::vector<TokenId> stop_ids;  // ascending; end ids of the model unless ignore_eos, and the request's own
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_TYPES_SAMPLING_H_
