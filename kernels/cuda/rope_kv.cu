// Budgets (registers of a thread, nothing spilled):
//   RopeKvKernel 48
#include <cmath>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/rope_kv.h"
#include "kernels/cuda/rows.cuh"

namespace orrery::cuda {
namespace {

constexpr int kRopeWarps = 4;
constexpr int kMaxPairs = 4;  // of a lane: 256 dimensions over 32 lanes

// Dimensions that a lane turns together: pair j of the rotated ones, then pairs of those that stay.
struct Pair {
  int first, second;
};
__device__ __forceinline__ Pair PairAt(int j, int head_dim, int rotary_dim) {
  const int rotated = rotary_dim / 2;
  if (j < rotated) return {j, j + rotated};
  const int rest = j - rotated;
  return {rotary_dim + rest, rotary_dim + (head_dim - rotary_dim) / 2 + rest};
}

// One warp per row and head, of queries, keys and values.
template <typename T, typename Kv>
__global__ void __launch_bounds__(32 * kRopeWarps) RopeKvKernel(const RopeKvArgs args) {
  const int lane = ThreadX() % 32;
  const int head = BlockY() * kRopeWarps + ThreadX() / 32;
  const int q_heads = args.q_heads, kv_heads = args.pages.kv_heads, head_dim = args.pages.head_dim;
  if (head >= q_heads + 2 * kv_heads) return;
  const int64_t row = BlockX();
  const bool is_query = head < q_heads, is_value = head >= q_heads + kv_heads;
  const int64_t slot = is_query ? 0 : args.slots[row];
  if (slot < 0) return;
  T* const in = static_cast<T*>(args.qkv) + (row * (q_heads + 2 * kv_heads) + head) * head_dim;

  float first[kMaxPairs], second[kMaxPairs];
  ORRERY_UNROLL
  for (int p = 0; p < kMaxPairs; ++p) {
    const int j = p * 32 + lane;
    const Pair pair = PairAt(j, head_dim, args.rotary_dim);
    const bool exists = j < head_dim / 2;
    first[p] = exists ? ToFloat(in[pair.first]) : 0.0f;
    second[p] = exists ? ToFloat(in[pair.second]) : 0.0f;
  }

  const float* gain = is_query ? args.q_gain : is_value ? nullptr : args.k_gain;
  if (gain != nullptr) {
    float squares = 0.0f;
    ORRERY_UNROLL
    for (int p = 0; p < kMaxPairs; ++p) squares += first[p] * first[p] + second[p] * second[p];
    const float total = WarpReduce<Sum>(squares);
    const float scale = 1.0f / sqrtf(total / static_cast<float>(head_dim) + args.eps);
    ORRERY_UNROLL
    for (int p = 0; p < kMaxPairs; ++p) {
      const int j = p * 32 + lane;
      if (j >= head_dim / 2) break;
      const Pair pair = PairAt(j, head_dim, args.rotary_dim);
      first[p] *= scale * gain[pair.first];
      second[p] *= scale * gain[pair.second];
    }
  }

  const float* const cosines = args.cos_sin + int64_t{args.positions[row]} * args.rotary_dim;
  Kv* cache = nullptr;
  if (!is_query) {
    const int32_t kv_head = head - q_heads - (is_value ? kv_heads : 0);
    const int64_t offset = KeyTileOffset<sizeof(Kv)>(args.pages, slot / kPageTokens, kv_head) +
                           (is_value ? ValuesAfterKeys<sizeof(Kv)>(args.pages) : 0);
    cache = reinterpret_cast<Kv*>(static_cast<std::byte*>(args.pages.base) + offset) +
            slot % kPageTokens * head_dim;
  }
  ORRERY_UNROLL
  for (int p = 0; p < kMaxPairs; ++p) {
    const int j = p * 32 + lane;
    if (j >= head_dim / 2) break;
    const Pair pair = PairAt(j, head_dim, args.rotary_dim);
    if (!is_value && j < args.rotary_dim / 2) {
      const float cosine = cosines[j], sine = cosines[args.rotary_dim / 2 + j];
      const float a = first[p], b = second[p];
      first[p] = a * cosine - b * sine;
      second[p] = b * cosine + a * sine;
    }
    if (is_query) {
      Store(in + pair.first, first[p]);
      Store(in + pair.second, second[p]);
    } else {
      Store(cache + pair.first, first[p]);
      Store(cache + pair.second, second[p]);
    }
  }
}

}  // namespace

void RopeAndWriteKv(Stream stream, const RopeKvArgs& args) {
  const int heads = args.q_heads + 2 * args.pages.kv_heads;
  const Grid grid{static_cast<unsigned>(args.rows),
                  static_cast<unsigned>((heads + kRopeWarps - 1) / kRopeWarps)};
  ForQuery(args.dtype, [&](auto element) {
    ForKv(args.pages.dtype, [&](auto kv) {
      Launch(&RopeKvKernel<decltype(element), decltype(kv)>, grid, 32 * kRopeWarps, 0, stream, args);
    });
  });
}

}  // namespace orrery::cuda
