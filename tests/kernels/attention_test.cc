// Paged attention, rotation and the KV write against double precision, on ragged steps of random slices, for
// every KV type, head shape and instruction set; and bitwise equality between ways of cutting the same work.
#include "kernels/cpu/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/rope.h"

namespace orrery {
namespace {

struct Case {
  AttentionShape shape;
  int rotary_dim;
  bool qk_norm;
};

std::string NameOf(const Case& c) {
  return std::to_string(c.shape.num_q_heads) + "x" + std::to_string(c.shape.num_kv_heads) + "x" +
         std::to_string(c.shape.head_dim) + " " + std::string(NameOf(c.shape.kv_dtype));
}

// A sequence with the fused projections of all its tokens, and where it is kept.
struct Sequence {
  int length;
  std::vector<float> qkv;      // [length, qkv_stride]
  std::vector<int32_t> table;  // block table
};

struct Pool {
  std::vector<float> memory;  // f32 for alignment of any dtype
  KvPoolView view;
};

// Blocks full of NaN: whatever is read without having been written shows.
Pool MakePool(const AttentionShape& shape, int blocks) {
  Pool pool;
  const int64_t stride = (KvBlockBytes(shape) + 63) / 64 * 64;
  pool.memory.resize(stride / 4 * blocks + 16);
  std::memset(pool.memory.data(), 0xff, pool.memory.size() * 4);
  const auto address = reinterpret_cast<uintptr_t>(pool.memory.data());
  pool.view = {.base = reinterpret_cast<void*>((address + 63) / 64 * 64), .block_stride = stride};
  return pool;
}

std::vector<Sequence> MakeSequences(const AttentionShape& shape, const std::vector<int>& lengths,
                                    std::mt19937& random, int* num_blocks) {
  std::normal_distribution<float> normal;
  int blocks = 0;
  for (int length : lengths) blocks += (length + kKvBlockTokens - 1) / kKvBlockTokens;
  std::vector<int32_t> ids(blocks);
  std::iota(ids.begin(), ids.end(), 0);
  std::shuffle(ids.begin(), ids.end(), random);
  *num_blocks = blocks;
  std::vector<Sequence> sequences;
  for (int length : lengths) {
    Sequence sequence{.length = length, .qkv = {}, .table = {}};
    sequence.qkv.resize(length * shape.qkv_stride());
    for (float& x : sequence.qkv) x = normal(random);
    for (int b = 0; b * kKvBlockTokens < length; ++b) {
      sequence.table.push_back(ids.back());
      ids.pop_back();
    }
    sequences.push_back(std::move(sequence));
  }
  return sequences;
}

struct Gains {
  std::vector<float> q, k, inv_freq;
};

Gains MakeGains(const Case& c, std::mt19937& random) {
  std::uniform_real_distribution<float> uniform(0.5f, 1.5f);
  Gains gains;
  for (int d = 0; d < c.shape.head_dim; ++d) {
    gains.q.push_back(uniform(random));
    gains.k.push_back(uniform(random));
  }
  for (int j = 0; j < c.rotary_dim / 2; ++j) {
    gains.inv_freq.push_back(static_cast<float>(std::pow(10000.0, -2.0 * j / c.rotary_dim)));
  }
  return gains;
}

// One piece of a sequence in a step.
struct Piece {
  int sequence, begin, count;
};

// Runs steps, each a list of pieces, over a fresh pool; returns per sequence the outputs of all its rows.
std::vector<std::vector<float>> RunSteps(const Case& c, const std::vector<Sequence>& sequences, int blocks,
                                         const std::vector<std::vector<Piece>>& steps, const Gains& gains,
                                         int num_threads, RowsOut kind = {}) {
  const AttentionShape& shape = c.shape;
  Pool pool = MakePool(shape, blocks);
  ThreadPool threads(num_threads);
  int64_t max_rows = 1, max_slices = 1;
  for (const auto& step : steps) {
    int64_t rows = 0;
    for (const Piece& piece : step) rows += piece.count;
    max_rows = std::max(max_rows, rows);
    max_slices = std::max<int64_t>(max_slices, step.size());
  }
  AttentionPlan plan(shape, max_rows, max_slices, num_threads);
  const int64_t out_width = int64_t{shape.num_q_heads} * shape.head_dim;
  std::vector<std::vector<float>> results;
  for (const Sequence& s : sequences) results.emplace_back(s.length * out_width, NAN);
  for (const auto& step : steps) {
    std::vector<KvSlice> slices;
    std::vector<float> qkv;
    int32_t row = 0;
    for (const Piece& piece : step) {
      const Sequence& s = sequences[piece.sequence];
      slices.push_back({row, piece.count, piece.begin, s.table.data()});
      qkv.insert(qkv.end(), s.qkv.begin() + piece.begin * shape.qkv_stride(),
                 s.qkv.begin() + (piece.begin + piece.count) * shape.qkv_stride());
      row += piece.count;
    }
    plan.Build(slices.data(), slices.size());
    std::vector<float> cos_sin(row * c.rotary_dim);
    RopeAngles(threads, plan.positions(), row, gains.inv_freq.data(), c.rotary_dim / 2, cos_sin.data());
    RopeAndWriteKv(threads, {.shape = shape,
                             .qkv = qkv.data(),
                             .rows = row,
                             .cos_sin = cos_sin.data(),
                             .rotary_dim = c.rotary_dim,
                             .q_gain = c.qk_norm ? gains.q.data() : nullptr,
                             .k_gain = c.qk_norm ? gains.k.data() : nullptr,
                             .eps = 1e-6f,
                             .kv_slots = plan.kv_slots(),
                             .pool = pool.view});
    std::vector<float> out(row * out_width);
    const float scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
    PagedAttention(threads, plan, qkv.data(), pool.view, scale, {out.data(), kind.dtype});
    if (kind.dtype == DType::kBF16) {
      std::vector<uint16_t> bits(out.size());
      std::memcpy(bits.data(), out.data(), bits.size() * 2);
      for (size_t i = 0; i < out.size(); ++i) out[i] = F32FromBF16(bits[i]);
    }
    row = 0;
    for (const Piece& piece : step) {
      std::copy_n(out.begin() + row * out_width, piece.count * out_width,
                  results[piece.sequence].begin() + piece.begin * out_width);
      row += piece.count;
    }
  }
  return results;
}

void ReferenceRope(const Case& c, const Gains& gains, const std::vector<float>& gain, int position,
                   double* head) {
  const int dim = c.shape.head_dim, half = c.rotary_dim / 2;
  if (c.qk_norm) {
    double squares = 0;
    for (int d = 0; d < dim; ++d) squares += head[d] * head[d];
    for (int d = 0; d < dim; ++d) head[d] *= gain[d] / std::sqrt(squares / dim + 1e-6);
  }
  for (int j = 0; j < half; ++j) {
    const float angle = static_cast<float>(position) * gains.inv_freq[j];
    const double cosine = std::cos(static_cast<double>(angle)), sine = std::sin(static_cast<double>(angle));
    const double a = head[j], b = head[j + half];
    head[j] = a * cosine - b * sine;
    head[j + half] = b * cosine + a * sine;
  }
}

// The whole of a sequence in double precision; K and V rounded to the pool's type as the pool does.
std::vector<double> Reference(const Case& c, const Sequence& s, const Gains& gains) {
  const AttentionShape& shape = c.shape;
  const int dim = shape.head_dim;
  std::vector<double> qkv(s.qkv.begin(), s.qkv.end());
  const auto round = [&](double x) -> double {
    if (shape.kv_dtype == DType::kBF16) return F32FromBF16(BF16FromF32(static_cast<float>(x)));
    if (shape.kv_dtype == DType::kF16) return F32FromF16(F16FromF32(static_cast<float>(x)));
    return x;
  };
  for (int t = 0; t < s.length; ++t) {
    double* row = qkv.data() + t * shape.qkv_stride();
    for (int h = 0; h < shape.num_q_heads + shape.num_kv_heads; ++h) {
      ReferenceRope(c, gains, h < shape.num_q_heads ? gains.q : gains.k, t, row + h * dim);
    }
    for (int64_t i = int64_t{shape.num_q_heads} * dim; i < shape.qkv_stride(); ++i) row[i] = round(row[i]);
  }
  std::vector<double> out;
  std::vector<double> weights(s.length);
  for (int t = 0; t < s.length; ++t) {
    for (int h = 0; h < shape.num_q_heads; ++h) {
      const int64_t key_at = (shape.num_q_heads + h / shape.group()) * int64_t{dim};
      const int64_t value_at = key_at + int64_t{shape.num_kv_heads} * dim;
      double best = -HUGE_VAL, sum = 0;
      for (int u = 0; u <= t; ++u) {
        weights[u] = std::inner_product(qkv.begin() + t * shape.qkv_stride() + h * dim,
                                        qkv.begin() + t * shape.qkv_stride() + (h + 1) * dim,
                                        qkv.begin() + u * shape.qkv_stride() + key_at, 0.0) /
                     std::sqrt(static_cast<double>(dim));
        best = std::max(best, weights[u]);
      }
      for (int u = 0; u <= t; ++u) sum += weights[u] = std::exp(weights[u] - best);
      for (int d = 0; d < dim; ++d) {
        double value = 0;
        for (int u = 0; u <= t; ++u) value += weights[u] * qkv[u * shape.qkv_stride() + value_at + d];
        out.push_back(value / sum);
      }
    }
  }
  return out;
}

double RelativeError(const std::vector<float>& got, const std::vector<double>& want) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  return std::sqrt(error / norm);
}

// Random pieces: sequences advance by chunks of random size until all are done.
std::vector<std::vector<Piece>> RandomSteps(const std::vector<Sequence>& sequences, std::mt19937& random) {
  std::vector<int> done(sequences.size(), 0);
  std::vector<std::vector<Piece>> steps;
  while (true) {
    std::vector<Piece> step;
    for (size_t i = 0; i < sequences.size(); ++i) {
      const int left = sequences[i].length - done[i];
      if (left == 0 || random() % 4 == 0) continue;
      const int most = std::min<int>(left, random() % 3 == 0 ? 1 : 150);
      const int count = 1 + static_cast<int>(random() % most);
      step.push_back({static_cast<int>(i), done[i], count});
      done[i] += count;
    }
    if (step.empty()) {
      if (std::equal(done.begin(), done.end(), sequences.begin(),
                     [](int d, const Sequence& s) { return d == s.length; })) {
        return steps;
      }
      continue;
    }
    std::shuffle(step.begin(), step.end(), random);
    steps.push_back(step);
  }
}

std::vector<std::vector<Piece>> WholePrompts(const std::vector<Sequence>& sequences) {
  std::vector<std::vector<Piece>> steps(1);
  for (size_t i = 0; i < sequences.size(); ++i)
    steps[0].push_back({static_cast<int>(i), 0, sequences[i].length});
  return steps;
}

class AttentionTest : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (GetParam() > DetectedIsa()) GTEST_SKIP() << "this machine lacks " << NameOf(GetParam());
    LimitIsa(GetParam());
  }
  void TearDown() override { LimitIsa(Isa::kAmx); }
};

