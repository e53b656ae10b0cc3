// Sampling on the emulator against double precision: which tokens the filters keep, which of them the Gumbel
// variables choose, log-probabilities, penalties and broken rows; the random numbers against the published
// vectors of their authors; frequencies of draws against the exact distribution.
#include "kernels/cuda/sample.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <utility>

#include "tests/kernels/cuda/kernel_test.h"
#include "tests/kernels/cuda/reference_random.h"

namespace orrery::cuda {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

struct Row {
  std::vector<float> logits;
  SampleParameters parameters;
  std::vector<TokenCount> counts{};
  std::vector<TokenBias> biases{};
  std::vector<int32_t> masked{};
};

struct Output {
  SampledToken token;
  std::vector<TokenLogprob> top;
};

class SampleTest : public KernelTest {
 protected:
  static std::vector<Output> Run(const std::vector<Row>& rows) {
    const int32_t vocab = static_cast<int32_t>(rows[0].logits.size());
    const int64_t stride = vocab + 3;
    std::vector<float> logits(rows.size() * stride, NAN);
    std::vector<SampleParameters> parameters;
    std::vector<TokenCount> counts;
    std::vector<TokenBias> biases;
    std::vector<int32_t> masked;
    const auto append = [](auto& all, const auto& some) {
      const ListRange range{static_cast<int32_t>(all.size()), static_cast<int32_t>(all.size() + some.size())};
      all.insert(all.end(), some.begin(), some.end());
      return range;
    };
    int32_t most_top = 1;
    for (size_t r = 0; r < rows.size(); ++r) {
      std::copy(rows[r].logits.begin(), rows[r].logits.end(), logits.begin() + r * stride);
      parameters.push_back(rows[r].parameters);
      parameters.back().counts = append(counts, rows[r].counts);
      parameters.back().biases = append(biases, rows[r].biases);
      parameters.back().masked = append(masked, rows[r].masked);
      most_top = std::max(most_top, rows[r].parameters.num_top);
    }
    std::vector<float> before_counts(counts.size()), before_biases(biases.size()),
        before_masked(masked.size());
    std::vector<SampledToken> results(rows.size());
    std::vector<TokenLogprob> top(rows.size() * most_top);
    Sample(nullptr, {.logits = logits.data(),
                     .stride = stride,
                     .vocab = vocab,
                     .rows = static_cast<int32_t>(rows.size()),
                     .parameters = parameters.data(),
                     .counts = counts.data(),
                     .biases = biases.data(),
                     .masked = masked.data(),
                     .before_counts = before_counts.data(),
                     .before_biases = before_biases.data(),
                     .before_masked = before_masked.data(),
                     .results = results.data(),
                     .top = top.data(),
                     .top_stride = most_top});
    ExpectNoFailure();
    std::vector<Output> outputs;
    for (size_t r = 0; r < rows.size(); ++r) {
      outputs.push_back(
          {results[r], {top.begin() + r * most_top, top.begin() + r * most_top + results[r].num_top}});
    }
    return outputs;
  }

  static std::vector<double> Modified(const Row& row) {
    std::vector<double> x(row.logits.begin(), row.logits.end());
    const SampleParameters& p = row.parameters;
    for (const auto& [id, count] : row.counts) {
      x[id] = x[id] > 0 ? x[id] / p.repetition_penalty : x[id] * p.repetition_penalty;
      if (count > 0) x[id] -= double{p.frequency_penalty} * count + p.presence_penalty;
    }
    for (const auto& [id, value] : row.biases) x[id] += value;
    for (const int32_t id : row.masked) x[id] = -kInf;
    return x;
  }

