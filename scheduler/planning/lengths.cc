#include "scheduler/planning/lengths.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "scheduler/base/text.h"

namespace orrery {
namespace {

constexpr double kMaxSigma = 5.0;

absl::Status CheckLength(std::string_view field, int64_t length) {
  if (length >= 1 && length <= kMaxLengthTokens) return absl::OkStatus();
  return absl::InvalidArgumentError(
      Cat(field, ": lengths must be in [1, ", kMaxLengthTokens, "], not ", length));
}

absl::Status CheckWeight(std::string_view field, double weight) {
  if (std::isfinite(weight) && weight >= 0.0) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat(field, ": weights must be finite and not negative"));
}

absl::Status NoWeight(std::string_view field) {
  return absl::InvalidArgumentError(Cat(field, ": weights must add up to more than 0"));
}

double Chunks(int64_t tokens, int64_t chunk) { return static_cast<double>((tokens + chunk - 1) / chunk); }

struct Marginal {
  double mean = 0.0, squared = 0.0, longest = 0.0, chunks = 0.0;
};

// Sum over n = low..high of ceil(n / chunk), by whole chunks.
double SumOfChunks(int64_t high, int64_t chunk) {
  const auto whole = static_cast<double>(high / chunk);
  return static_cast<double>(chunk) * whole * (whole + 1.0) / 2.0 +
         static_cast<double>(high % chunk) * (whole + 1.0);
}

absl::StatusOr<Marginal> MomentsOf(std::string_view field, const UniformLength& u, int64_t chunk) {
  for (const int64_t end : {u.low, u.high}) {
    if (absl::Status status = CheckLength(field, end); !status.ok()) return status;
  }
  if (u.low > u.high)
    return absl::InvalidArgumentError(Cat(field, ": uniform_int [", u.low, ", ", u.high, "] is empty"));
  const auto low = static_cast<double>(u.low), high = static_cast<double>(u.high);
  const double count = high - low + 1.0, mean = (low + high) / 2.0;
  return Marginal{mean, mean * mean + (count * count - 1.0) / 12.0, high,
                  (SumOfChunks(u.high, chunk) - SumOfChunks(u.low - 1, chunk)) / count};
}

absl::StatusOr<Marginal> MomentsOf(std::string_view field, const LognormalLength& l, int64_t chunk) {
  if (!(l.median >= 1.0 && l.median <= static_cast<double>(kMaxLengthTokens))) {
    return absl::InvalidArgumentError(
        Cat(field, ": the lognormal's median must be in [1, ", kMaxLengthTokens, "]"));
  }
  if (!(l.sigma >= 0.0 && l.sigma <= kMaxSigma))
    return absl::InvalidArgumentError(Cat(field, ": the lognormal's sigma must be in [0, ", kMaxSigma, "]"));
  const double variance = l.sigma * l.sigma;
  Marginal m{l.median * std::exp(variance / 2.0), l.median * l.median * std::exp(2.0 * variance),
             l.sigma == 0.0 ? l.median : std::numeric_limits<double>::infinity(), 0.0};
  // E[ceil(x / c)] = sum over k of P(x > k c); the far tail by its length alone.
  constexpr int kMaxTerms = 1'000'000;
  double survival = 1.0;
  for (int k = 0; k < kMaxTerms && survival > 1e-12; ++k) {
    m.chunks += survival;
    const double at = std::log(static_cast<double>(k + 1) * static_cast<double>(chunk) / l.median);
    survival = l.sigma == 0.0 ? (at < 0.0 ? 1.0 : 0.0) : 0.5 * std::erfc(at / (l.sigma * std::sqrt(2.0)));
  }
  return m;
}

absl::StatusOr<Marginal> MomentsOf(std::string_view field, const HistogramLength& h, int64_t chunk) {
  Marginal m;
  double total = 0.0;
  for (const auto& [length, weight] : h.weights) {
    if (absl::Status status = CheckLength(field, length); !status.ok()) return status;
    if (absl::Status status = CheckWeight(field, weight); !status.ok()) return status;
    if (weight == 0.0) continue;
    const auto n = static_cast<double>(length);
    total += weight;
    m.mean += weight * n;
    m.squared += weight * n * n;
    m.chunks += weight * Chunks(length, chunk);
    m.longest = std::max(m.longest, n);
  }
  if (!(total > 0.0 && std::isfinite(total))) return NoWeight(field);
  for (double* sum : {&m.mean, &m.squared, &m.chunks}) *sum /= total;
  return m;
}

absl::StatusOr<Marginal> MomentsOf(std::string_view field, const LengthDistribution& distribution,
                                   int64_t chunk) {
  return std::visit([&](const auto& d) { return MomentsOf(field, d, chunk); }, distribution);
}

}  // namespace

absl::StatusOr<LengthMoments> IndependentMoments(const LengthDistribution& prompt,
                                                 const LengthDistribution& output, int64_t chunk_tokens) {
  const auto s = MomentsOf("prompt_tokens", prompt, chunk_tokens);
  if (!s.ok()) return s.status();
  const auto o = MomentsOf("output_tokens", output, chunk_tokens);
  if (!o.ok()) return o.status();
  return LengthMoments{s->mean,  s->squared, o->mean, o->squared, s->mean * o->mean, s->longest + o->longest,
                       s->chunks};
}

absl::StatusOr<LengthMoments> JointMoments(const std::vector<JointLength>& rows, int64_t chunk_tokens) {
  LengthMoments m;
  double total = 0.0;
  for (const JointLength& row : rows) {
    for (const absl::Status& status :
         {CheckLength("joint", row.prompt_tokens), CheckLength("joint", row.output_tokens),
          CheckWeight("joint", row.weight)}) {
      if (!status.ok()) return status;
    }
    if (row.weight == 0.0) continue;
    const auto s = static_cast<double>(row.prompt_tokens), o = static_cast<double>(row.output_tokens);
    total += row.weight;
    m.prompt += row.weight * s;
    m.prompt_squared += row.weight * s * s;
    m.output += row.weight * o;
    m.output_squared += row.weight * o * o;
    m.product += row.weight * s * o;
    m.chunks += row.weight * Chunks(row.prompt_tokens, chunk_tokens);
    m.longest_total = std::max(m.longest_total, s + o);
  }
  if (!(total > 0.0 && std::isfinite(total))) return NoWeight("joint");
  for (double* sum : {&m.prompt, &m.prompt_squared, &m.output, &m.output_squared, &m.product, &m.chunks})
    *sum /= total;
  return m;
}

}  // namespace orrery
