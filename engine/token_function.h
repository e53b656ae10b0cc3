// Tokens without a model: a pure function of who asks and at which output index, so that executors which
// compute nothing (fake, modelled) give the same text alone, in any batch, after preemption and on a retry.
#ifndef ORRERY_ENGINE_TOKEN_FUNCTION_H_
#define ORRERY_ENGINE_TOKEN_FUNCTION_H_

#include <cstdint>

#include "scheduler/base/ids.h"
#include "scheduler/base/random.h"
#include "scheduler/types/request.h"

namespace orrery {

// In [first_id, vocab_size): ids below first_id (end and special ids, by default 3) never occur. The attempt
// is not part of it.
inline TokenId TokenAt(const SampleKey& key, int32_t output_index, int32_t vocab_size, TokenId first_id = 3) {
  if (vocab_size <= first_id) return vocab_size - 1;
  RandomStream draw(Value(key.request) * 0x9E3779B97F4A7C15u + static_cast<uint64_t>(output_index),
                    key.sample);
  return first_id + static_cast<TokenId>(draw.Below(static_cast<uint64_t>(vocab_size - first_id)));
}

}  // namespace orrery

#endif  // ORRERY_ENGINE_TOKEN_FUNCTION_H_
