#include "server/bench/schedule.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/base/random.h"

namespace orrery::bench {
namespace {

// Streams of the run's seed; a class adds its index to the ones that are per class.
constexpr uint32_t kClassStream = 16;
constexpr uint32_t kCancelStream = 17;
constexpr uint32_t kPromptStream = 18;
constexpr uint32_t kArrivalStream = 1 << 16;
constexpr uint32_t kDataStream = 2 << 16;

// The furthest a send may lie in the future: a year, well inside the range of Time.
constexpr double kMaxSeconds = 365.0 * 24 * 3600;

absl::Status Validate(const ScheduleOptions& options) {
  constexpr int64_t kMax = ScheduleOptions::kMaxRequests;
  const int64_t requests = options.num_requests.value_or(1);
  if (options.warmup < 0) return absl::InvalidArgumentError("warmup: must be at least 0");
  if (requests < 1 || requests > kMax || options.warmup > kMax - requests) {
    return absl::InvalidArgumentError(absl::StrCat("num-requests: must be in [1, ", kMax, "] with warmup"));
  }
  if (options.classes.empty()) return absl::InvalidArgumentError("class: none given");
  const bool class_rates = options.classes[0].rate.has_value();
  if (options.mode == LoadMode::kOpenLoop) {
    if (!class_rates && !(options.arrival.rate > 0)) {
      return absl::InvalidArgumentError("rate: must be above 0 requests per second (inf: all at once)");
    }
    if (options.arrival.kind == ArrivalKind::kGamma &&
        !(options.arrival.shape > 0 && std::isfinite(options.arrival.shape))) {
      return absl::InvalidArgumentError("burstiness: must be above 0");
    }
  } else if (class_rates) {
    return absl::InvalidArgumentError("class: rates need an open loop; use shares with --concurrency");
  }
  if (options.mode == LoadMode::kClosedLoop && options.concurrency < 1) {
    return absl::InvalidArgumentError("concurrency: must be at least 1");
  }
  if (options.mode == LoadMode::kTraceTimes) {
    if (options.classes.size() > 1) {
      return absl::InvalidArgumentError("use-trace-times: takes one dataset, not several classes");
    }
    if (options.classes[0].dataset.paths.size() > 1) {
      return absl::InvalidArgumentError("use-trace-times: takes one file, times of several do not add up");
    }
    if (!(options.time_scale > 0 && std::isfinite(options.time_scale))) {
      return absl::InvalidArgumentError("time-scale: must be above 0");
    }
  }
  return absl::OkStatus();
}

// The class of each request and, in an open loop, its time.
class Slots {
 public:
  Slots(const ScheduleOptions& options, int64_t total) : options_(options), slots_(total) {}

  absl::StatusOr<std::vector<std::pair<double, int32_t>>> Draw() {
    if (options_.classes[0].rate.has_value()) {
      MergeProcesses();
    } else {
      ShareOneProcess();
    }
    for (const auto& [seconds, unused] : slots_) {
      if (!(seconds <= kMaxSeconds)) {
        return absl::InvalidArgumentError("rate: too low, the last request would be sent in over a year");
      }
    }
    return std::move(slots_);
  }

 private:
  void ShareOneProcess() {
    double sum = 0;
    for (const TrafficClass& one : options_.classes) sum += one.share;
    ArrivalProcess process(options_.arrival, options_.seed, kArrivalStream);
    double seconds = 0;
    for (size_t i = 0; i < slots_.size(); ++i) {
      if (options_.mode == LoadMode::kOpenLoop) seconds += process.NextGap();
      double draw = UniformAt(options_.seed, i, kClassStream) * sum;
      int32_t chosen = 0;
      for (const int32_t last = static_cast<int32_t>(options_.classes.size()) - 1; chosen < last; ++chosen) {
        draw -= options_.classes[chosen].share;
        if (draw < 0) break;
      }
      slots_[i] = {seconds, chosen};
    }
  }

  void MergeProcesses() {
    std::vector<ArrivalProcess> processes;
    std::vector<double> next;
    for (size_t c = 0; c < options_.classes.size(); ++c) {
      ArrivalSpec spec = options_.arrival;
      spec.rate = *options_.classes[c].rate;
      processes.emplace_back(spec, options_.seed, kArrivalStream + static_cast<uint32_t>(c));
      next.push_back(processes.back().NextGap());
    }
    for (auto& slot : slots_) {
      const size_t first = std::min_element(next.begin(), next.end()) - next.begin();
      slot = {next[first], static_cast<int32_t>(first)};
      next[first] += processes[first].NextGap();
    }
  }

