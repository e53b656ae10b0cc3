// Budgets (registers of a thread, nothing spilled):
//   PrefillAttentionKernel 224
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/prefill_attention.cuh"

namespace orrery::cuda {
namespace {

template <int kHeadDim>
void LaunchPrefill(Stream stream, const PrefillAttentionArgs& args) {
  ForQuery(args.q_dtype, [&](auto query) {
    ForKv(args.pages.dtype, [&](auto kv) {
      Launch(&PrefillAttentionKernel<kHeadDim, decltype(query), Fault::kNone, decltype(kv)>,
             {static_cast<unsigned>(args.q_heads), static_cast<unsigned>(args.num_tiles)}, 32 * kPrefillWarps,
             PrefillSharedBytes(kHeadDim), stream, args);
    });
  });
}

}  // namespace

void PrefillAttention(Stream stream, const PrefillAttentionArgs& args) {
  if (args.pages.head_dim == 64) {
    LaunchPrefill<64>(stream, args);
  } else {
    LaunchPrefill<128>(stream, args);
  }
}

}  // namespace orrery::cuda
