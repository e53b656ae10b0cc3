// Decode and prefill attention on the emulator against double precision, on ragged batches over shuffled
// pages full of NaNs; what a plan must cover; equality bit for bit between ways of cutting the same work; and
// mistakes planted in the kernels (fault.h), each of which the emulator must show.
#include <gmock/gmock.h>

#include "tests/kernels/cuda/attention_cases.h"

namespace orrery::cuda {
namespace {

Elements Rounded(DType dtype, const Elements& values) {
  Elements out(dtype, values.size());
  for (size_t i = 0; i < values.size(); ++i) out.Set(i, values[i]);
  return out;
}

class DecodeOfTypeTest : public DecodeTest, public testing::WithParamInterface<DType> {};
class PrefillOfTypeTest : public PrefillTest, public testing::WithParamInterface<DType> {};

// The reference reads what the pool holds: its rounding is not the kernels' error.
const auto kPoolTypes = testing::Values(DType::kBF16, DType::kE4M3);
const auto kTypeName = [](const auto& info) { return std::string(NameOf(info.param)); };
INSTANTIATE_TEST_SUITE_P(Types, DecodeOfTypeTest, kPoolTypes, kTypeName);
INSTANTIATE_TEST_SUITE_P(Types, PrefillOfTypeTest, kPoolTypes, kTypeName);

TEST_P(DecodeOfTypeTest, AgreesWithDoublePrecision) {
  double worst = 0;
  for (int round = 0; round < 120; ++round) {
    NextCase();
    const Shape shape = RandomShape();
    std::vector<int32_t> lengths(Uniform(1, 4));
    for (int32_t& length : lengths) length = Uniform(0, 9) == 0 ? 0 : RandomLength(400);
    if (round % 40 == 0) lengths[0] = 2500;  // more pages than a window holds
    Cache cache = MakeCache(shape, lengths, GetParam());
    const int64_t q_stride = shape.q_heads * shape.head_dim + 8 * Uniform(0, 3);
    Elements q = Queries(QueryType(), Normal(lengths.size() * q_stride));
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

TEST_P(DecodeOfTypeTest, InvariantResultsDoNotDependOnTheBatch) {
  for (int round = 0; round < 10; ++round) {
    NextCase();
    const Shape shape = RandomShape();
    const int64_t q_stride = shape.q_heads * shape.head_dim;
    const std::vector<int32_t> lengths = {Uniform(1, 1300), Uniform(1, 600), Uniform(1, 100)};
    Cache cache = MakeCache(shape, lengths, GetParam());
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

TEST_F(DecodeTest, OutputIsRoundedToItsType) {
  const Shape shape{4, 2, 64};
  Cache cache = MakeCache(shape, {700, 5});  // one that is cut, one that is not
  Elements q = Queries(DType::kF32, Normal(2 * 256));
  const DecodePlanOptions options{.blocks = 9, .q_heads = 4, .kv_heads = 2};
  const Elements exact = Decode(cache, q, 256, DType::kF32, options);
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    ASSERT_EQ(Decode(cache, q, 256, dtype, options), Rounded(dtype, exact));
  }
}

// Pages further apart than 2^31 elements, in memory that is never touched between them.
TEST_F(DecodeTest, ReachesPagesBeyond32Bits) {
  const int64_t page_stride = int64_t{5} << 30;
  const size_t bytes = 2 * page_stride + (1 << 20);
  void* base = test_device::Reserve(bytes);
  if (base == nullptr) GTEST_SKIP() << "no address space of " << bytes << " bytes";
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
  test_device::Release(base, bytes);
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

TEST_P(PrefillOfTypeTest, AgreesWithDoublePrecision) {
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
    Cache cache = MakeCache(shape, lengths, GetParam());
    const int64_t q_stride = shape.q_heads * shape.head_dim + 8 * Uniform(0, 3);
    Elements q = Queries(QueryType(), Normal(rows * q_stride));
    const Elements out = Prefill(cache, q, q_stride, rows, Activation(), slices);
    ExpectNoFailure();
    const double error = RelativeError(out, Expected(cache, q, q_stride, rows, slices));
    ASSERT_LT(error, kAttentionTolerance)
        << shape.q_heads << "x" << shape.kv_heads << "x" << shape.head_dim << " round " << round;
    worst = std::max(worst, error);
  }
  RecordProperty("worst_relative_error", std::to_string(worst));
}

TEST_F(PrefillTest, OutputIsRoundedToItsType) {
  Cache cache = MakeCache({2, 1, 64}, {90});
  Elements q = Queries(DType::kF32, Normal(90 * 128));
  const std::vector<PrefillSlice> slices = {{0, 90, 0, 0}};
  const Elements exact = Prefill(cache, q, 128, 90, DType::kF32, slices);
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    ASSERT_EQ(Prefill(cache, q, 128, 90, dtype, slices), Rounded(dtype, exact));
  }
}

TEST_P(PrefillOfTypeTest, ChunksGiveTheSameBits) {
  for (int round = 0; round < 10; ++round) {
    NextCase();
    const Shape shape = SmallShape();
    const int length = Uniform(2, 200);
    Cache cache = MakeCache(shape, {length}, GetParam());
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

}  // namespace
}  // namespace orrery::cuda
