// Budgets (registers of a thread, nothing spilled):
//   SkinnyMatMulKernel 128
#include <cmath>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/skinny_matmul.h"

namespace orrery::cuda {
namespace {

constexpr int kSkinnyWarps = 8;
constexpr int kWarpRows = 4;  // rows of W that a warp reads side by side: as many loads in flight
// Warps that keep enough loads in flight on every multiprocessor (24 of 132), and the least of k for each.
constexpr int64_t kWantedWarps = 24 * 132;
constexpr int64_t kLeastPart = 512;

// Blocks on a multiprocessor, as many as have registers enough: left to choose (0), the compiler spills for
// one more but where there is one row.
template <int kRows, bool kGated>
inline constexpr int kSkinnyBlocks = kRows == 1                    ? 0
                                     : kRows*(kGated ? 2 : 1) <= 4 ? 3
                                                                   : 2;

// Warps share k by `split`, a power of two: warp w has part w % split of row group w / split of its block.
// Gated, a group is two rows of gate and the same two of up.
// T is the type of x and W; that of out is asked for once per value, which would double the kernels
// otherwise.
template <int kRows, typename T, bool kGated>
__global__ void __launch_bounds__(32 * kSkinnyWarps, kSkinnyBlocks<kRows, kGated>)
    SkinnyMatMulKernel(const SkinnyMatMulArgs args, const int split) {
  ORRERY_SHARED_MEMORY(shared);
  auto* const partial = reinterpret_cast<float*>(shared);       // [warp][kWarpRows][kRows]
  constexpr int kColumns = kGated ? kWarpRows / 2 : kWarpRows;  // of out, of a group
  const int warp = ThreadX() / 32, lane = ThreadX() % 32;
  const int64_t columns = kGated ? args.n / 2 : args.n;
  const int64_t first_group = int64_t{BlockX()} * (kSkinnyWarps / split);
  const int64_t first_column = (first_group + warp / split) * kColumns;

  const T* weights[kWarpRows];
  ORRERY_UNROLL
  for (int r = 0; r < kWarpRows; ++r) {
    int64_t column = first_column + r % kColumns;
    if (column >= columns) column = columns - 1;  // read, and not written
    weights[r] = static_cast<const T*>(args.weight) + (column + r / kColumns * columns) * args.k;
  }
  float sums[kWarpRows][kRows] = {};
  for (int64_t i = (int64_t{warp % split} * 32 + lane) * kRowVector; i < args.k;
       i += int64_t{32} * kRowVector * split) {
    HalfVector<T> w[kWarpRows];
    ORRERY_UNROLL
    for (int r = 0; r < kWarpRows; ++r) w[r] = LoadVector<HalfVector<T>>(weights[r] + i);
    ORRERY_UNROLL
    for (int m = 0; m < kRows; ++m) {
      if (m >= args.rows) break;
      float x[kRowVector];
      LoadRow(static_cast<const T*>(args.x) + m * args.k + i, x);
      ORRERY_UNROLL
      for (int r = 0; r < kWarpRows; ++r) {
        ORRERY_UNROLL
        for (int e = 0; e < kRowVector; ++e) sums[r][m] += ToFloat(w[r].values[e]) * x[e];
      }
    }
  }
  ORRERY_UNROLL
  for (int r = 0; r < kWarpRows; ++r) {
    ORRERY_UNROLL
    for (int m = 0; m < kRows; ++m) {
      const float sum = WarpReduce<Sum>(sums[r][m]);
      if (lane == 0) partial[(warp * kWarpRows + r) * kRows + m] = sum;
    }
  }
  SyncBlock();

  const int groups = kSkinnyWarps / split;
  for (int e = ThreadX(); e < groups * kColumns * kRows; e += BlockThreads()) {
    const int m = e % kRows, c = e / kRows % kColumns, group = e / kRows / kColumns;
    const int64_t column = (first_group + group) * kColumns + c;
    if (m >= args.rows || column >= columns) continue;
    const auto product = [&](int r, int64_t row_of_weight) {
      float sum = args.bias != nullptr ? args.bias[row_of_weight] : 0.0f;
      for (int part = 0; part < split; ++part) {
        sum += partial[((group * split + part) * kWarpRows + r) * kRows + m];
      }
      return sum;
    };
    float value = product(c, column);
    if constexpr (kGated) value = value / (1.0f + expf(-value)) * product(kColumns + c, columns + column);
    if (args.residual != nullptr) value += args.residual[m * columns + column];
    StoreAs(args.out_dtype, args.out, m * columns + column, value);
  }
}

template <int kRows>
void LaunchSkinny(Stream stream, const SkinnyMatMulArgs& args) {
  const int64_t row_groups = (args.n + kWarpRows - 1) / kWarpRows;
  // By the weights' shape alone: the order of additions must not depend on the batch.
  int split = 1;
  while (split < kSkinnyWarps && row_groups * split < kWantedWarps && args.k / (2 * split) >= kLeastPart) {
    split *= 2;
  }
  const int64_t per_block = kSkinnyWarps / split;
  const Grid grid{static_cast<unsigned>((row_groups + per_block - 1) / per_block)};
  const size_t shared_bytes = sizeof(float) * kSkinnyWarps * kWarpRows * kRows;
  ForHalf(args.dtype, [&](auto element) {
    using T = decltype(element);
    if (args.gated) {
      Launch(&SkinnyMatMulKernel<kRows, T, true>, grid, 32 * kSkinnyWarps, shared_bytes, stream, args, split);
    } else {
      Launch(&SkinnyMatMulKernel<kRows, T, false>, grid, 32 * kSkinnyWarps, shared_bytes, stream, args,
             split);
    }
  });
}

}  // namespace

void SkinnyMatMul(Stream stream, const SkinnyMatMulArgs& args) {
  if (args.rows == 1) {
    LaunchSkinny<1>(stream, args);
  } else if (args.rows == 2) {
    LaunchSkinny<2>(stream, args);
  } else if (args.rows <= 4) {
    LaunchSkinny<4>(stream, args);
  } else {
    LaunchSkinny<8>(stream, args);
  }
}

}  // namespace orrery::cuda