  // Ids that the filters keep; empty where rounding may decide otherwise.
  static std::vector<int> Kept(const SampleParameters& p, const std::vector<double>& x) {
    constexpr double kMargin = 1e-5;
    std::vector<int> ids(x.size());
    std::iota(ids.begin(), ids.end(), 0);
    std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) { return x[a] > x[b]; });
    const double best = x[ids[0]], temperature = p.temperature;
    const auto share = [&](int id) { return std::exp((x[id] - best) / temperature); };
    if (p.top_k > 0 && p.top_k < static_cast<int>(ids.size())) ids.resize(p.top_k);
    if (p.top_p < 1.0f) {
      double total = 0, sum = 0;
      for (const int id : ids) total += share(id);
      size_t n = 0;
      while (n < ids.size() && sum < p.top_p * total) {
        sum += share(ids[n++]);
        if (std::abs(sum / total - p.top_p) < kMargin) return {};
      }
      ids.resize(n);
    }
    for (const int id : ids) {
      if (std::abs(share(id) - p.min_p) < kMargin * p.min_p && id != ids[0]) return {};
    }
    std::erase_if(ids, [&](int id) { return share(id) < p.min_p || std::isinf(x[id]); });
    return ids;
  }

  Row RandomRow(int vocab) {
    Row row;
    const int shape = Uniform(0, 3);
    row.logits = Normal(vocab, shape == 0 ? 0.1f : shape == 1 ? 10.0f : 3.0f);
    if (shape == 3) {
      for (float& x : row.logits) x = std::round(x);  // ties
    }
    if (Uniform(0, 3) == 0) row.logits[Uniform(0, vocab - 1)] = vocab > 1 ? -kInf : 0.0f;
    SampleParameters& p = row.parameters;
    p.temperature = std::array{0.0f, 0.5f, 1.0f, 1.7f}[Uniform(0, 3)];
    if (Uniform(0, 1)) p.top_k = Uniform(1, std::min(vocab + 2, 90));
    if (Uniform(0, 1)) p.top_p = std::array{0.05f, 0.6f, 0.9f, 0.99f}[Uniform(0, 3)];
    if (Uniform(0, 2) == 0) p.min_p = std::array{1e-9f, 0.02f, 0.3f}[Uniform(0, 2)];
    if (Uniform(0, 1)) p.num_top = Uniform(0, std::min(vocab + 3, kMaxTopTokens));
    p.seed = (uint64_t{random_()} << 32) | random_();
    p.position = Uniform(0, 1) ? Uniform(0, 5000) : (uint64_t{7} << 33) + Uniform(0, 9);
    const auto some_ids = [&] {
      std::vector<int32_t> ids(vocab);
      std::iota(ids.begin(), ids.end(), 0);
      std::shuffle(ids.begin(), ids.end(), random_);
      ids.resize(Uniform(0, std::min(vocab - 1, 40)));
      return ids;
    };
    if (Uniform(0, 1)) {
      p.repetition_penalty = 1.3f;
      p.frequency_penalty = 0.25f;
      p.presence_penalty = 0.5f;
      for (const int32_t id : some_ids()) row.counts.push_back({id, Uniform(0, 3)});
      if (Uniform(0, 1)) {
        for (const int32_t id : some_ids()) row.biases.push_back({id, std::round(Normal(1, 4.0f)[0])});
        row.masked = some_ids();
      }
    }
    return row;
  }

  static void ExpectLogprobs(const Row& row, const Output& out) {
    if (row.parameters.num_top < 0) return;
    const std::vector<float>& x = row.logits;
    const double best = *std::max_element(x.begin(), x.end());
    double sum = 0;
    for (const float logit : x) sum += std::exp(logit - best);
    const double log_sum = best + std::log(sum);
    const auto expect = [&](int id, float logprob) {
      if (std::isinf(x[id])) {
        ASSERT_EQ(logprob, -kInf);
      } else {
        ASSERT_NEAR(logprob, x[id] - log_sum, 1e-5 * (1 + std::abs(x[id] - log_sum)));
      }
    };
    expect(out.token.token, out.token.logprob);
    std::vector<int> ids(x.size());
    std::iota(ids.begin(), ids.end(), 0);
    std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) { return x[a] > x[b]; });
    ASSERT_EQ(out.top.size(), std::min<size_t>(row.parameters.num_top, x.size()));
    for (size_t i = 0; i < out.top.size(); ++i) {
      ASSERT_EQ(out.top[i].id, ids[i]) << "place " << i;
      expect(ids[i], out.top[i].logprob);
    }
  }
};

