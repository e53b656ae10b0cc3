#include "engine/cuda/sampler.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"

namespace orrery::cuda {
namespace {

// Of lists beyond one row's longest: several rows go over at once.
constexpr size_t kListBytes = size_t{4} << 20;

static_assert(static_cast<int>(SampleRowStatus::kNotFinite) == static_cast<int>(SampleStatus::kNotFinite) &&
              static_cast<int>(SampleRowStatus::kAllMasked) == static_cast<int>(SampleStatus::kAllMasked));

}  // namespace

Sampler::Sampler(Device& device, int32_t vocab, int64_t max_rows, int64_t max_samples)
    : device_(device), vocab_(vocab), max_rows_(max_rows), max_samples_(max_samples) {}

absl::Status Sampler::Allocate() {
  absl::StatusOr<std::unique_ptr<Buffer>> sampled = device_.Allocate(SampledBytes());
  if (!sampled.ok()) return sampled.status();
  sampled_ = *std::move(sampled);
  return staging_.Allocate(device_, StagingBytes());
}

void Sampler::BeginStep() {
  ORRERY_CHECK(begun_ - finished_ < kStepsInFlight);
  ++begun_;
  num_sampled_ = 0;
  staging_.BeginStep();
}

size_t Sampler::RowBytes(const orrery::SampleArgs& args, int32_t top_stride) {
  return Staging::BytesOf<SampleParameters>(1) + Staging::BytesOf<SampledToken>(1) +
         Staging::BytesOf<TokenCount>(args.num_counts) + Staging::BytesOf<TokenBias>(args.num_bias) +
         Staging::BytesOf<int32_t>(args.num_masked) + Staging::BytesOf<float>(args.num_counts) +
         Staging::BytesOf<float>(args.num_bias) + Staging::BytesOf<float>(args.num_masked) +
         Staging::BytesOf<TokenLogprob>(top_stride);
}

size_t Sampler::StagingBytes() const {
  // A row's lists name an id once.
  orrery::SampleArgs longest;
  longest.num_counts = longest.num_bias = longest.num_masked = vocab_;
  return RowBytes(longest, kMaxTopTokens) + kListBytes + Staging::BytesOf<int32_t>(max_rows_);
}

const int32_t* Sampler::PutRows(absl::Span<const int32_t> rows) {
  MakeRoom(Staging::BytesOf<int32_t>(static_cast<int64_t>(rows.size())));
  const int32_t* ids = staging_.Put(rows);
  staging_.Upload();
  return ids;
}

void Sampler::Sample(const Tensor& logits, absl::Span<const orrery::SampleArgs> args, SampleResult* results) {
  SampledToken* const sampled = static_cast<SampledToken*>(sampled_->data()) + num_sampled_;
  num_sampled_ += static_cast<int64_t>(args.size());
  ORRERY_CHECK(num_sampled_ <= max_samples_);
  Run(
      logits, static_cast<int64_t>(args.size()),
      [&](int64_t row) {
        return Row{args[static_cast<size_t>(row)], -1};
      },
      results, sampled);
}

void Sampler::Score(const Tensor& logits, absl::Span<const ScoreArgs> args, SampleResult* results) {
  Run(
      logits, static_cast<int64_t>(args.size()),
      [&](int64_t row) {
        const ScoreArgs& score = args[static_cast<size_t>(row)];
        return Row{{.num_logprobs = score.num_top}, score.id};
      },
      results, nullptr);
}

// As many rows at a time as their lists leave room for.
template <typename RowAt>
void Sampler::Run(const Tensor& logits, int64_t count, const RowAt& row_at, SampleResult* results,
                  SampledToken* sampled) {
  int32_t top_stride = 0;
  for (int64_t row = 0; row < count; ++row) {
    top_stride = std::max(top_stride, MostTop(row_at(row).args.num_logprobs));
  }
  for (int64_t begin = 0, end = 0; begin < count; begin = end) {
    size_t bytes = RowBytes(row_at(begin).args, top_stride);
    MakeRoom(bytes);
    for (end = begin + 1; end < count; ++end) {
      const size_t more = RowBytes(row_at(end).args, top_stride);
      if (!staging_.HasRoom(bytes + more)) break;
      bytes += more;
    }
    Launch(
        logits.Slice(begin, end - begin), end - begin, top_stride,
        [&](int64_t row) { return row_at(begin + row); }, results + begin,
        sampled == nullptr ? nullptr : sampled + begin);
  }
}

template <typename RowAt>
void Sampler::Launch(const Tensor& logits, int64_t count, int32_t top_stride, const RowAt& row_at,
                     SampleResult* results, SampledToken* sampled) {
  int64_t num_counts = 0, num_biases = 0, num_masked = 0;
  for (int64_t row = 0; row < count; ++row) {
    const orrery::SampleArgs args = row_at(row).args;
    num_counts += args.num_counts;
    num_biases += args.num_bias;
    num_masked += args.num_masked;
  }
  const auto parameters = staging_.Take<SampleParameters>(count);
  const auto counts = staging_.Take<TokenCount>(num_counts);
  const auto biases = staging_.Take<TokenBias>(num_biases);
  const auto masked = staging_.Take<int32_t>(num_masked);
  int32_t next_count = 0, next_bias = 0, next_masked = 0;
  for (int64_t row = 0; row < count; ++row) {
    const auto [args, known_token] = row_at(row);
    parameters.host[row] = {.temperature = args.temperature,
                            .top_k = args.top_k,
                            .top_p = args.top_p,
                            .min_p = args.min_p,
                            .presence_penalty = args.presence_penalty,
                            .frequency_penalty = args.frequency_penalty,
                            .repetition_penalty = args.repetition_penalty,
                            .counts = {next_count, next_count + args.num_counts},
                            .biases = {next_bias, next_bias + args.num_bias},
                            .masked = {next_masked, next_masked + args.num_masked},
                            // A hash of the request's seed and the token's number already.
                            .seed = std::bit_cast<uint64_t>(args.uniform),
                            .position = 0,
                            .known_token = known_token,
                            .num_top = MostTop(args.num_logprobs)};
    std::copy_n(args.counts, args.num_counts, counts.host + next_count);
    std::copy_n(args.bias, args.num_bias, biases.host + next_bias);
    std::copy_n(args.masked, args.num_masked, masked.host + next_masked);
    next_count += args.num_counts;
    next_bias += args.num_bias;
    next_masked += args.num_masked;
  }
  staging_.Upload();
  const auto before_counts = staging_.Take<float>(num_counts);
  const auto before_biases = staging_.Take<float>(num_biases);
  const auto before_masked = staging_.Take<float>(num_masked);
  auto tokens = staging_.Take<SampledToken>(count);
  if (sampled != nullptr) tokens.device = sampled;
  const auto top = staging_.Take<TokenLogprob>(count * top_stride);
  staging_.LeaveOnDevice();
  cuda::Sample(device_.stream(), {.logits = static_cast<float*>(logits.data),
                                  .stride = logits.cols,
                                  .vocab = vocab_,
                                  .rows = static_cast<int32_t>(count),
                                  .parameters = parameters.device,
                                  .counts = counts.device,
                                  .biases = biases.device,
                                  .masked = masked.device,
                                  .before_counts = before_counts.device,
                                  .before_biases = before_biases.device,
                                  .before_masked = before_masked.device,
                                  .results = tokens.device,
                                  .top = top.device,
                                  .top_stride = top_stride});
  staging_.Download(tokens, count);
  if (top_stride > 0) staging_.Download(top, count * top_stride);
  step().pending.push_back({.tokens = tokens.host,
                            .top = top.host,
                            .count = static_cast<int32_t>(count),
                            .top_stride = top_stride,
                            .results = results});
}

void Sampler::MakeRoom(size_t bytes) {
  if (staging_.HasRoom(bytes)) return;
  step().status.Update(device_.Synchronize());
  HandOut(step());
  staging_.Clear();
}

void Sampler::HandOut(Step& step) {
  for (const Pending& pending : step.pending) {
    for (int32_t row = 0; step.status.ok() && row < pending.count; ++row) {
      const SampledToken& token = pending.tokens[row];
      SampleResult& result = pending.results[row];
      result.token = token.token;
      result.status = static_cast<SampleRowStatus>(token.status);
      result.logprob = token.logprob;
      result.num_top = token.num_top;
      std::copy_n(pending.top + row * pending.top_stride, token.num_top, result.top);
    }
  }
  step.pending.clear();
}

absl::Status Sampler::FinishStep(absl::Status status) {
  ORRERY_CHECK(finished_ < begun_);
  Step& step = steps_[++finished_ % kStepsInFlight];
  status.Update(std::exchange(step.status, absl::OkStatus()));
  step.status = std::move(status);
  HandOut(step);
  return std::exchange(step.status, absl::OkStatus());
}

}  // namespace orrery::cuda
