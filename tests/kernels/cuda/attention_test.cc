// Decode and prefill attention on the emulator against double precision, on ragged batches over shuffled
// pages full of NaNs; what a plan must cover; equality bit for bit between ways of cutting the same work; and
// mistakes planted in the kernels (fault.h), each of which the emulator must show.
#include <gmock/gmock.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "kernels/cuda/decode_attention.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/prefill_attention.cuh"
#include "kernels/cuda/rms_norm.cuh"
#include "tests/kernels/cuda/kernel_test.h"

namespace orrery::cuda {
namespace {

constexpr double kAttentionTolerance = 4e-3;

struct Shape {
  int q_heads, kv_heads, head_dim;
};

// Requests with random keys and values in pages of a pool.
struct Cache {
  Shape shape{};
  std::vector<int32_t> lengths;
  Elements memory{DType::kBF16, 0};
  KvPages pages;
  std::vector<int32_t> table;
  int64_t table_stride = 0;

  // Index in `memory` of dimension 0 of a token's key; the layout is the one kv_pages.h describes.
  int64_t KeyAt(int request, int token, int kv_head) const {
    return table[request * table_stride + token / 16] * (pages.page_stride / 2) +
           (int64_t{kv_head} * 16 + token % 16) * shape.head_dim;
  }
  int64_t ValueAt(int request, int token, int kv_head) const {
    return KeyAt(request, token, kv_head) + int64_t{shape.kv_heads} * 16 * shape.head_dim;
  }
};

class AttentionTest : public KernelTest {
 protected:
  Shape RandomShape() {
    const int kv_heads = Uniform(1, 2);
    return {kv_heads * std::array{1, 2, 3, 4, 8, 9}[Uniform(0, 5)], kv_heads, Uniform(0, 1) ? 64 : 128};
  }

  Shape SmallShape() {
    const int kv_heads = Uniform(1, 2);
    return {kv_heads * Uniform(1, 2), kv_heads, Uniform(0, 2) ? 64 : 128};
  }

  int RandomLength(int most) {
    constexpr std::array kEdges = {1, 15, 16, 17, 63, 64, 65, 127, 128, 129};
    const int length = Uniform(0, 1) ? kEdges[Uniform(0, kEdges.size() - 1)] : Uniform(1, most);
    return std::min(length, most);
  }

  Cache MakeCache(const Shape& shape, const std::vector<int32_t>& lengths) {
    Cache cache;
    cache.shape = shape;
    cache.lengths = lengths;
    int pages = 1;  // page 0 is nobody's
    for (const int32_t length : lengths) {
      pages += (length + 15) / 16;
      cache.table_stride = std::max<int64_t>(cache.table_stride, (length + 15) / 16 + Uniform(0, 2));
    }
    std::vector<int32_t> ids(pages - 1);
    std::iota(ids.begin(), ids.end(), 1);
    std::shuffle(ids.begin(), ids.end(), random_);
    cache.table.assign(lengths.size() * cache.table_stride, -1);
    const int64_t stride = PageBytes(shape.kv_heads, shape.head_dim) + 16 * Uniform(0, 2);
    cache.memory = Elements(DType::kBF16, pages * stride / 2);
    cache.pages = {cache.memory.data(), stride, shape.kv_heads, shape.head_dim};
    for (size_t r = 0; r < lengths.size(); ++r) {
      for (int p = 0; p < (lengths[r] + 15) / 16; ++p) {
        cache.table[r * cache.table_stride + p] = ids.back();
        ids.pop_back();
      }
      for (int token = 0; token < lengths[r]; ++token) {
        for (int h = 0; h < shape.kv_heads; ++h) {
          const std::vector<float> x = Normal(2 * shape.head_dim);
          for (int d = 0; d < shape.head_dim; ++d) {
            cache.memory.Set(cache.KeyAt(r, token, h) + d, x[d]);
            cache.memory.Set(cache.ValueAt(r, token, h) + d, x[shape.head_dim + d]);
          }
        }
      }
    }
    return cache;
  }