TEST_F(SampleTest, TokensAndLogprobsAgreeWithDoublePrecision) {
  int compared = 0, rows_run = 0;
  for (int round = 0; round < 400; ++round) {
    NextCase();
    const int vocab = round % 25 == 0  ? Uniform(2100, 3000)
                      : round % 5 == 0 ? Uniform(1, 4)
                                       : Uniform(1, 400);
    std::vector<Row> rows;
    for (int r = Uniform(1, 4); r > 0; --r) rows.push_back(RandomRow(vocab));
    const std::vector<Output> outputs = Run(rows);
    for (size_t r = 0; r < rows.size(); ++r) {
      const Row& row = rows[r];
      const SampleParameters& p = row.parameters;
      ++rows_run;
      ASSERT_EQ(outputs[r].token.status, SampleStatus::kOk);
      ExpectLogprobs(row, outputs[r]);
      const std::vector<double> x = Modified(row);
      const int token = outputs[r].token.token;
      if (p.temperature == 0.0f) {
        ASSERT_NEAR(x[token], *std::max_element(x.begin(), x.end()), 1e-5);
        if (row.counts.empty()) {
          ASSERT_EQ(token, std::max_element(x.begin(), x.end()) - x.begin());
        }
        ++compared;
        continue;
      }
      const std::vector<int> kept = Kept(p, x);
      if (kept.empty()) continue;
      double best = -kInf, second = -kInf;
      int expected = -1;
      for (const int id : kept) {
        const double score = x[id] / p.temperature + ReferenceGumbel(p.seed, p.position, id);
        if (score > best) {
          second = std::exchange(best, score);
          expected = id;
        } else {
          second = std::max(second, score);
        }
      }
      if (best - second < 1e-4) continue;
      ASSERT_EQ(token, expected) << "round " << round << ", " << kept.size() << " of " << vocab << " kept";
      ++compared;
    }
  }
  EXPECT_GT(compared, rows_run * 9 / 10);
}

TEST_F(SampleTest, BrokenRowsAreNamed) {
  for (const int at : {0, 70}) {
    Row nan{.logits = Normal(71), .parameters = {.num_top = 2}};
    Row infinite = nan, negative_nan = nan, empty = nan, masked = nan, good = nan;
    nan.logits[at] = NAN;
    negative_nan.logits[at] = -NAN;
    infinite.logits[at] = kInf;
    std::fill(empty.logits.begin(), empty.logits.end(), -kInf);
    masked.masked.resize(71);
    std::iota(masked.masked.begin(), masked.masked.end(), 0);
    masked.biases = {{at, 5.0f}};
    const auto out = Run({nan, infinite, negative_nan, empty, masked, good});
    for (int r = 0; r < 4; ++r) EXPECT_EQ(out[r].token.status, SampleStatus::kNotFinite) << r;
    EXPECT_EQ(out[4].token.status, SampleStatus::kAllMasked);
    const auto& x = masked.logits;
    EXPECT_EQ(out[4].token.token, std::max_element(x.begin(), x.end()) - x.begin());
    ExpectLogprobs(masked, out[4]);
    EXPECT_EQ(out[5].token.status, SampleStatus::kOk);
  }
}

TEST_F(SampleTest, OverflowSaturates) {
  Row row{.logits = Normal(71), .parameters = {.top_p = 0.5f}};
  row.logits[33] = 3e38f;
  row.biases = {{33, 3e38f}};
  const Output out = Run({row})[0];
  EXPECT_EQ(out.token.status, SampleStatus::kOk);
  EXPECT_EQ(out.token.token, 33);
}

TEST_F(SampleTest, KnownTokensAreScored) {
  for (int round = 0; round < 20; ++round) {
    NextCase();
    Row row{.logits = Normal(Uniform(1, 300)), .parameters = {}};
    row.parameters.num_top = Uniform(0, 20);
    row.parameters.known_token = Uniform(0, static_cast<int>(row.logits.size()) - 1);
    const Output out = Run({row})[0];
    EXPECT_EQ(out.token.token, row.parameters.known_token);
    ExpectLogprobs(row, out);
  }
}

// Chi-square of many draws at different positions against the exact distribution. Seeds are fixed: the bound
// is the 99.9 % quantile once and for all.
TEST_F(SampleTest, FrequenciesOfDrawsAreTheSoftmax) {
  // 3000 rows with top_k 6 of 9.
  Row row{.logits = Normal(9), .parameters = {.top_k = 6, .seed = 5}};
  std::vector<Row> rows(3000, row);
  for (size_t r = 0; r < rows.size(); ++r) rows[r].parameters.position = r;
  std::vector<double> x(row.logits.begin(), row.logits.end());
  const std::vector<int> kept = Kept(row.parameters, x);
  std::vector<double> counts(9, 0.0);
  for (const Output& out : Run(rows)) ++counts[out.token.token];
  double total = 0, chi_square = 0;
  for (const int id : kept) total += std::exp(x[id]);
  for (const int id : kept) {
    const double expected = 3000 * std::exp(x[id]) / total;
    chi_square += (counts[id] - expected) * (counts[id] - expected) / expected;
    counts[id] = 0;
  }
  EXPECT_LT(chi_square, 20.52);  // 5 degrees of freedom
  EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), 0.0), 0.0) << "a token that is not kept was drawn";
}

