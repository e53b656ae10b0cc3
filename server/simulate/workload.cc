#include "server/simulate/workload.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/base/random.h"
#include "server/bench/arrivals.h"
#include "server/bench/unknown_name.h"
#include "server/simulate/row_generator.h"

namespace orrery::simulate {
namespace {

constexpr size_t kMaxRows = size_t{1} << 24;
constexpr int64_t kDrawnRequests = 10'000;  // of a workload without an end, when no number is given
// Random streams of one seed.
constexpr uint32_t kArrivals = 0, kRows = 1, kClasses = 2;
constexpr std::string_view kFormats[] = {"azure", "mooncake", "lengths", "servegen", "classes", "bench"};

// The ids of a prompt from the hashes of its leading blocks; what has no hash is the request's own.
std::shared_ptr<const std::vector<TokenId>> PromptIds(const TraceRow& row, uint64_t serial) {
  auto ids = std::make_shared<std::vector<TokenId>>(static_cast<size_t>(row.prompt_tokens));
  for (size_t i = 0; i < ids->size(); ++i) {
    const size_t block = i / kMooncakeBlockTokens;
    const bool named = block < row.hash_ids.size();
    const uint64_t name = named ? static_cast<uint64_t>(row.hash_ids[block]) * 2 : serial * 2 + 1;
    const uint64_t position = named ? i % kMooncakeBlockTokens : i;
    uint64_t mix = (name + 0x9E3779B97F4A7C15u) * 0xBF58476D1CE4E5B9u + position * 0x94D049BB133111EBu;
    mix ^= mix >> 29;
    (*ids)[i] = static_cast<TokenId>((mix * 0x2545F4914F6CDD1Du) >> 34) | 1;
  }
  return ids;
}

Slo ToSlo(const bench::SloTargets& targets) {
  Slo slo;
  if (targets.ttft_ms) slo.ttft = Duration::Nanoseconds(std::llround(*targets.ttft_ms * 1e6));
  if (targets.tpot_ms) slo.tpot = Duration::Nanoseconds(std::llround(*targets.tpot_ms * 1e6));
  return slo;
}

// What every source does with a row once it has its lengths and its time.
class RequestMaker {
 public:
  RequestMaker(const WorkloadOptions& options, uint64_t seed) : options_(options), random_(seed, kClasses) {
    for (const SimClass& one : options.classes) up_to_.push_back(shares_ += one.share);
  }
  int32_t DrawClass() {
    if (up_to_.size() == 1) return 0;
    const double at = random_.Uniform() * shares_;
    return static_cast<int32_t>(std::upper_bound(up_to_.begin(), up_to_.end() - 1, at) - up_to_.begin());
  }
  void Fill(double arrival_s, int32_t prompt, int32_t output, int32_t class_index,
            sim::SimRequest* out) const {
    const SimClass& one = options_.classes[static_cast<size_t>(class_index)];
    *out = sim::SimRequest{};
    out->arrival = Time{std::llround(arrival_s * 1e9)};
    out->prompt_tokens = prompt;
    out->output_tokens = output;
    const int32_t bound = std::min(options_.max_tokens, options_.max_context - prompt);
    out->max_tokens = std::max(output, bound);
    out->class_index = class_index;
    out->priority = one.priority;
    out->tenant = one.tenant;
    out->slo = ToSlo(one.slo);
  }

