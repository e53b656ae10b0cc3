// Mistakes planted in kernels: the emulator shows each, by the number, the poison or the report.
#include "kernels/cuda/decode_attention.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/prefill_attention.cuh"
#include "kernels/cuda/rms_norm.cuh"
#include "kernels/emulate/launch.h"
#include "tests/kernels/cuda/attention_cases.h"

namespace orrery::cuda {
namespace {

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
  template <Fault kFault, typename Kv = BF16>
  Sightings Plant() {
    const Shape shape{4, 1, 64};
    Cache cache = MakeCache(shape, {330, 37}, sizeof(Kv) == 1 ? DType::kE4M3 : DType::kBF16);
    Elements q = Queries(DType::kF32, Normal(2 * 256));
    const std::vector<double> expected = Expected(cache, q, 256);
    const DecodePlanOptions options{.blocks = 1, .q_heads = 4, .kv_heads = 1};  // nothing is cut: rings turn
    return PlantedMistakes::Look(kAttentionTolerance, [&] {
      const auto launch = [](Stream stream, const DecodeAttentionArgs& args) {
        Launch(&DecodeAttentionKernel<64, float, kFault, Kv>, {static_cast<unsigned>(args.blocks)},
               32 * kDecodeWarps, DecodeSharedBytes(64, sizeof(Kv)), stream, args);
        Launch(&DecodeCombineKernel<float>,
               {static_cast<unsigned>(args.requests), static_cast<unsigned>(args.q_heads)}, 64, 0, stream,
               args);
      };
      return RelativeError(Decode(cache, q, 256, DType::kF32, options, launch), expected);
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
TEST_F(DecodeMistakesTest, OfFp8) {
  const Sightings none = Plant<Fault::kNone, E4M3>();
  EXPECT_FALSE(none.early.any() || none.late.any());
  EXPECT_TRUE((Plant<Fault::kWaitsForOneCopyTooFew, E4M3>().late.wrong));
  EXPECT_TRUE((Plant<Fault::kRefillsTooEarly, E4M3>().early.wrong));
  EXPECT_TRUE((Plant<Fault::kSwapsValueAddress, E4M3>().late.wrong));
  EXPECT_TRUE((Plant<Fault::kMasksOneTokenLess, E4M3>().late.wrong));
  EXPECT_TRUE((Plant<Fault::kReadsStaleValues, E4M3>().late.wrong));
}

class PrefillMistakesTest : public PrefillTest {
 protected:
  template <Fault kFault, typename Kv = BF16>
  Sightings Plant() {
    const Shape shape{2, 1, 64};
    Cache cache = MakeCache(shape, {230, 37}, sizeof(Kv) == 1 ? DType::kE4M3 : DType::kBF16);
    Elements q = Queries(DType::kF32, Normal(128 * 128));
    const std::vector<PrefillSlice> slices = {{0, 91, 139, 0}, {91, 37, 0, 1}};
    const std::vector<double> expected = Expected(cache, q, 128, 128, slices);
    return PlantedMistakes::Look(kAttentionTolerance, [&] {
      const auto launch = [](Stream stream, const PrefillAttentionArgs& args) {
        Launch(&PrefillAttentionKernel<64, float, kFault, Kv>,
               {static_cast<unsigned>(args.q_heads), static_cast<unsigned>(args.num_tiles)},
               32 * kPrefillWarps, PrefillSharedBytes(64), stream, args);
      };
      return RelativeError(Prefill(cache, q, 128, 128, DType::kF32, slices, launch), expected);
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
TEST_F(PrefillMistakesTest, OfFp8) {
  const Sightings none = Plant<Fault::kNone, E4M3>();
  EXPECT_FALSE(none.early.any() || none.late.any());
  EXPECT_TRUE((Plant<Fault::kRefillsWithoutBarrier, E4M3>().late.wrong));
  EXPECT_TRUE((Plant<Fault::kAttendsBeforeAllIsWidened, E4M3>().late.wrong));
  EXPECT_TRUE((Plant<Fault::kIgnoresSwizzle, E4M3>().late.wrong));
}

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
