// What bounds a request: the model's sizes, the operator's limits, and the model's default sampling.
#ifndef ORRERY_SERVER_REQUEST_REQUEST_LIMITS_H_
#define ORRERY_SERVER_REQUEST_REQUEST_LIMITS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "scheduler/base/ids.h"

namespace orrery {

struct RequestLimits {
  int32_t vocab_size = 0;
  int32_t max_context = 0;  // prompt + output tokens
  int32_t kv_tokens = 0;    // capacity of a worker's KV pool; bounds the default of max_tokens
  size_t max_text_bytes = 2 << 20;
  uint32_t max_choices = 64;
  uint32_t max_logprobs = 20;
  uint64_t hash_key = 0;  // secret; tenants and cache salts become numbers under it
};

// Used where a request says nothing; from generation_config.json.
struct SamplingDefaults {
  float temperature = 1.0f;
  int32_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  std::vector<TokenId> end_ids;  // ascending
};

}  // namespace orrery

#endif  // ORRERY_SERVER_REQUEST_REQUEST_LIMITS_H_
