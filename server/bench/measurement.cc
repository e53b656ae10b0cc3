#include "server/bench/measurement.h"

#include <algorithm>

namespace orrery::bench {
namespace {

double Milliseconds(Time from, Time to) { return (to - from).milliseconds(); }

// Counts and samples of one block.
class BlockBuilder {
 public:
  void Add(const RequestRecord& record, const SloTargets& slo) {
    if (record.was_sent()) send_lag_.push_back(Milliseconds(record.intended, record.sent));
    slo_given_ |= slo.any();
    switch (record.result.outcome) {
      case Outcome::kUnfinished:
        ++block_.unfinished;
        return;
      case Outcome::kCancelled:
        ++block_.cancelled;
        return;
      case Outcome::kFailed:
        ++block_.failed;
        ++block_.errors[record.result.reason];
        return;
      case Outcome::kRejected:
        ++block_.rejected;
        ++block_.errors[record.result.reason];
        return;
      case Outcome::kCompleted:
        AddCompleted(record, slo);
        return;
    }
  }

  Measurement Finish(double duration) {
    Measurement out = std::move(block_);
    out.duration = duration;
    if (duration > 0) {
      const double output = static_cast<double>(out.total_output_tokens);
      out.request_throughput = static_cast<double>(out.completed) / duration;
      out.output_throughput = output / duration;
      out.total_token_throughput = (output + static_cast<double>(out.total_input_tokens)) / duration;
      if (slo_given_) {
        out.request_goodput = static_cast<double>(good_) / duration;
        out.token_goodput = static_cast<double>(good_tokens_) / duration;
      }
    }
    const int64_t judged = out.completed + out.failed + out.rejected;
    if (slo_given_ && judged > 0) {
      out.slo_attainment = static_cast<double>(good_) / static_cast<double>(judged);
    }
    out.ttft_ms = Summarize(&ttft_);
    out.tpot_ms = Summarize(&tpot_);
    out.itl_ms = Summarize(&itl_);
    out.e2el_ms = Summarize(&e2el_);
    out.chunk_gap_ms = Summarize(&chunk_gap_);
    out.ttft_sent_ms = Summarize(&ttft_sent_);
    out.e2el_sent_ms = Summarize(&e2el_sent_);
    if (!send_lag_.empty()) {
      std::sort(send_lag_.begin(), send_lag_.end());
      out.send_lag_p99_ms = Percentile(send_lag_, 99);
    }
    return out;
  }

 private:
  void AddCompleted(const RequestRecord& record, const SloTargets& slo) {
    const int32_t output = record.output_tokens();
    ++block_.completed;
    block_.total_input_tokens += record.result.prompt_tokens.value_or(0);
    block_.total_output_tokens += output;
    block_.total_cached_tokens += record.result.cached_tokens;
    if (MeetsSlo(record, slo)) {
      ++good_;
      good_tokens_ += output;
    }
    if (const auto ttft = TtftMs(record)) {
      ttft_.push_back(*ttft);
      ttft_sent_.push_back(Milliseconds(record.sent, record.chunks.front().at));
    }
    if (const auto tpot = TpotMs(record)) tpot_.push_back(*tpot);
    e2el_.push_back(E2eMs(record));
    e2el_sent_.push_back(Milliseconds(record.sent, record.last()));
    AppendItlMs(record, &itl_);
    for (size_t i = 1; i < record.chunks.size(); ++i) {
      chunk_gap_.push_back(Milliseconds(record.chunks[i - 1].at, record.chunks[i].at));
    }
  }

