// What lists of tokens beside a row of logits hold, on the CPU and on devices.
#ifndef ORRERY_KERNELS_TOKEN_LISTS_H_
#define ORRERY_KERNELS_TOKEN_LISTS_H_

#include <cstdint>

namespace orrery {

struct TokenCount {
  int32_t id = 0;
  int32_t count = 0;  // occurrences in the output, may be 0 for ids of the prompt
};

struct TokenBias {
  int32_t id = 0;
  float value = 0.0f;
};

struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0.0f;
};

}  // namespace orrery

#endif  // ORRERY_KERNELS_TOKEN_LISTS_H_
