// Norm, gate, gather, narrowing, rotation with KV write, copies of pages and products of few rows, on the
// emulator, against double precision.
#include <algorithm>
#include <array>
#include <numeric>

#include "kernels/cuda/copy_units.h"
#include "kernels/cuda/feed_tokens.h"
#include "kernels/cuda/gather_rows.h"
#include "kernels/cuda/narrow.h"
#include "kernels/cuda/page_table.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/rope_kv.h"
#include "kernels/cuda/silu_mul.h"
#include "kernels/cuda/skinny_matmul.h"
#include "tests/kernels/cuda/kernel_test.h"

namespace orrery::cuda {
namespace {

using RowKernelsTest = KernelTest;

TEST_F(RowKernelsTest, AddAndNorm) {
  for (int round = 0; round < 60; ++round) {
    NextCase();
    const int rows = Uniform(1, 4);
    const int hidden = 8 * (round % 20 == 0 ? Uniform(1025, 2048) : Uniform(1, 200));
    const bool adds = Uniform(0, 3) > 0;
    const float eps = 1e-5f;
    const std::vector<float> before = Normal(rows * hidden, 3.0f), gain = Normal(hidden);
    Elements delta(Activation(), Normal(rows * hidden)), out(Activation(), rows * hidden);
    std::vector<float> residual = before;
    AddRmsNorm(nullptr, {.residual = residual.data(),
                         .delta = adds ? delta.data() : nullptr,
                         .delta_dtype = delta.dtype(),
                         .gain = gain.data(),
                         .eps = eps,
                         .rows = rows,
                         .hidden = hidden,
                         .out = out.data(),
                         .out_dtype = out.dtype()});
    std::vector<double> expected(rows * hidden);
    for (int r = 0; r < rows; ++r) {
      double squares = 0;
      for (int c = 0; c < hidden; ++c) {
        const size_t i = r * hidden + c;
        const float sum = before[i] + (adds ? delta[i] : 0.0f);
        ASSERT_EQ(residual[i], sum);
        squares += double{sum} * sum;
      }
      for (int c = 0; c < hidden; ++c) {
        expected[r * hidden + c] = residual[r * hidden + c] / std::sqrt(squares / hidden + eps) * gain[c];
      }
    }
    ASSERT_LT(RelativeError(out, expected), Tolerance(out.dtype())) << rows << " x " << hidden;
  }
}

TEST_F(RowKernelsTest, Gate) {
  for (int round = 0; round < 60; ++round) {
    NextCase();
    const int rows = Uniform(1, 5), inner = 8 * Uniform(1, 150);
    Elements in(Activation(), Normal(rows * inner * 2, 4.0f)), out(Activation(), rows * inner);
    in.Set(0, -200.0f);  // exp overflows
    SiluMul(nullptr, {.gate_up = in.data(),
                      .dtype = in.dtype(),
                      .rows = rows,
                      .inner = inner,
                      .out = out.data(),
                      .out_dtype = out.dtype()});
    std::vector<double> expected(rows * inner);
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < inner; ++c) {
        const double gate = in[r * inner * 2 + c], up = in[r * inner * 2 + inner + c];
        expected[r * inner + c] = gate / (1 + std::exp(-gate)) * up;
      }
    }
    ASSERT_LT(RelativeError(out, expected), Tolerance(out.dtype())) << rows << " x " << inner;
  }
}

TEST_F(RowKernelsTest, NarrowingRoundsToNearest) {
  for (int round = 0; round < 60; ++round) {
    NextCase();
    const DType dtype = round % 2 == 0 ? DType::kBF16 : DType::kF16;
    const int64_t count = 8 * Uniform(1, 700);
    std::vector<float> in = Normal(count, std::exp2(static_cast<float>(Uniform(-24, 18))));
    // f16's largest number, what rounds to it, ties to even, and what is infinite; subnormals.
    constexpr std::array kEdges = {65504.0f,   65519.99f,  65520.0f, 1e30f,
                                   0x1.002p0f, 0x1.006p0f, 0x1p-25f, -0.0f};
    std::copy(kEdges.begin(), kEdges.end(), in.begin());
    Elements out(dtype, count);
    Narrow(nullptr, {.in = in.data(), .out = out.data(), .out_dtype = dtype, .count = count});
    ASSERT_EQ(out, Elements(dtype, in));
  }
}

