// The token ids of a step whose rows continue the step before: what that one sampled goes to the rows that
// read it without the host having seen it.
#ifndef ORRERY_KERNELS_CUDA_FEED_TOKENS_H_
#define ORRERY_KERNELS_CUDA_FEED_TOKENS_H_

#include <cstdint>

#include "kernels/cuda/sample.h"
#include "kernels/cuda/stream.h"

namespace orrery::cuda {

struct FeedTokensArgs {
  const int32_t* sources = nullptr;       // [rows] index into `sampled`; -1: the row keeps its id
  const SampledToken* sampled = nullptr;  // of the step before, whatever their status
  int32_t* ids = nullptr;                 // [rows]
  int64_t rows = 0;
};

// ids[i] = sampled[sources[i]].token, where there is a source.
void FeedTokens(Stream stream, const FeedTokensArgs& args);

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_FEED_TOKENS_H_