  // Attention of one query head over the first `tokens` of a request.
  static void Reference(const Cache& cache, int request, int tokens, int head, float scale, const Elements& q,
                        int64_t q_at, double* out) {
    const int dim = cache.shape.head_dim;
    const int kv_head = head / (cache.shape.q_heads / cache.shape.kv_heads);
    std::vector<double> weights(tokens);
    double best = -HUGE_VAL, sum = 0;
    for (int token = 0; token < tokens; ++token) {
      double dot = 0;
      for (int d = 0; d < dim; ++d) {
        dot += double{q[q_at + d]} * cache.memory[cache.KeyAt(request, token, kv_head) + d];
      }
      weights[token] = dot * scale;
      best = std::max(best, weights[token]);
    }
    for (double& weight : weights) sum += weight = std::exp(weight - best);
    std::fill_n(out, dim, 0.0);
    for (int token = 0; token < tokens; ++token) {
      for (int d = 0; d < dim; ++d) {
        out[d] += weights[token] / sum * cache.memory[cache.ValueAt(request, token, kv_head) + d];
      }
    }
  }
};

// Random queries that bf16 holds exactly, in either type: rounding them is not the kernel's error.
Elements Queries(DType dtype, std::vector<float> values) {
  for (float& x : values) x = F32FromBF16(BF16FromF32(x));
  return Elements(dtype, values);
}

using DecodeKernel = void (*)(DecodeAttentionArgs);

class DecodeTest : public AttentionTest {
 protected:
  // The batch through `kernel`, or through what is served where it is null.
  Elements Decode(Cache& cache, Elements& q, int64_t q_stride, DType out_dtype,
                  const DecodePlanOptions& options, DecodeKernel kernel = nullptr) {
    const int requests = static_cast<int>(cache.lengths.size());
    DecodePlan plan(options);
    plan.Build(cache.lengths);
    Elements out(out_dtype, int64_t{requests} * cache.shape.q_heads * cache.shape.head_dim);
    std::vector<float> partial_out(int64_t{plan.num_slots()} * cache.shape.q_heads * cache.shape.head_dim,
                                   NAN);
    std::vector<float> partial_lse(int64_t{plan.num_slots()} * cache.shape.q_heads, NAN);
    const DecodeAttentionArgs args{.q = q.data(),
                                   .q_dtype = q.dtype(),
                                   .q_stride = q_stride,
                                   .q_heads = cache.shape.q_heads,
                                   .pages = cache.pages,
                                   .page_table = cache.table.data(),
                                   .page_table_stride = cache.table_stride,
                                   .scale = kScale,
                                   .requests = requests,
                                   .items = plan.items().data(),
                                   .work = plan.work().data(),
                                   .block_begin = plan.block_begin().data(),
                                   .blocks = options.blocks,
                                   .slot_begin = plan.slot_begin().data(),
                                   .partial_out = partial_out.data(),
                                   .partial_lse = partial_lse.data(),
                                   .out = out.data(),
                                   .out_dtype = out_dtype};
    if (kernel == nullptr) {
      DecodeAttention(nullptr, args);
    } else {
      Launch(kernel, {static_cast<unsigned>(options.blocks)}, 32 * kDecodeWarps,
             DecodeSharedBytes(cache.shape.head_dim), nullptr, args);
      Launch(&DecodeCombineKernel<float>,
             {static_cast<unsigned>(requests), static_cast<unsigned>(args.q_heads)}, cache.shape.head_dim, 0,
             nullptr, args);
    }
    return out;
  }

