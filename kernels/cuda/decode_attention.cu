// Budgets (registers of a thread, nothing spilled):
//   DecodeAttentionKernel 224
//   DecodeCombineKernel 40
// The first is e4m3's, bf16 takes 169: up to 255, two blocks fit a multiprocessor.
#include "kernels/cuda/decode_attention.cuh"
#include "kernels/cuda/launch.cuh"

namespace orrery::cuda {
namespace {

template <int kHeadDim>
void LaunchDecode(Stream stream, const DecodeAttentionArgs& args) {
  ForQuery(args.q_dtype, [&](auto query) {
    ForKv(args.pages.dtype, [&](auto kv) {
      Launch(&DecodeAttentionKernel<kHeadDim, decltype(query), Fault::kNone, decltype(kv)>,
             {static_cast<unsigned>(args.blocks)}, 32 * kDecodeWarps, DecodeSharedBytes(kHeadDim, sizeof(kv)),
             stream, args);
    });
  });
}

}  // namespace

void DecodeAttention(Stream stream, const DecodeAttentionArgs& args) {
  if (args.pages.head_dim == 64) {
    LaunchDecode<64>(stream, args);
  } else {
    LaunchDecode<128>(stream, args);
  }
  ForActivation(args.out_dtype, [&](auto out) {
    Launch(&DecodeCombineKernel<decltype(out)>,
           {static_cast<unsigned>(args.requests), static_cast<unsigned>(args.q_heads)}, args.pages.head_dim,
           0, stream, args);
  });
}

}  // namespace orrery::cuda
