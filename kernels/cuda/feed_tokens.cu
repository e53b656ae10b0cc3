// Budgets (registers of a thread, nothing spilled):
//   FeedTokensKernel 16
#include "kernels/cuda/feed_tokens.h"
#include "kernels/cuda/launch.cuh"

namespace orrery::cuda {
namespace {

constexpr int kFeedThreads = 256;

__global__ void __launch_bounds__(kFeedThreads) FeedTokensKernel(const FeedTokensArgs args) {
  const int64_t row = int64_t{BlockX()} * kFeedThreads + ThreadX();
  if (row >= args.rows) return;
  const int32_t source = args.sources[row];
  if (source >= 0) args.ids[row] = args.sampled[source].token;
}

}  // namespace

void FeedTokens(Stream stream, const FeedTokensArgs& args) {
  const auto blocks = static_cast<unsigned>((args.rows + kFeedThreads - 1) / kFeedThreads);
  Launch(&FeedTokensKernel, {blocks}, kFeedThreads, 0, stream, args);
}

}  // namespace orrery::cuda
