// The sampler against a reference that sorts in double precision, the distribution of its draws, and the
// values at the edge of every parameter.
#include "kernels/cpu/sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_features.h"
#include "scheduler/base/random.h"

namespace orrery {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// The lists that a SampleArgs points to.
struct Request {
  SampleArgs args;
  std::vector<TokenCount> counts;
  std::vector<TokenBias> bias;
  std::vector<int32_t> masked;

  SampleArgs Args() const {
    SampleArgs a = args;
    a.counts = counts.data();
    a.num_counts = static_cast<int32_t>(counts.size());
    a.bias = bias.data();
    a.num_bias = static_cast<int32_t>(bias.size());
    a.masked = masked.data();
    a.num_masked = static_cast<int32_t>(masked.size());
    return a;
  }
};

// The kept ids, most likely first, with their weights, by sorting everything. `margin` is how close a cut
// came to falling elsewhere, relative to the whole: cases that rounding could decide are not compared.
struct Kept {
  std::vector<std::pair<int32_t, double>> ids;
  double margin = 1;
};

std::vector<double> ReferenceLogits(const std::vector<float>& logits, const Request& request) {
  std::vector<double> x(logits.begin(), logits.end());
  const SampleArgs& a = request.args;
  for (const TokenCount& c : request.counts) {
    x[c.id] = x[c.id] > 0 ? x[c.id] / a.repetition_penalty : x[c.id] * a.repetition_penalty;
    if (c.count > 0) x[c.id] -= double{a.frequency_penalty} * c.count + a.presence_penalty;
  }
  for (const TokenBias& b : request.bias) x[b.id] += b.value;
  for (int32_t id : request.masked) x[id] = -HUGE_VAL;
  return x;
}

Kept ReferenceFilter(const std::vector<float>& logits, const Request& request) {
  const SampleArgs& a = request.args;
  const std::vector<double> x = ReferenceLogits(logits, request);
  const double best = *std::max_element(x.begin(), x.end());
  Kept kept;
  for (size_t i = 0; i < x.size(); ++i) {
    kept.ids.emplace_back(static_cast<int32_t>(i), std::exp((x[i] - best) / a.temperature));
  }
  std::stable_sort(kept.ids.begin(), kept.ids.end(), [](auto& p, auto& q) { return p.second > q.second; });
  const auto cut_to = [&](size_t n) {
    if (n >= kept.ids.size()) return;
    const double last = kept.ids[n - 1].second, next = kept.ids[n].second;
    if (last != next && last > 0) kept.margin = std::min(kept.margin, (last - next) / last);
    kept.ids.resize(n);
  };
  if (a.top_k > 0) cut_to(std::min<size_t>(a.top_k, x.size()));
  if (a.top_p < 1) {
    double total = 0, sum = 0;
    for (auto& [id, w] : kept.ids) total += w;
    size_t n = 0;
    while (n < kept.ids.size() && sum < a.top_p * total) sum += kept.ids[n++].second;
    kept.margin = std::min({kept.margin, (sum - a.top_p * total) / total,
                            (a.top_p * total - (sum - kept.ids[n - 1].second)) / total});
    cut_to(n);
  }
  size_t n = 0;
  while (n < kept.ids.size() && kept.ids[n].second >= a.min_p) {
    kept.margin = std::min(kept.margin, std::fabs(kept.ids[n].second - a.min_p));
    ++n;
  }
  cut_to(n);
  return kept;
}

class SampleTest : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (GetParam() > DetectedIsa()) GTEST_SKIP() << "this machine lacks " << NameOf(GetParam());
    LimitIsa(GetParam());
  }
  void TearDown() override { LimitIsa(Isa::kAmx); }

  SampleResult Sample(const std::vector<float>& logits, const SampleArgs& args) {
    const auto vocab = static_cast<int32_t>(logits.size());
    scratch_.resize(SampleScratchBytes(vocab) / 64 * pool_.num_threads());
    top_.resize(args.num_logprobs > 0 ? args.num_logprobs : 0);
    SampleResult result;
    result.top = top_.data();
    SampleRows(pool_, logits.data(), vocab, vocab, &args, 1, scratch_.data(), &result);
    return result;
  }
  SampleResult Sample(const std::vector<float>& logits, const Request& request) {
    return Sample(logits, request.Args());
  }
  std::vector<float> Logits(int32_t vocab, float spread) {
    std::normal_distribution<float> normal(0.0f, spread);
    std::vector<float> x(vocab);
    for (float& v : x) v = normal(random_);
    return x;
  }
  Request RandomRequest(int32_t vocab) {
    std::uniform_real_distribution<float> unit(0.0f, 1.0f);
    Request r;
    r.args.temperature = 0.1f + 1.5f * unit(random_);
    if (random_() % 2) r.args.top_k = 1 + static_cast<int32_t>(random_() % (random_() % 2 ? 50 : vocab + 10));
    if (random_() % 2) r.args.top_p = std::max(1e-3f, unit(random_));
    if (random_() % 3 == 0) r.args.min_p = 0.3f * unit(random_) * unit(random_);
    if (random_() % 3 == 0) {
      r.args.presence_penalty = unit(random_);
      r.args.frequency_penalty = unit(random_) - 0.5f;
      r.args.repetition_penalty = 0.5f + unit(random_);
      for (int32_t id = 0; id < vocab; id += 1 + static_cast<int32_t>(random_() % 20)) {
        r.counts.push_back({id, static_cast<int32_t>(random_() % 4)});
      }
    }
    if (random_() % 3 == 0) {
      for (int32_t id = static_cast<int32_t>(random_() % 9); id < vocab; id += 97) {
        r.bias.push_back({id, 4 * unit(random_) - 2});
      }
      r.masked = {0, vocab - 1};
    }
    return r;
  }

  struct alignas(64) Line {
    uint8_t bytes[64];
  };
  std::vector<Line> scratch_;
  std::vector<TokenLogprob> top_;
  std::mt19937 random_{11};
  ThreadPool pool_{2};
};