  std::vector<double> Expected(const Cache& cache, const Elements& q, int64_t q_stride) {
    const Shape& shape = cache.shape;
    std::vector<double> expected(cache.lengths.size() * shape.q_heads * shape.head_dim, 0.0);
    for (size_t r = 0; r < cache.lengths.size(); ++r) {
      for (int h = 0; h < shape.q_heads && cache.lengths[r] > 0; ++h) {
        Reference(cache, r, cache.lengths[r], h, kScale, q, r * q_stride + h * shape.head_dim,
                  expected.data() + (r * shape.q_heads + h) * shape.head_dim);
      }
    }
    return expected;
  }

  static constexpr float kScale = 0.11f;
};

TEST_F(DecodeTest, AgreesWithDoublePrecision) {
  double worst = 0;
  for (int round = 0; round < 120; ++round) {
    NextCase();
    const Shape shape = RandomShape();
    std::vector<int32_t> lengths(Uniform(1, 4));
    for (int32_t& length : lengths) length = Uniform(0, 9) == 0 ? 0 : RandomLength(400);
    if (round % 40 == 0) lengths[0] = 2500;  // more pages than a window holds
    Cache cache = MakeCache(shape, lengths);
    const int64_t q_stride = shape.q_heads * shape.head_dim + 8 * Uniform(0, 3);
    Elements q = Queries(Activation(), Normal(lengths.size() * q_stride));
    const DecodePlanOptions options{.blocks = Uniform(1, 24),
                                    .q_heads = shape.q_heads,
                                    .kv_heads = shape.kv_heads,
                                    .batch_invariant = Uniform(0, 2) == 0};
    Elements out = Decode(cache, q, q_stride, Activation(), options);
    ExpectNoFailure();
    for (size_t r = 0; r < lengths.size(); ++r) {
      for (int i = 0; i < shape.q_heads * shape.head_dim && lengths[r] == 0; ++i) {
        const size_t at = r * shape.q_heads * shape.head_dim + i;
        ASSERT_TRUE(std::isnan(out[at])) << "a request of length 0 was written";
        out.Set(at, 0.0f);
      }
    }
    const double error = RelativeError(out, Expected(cache, q, q_stride));
    ASSERT_LT(error, kAttentionTolerance)
        << shape.q_heads << "x" << shape.kv_heads << "x" << shape.head_dim << " round " << round;
    worst = std::max(worst, error);
  }
  RecordProperty("worst_relative_error", std::to_string(worst));
}

TEST_F(DecodeTest, InvariantResultsDoNotDependOnTheBatch) {
  for (int round = 0; round < 10; ++round) {
    NextCase();
    const Shape shape = RandomShape();
    const int64_t q_stride = shape.q_heads * shape.head_dim;
    const std::vector<int32_t> lengths = {Uniform(1, 1300), Uniform(1, 600), Uniform(1, 100)};
    Cache cache = MakeCache(shape, lengths);
    Elements q = Queries(DType::kBF16, Normal(lengths.size() * q_stride));
    DecodePlanOptions options{
        .blocks = 17, .q_heads = shape.q_heads, .kv_heads = shape.kv_heads, .batch_invariant = true};
    const Elements together = Decode(cache, q, q_stride, DType::kF32, options);
    Cache alone = cache;  // only the first request
    alone.pages.base = alone.memory.data();
    alone.lengths.resize(1);
    options.blocks = 3;
    const Elements first = Decode(alone, q, q_stride, DType::kF32, options);
    for (size_t i = 0; i < first.size(); ++i) ASSERT_EQ(first[i], together[i]);
  }
}

// Pages further apart than 2^31 elements, in memory that is never touched between them.
TEST_F(DecodeTest, ReachesPagesBeyond32Bits) {
  const int64_t page_stride = int64_t{5} << 30;
  const size_t bytes = 2 * page_stride + (1 << 20);
  void* base =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) GTEST_SKIP() << "no address space of " << bytes << " bytes";
  const Shape shape{2, 1, 64};
  Cache cache = MakeCache(shape, {20});
  const std::vector<int32_t> far = {2, 1};
  for (int p = 0; p < 2; ++p) {
    std::memcpy(static_cast<std::byte*>(base) + far[p] * page_stride,
                cache.memory.as<std::byte>() + cache.table[p] * cache.pages.page_stride, PageBytes(1, 64));
  }
  Elements q = Queries(DType::kF32, Normal(128));
  const std::vector<double> expected = Expected(cache, q, 128);
  Cache moved = cache;
  moved.pages.base = base;
  moved.pages.page_stride = page_stride;
  moved.table = far;
  const Elements out = Decode(moved, q, 128, DType::kF32, {.blocks = 2, .q_heads = 2, .kv_heads = 1});
  EXPECT_LT(RelativeError(out, expected), kAttentionTolerance);
  munmap(base, bytes);
}

TEST_F(DecodeTest, PlansCoverEveryTokenOnceAndBalance) {
  for (int round = 0; round < 2000; ++round) {
    const int kv_heads = Uniform(1, 8), group = Uniform(1, 16);
    const DecodePlanOptions options{.blocks = Uniform(1, 300),
                                    .q_heads = kv_heads * group,
                                    .kv_heads = kv_heads,
                                    .batch_invariant = Uniform(0, 1) == 1};
    const int head_groups = kv_heads * ((group + 7) / 8);
    DecodePlan plan(options);
    std::vector<int32_t> lengths(Uniform(0, 40));
    int64_t tokens = 0;
    for (int32_t& length : lengths) tokens += length = Uniform(0, 3) ? Uniform(0, 3000) : 0;
    plan.Build(lengths);
    ASSERT_LE(static_cast<int64_t>(plan.items().size()), plan.MaxItems(lengths.size(), tokens));
    std::vector<std::vector<std::pair<int, int>>> ranges(lengths.size());
    std::vector<int> slots;
    for (const DecodeItem& item : plan.items()) {
      ASSERT_LT(item.begin, item.end);
      ASSERT_EQ(item.begin % kPageTokens, 0);
      ranges[item.request].emplace_back(item.begin, item.end);
      if (item.slot >= 0) {
        slots.push_back(item.slot);
        ASSERT_GE(item.slot, plan.slot_begin()[item.request]);
        ASSERT_LT(item.slot, plan.slot_begin()[item.request + 1]);
      } else {
        ASSERT_EQ(item.end - item.begin, lengths[item.request]);
      }
    }
    std::vector<int> all_slots(plan.num_slots());
    std::iota(all_slots.begin(), all_slots.end(), 0);
    ASSERT_THAT(slots, testing::UnorderedElementsAreArray(all_slots));
    for (size_t r = 0; r < lengths.size(); ++r) {
      std::sort(ranges[r].begin(), ranges[r].end());
      int reached = 0;
      for (const auto& [begin, end] : ranges[r]) {
        ASSERT_EQ(begin, reached);
        reached = end;
      }
      ASSERT_EQ(reached, lengths[r]);
    }
    ASSERT_EQ(plan.work().size(), plan.items().size() * head_groups);
    ASSERT_EQ(plan.block_begin().front(), 0);
    ASSERT_EQ(plan.block_begin().back(), static_cast<int>(plan.work().size()));
    std::vector<int> done(plan.work().size(), 0);
    int64_t total = 0, largest = 0, heaviest = 0;
    for (int b = 0; b < options.blocks; ++b) {
      int64_t load = 0;
      for (int w = plan.block_begin()[b]; w < plan.block_begin()[b + 1]; ++w) {
        const DecodeWork& work = plan.work()[w];
        ++done[work.item * head_groups + work.head_group];
        const DecodeItem& item = plan.items()[work.item];
        const int64_t cost = (item.end - item.begin + 15) / 16 + 5;
        load += cost;
        largest = std::max(largest, cost);
      }
      total += load;
      heaviest = std::max(heaviest, load);
    }
    for (const int times : done) ASSERT_EQ(times, 1);
    // Graham's bound of list scheduling.
    ASSERT_LE(heaviest * options.blocks, total + largest * (options.blocks - 1));
  }
}

class PrefillTest : public AttentionTest {
 protected:
  Elements Prefill(Cache& cache, Elements& q, int64_t q_stride, int rows, DType out_dtype,
                   const std::vector<PrefillSlice>& slices, void (*kernel)(PrefillAttentionArgs) = nullptr) {
    std::vector<PrefillTile> tiles;
    PlanPrefill(slices, tiles);
    Elements out(out_dtype, int64_t{rows} * cache.shape.q_heads * cache.shape.head_dim);
    const PrefillAttentionArgs args{.q = q.data(),
                                    .q_dtype = q.dtype(),
                                    .q_stride = q_stride,
                                    .q_heads = cache.shape.q_heads,
                                    .pages = cache.pages,
                                    .page_table = cache.table.data(),
                                    .page_table_stride = cache.table_stride,
                                    .scale = kScale,
                                    .slices = slices.data(),
                                    .tiles = tiles.data(),
                                    .num_tiles = static_cast<int32_t>(tiles.size()),
                                    .out = out.data(),
                                    .out_dtype = out_dtype};
    if (kernel == nullptr) {
      PrefillAttention(nullptr, args);
    } else {
      Launch(kernel, {static_cast<unsigned>(args.q_heads), static_cast<unsigned>(tiles.size())},
             32 * kPrefillWarps, PrefillSharedBytes(cache.shape.head_dim), nullptr, args);
    }
    return out;
  }