  Measurement block_;
  bool slo_given_ = false;
  int64_t good_ = 0;
  int64_t good_tokens_ = 0;
  std::vector<double> ttft_, tpot_, itl_, e2el_, chunk_gap_, ttft_sent_, e2el_sent_, send_lag_;
};

// Where the measured part of a run begins and ends.
struct Window {
  Time begin;
  Time end;
  double seconds() const { return std::max<double>(0, (end - begin).seconds()); }
};

Window MeasuredWindow(const Schedule& schedule, absl::Span<const RequestRecord> records) {
  Window window;
  const size_t warmup = static_cast<size_t>(schedule.warmup);
  // Counting from the arrival before the first measured one leaves as many gaps as requests.
  if (warmup > 0 && !records[warmup - 1].intended.is_never()) window.begin = records[warmup - 1].intended;
  window.end = window.begin;
  for (size_t i = warmup; i < records.size(); ++i) {
    if (records[i].ended()) window.end = std::max(window.end, records[i].end);
  }
  return window;
}

// The most streams of `chosen` that were open at once inside the window. Streams that end and start at the
// same instant do not overlap.
template <typename Chosen>
int64_t MaxConcurrent(absl::Span<const RequestRecord> records, const Window& window, Chosen chosen) {
  std::vector<std::pair<Time, int>> events;
  for (size_t i = 0; i < records.size(); ++i) {
    const RequestRecord& record = records[i];
    if (!record.was_sent() || !chosen(i) || record.sent > window.end) continue;
    if (record.ended() && record.end <= window.begin) continue;
    events.emplace_back(std::max(record.sent, window.begin), 1);
    if (record.ended()) events.emplace_back(record.end, -1);
  }
  std::sort(events.begin(), events.end());
  int64_t open = 0;
  int64_t most = 0;
  for (const auto& [unused, change] : events) most = std::max(most, open += change);
  return most;
}

template <typename Chosen>
int64_t MaxTokensPerSecond(absl::Span<const RequestRecord> records, const Window& window, Chosen chosen) {
  std::map<int64_t, int64_t> buckets;
  int64_t most = 0;
  for (size_t i = 0; i < records.size(); ++i) {
    if (!chosen(i)) continue;
    for (const Chunk& chunk : records[i].chunks) {
      if (chunk.at < window.begin || chunk.at > window.end) continue;
      most = std::max(most, buckets[(chunk.at - window.begin).ns / 1'000'000'000] += chunk.tokens);
    }
  }
  return most;
}

// The block of the requests in `chosen`; warm-up requests count only as concurrent load.
template <typename Chosen>
Measurement MeasureSome(const Schedule& schedule, absl::Span<const RequestRecord> records,
                        const Window& window, Chosen chosen) {
  BlockBuilder builder;
  for (size_t i = static_cast<size_t>(schedule.warmup); i < records.size(); ++i) {
    if (chosen(i)) builder.Add(records[i], schedule.classes[schedule.requests[i].class_index].slo);
  }
  Measurement block = builder.Finish(window.seconds());
  block.max_concurrent_requests = MaxConcurrent(records, window, chosen);
  block.max_output_tokens_per_s = MaxTokensPerSecond(records, window, chosen);
  return block;
}

}  // namespace

std::optional<double> TtftMs(const RequestRecord& record) {
  if (record.chunks.empty()) return std::nullopt;
  return Milliseconds(record.intended, record.chunks.front().at);
}

double E2eMs(const RequestRecord& record) { return Milliseconds(record.intended, record.last()); }

std::optional<double> TpotMs(const RequestRecord& record) {
  const int32_t output = record.output_tokens();
  if (record.chunks.empty() || output < 2) return std::nullopt;
  return Milliseconds(record.chunks.front().at, record.last()) / (output - 1);
}

void AppendItlMs(const RequestRecord& record, std::vector<double>* out) {
  for (size_t i = 0; i < record.chunks.size(); ++i) {
    const Chunk& chunk = record.chunks[i];
    if (i == 0) {
      out->insert(out->end(), chunk.tokens - 1, 0.0);
    } else {
      out->insert(out->end(), chunk.tokens, Milliseconds(record.chunks[i - 1].at, chunk.at) / chunk.tokens);
    }
  }
}

bool MeetsSlo(const RequestRecord& record, const SloTargets& slo) {
  if (record.result.outcome != Outcome::kCompleted) return false;
  if (slo.ttft_ms && TtftMs(record).value_or(E2eMs(record)) > *slo.ttft_ms) return false;
  if (slo.tpot_ms && TpotMs(record).value_or(0) > *slo.tpot_ms) return false;
  return !slo.e2e_ms || E2eMs(record) <= *slo.e2e_ms;
}

Measurement Measure(const Schedule& schedule, absl::Span<const RequestRecord> records) {
  const Window window = MeasuredWindow(schedule, records);
  Measurement all = MeasureSome(schedule, records, window, [](size_t) { return true; });
  for (size_t c = 0; c < schedule.classes.size(); ++c) {
    if (schedule.classes[c].name.empty()) continue;
    all.per_class.emplace_back(schedule.classes[c].name,
                               MeasureSome(schedule, records, window, [&](size_t i) {
                                 return schedule.requests[i].class_index == static_cast<int32_t>(c);
                               }));
  }
  return all;
}

}  // namespace orrery::bench