const std::vector<Case>& Cases() {
  static const std::vector<Case> cases = [] {
    std::vector<Case> all;
    for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      all.push_back({{16, 8, 128, dtype}, 128, true});
      all.push_back({{8, 2, 64, dtype}, 64, false});
      all.push_back({{4, 4, 8, dtype}, 8, false});
      all.push_back({{6, 2, 80, dtype}, 32, false});
      all.push_back({{7, 1, 33, dtype}, 24, true});
      all.push_back({{3, 3, 1, dtype}, 0, false});
    }
    all.push_back({{2, 1, 256, DType::kBF16}, 256, false});
    all.push_back({{71, 1, 64, DType::kBF16}, 64, false});
    return all;
  }();
  return cases;
}

TEST_P(AttentionTest, EqualsDoublePrecisionOnRaggedSteps) {
  std::mt19937 random(1);
  for (const Case& c : Cases()) {
    int blocks;
    const auto sequences = MakeSequences(c.shape, {1, 40, 280}, random, &blocks);
    const Gains gains = MakeGains(c, random);
    const auto got = RunSteps(c, sequences, blocks, RandomSteps(sequences, random), gains, 2);
    for (size_t i = 0; i < sequences.size(); ++i) {
      const double limit = c.shape.kv_dtype == DType::kF32   ? 2e-6
                           : c.shape.kv_dtype == DType::kF16 ? 2e-5
                                                             : 6e-3;
      EXPECT_LT(RelativeError(got[i], Reference(c, sequences[i], gains)), limit)
          << NameOf(c) << " sequence " << i;
    }
  }
}