  std::vector<double> Expected(const Cache& cache, const Elements& q, int64_t q_stride, int rows,
                               const std::vector<PrefillSlice>& slices) {
    const Shape& shape = cache.shape;
    std::vector<double> expected(int64_t{rows} * shape.q_heads * shape.head_dim);
    for (const PrefillSlice& slice : slices) {
      for (int i = 0; i < slice.count; ++i) {
        const int64_t row = slice.row_begin + i;
        for (int h = 0; h < shape.q_heads; ++h) {
          Reference(cache, slice.table_row, slice.position + i + 1, h, kScale, q,
                    row * q_stride + h * shape.head_dim,
                    expected.data() + (row * shape.q_heads + h) * shape.head_dim);
        }
      }
    }
    return expected;
  }

  static constexpr float kScale = 0.09f;
};

TEST_F(PrefillTest, AgreesWithDoublePrecision) {
  double worst = 0;
  for (int round = 0; round < 60; ++round) {
    NextCase();
    const Shape shape = SmallShape();
    std::vector<int32_t> lengths;
    std::vector<PrefillSlice> slices;
    int32_t rows = 0;
    for (int s = Uniform(1, 3); s > 0; --s) {
      const int count = RandomLength(140), position = Uniform(0, 1) ? 0 : Uniform(1, 150);
      slices.push_back({rows, count, position, static_cast<int32_t>(lengths.size())});
      lengths.push_back(position + count);
      rows += count;
    }
    Cache cache = MakeCache(shape, lengths);
    const int64_t q_stride = shape.q_heads * shape.head_dim + 8 * Uniform(0, 3);
    Elements q = Queries(Activation(), Normal(rows * q_stride));
    const Elements out = Prefill(cache, q, q_stride, rows, Activation(), slices);
    ExpectNoFailure();
    const double error = RelativeError(out, Expected(cache, q, q_stride, rows, slices));
    ASSERT_LT(error, kAttentionTolerance)
        << shape.q_heads << "x" << shape.kv_heads << "x" << shape.head_dim << " round " << round;
    worst = std::max(worst, error);
  }
  RecordProperty("worst_relative_error", std::to_string(worst));
}

TEST_F(PrefillTest, ChunksGiveTheSameBits) {
  for (int round = 0; round < 10; ++round) {
    NextCase();
    const Shape shape = SmallShape();
    const int length = Uniform(2, 200);
    Cache cache = MakeCache(shape, {length});
    const int64_t q_stride = shape.q_heads * shape.head_dim;
    Elements q = Queries(DType::kBF16, Normal(length * q_stride));
    const Elements whole = Prefill(cache, q, q_stride, length, DType::kF32, {{0, length, 0, 0}});
    std::vector<PrefillSlice> chunks;
    for (int begin = 0; begin < length;) {
      const int count = Uniform(1, length - begin);
      chunks.push_back({begin, count, begin, 0});
      begin += count;
    }
    const Elements chunked = Prefill(cache, q, q_stride, length, DType::kF32, chunks);
    for (size_t i = 0; i < whole.size(); ++i) ASSERT_EQ(whole[i], chunked[i]);
  }
}

// A mistake shows when the numbers are wrong (a NaN of unwritten shared memory is) or the emulator reports
// it.
struct Sighting {
  bool reported = false;
  bool wrong = false;
  bool any() const { return reported || wrong; }
};

struct Sightings {
  Sighting early, late;  // by the mode of copies
};

class PlantedMistakes {
 public:
  // Runs `error_of`, which returns the relative error of one case, in both modes and some orders.
  template <typename ErrorOf>
  static Sightings Look(double tolerance, const ErrorOf& error_of) {
    Sightings sightings;
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      for (const bool early : {false, true}) {
        emulate::SetOptions(
            {.async_copies = early ? emulate::AsyncCopies::kEarly : emulate::AsyncCopies::kLate,
             .seed = seed});
        Sighting& sighting = early ? sightings.early : sightings.late;
        const double error = error_of();
        if (const auto failure = emulate::TakeFailure()) {
          sighting.reported = true;
        } else {
          sighting.wrong |= !(error < tolerance);
        }
      }
    }
    return sightings;
  }
};