TEST_P(SampleTest, GreedyTakesTheLowestOfTheBest) {
  for (int32_t vocab : {1, 2, 15, 16, 17, 333, 5000}) {
    for (int i = 0; i < 20; ++i) {
      std::vector<float> logits = Logits(vocab, 1.0f);
      const auto first = static_cast<int32_t>(random_() % vocab);
      for (int32_t id = first; id < vocab; id += 1 + static_cast<int32_t>(random_() % 7)) logits[id] = 9.0f;
      EXPECT_EQ(Sample(logits, SampleArgs{.temperature = 0.0f}).token, first);
      EXPECT_EQ(Sample(logits, SampleArgs{.top_k = 1, .uniform = 0.999}).token, first);
    }
  }
}

// With u swept over the unit interval, the ids drawn and the u at which they change are those of the sorted
// reference.
TEST_P(SampleTest, DrawsFromExactlyWhatTheReferenceKeeps) {
  int compared = 0;
  for (int trial = 0; trial < 400; ++trial) {
    const int32_t vocab = trial % 4 == 0 ? 7000 : 1 + static_cast<int32_t>(random_() % 700);
    std::vector<float> logits = Logits(vocab, trial % 3 == 0 ? 0.05f : 2.0f);
    if (trial % 5 == 0) {
      for (float& x : logits) x = std::round(x * 2);  // many ties
    }
    Request request = vocab < 3 ? Request{} : RandomRequest(vocab);
    Kept kept = ReferenceFilter(logits, request);
    if (kept.margin < 1e-5) continue;
    ++compared;
    std::sort(kept.ids.begin(), kept.ids.end());
    double total = 0;
    for (auto& [id, w] : kept.ids) total += w;
    for (int i = 0; i < 30; ++i) {
      request.args.uniform = std::uniform_real_distribution<double>(0, 1)(random_);
      double sum = 0;
      size_t at = 0;
      while (at + 1 < kept.ids.size() && sum + kept.ids[at].second <= request.args.uniform * total) {
        sum += kept.ids[at++].second;
      }
      const double distance = std::min(std::fabs(request.args.uniform - sum / total),
                                       std::fabs(request.args.uniform - (sum + kept.ids[at].second) / total));
      if (distance < 2e-6) continue;
      const SampleResult result = Sample(logits, request);
      ASSERT_EQ(result.status, SampleRowStatus::kOk);
      ASSERT_EQ(result.token, kept.ids[at].first) << "trial " << trial << " u " << request.args.uniform;
    }
  }
  EXPECT_GT(compared, 250);
}

TEST_P(SampleTest, LogprobsAreOfTheUnmodifiedSoftmax) {
  for (int32_t vocab : {1, 16, 100, 4001}) {
    std::vector<float> logits = Logits(vocab, 3.0f);
    for (int32_t i = 0; i < vocab; i += 3) logits[i] = std::round(logits[i]);  // ties
    std::vector<int32_t> order(vocab);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
    double sum = 0;
    for (float x : logits) sum += std::exp(double{x});
    for (int32_t k : {0, 1, 5, 20, vocab, vocab + 7}) {
      Request request;
      request.args.num_logprobs = k;
      request.args.uniform = 0.4;
      request.bias = {{0, 1.0f}};
      const SampleResult result = Sample(logits, request);
      EXPECT_NEAR(result.logprob, logits[result.token] - std::log(sum), 1e-5);
      ASSERT_EQ(result.num_top, std::min(k, vocab));
      for (int32_t i = 0; i < result.num_top; ++i) {
        ASSERT_EQ(result.top[i].id, order[i]) << k;
        ASSERT_NEAR(result.top[i].logprob, logits[order[i]] - std::log(sum), 1e-5);
      }
    }
  }
}