  const ScheduleOptions& options_;
  std::vector<std::pair<double, int32_t>> slots_;
};

// Loads each class's rows and scales them all by one factor.
absl::StatusOr<std::vector<std::vector<RequestShape>>> LoadRows(const ScheduleOptions& options,
                                                                int64_t wanted, const TokenCounter& counter,
                                                                double* factor) {
  std::vector<std::vector<RequestShape>> rows;
  for (size_t c = 0; c < options.classes.size(); ++c) {
    const uint64_t seed = RandomStream(options.seed, kDataStream + static_cast<uint32_t>(c)).Bits();
    auto loaded = LoadDataset(options.classes[c].dataset, wanted, seed, counter);
    if (!loaded.ok()) return loaded.status();
    rows.push_back(*std::move(loaded));
  }
  *factor = 1;
  if (options.scale_context == 0) return rows;
  if (options.scale_context < 2)
    return absl::InvalidArgumentError("scale-lengths: must be at least 2 tokens");
  std::vector<RequestShape> all;
  for (auto& one : rows) std::move(one.begin(), one.end(), std::back_inserter(all));
  *factor = ScaleLengths(options.scale_context, &all);
  auto from = all.begin();
  for (auto& one : rows) {
    std::move(from, from + static_cast<std::ptrdiff_t>(one.size()), one.begin());
    from += static_cast<std::ptrdiff_t>(one.size());
  }
  return rows;
}

absl::Status UseTraceTimes(double time_scale, const std::vector<RequestShape>& rows,
                           std::vector<RequestSpec>* requests) {
  if (requests->size() > rows.size()) {
    return absl::InvalidArgumentError(absl::StrCat("num-requests: the trace has ", rows.size(), " rows, ",
                                                   requests->size(), " are wanted with warmup"));
  }
  for (size_t i = 0; i < requests->size(); ++i) {
    if (!rows[i].arrival_s || !rows[0].arrival_s) {
      return absl::InvalidArgumentError("use-trace-times: the dataset has no arrival times");
    }
    const double seconds = (*rows[i].arrival_s - *rows[0].arrival_s) * time_scale;
    if (!(seconds >= 0 && seconds <= kMaxSeconds)) {
      return absl::InvalidArgumentError(absl::StrCat("use-trace-times: row ", i + 1, " arrives ", seconds,
                                                     " s after the first; must be in [0, ", kMaxSeconds,
                                                     "]"));
    }
    (*requests)[i].intended = Time{} + Duration::Seconds(seconds);
  }
  std::stable_sort(requests->begin(), requests->end(),
                   [](const RequestSpec& a, const RequestSpec& b) { return a.intended < b.intended; });
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Schedule> BuildSchedule(const ScheduleOptions& options, const TokenCounter& counter) {
  if (auto status = Validate(options); !status.ok()) return status;
  Schedule schedule;
  schedule.mode = options.mode;
  schedule.concurrency = options.mode == LoadMode::kClosedLoop ? options.concurrency : 0;
  schedule.warmup = options.warmup;
  schedule.classes = options.classes;
  const int64_t wanted = options.num_requests.value_or(ScheduleOptions::kDefaultRequests) + options.warmup;
  auto rows = LoadRows(options, wanted, counter, &schedule.length_factor);
  if (!rows.ok()) return rows.status();

  int64_t total = wanted;
  if (!options.num_requests) {
    int64_t available = 0;
    for (const auto& one : *rows) available += static_cast<int64_t>(one.size());
    total = std::min(total, available);
    if (total <= options.warmup) return absl::InvalidArgumentError("warmup: takes all rows of the dataset");
  }
  auto slots = Slots(options, total).Draw();
  if (!slots.ok()) return slots.status();

  std::vector<size_t> used(options.classes.size(), 0);
  schedule.requests.resize(total);
  for (int64_t i = 0; i < total; ++i) {
    const auto [seconds, chosen] = (*slots)[i];
    RequestSpec& request = schedule.requests[i];
    const std::vector<RequestShape>& data = (*rows)[chosen];
    request.shape = data[used[chosen]++ % data.size()];
    request.shape.fixed_output |= options.ignore_eos;
    request.class_index = chosen;
    request.intended = Time{} + Duration::Seconds(seconds);
    request.prompt_seed = RandomStream(options.seed ^ (static_cast<uint64_t>(i) << 24), kPromptStream).Bits();
    RandomStream cancel(options.seed ^ (static_cast<uint64_t>(i) << 24), kCancelStream);
    if (cancel.Uniform() < options.classes[chosen].cancel_probability) {
      const int32_t longest = std::max(1, request.shape.output_tokens);
      request.cancel_after_tokens = 1 + static_cast<int32_t>(cancel.Below(longest));
    }
  }
  if (options.mode == LoadMode::kTraceTimes) {
    if (auto s = UseTraceTimes(options.time_scale, (*rows)[0], &schedule.requests); !s.ok()) return s;
  }
  return schedule;
}

}  // namespace orrery::bench