TEST_F(RowKernelsTest, GatherIsExact) {
  for (int round = 0; round < 60; ++round) {
    NextCase();
    const DType dtype = std::array{DType::kF32, DType::kBF16, DType::kF16}[round % 3];
    const int table_rows = Uniform(1, 50), rows = Uniform(0, 9), hidden = 8 * Uniform(1, 300);
    Elements table(dtype, Normal(table_rows * hidden)), out(DType::kF32, rows * hidden);
    std::vector<int32_t> ids(rows);
    for (int32_t& id : ids) id = Uniform(0, table_rows - 1);
    GatherRows(nullptr, {.table = table.data(),
                         .dtype = dtype,
                         .hidden = hidden,
                         .ids = ids.data(),
                         .rows = rows,
                         .out = out.as<float>()});
    for (int i = 0; i < rows * hidden; ++i) {
      ASSERT_EQ(out[i], table[ids[i / hidden] * hidden + i % hidden]);
    }
  }
}

TEST_F(RowKernelsTest, FedTokensTakeThePlaceOfIdsThatHaveASource) {
  for (int round = 0; round < 60; ++round) {
    NextCase();
    const int samples = Uniform(1, 300), rows = Uniform(0, 600);
    std::vector<SampledToken> sampled(samples);
    for (SampledToken& token : sampled) token = {Uniform(0, 1 << 20), SampleStatus::kOk, 0.5f, 7};
    std::vector<int32_t> sources(rows), ids(rows);
    for (int32_t& source : sources) source = Uniform(0, 2) > 0 ? Uniform(0, samples - 1) : -1;
    std::iota(ids.begin(), ids.end(), -1000);
    std::vector<int32_t> expected = ids;
    for (int i = 0; i < rows; ++i) {
      if (sources[i] >= 0) expected[i] = sampled[sources[i]].token;
    }
    FeedTokens(nullptr,
               {.sources = sources.data(), .sampled = sampled.data(), .ids = ids.data(), .rows = rows});
    ASSERT_EQ(ids, expected);
  }
}

TEST_F(RowKernelsTest, PageTableTakesRuns) {
  for (int round = 0; round < 20; ++round) {
    NextCase();
    const int size = Uniform(1, 600);
    std::vector<int32_t> table(size), pages(size);
    std::iota(table.begin(), table.end(), 0);
    std::iota(pages.begin(), pages.end(), 1000);
    std::vector<int32_t> expected = table;
    std::vector<PageRun> runs;
    for (int to = Uniform(0, 9), from = 0; to < size && Uniform(0, 5) > 0;) {
      const int count = std::min(size - to, Uniform(0, 1) == 0 ? 1 : Uniform(1, 300));
      runs.push_back({.to = to, .from = from, .count = count});
      std::copy_n(pages.begin() + from, count, expected.begin() + to);
      from += count;
      to += count + Uniform(0, 9);
    }
    UpdatePageTable(nullptr, {.table = table.data(),
                              .pages = pages.data(),
                              .runs = runs.data(),
                              .num_runs = static_cast<int32_t>(runs.size())});
    ASSERT_EQ(table, expected);
  }
}