// Of an id that is given, with the best ones, lower ids first on ties; a broken row says so.
TEST_P(SampleTest, ScoredRowsHaveTheLogprobsOfTheGivenIds) {
  const int32_t rows = 9, top = 6;
  for (const int32_t vocab : {7, 100, 4001}) {
    std::vector<float> logits = Logits(rows * vocab, 3.0f);
    for (float& x : logits) x = std::round(x);  // ties
    logits[static_cast<size_t>(4 * vocab)] = std::nanf("");
    std::vector<ScoreArgs> args;
    std::vector<TokenLogprob> best(rows * top);
    std::vector<SampleResult> results(rows);
    for (int32_t r = 0; r < rows; ++r) {
      args.push_back({.id = static_cast<int32_t>(random_() % vocab), .num_top = r == 0 ? 0 : top});
      results[r].top = best.data() + r * top;
    }
    scratch_.resize(SampleScratchBytes(vocab) / 64 * pool_.num_threads());
    ScoreRows(pool_, logits.data(), vocab, vocab, args.data(), rows, scratch_.data(), results.data());
    for (int32_t r = 0; r < rows; ++r) {
      const float* row = logits.data() + r * vocab;
      ASSERT_EQ(results[r].status, r == 4 ? SampleRowStatus::kNotFinite : SampleRowStatus::kOk);
      if (r == 4) continue;
      std::vector<int32_t> order(vocab);
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return row[a] > row[b]; });
      double sum = 0;
      for (int32_t i = 0; i < vocab; ++i) sum += std::exp(double{row[i]});
      EXPECT_NEAR(results[r].logprob, row[args[r].id] - std::log(sum), 1e-5);
      ASSERT_EQ(results[r].num_top, args[r].num_top);
      for (int32_t k = 0; k < results[r].num_top; ++k) {
        ASSERT_EQ(results[r].top[k].id, order[k]);
        ASSERT_NEAR(results[r].top[k].logprob, row[order[k]] - std::log(sum), 1e-5);
      }
    }
  }
}

// Pearson's statistic of 200,000 counter-based draws; the 1e-6 quantile of chi-square with 49 degrees of
// freedom is 108.
TEST_P(SampleTest, FrequenciesFollowTheDistribution) {
  const std::vector<float> logits = Logits(50, 1.0f);
  double sum = 0;
  for (float x : logits) sum += std::exp(double{x} / 0.7);
  const int draws = 200000;
  std::vector<int> seen(50, 0);
  for (int i = 0; i < draws; ++i) {
    ++seen[Sample(logits, SampleArgs{.temperature = 0.7f, .uniform = UniformAt(5, i)}).token];
  }
  double chi_square = 0;
  for (int id = 0; id < 50; ++id) {
    const double expected = draws * std::exp(double{logits[id]} / 0.7) / sum;
    chi_square += (seen[id] - expected) * (seen[id] - expected) / expected;
  }
  EXPECT_LT(chi_square, 108);
}

TEST_P(SampleTest, ExtremeArgumentsGiveAValidId) {
  const std::vector<float> temperatures = {0.0f, FLT_TRUE_MIN, FLT_MIN, 1e-10f, 1.0f, 1e10f, FLT_MAX, kInf};
  const std::vector<float> top_ps = {FLT_TRUE_MIN, 1e-30f, 1e-7f, 0.5f, std::nextafter(1.0f, 0.0f), 1.0f};
  const std::vector<float> min_ps = {0.0f, FLT_TRUE_MIN, 0.5f, 1.0f};
  const std::vector<float> biases = {0.0f, FLT_MAX, -FLT_MAX, 100.0f};
  const double uniforms[] = {0.0, 0.5, 1.0 - 0x1p-53};
  std::vector<std::vector<float>> rows = {Logits(300, 1.0f), Logits(17, 1e30f), std::vector<float>(40, -3.0f),
                                          std::vector<float>(1, 0.0f)};
  rows[1][3] = FLT_MAX;
  rows[1][4] = -FLT_MAX;
  rows[0][7] = -kInf;
  for (const auto& logits : rows) {
    const auto vocab = static_cast<int32_t>(logits.size());
    for (float temperature : temperatures) {
      for (float top_p : top_ps) {
        for (float min_p : min_ps) {
          for (float bias : biases) {
            Request request;
            request.args = {.temperature = temperature, .top_p = top_p, .min_p = min_p};
            request.args.top_k = static_cast<int32_t>(random_() % 4) * 7;
            request.args.uniform = uniforms[random_() % 3];
            request.args.repetition_penalty = random_() % 2 ? 1e-30f : 1e30f;
            request.counts = {{0, 1000000}};
            if (bias != 0) request.bias = {{vocab - 1, bias}, {vocab / 2, -bias}};
            const SampleResult result = Sample(logits, request);
            ASSERT_GE(result.token, 0);
            ASSERT_LT(result.token, vocab);
            ASSERT_EQ(result.status, SampleRowStatus::kOk);
          }
        }
      }
    }
  }
}