// 2999 tokens e^-17.2 as likely as the best: further away than what the kernel picks to look at again. At
// these positions, found by search, one of them is drawn all the same.
TEST_F(SampleTest, FarTokensAreNotLeftOut) {
  constexpr int kVocab = 3000, kBest = 800;
  constexpr double kFar = -17.2;
  struct Filter {
    const char* name;
    SampleParameters parameters;
    int far_tokens;  // kept, lowest ids first
  };
  // How many far tokens top_p keeps of so many.
  const auto nucleus = [](float top_p, int far) {
    return static_cast<int>(std::ceil((top_p * (1 + far * std::exp(kFar)) - 1) / std::exp(kFar)));
  };
  const std::vector<Filter> filters = {
      {"none", {}, kVocab - 1},
      {"top_k", {.top_k = 2990}, 2989},
      {"top_p", {.top_p = 0.99991f}, nucleus(0.99991f, kVocab - 1)},
      {"min_p", {.min_p = 1e-9f}, kVocab - 1},
      {"top_k, top_p", {.top_k = 2000, .top_p = 0.999999f}, nucleus(0.999999f, 1999)}};
  for (const Filter& filter : filters) {
    for (const uint64_t position : {163228, 212683}) {
      NextCase();
      Row row{.logits = std::vector<float>(kVocab, kFar), .parameters = filter.parameters};
      row.logits[kBest] = 0.0f;
      row.parameters.seed = 1;
      row.parameters.position = position;
      int expected = kBest;
      double best = ReferenceGumbel(1, position, kBest);
      for (int id = 0, left = filter.far_tokens; left > 0; ++id) {
        if (id == kBest) continue;
        --left;
        const double score = kFar + ReferenceGumbel(1, position, id);
        if (score > best) best = score, expected = id;
      }
      EXPECT_NE(expected, kBest);
      EXPECT_EQ(Run({row})[0].token.token, expected) << filter.name;
    }
  }
}

// 1999 tokens e^-4.857 as likely as the best, which weigh 1.99 * 2^32: what carries out of the lower half of
// their sum is half of it.
TEST_F(SampleTest, WeightsAddUpBeyondThirtyTwoBits) {
  constexpr int kVocab = 2000, kBest = 1500;
  constexpr double kFar = -4.857;
  constexpr float kTopP = 0.5f;
  const double share = std::exp(kFar);
  const int far_tokens = static_cast<int>(std::ceil((kTopP * (1 + (kVocab - 1) * share) - 1) / share));
  ASSERT_LT(far_tokens, kBest);
  std::vector<Row> rows;
  std::vector<int> expected;
  for (uint64_t position = 0; position < 40; ++position) {
    rows.push_back({.logits = std::vector<float>(kVocab, kFar),
                    .parameters = {.top_p = kTopP, .seed = 7, .position = position}});
    rows.back().logits[kBest] = 0.0f;
    int winner = kBest;
    double best = ReferenceGumbel(7, position, kBest);
    for (int id = 0; id < far_tokens; ++id) {
      const double score = kFar + ReferenceGumbel(7, position, id);
      if (score > best) best = score, winner = id;
    }
    expected.push_back(winner);
  }
  const std::vector<Output> out = Run(rows);
  for (size_t r = 0; r < rows.size(); ++r) EXPECT_EQ(out[r].token.token, expected[r]) << r;
}

TEST_F(SampleTest, DrawsDoNotDependOnTheBatch) {
  for (int round = 0; round < 20; ++round) {
    NextCase();
    std::vector<Row> rows;
    for (int r = 0; r < 4; ++r) rows.push_back(RandomRow(200));
    const std::vector<Output> together = Run(rows);
    for (int r = 0; r < 4; ++r) {
      NextCase();
      EXPECT_EQ(Run({rows[r]})[0].token.token, together[r].token.token);
    }
  }
}

}  // namespace
}  // namespace orrery::cuda