class DecodeMistakesTest : public DecodeTest {
 protected:
  template <Fault kFault>
  Sightings Plant() {
    const Shape shape{4, 1, 64};
    Cache cache = MakeCache(shape, {330, 37});
    Elements q = Queries(DType::kF32, Normal(2 * 256));
    const std::vector<double> expected = Expected(cache, q, 256);
    const DecodePlanOptions options{.blocks = 1, .q_heads = 4, .kv_heads = 1};  // nothing is cut: rings turn
    return PlantedMistakes::Look(kAttentionTolerance, [&] {
      return RelativeError(
          Decode(cache, q, 256, DType::kF32, options, &DecodeAttentionKernel<64, float, float, kFault>),
          expected);
    });
  }
};

TEST_F(DecodeMistakesTest, NoneShowsNothing) {
  const Sightings s = Plant<Fault::kNone>();
  EXPECT_FALSE(s.early.any() || s.late.any());
}
TEST_F(DecodeMistakesTest, WaitForOneCopyTooFewShowsWhereCopiesAreLate) {
  const Sightings s = Plant<Fault::kWaitsForOneCopyTooFew>();
  EXPECT_TRUE(s.late.wrong);
  EXPECT_FALSE(s.early.any());
}
TEST_F(DecodeMistakesTest, RefillTooEarlyShowsWhereCopiesAreEarly) {
  const Sightings s = Plant<Fault::kRefillsTooEarly>();
  EXPECT_TRUE(s.early.wrong);
  EXPECT_FALSE(s.late.any());
}
TEST_F(DecodeMistakesTest, WeightsLeftUntransposed) {
  EXPECT_TRUE(Plant<Fault::kKeepsWeightsUntransposed>().late.wrong);
}
TEST_F(DecodeMistakesTest, ValueAddressSwapped) {
  EXPECT_TRUE(Plant<Fault::kSwapsValueAddress>().late.wrong);
}
TEST_F(DecodeMistakesTest, MaskOneTokenShort) { EXPECT_TRUE(Plant<Fault::kMasksOneTokenLess>().late.wrong); }
TEST_F(DecodeMistakesTest, MergeWithoutBarrier) { EXPECT_TRUE(Plant<Fault::kMergesTooEarly>().late.wrong); }
TEST_F(DecodeMistakesTest, StaleValuesBehindTheEnd) {
  EXPECT_TRUE(Plant<Fault::kReadsStaleValues>().late.wrong);
}
TEST_F(DecodeMistakesTest, OutputNotRescaled) { EXPECT_TRUE(Plant<Fault::kForgetsToRescale>().late.wrong); }
TEST_F(DecodeMistakesTest, WarpWithoutPagesLeavesPoison) {
  EXPECT_TRUE(Plant<Fault::kLeavesMergeUnwritten>().late.wrong);
}

