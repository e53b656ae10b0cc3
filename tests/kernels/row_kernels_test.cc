// Norms, row gather and rotation angles against double precision at every instruction set,
// with lengths that do not fill a vector.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/embedding.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/rope.h"

namespace orrery {
namespace {

class RowKernelsTest : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (GetParam() > DetectedIsa()) GTEST_SKIP() << "this machine lacks " << NameOf(GetParam());
    LimitIsa(GetParam());
  }
  void TearDown() override { LimitIsa(Isa::kAmx); }

  std::vector<float> Normal(size_t n, float scale = 1.0f) {
    std::normal_distribution<float> normal(0.0f, scale);
    std::vector<float> x(n);
    for (float& v : x) v = normal(random_);
    return x;
  }
  // Runs `op(RowsOut)` into f32 and bf16 and checks that the latter is the former rounded; returns the
  // former.
  template <typename Op>
  static std::vector<float> Both(size_t n, Op op) {
    std::vector<float> wide(n);
    std::vector<uint16_t> narrow(n);
    op(RowsOut{narrow.data(), DType::kBF16});
    op(RowsOut{wide.data(), DType::kF32});
    for (size_t i = 0; i < n; ++i) EXPECT_EQ(narrow[i], BF16FromF32(wide[i]));
    return wide;
  }

  std::mt19937 random_{7};
  ThreadPool pool_{2};
};

constexpr int64_t kWidths[] = {1, 3, 8, 17, 64, 100, 896, 1037, 4096};

TEST_P(RowKernelsTest, RmsNorm) {
  for (int64_t hidden : kWidths) {
    const int64_t rows = 40;
    const auto x = Normal(rows * hidden), gain = Normal(hidden);
    const RmsGain norm{gain.data(), 1e-5f};
    const auto got = Both(x.size(), [&](RowsOut out) { RmsNorm(pool_, x.data(), rows, hidden, norm, out); });
    for (int64_t r = 0; r < rows; ++r) {
      double squares = 0;
      for (int64_t i = r * hidden; i < (r + 1) * hidden; ++i) squares += double{x[i]} * x[i];
      for (int64_t i = r * hidden; i < (r + 1) * hidden; ++i) {
        const double want = x[i] / std::sqrt(squares / hidden + 1e-5) * gain[i - r * hidden];
        ASSERT_NEAR(got[i], want, 1e-6 * std::fabs(want)) << hidden;
      }
    }
  }
}

TEST_P(RowKernelsTest, NormOfARowIgnoresTheOtherRows) {
  const int64_t rows = 33, hidden = 1037;
  const auto x = Normal(rows * hidden), gain = Normal(hidden);
  std::vector<float> together(x.size()), alone(hidden);
  RmsNorm(pool_, x.data(), rows, hidden, {gain.data(), 1e-6f}, {together.data()});
  for (int64_t r = 0; r < rows; ++r) {
    alone.assign(x.begin() + r * hidden, x.begin() + (r + 1) * hidden);
    RmsNorm(pool_, alone.data(), 1, hidden, {gain.data(), 1e-6f}, {alone.data()});
    ASSERT_EQ(0, std::memcmp(alone.data(), together.data() + r * hidden, hidden * sizeof(float)));
  }
}

TEST_P(RowKernelsTest, GatherRowsIsExact) {
  for (int64_t hidden : kWidths) {
    const int32_t table_rows = 50;
    const auto table = Normal(table_rows * hidden);
    std::vector<int32_t> ids;
    for (int i = 0; i < 70; ++i) ids.push_back(static_cast<int32_t>(random_() % table_rows));
    for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      std::vector<uint16_t> bits(table.size());
      std::vector<float> wide = table;
      for (size_t i = 0; i < table.size() && dtype != DType::kF32; ++i) {
        bits[i] = dtype == DType::kBF16 ? BF16FromF32(table[i]) : F16FromF32(table[i]);
        wide[i] = dtype == DType::kBF16 ? F32FromBF16(bits[i]) : F32FromF16(bits[i]);
      }
      const void* data = dtype == DType::kF32 ? static_cast<const void*>(table.data()) : bits.data();
      std::vector<float> out(ids.size() * hidden);
      GatherRows(pool_, data, dtype, hidden, ids.data(), static_cast<int64_t>(ids.size()), out.data());
      for (size_t i = 0; i < out.size(); ++i) {
        ASSERT_EQ(out[i], wide[ids[i / hidden] * hidden + static_cast<int64_t>(i) % hidden]);
      }
    }
  }
}

TEST_P(RowKernelsTest, AnglesAreThoseOfTheRoundedProduct) {
  for (int32_t half : {1, 4, 32, 37, 64}) {
    std::vector<float> inv_freq;
    for (int j = 0; j < half; ++j) inv_freq.push_back(static_cast<float>(std::pow(5e5, -1.0 * j / half)));
    std::vector<int32_t> positions = {0, 1, 2, 15, 1000, 4095, 131071, (1 << 24) - 1};
    for (int i = 0; i < 50; ++i) positions.push_back(static_cast<int32_t>(random_() % (1 << 20)));
    std::vector<float> cos_sin(positions.size() * 2 * half);
    RopeAngles(pool_, positions.data(), static_cast<int64_t>(positions.size()), inv_freq.data(), half,
               cos_sin.data());
    for (size_t r = 0; r < positions.size(); ++r) {
      for (int j = 0; j < half; ++j) {
        const double angle = static_cast<float>(positions[r]) * inv_freq[j];
        ASSERT_NEAR(cos_sin[r * 2 * half + j], std::cos(angle), 6.1e-8) << positions[r];
        ASSERT_NEAR(cos_sin[(r * 2 + 1) * half + j], std::sin(angle), 6.1e-8) << positions[r];
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, RowKernelsTest, testing::Values(Isa::kScalar, Isa::kAvx2, Isa::kAvx512),
                         [](const auto& info) { return std::string(NameOf(info.param)); });

}  // namespace
}  // namespace orrery
