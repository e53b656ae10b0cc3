// The random numbers of sampling, on the host: against the published vectors of their authors, and the
// frequencies of draws against the exact distribution.
#include "kernels/cuda/counter_random.cuh"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "tests/kernels/cuda/reference_random.h"

namespace orrery::cuda {
namespace {

TEST(CounterRandom, NumbersAreThePublishedOnes) {
  // Known answers of the authors' library (Random123, kat_vectors, philox4x32 with 10 rounds).
  struct Known {
    std::array<uint32_t, 4> counter;
    std::array<uint32_t, 2> key;
    std::array<uint32_t, 4> words;
  };
  constexpr uint32_t kOnes = 0xffffffff;
  const std::vector<Known> vectors = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}};
  for (const Known& v : vectors) {
    const Philox words =
        PhiloxOf({{v.counter[0], v.counter[1], v.counter[2], v.counter[3]}}, v.key[0], v.key[1]);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(words.words[i], v.words[i]);
    EXPECT_EQ(ReferencePhilox(v.counter, v.key), v.words);
  }
}

// Chi-square of 200000 draws from 12 tokens of three shapes. The seed is fixed: the bound is the 99.9 %
// quantile once and for all.
TEST(CounterRandom, FrequenciesOfDrawsAreTheSoftmax) {
  std::mt19937 random{20};
  for (const float spread : {0.3f, 1.5f, 4.0f}) {
    const std::vector<float> logits = [&] {
      std::normal_distribution<float> normal(0.0f, spread);
      std::vector<float> x(12);
      for (float& v : x) v = normal(random);
      return x;
    }();
    std::vector<double> counts(12, 0.0), share(12);
    for (int i = 0; i < 12; ++i) share[i] = std::exp(logits[i]);
    const double total = std::accumulate(share.begin(), share.end(), 0.0);
    constexpr int kDraws = 200000;
    for (int draw = 0; draw < kDraws; ++draw) {
      int best = 0;
      float best_score = -INFINITY;
      for (int id = 0; id < 12; ++id) {
        const float score = logits[id] + GumbelOf(99, draw, id);
        if (score > best_score) best = id, best_score = score;
      }
      ++counts[best];
    }
    double chi_square = 0;
    for (int i = 0; i < 12; ++i) {
      const double expected = kDraws * share[i] / total;
      chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
    }
    EXPECT_LT(chi_square, 31.26) << spread;  // 11 degrees of freedom
  }
}

}  // namespace
}  // namespace orrery::cuda