TEST_F(RowKernelsTest, RotationNormAndKvWrite) {
  for (int round = 0; round < 60; ++round) {
    NextCase();
    const int kv_heads = Uniform(1, 3), q_heads = kv_heads * Uniform(1, 3);
    const int head_dim = std::array{16, 64, 80, 96, 128, 256}[Uniform(0, 5)];
    const int rotary_dim = Uniform(0, 2) > 0 ? head_dim : 2 * Uniform(1, head_dim / 2);
    const int rows = Uniform(1, 6), heads = q_heads + 2 * kv_heads, max_position = 40;
    const bool norm_q = Uniform(0, 1), norm_k = Uniform(0, 1);
    const float eps = 1e-6f;
    const Elements before(QueryType(), Normal(rows * heads * head_dim));
    Elements qkv = before;
    const std::vector<float> q_gain = Normal(head_dim), k_gain = Normal(head_dim);
    std::vector<float> cos_sin(max_position * rotary_dim);
    for (float& x : cos_sin) x = std::uniform_real_distribution<float>(-1, 1)(random_);
    std::vector<int32_t> positions(rows);
    for (int32_t& p : positions) p = Uniform(0, max_position - 1);

    const int num_pages = 5;
    std::vector<int64_t> slots(num_pages * kPageTokens);
    std::iota(slots.begin(), slots.end(), 0);
    std::shuffle(slots.begin(), slots.end(), random_);
    slots.resize(rows);
    if (Uniform(0, 2) == 0) slots[0] = -1;
    const DType kv_dtype = round % 3 == 0 ? DType::kE4M3 : DType::kBF16;
    const auto element_bytes = static_cast<int64_t>(SizeOf(kv_dtype));
    const int64_t page_stride = PageBytes(kv_heads, head_dim, kv_dtype) + 16 * Uniform(0, 3);
    Elements pool(kv_dtype, num_pages * page_stride / element_bytes);
    const KvPages pages{pool.data(), page_stride, kv_heads, head_dim, kv_dtype};

    RopeAndWriteKv(nullptr, {.qkv = qkv.data(),
                             .dtype = qkv.dtype(),
                             .rows = rows,
                             .q_heads = q_heads,
                             .pages = pages,
                             .rotary_dim = rotary_dim,
                             .cos_sin = cos_sin.data(),
                             .positions = positions.data(),
                             .q_gain = norm_q ? q_gain.data() : nullptr,
                             .k_gain = norm_k ? k_gain.data() : nullptr,
                             .eps = eps,
                             .slots = slots.data()});

    Elements left = pool;  // what of the pool was not to be written
    for (int r = 0; r < rows; ++r) {
      for (int h = 0; h < heads; ++h) {
        const bool is_query = h < q_heads, is_value = h >= q_heads + kv_heads;
        std::vector<double> x(head_dim);
        double squares = 0;
        for (int d = 0; d < head_dim; ++d) {
          x[d] = before[(r * heads + h) * head_dim + d];
          squares += x[d] * x[d];
        }
        if (!is_value && (is_query ? norm_q : norm_k)) {
          for (int d = 0; d < head_dim; ++d) {
            x[d] *= (is_query ? q_gain : k_gain)[d] / std::sqrt(squares / head_dim + eps);
          }
        }
        for (int j = 0; j < rotary_dim / 2 && !is_value; ++j) {
          const double cosine = cos_sin[positions[r] * rotary_dim + j];
          const double sine = cos_sin[positions[r] * rotary_dim + rotary_dim / 2 + j];
          const double a = x[j], b = x[j + rotary_dim / 2];
          x[j] = a * cosine - b * sine;
          x[j + rotary_dim / 2] = b * cosine + a * sine;
        }
        Elements written(is_query ? qkv.dtype() : kv_dtype, head_dim);
        if (is_query) {
          for (int d = 0; d < head_dim; ++d) written.Set(d, qkv[(r * heads + h) * head_dim + d]);
        } else if (slots[r] >= 0) {
          // The layout as kv_pages.h describes it: [K|V][kv_head][16 tokens][head_dim].
          const int kv_head = (h - q_heads) % kv_heads;
          const int64_t tile = slots[r] / 16 * page_stride / element_bytes +
                               ((is_value ? kv_heads : 0) + kv_head) * 16 * head_dim +
                               slots[r] % 16 * head_dim;
          for (int d = 0; d < head_dim; ++d) {
            written.Set(d, pool[tile + d]);
            left.Set(tile + d, NAN);
          }
        } else {
          continue;
        }
        if (written.dtype() == DType::kE4M3) {
          // Half a step of three bits of mantissa, of the smallest normal number at least; x is of f32.
          for (int d = 0; d < head_dim; ++d) {
            const double magnitude = std::max(std::fabs(x[d]), 0x1p-6);
            ASSERT_LE(std::fabs(written[d] - x[d]),
                      std::exp2(std::floor(std::log2(magnitude)) - 4) * (1 + 1e-4))
                << "head " << h << " " << x[d];
          }
          continue;
        }
        ASSERT_LT(RelativeError(written, x), Tolerance(written.dtype())) << "head " << h;
      }
    }
    for (size_t i = 0; i < left.size(); ++i) ASSERT_TRUE(std::isnan(left[i]));
  }
}