 private:
  const WorkloadOptions& options_;
  RandomStream random_;
  std::vector<double> up_to_;
  double shares_ = 0;
};

// Rows that were read from a file.
class RowSource final : public sim::RequestSource {
 public:
  RowSource(const WorkloadOptions& options, std::shared_ptr<const std::vector<TraceRow>> rows, int64_t count,
            bench::ArrivalSpec arrivals, double time_scale, uint64_t seed)
      : options_(options),
        rows_(std::move(rows)),
        left_(count),
        maker_(options, seed),
        gaps_(arrivals, seed, kArrivals),
        picks_(seed, kRows),
        time_scale_(time_scale) {
    if (options.arrival != Arrival::kTrace) at_ = picks_.Below(rows_->size());
  }
  absl::StatusOr<bool> Next(sim::SimRequest* request) override {
    const bool saturated = options_.arrival == Arrival::kSaturated;
    if (!saturated && left_-- <= 0) return false;
    const size_t lap = at_ / rows_->size();
    const TraceRow& row = (*rows_)[saturated ? picks_.Below(rows_->size()) : at_++ % rows_->size()];
    if (options_.arrival == Arrival::kTrace) {
      // Laps of a trace that is repeated follow each other at its own mean gap.
      const double length = *rows_->back().arrival_s * (1 + 1.0 / static_cast<double>(rows_->size()));
      now_ = (*row.arrival_s + static_cast<double>(lap) * length) * time_scale_;
    } else if (!saturated) {
      now_ += gaps_.NextGap();
    }
    maker_.Fill(now_, row.prompt_tokens, row.output_tokens, maker_.DrawClass(), request);
    if (options_.shared_prefixes && !row.hash_ids.empty()) request->tokens = PromptIds(row, serial_);
    ++serial_;
    return true;
  }

 private:
  const WorkloadOptions& options_;
  const std::shared_ptr<const std::vector<TraceRow>> rows_;
  int64_t left_;
  RequestMaker maker_;
  bench::ArrivalProcess gaps_;
  RandomStream picks_;
  const double time_scale_;
  size_t at_ = 0;
  uint64_t serial_ = 0;
  double now_ = 0;
};

// Rows that are drawn.
class DrawnSource final : public sim::RequestSource {
 public:
  DrawnSource(const WorkloadOptions& options, std::shared_ptr<const RowGenerator> generator, int64_t count,
              bench::ArrivalSpec arrivals, double time_scale, uint64_t seed)
      : options_(options),
        generator_(std::move(generator)),
        rows_(generator_->Start(seed)),
        left_(count),
        maker_(options, seed),
        gaps_(arrivals, seed, kArrivals),
        time_scale_(time_scale) {}
  absl::StatusOr<bool> Next(sim::SimRequest* request) override {
    const bool saturated = options_.arrival == Arrival::kSaturated;
    if (!saturated && left_-- <= 0) return false;
    DrawnRow row;
    rows_->Next(&row);
    if (options_.arrival == Arrival::kTrace) {
      now_ = row.arrival_s * time_scale_;
    } else if (!saturated) {
      now_ += gaps_.NextGap();
    }
    const int32_t class_index = generator_->class_names.empty() ? maker_.DrawClass() : row.class_index;
    maker_.Fill(now_, row.prompt_tokens, row.output_tokens, class_index, request);
    if (row.patience_s >= 0) request->patience = Duration::Nanoseconds(std::llround(row.patience_s * 1e9));
    return true;
  }