TEST_P(SampleTest, SmallTopPAndTemperatureAreGreedy) {
  const std::vector<float> logits = Logits(3000, 1.0f);
  const int32_t best = Sample(logits, SampleArgs{.temperature = 0.0f}).token;
  for (double u : {0.0, 0.3, 1.0 - 0x1p-53}) {
    EXPECT_EQ(Sample(logits, SampleArgs{.top_p = 1e-20f, .uniform = u}).token, best);
    EXPECT_EQ(Sample(logits, SampleArgs{.min_p = 1.0f, .uniform = u}).token, best);
    EXPECT_EQ(Sample(logits, SampleArgs{.temperature = FLT_TRUE_MIN, .uniform = u}).token, best);
  }
}

TEST_P(SampleTest, BrokenAndMaskedRowsAreReported) {
  for (int32_t at : {0, 5, 63, 99}) {
    std::vector<float> logits = Logits(100, 1.0f);
    logits[at] = std::nanf("");
    EXPECT_EQ(Sample(logits, SampleArgs{}).status, SampleRowStatus::kNotFinite);
    logits[at] = kInf;
    EXPECT_EQ(Sample(logits, SampleArgs{.temperature = 0.0f}).status, SampleRowStatus::kNotFinite);
    logits[at] = -kInf;
    for (int i = 0; i < 50; ++i) {
      const SampleResult result = Sample(logits, SampleArgs{.temperature = 5.0f, .uniform = i / 50.0});
      EXPECT_EQ(result.status, SampleRowStatus::kOk);
      EXPECT_NE(result.token, at);
    }
  }
  std::vector<float> logits = {1.0f, 3.0f, 2.0f};
  Request all;
  all.masked = {0, 1, 2};
  all.args.num_logprobs = 2;
  const SampleResult result = Sample(logits, all);
  EXPECT_EQ(result.status, SampleRowStatus::kAllMasked);
  EXPECT_EQ(result.token, 1);
  EXPECT_EQ(result.num_top, 2);
  Request but_one = all;
  but_one.masked = {1, 2};
  EXPECT_EQ(Sample(logits, but_one).token, 0);
  const SampleResult nothing = Sample(std::vector<float>(70, -kInf), SampleArgs{.num_logprobs = 3});
  EXPECT_EQ(nothing.status, SampleRowStatus::kNotFinite);
  EXPECT_EQ(nothing.num_top, 0);
  EXPECT_EQ(nothing.logprob, 0.0f);
}

TEST_P(SampleTest, ARowIgnoresTheOtherRows) {
  const int32_t vocab = 999, rows = 13, stride = 1003;
  const std::vector<float> logits = Logits(stride * rows, 2.0f);
  std::vector<Request> requests;
  std::vector<SampleArgs> args;
  for (int r = 0; r < rows; ++r) requests.push_back(RandomRequest(vocab));
  for (Request& request : requests) {
    request.args.uniform = 0.37;
    args.push_back(request.Args());
  }
  std::vector<Line> scratch(SampleScratchBytes(vocab) / 64 * pool_.num_threads());
  std::vector<SampleResult> results(rows);
  SampleRows(pool_, logits.data(), stride, vocab, args.data(), rows, scratch.data(), results.data());
  for (int r = 0; r < rows; ++r) {
    const std::vector<float> row(logits.begin() + r * stride, logits.begin() + r * stride + vocab);
    EXPECT_EQ(Sample(row, args[r]).token, results[r].token);
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, SampleTest, testing::Values(Isa::kScalar, Isa::kAvx2, Isa::kAvx512),
                         [](const auto& info) { return std::string(NameOf(info.param)); });

}  // namespace
}  // namespace orrery