class PrefillMistakesTest : public PrefillTest {
 protected:
  template <Fault kFault>
  Sightings Plant() {
    const Shape shape{2, 1, 64};
    Cache cache = MakeCache(shape, {230, 37});
    Elements q = Queries(DType::kF32, Normal(128 * 128));
    const std::vector<PrefillSlice> slices = {{0, 91, 139, 0}, {91, 37, 0, 1}};
    const std::vector<double> expected = Expected(cache, q, 128, 128, slices);
    return PlantedMistakes::Look(kAttentionTolerance, [&] {
      return RelativeError(
          Prefill(cache, q, 128, 128, DType::kF32, slices, &PrefillAttentionKernel<64, float, float, kFault>),
          expected);
    });
  }
};

TEST_F(PrefillMistakesTest, NoneShowsNothing) {
  const Sightings s = Plant<Fault::kNone>();
  EXPECT_FALSE(s.early.any() || s.late.any());
}
TEST_F(PrefillMistakesTest, RefillWithoutBarrierShowsWhereCopiesAreEarly) {
  EXPECT_TRUE(Plant<Fault::kRefillsWithoutBarrier>().early.wrong);
}
TEST_F(PrefillMistakesTest, MaskAlignedTopLeft) {
  EXPECT_TRUE(Plant<Fault::kAlignsMaskTopLeft>().late.wrong);
}
TEST_F(PrefillMistakesTest, SwizzleIgnored) { EXPECT_TRUE(Plant<Fault::kIgnoresSwizzle>().late.wrong); }