 private:
  const WorkloadOptions& options_;
  const std::shared_ptr<const RowGenerator> generator_;
  const std::unique_ptr<RowStream> rows_;
  int64_t left_;
  RequestMaker maker_;
  bench::ArrivalProcess gaps_;
  const double time_scale_;
  double now_ = 0;
};

// Squared coefficient of variation of the gaps between the rows.
double GapVariation(const std::vector<TraceRow>& rows) {
  const auto n = static_cast<double>(rows.size() - 1);
  const double mean = (*rows.back().arrival_s - *rows.front().arrival_s) / n;
  double squares = 0;
  for (size_t i = 1; i < rows.size(); ++i) {
    const double off = *rows[i].arrival_s - *rows[i - 1].arrival_s - mean;
    squares += off * off;
  }
  return squares / n / (mean * mean);
}

}  // namespace

absl::Status Workload::ReadRows() {
  auto format = ParseTraceFormat(options_.format);
  if (!format.ok()) return format.status();
  auto reader = OpenTrace(*format, options_.path, /*seed=*/0);
  if (!reader.ok()) return reader.status();
  auto rows = std::make_shared<std::vector<TraceRow>>();
  double before = 0;
  for (TraceRow row;;) {
    auto more = (*reader)->Next(&row);
    if (!more.ok()) return more.status();
    if (!*more) break;
    if (rows->size() == kMaxRows) {
      return absl::InvalidArgumentError(absl::StrCat(options_.path, ": more than ", kMaxRows, " rows"));
    }
    if (row.arrival_s.has_value() && *row.arrival_s < before) {
      return absl::InvalidArgumentError(
          absl::StrCat(options_.path, ":", row.line, ": arrives before the row above"));
    }
    before = row.arrival_s.value_or(before);
    mean_prompt_ += row.prompt_tokens;
    mean_output_ += row.output_tokens;
    rows->push_back(std::move(row));
  }
  if (rows->empty()) return absl::InvalidArgumentError(absl::StrCat(options_.path, ": no rows"));
  mean_prompt_ /= static_cast<double>(rows->size());
  mean_output_ /= static_cast<double>(rows->size());
  const auto& first = rows->front().arrival_s;
  const auto& last = rows->back().arrival_s;
  if (first.has_value() && last.has_value() && *last > *first) {
    own_rate_ = static_cast<double>(rows->size() - 1) / (*last - *first);
    shape_ = 1 / std::max(GapVariation(*rows), 1e-6);
  }
  num_requests_ = static_cast<int64_t>(rows->size());
  rows_ = std::move(rows);
  return absl::OkStatus();
}

absl::Status Workload::ReadGenerator() {
  auto generator = options_.format == "servegen" ? LoadServeGen(options_.path)
                                                 : LoadClassRows(options_.path, options_.num_workers);
  if (!generator.ok()) return generator.status();
  generator_ = *std::move(generator);
  mean_prompt_ = generator_->mean_prompt;
  mean_output_ = generator_->mean_output;
  own_rate_ = generator_->rate_per_s;
  num_requests_ = kDrawnRequests;
  if (!generator_->class_names.empty()) {
    SimClass base = options_.classes[0];
    options_.classes.clear();
    for (size_t i = 0; i < generator_->class_names.size(); ++i) {
      base.name = generator_->class_names[i];
      base.reward = generator_->rewards[i];
      options_.classes.push_back(base);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Workload> Workload::Open(WorkloadOptions options) {
  Workload workload;
  workload.options_ = std::move(options);
  const WorkloadOptions& o = workload.options_;
  std::vector<absl::string_view> known;
  for (const std::string_view name : kFormats) known.emplace_back(name.data(), name.size());
  if (std::find(known.begin(), known.end(), absl::string_view(o.format)) == known.end()) {
    return bench::UnknownName("trace-format", o.format, known);
  }
  const bool drawn = o.format == "servegen" || o.format == "classes";
  if (auto s = drawn ? workload.ReadGenerator() : workload.ReadRows(); !s.ok()) return s;
  if (o.num_requests) workload.num_requests_ = *o.num_requests;
  if (o.shape) workload.shape_ = *o.shape;
  if (o.arrival == Arrival::kTrace && workload.own_rate_ == 0) {
    return absl::InvalidArgumentError(
        "arrival: the trace has no times; give --arrival poisson or gamma and a --rate");
  }
  if (o.arrival != Arrival::kSaturated) {
    if (o.rate) workload.rate_ = *o.rate;
    if (!o.rate && workload.own_rate_ > 0) workload.rate_ = workload.own_rate_;
  }
  return workload;
}

absl::StatusOr<std::unique_ptr<sim::RequestSource>> Workload::Draw(uint64_t seed) const {
  if (options_.arrival != Arrival::kSaturated && !rate_) {
    return absl::InvalidArgumentError("rate: give --rate or --rho, since the trace has no times");
  }
  const bench::ArrivalSpec arrivals = {
      options_.arrival == Arrival::kGamma ? bench::ArrivalKind::kGamma : bench::ArrivalKind::kPoisson,
      rate_.value_or(1), shape_};
  const double scale = rate_ ? own_rate_ / *rate_ : 1;
  if (generator_ != nullptr) {
    return std::make_unique<DrawnSource>(options_, generator_, num_requests_, arrivals, scale, seed);
  }
  return std::make_unique<RowSource>(options_, rows_, num_requests_, arrivals, scale, seed);
}

}  // namespace orrery::simulate