TEST_F(RowKernelsTest, UnitsAreCopiedGatheredAndScattered) {
  for (int round = 0; round < 40; ++round) {
    NextCase();
    const int units = Uniform(1, 12), count = Uniform(1, units);
    const int64_t unit_bytes = 16 * (round % 8 == 0 ? Uniform(1500, 2500) : Uniform(1, 300));
    const int64_t source_stride = unit_bytes + 16 * Uniform(0, 2),
                  target_stride = unit_bytes + 16 * Uniform(0, 2);
    std::vector<uint8_t> source(units * source_stride), target(units * target_stride, 0);
    for (uint8_t& byte : source) byte = static_cast<uint8_t>(random_());
    const auto some = [&] {
      std::vector<int32_t> ids(units);
      std::iota(ids.begin(), ids.end(), 0);
      std::shuffle(ids.begin(), ids.end(), random_);
      ids.resize(count);
      return ids;
    };
    const std::vector<int32_t> from = some(), to = some();
    const bool gathers = round % 3 != 1, scatters = round % 3 != 2;
    CopyUnits(nullptr, {.source = source.data(),
                        .source_stride = source_stride,
                        .source_ids = gathers ? from.data() : nullptr,
                        .target = target.data(),
                        .target_stride = target_stride,
                        .target_ids = scatters ? to.data() : nullptr,
                        .unit_bytes = unit_bytes,
                        .count = count});
    std::vector<uint8_t> expected(target.size(), 0);
    for (int i = 0; i < count; ++i) {
      std::copy_n(source.begin() + (gathers ? from[i] : i) * source_stride, unit_bytes,
                  expected.begin() + (scatters ? to[i] : i) * target_stride);
    }
    ASSERT_EQ(target, expected);
  }
}

TEST_F(RowKernelsTest, ProductsOfFewRows) {
  for (int round = 0; round < 80; ++round) {
    NextCase();
    const bool gated = Uniform(0, 1), biased = Uniform(0, 1), adds = Uniform(0, 1);
    const int rows = Uniform(1, kMaxSkinnyRows), columns = Uniform(1, 40), n = gated ? 2 * columns : columns;
    // Long enough to be shared by 2, 4 or 8 warps at times.
    const int k = 8 * (round % 8 == 0 ? Uniform(128, 700) : Uniform(1, 60));
    const DType dtype = round % 2 == 0 ? DType::kBF16 : DType::kF16;
    Elements x(dtype, Normal(rows * k)), weight(dtype, Normal(n * k, 1.0f / std::sqrt(k)));
    const std::vector<float> bias = Normal(n), residual = Normal(rows * columns);
    Elements out(Activation(), rows * columns);
    SkinnyMatMulArgs args{.x = x.data(),
                          .dtype = dtype,
                          .rows = rows,
                          .weight = weight.data(),
                          .n = n,
                          .k = k,
                          .gated = gated,
                          .bias = biased ? bias.data() : nullptr,
                          .residual = adds ? residual.data() : nullptr,
                          .out = out.data(),
                          .out_dtype = out.dtype()};
    SkinnyMatMul(nullptr, args);
    std::vector<double> expected(rows * columns);
    for (int m = 0; m < rows; ++m) {
      const auto product = [&](int row_of_weight) {
        double sum = biased ? bias[row_of_weight] : 0.0;
        for (int i = 0; i < k; ++i) sum += double{x[m * k + i]} * weight[row_of_weight * k + i];
        return sum;
      };
      for (int c = 0; c < columns; ++c) {
        double value = product(c);
        if (gated) value = value / (1 + std::exp(-value)) * product(columns + c);
        expected[m * columns + c] = value + (adds ? residual[m * columns + c] : 0.0f);
      }
    }
    ASSERT_LT(RelativeError(out, expected), Tolerance(out.dtype())) << rows << " x " << n << " x " << k;

    // The last row by itself: the same bits.
    Elements alone(out.dtype(), columns);
    args.x = x.as<uint16_t>() + (rows - 1) * k;
    args.rows = 1;
    if (adds) args.residual = residual.data() + (rows - 1) * columns;
    args.out = alone.data();
    SkinnyMatMul(nullptr, args);
    for (int c = 0; c < columns; ++c) ASSERT_EQ(alone[c], out[(rows - 1) * columns + c]);
  }
}

}  // namespace
}  // namespace orrery::cuda