class ReductionMistakesTest : public KernelTest {
 protected:
  template <Fault kFault>
  Sightings Plant() {
    constexpr int kHidden = 512;
    std::vector<float> x = Normal(kHidden);
    const std::vector<float> gain(kHidden, 1.0f);
    double squares = 0;
    for (const float value : x) squares += double{value} * value;
    std::vector<double> expected(x.begin(), x.end());
    for (double& value : expected) value /= std::sqrt(squares / kHidden + 1e-6);
    return PlantedMistakes::Look(1e-5, [&] {
      Elements out(DType::kF32, kHidden);
      Launch(&AddRmsNormKernel<float, float, 1, kFault>, {}, 64, kReduceSlots * sizeof(float), nullptr,
             {.residual = x.data(), .gain = gain.data(), .rows = 1, .hidden = kHidden, .out = out.data()});
      return RelativeError(out, expected);
    });
  }
};

TEST_F(ReductionMistakesTest, NoneShowsNothing) { EXPECT_FALSE(Plant<Fault::kNone>().late.any()); }
TEST_F(ReductionMistakesTest, SumsReadTooEarly) {
  EXPECT_TRUE(Plant<Fault::kReadsSumsTooEarly>().late.wrong);
}
TEST_F(ReductionMistakesTest, BarrierInABranchIsReported) {
  EXPECT_TRUE(Plant<Fault::kBarrierInBranch>().late.reported);
}

}  // namespace
}  // namespace orrery::cuda