TEST_P(AttentionTest, SameBitsHoweverTheWorkIsCut) {
  std::mt19937 random(2);
  for (const Case& c : Cases()) {
    int blocks;
    const auto sequences = MakeSequences(c.shape, {17, 64, 290}, random, &blocks);
    const Gains gains = MakeGains(c, random);
    const auto whole = RunSteps(c, sequences, blocks, WholePrompts(sequences), gains, 1);
    EXPECT_EQ(whole, RunSteps(c, sequences, blocks, RandomSteps(sequences, random), gains, 2)) << NameOf(c);
    // A prompt, then tokens one by one across the end of a KV tile.
    std::vector<std::vector<Piece>> one_by_one = {{{2, 0, 230}}};
    for (int t = 230; t < sequences[2].length; ++t) one_by_one.push_back({{2, t, 1}});
    EXPECT_EQ(whole[2], RunSteps(c, sequences, blocks, one_by_one, gains, 1)[2]) << NameOf(c);
  }
}

TEST_P(AttentionTest, BF16OutputIsTheRoundedF32Output) {
  std::mt19937 random(3);
  const Case c{{4, 2, 24, DType::kBF16}, 24, false};
  int blocks;
  const auto sequences = MakeSequences(c.shape, {50}, random, &blocks);
  const Gains gains = MakeGains(c, random);
  auto wide = RunSteps(c, sequences, blocks, WholePrompts(sequences), gains, 1);
  for (float& x : wide[0]) x = F32FromBF16(BF16FromF32(x));
  EXPECT_EQ(wide, RunSteps(c, sequences, blocks, WholePrompts(sequences), gains, 1, {nullptr, DType::kBF16}));
}

INSTANTIATE_TEST_SUITE_P(Isas, AttentionTest,
                         testing::Values(Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAmx),
                         [](const auto& info) { return std::string(NameOf(info.param)); });

}  // namespace
}  // namespace orrery
