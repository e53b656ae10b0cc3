#include "server/bench/result_json.h"

#include <array>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace orrery::bench {
namespace {

using nlohmann::ordered_json;

ordered_json OrNull(const std::optional<double>& value) { return value ? ordered_json(*value) : nullptr; }

void AddSummary(const std::string& metric, const std::optional<Summary>& summary, ordered_json* out) {
  const auto set = [&](const std::string& prefix, double value) {
    (*out)[absl::StrCat(prefix, "_", metric, "_ms")] = summary ? ordered_json(value) : nullptr;
  };
  const Summary values = summary.value_or(Summary{});
  set("mean", values.mean);
  set("median", values.median);
  set("std", values.std_dev);
  for (size_t i = 0; i < kPercentiles.size(); ++i) {
    set(absl::StrCat("p", kPercentiles[i]), values.percentiles[i]);
  }
}

const char* OutcomeName(Outcome outcome) {
  switch (outcome) {
    case Outcome::kUnfinished:
      return "unfinished";
    case Outcome::kCompleted:
      return "completed";
    case Outcome::kFailed:
      return "failed";
    case Outcome::kRejected:
      return "rejected";
    case Outcome::kCancelled:
      return "cancelled";
  }
  return "";
}

ordered_json EnvironmentJson(const Environment& environment) {
  ordered_json out = {{"date", environment.date},
                      {"client_version", environment.client_version},
                      {"compiler", environment.compiler},
                      {"kernel", environment.kernel},
                      {"cpu", environment.cpu},
                      {"cpus", environment.cpus},
                      {"load_average_1m", environment.load_average_1m}};
  for (const auto& [key, value] : environment.server) out["server"][key] = value;
  for (const auto& [key, value] : environment.options) out["options"][key] = value;
  return out;
}

// Writes one array per line of the file, one element at a time: a run's token times may be far larger than
// what should be held as a tree.
class RowWriter {
 public:
  RowWriter(std::ostream* out, absl::Span<const RequestRecord> records) : out_(out), records_(records) {}

  template <typename Write>
  void Array(const char* key, Write write) {
    *out_ << ",\n\"" << key << "\": [";
    for (size_t i = 0; i < records_.size(); ++i) {
      if (i > 0) *out_ << (i % 16 == 0 ? ",\n" : ",");
      write(i);
    }
    *out_ << "]";
  }
  // Seconds to the nanosecond; `never` as null.
  void Seconds(Time at) {
    if (at.is_never()) {
      *out_ << "null";
    } else {
      SecondsOf(at.seconds());
    }
  }
  void SecondsOf(double seconds) { *out_ << absl::StrFormat("%.9g", seconds); }
  void Text(const std::string& text) {
    *out_ << ordered_json(text).dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  }

 private:
  std::ostream* const out_;
  absl::Span<const RequestRecord> records_;
};

void WriteSchedule(const RunResult& result, std::ostream* out) {
  const Schedule& schedule = result.schedule;
  ordered_json json;
  json["mode"] = schedule.mode == LoadMode::kClosedLoop ? "closed"
                 : schedule.mode == LoadMode::kOpenLoop ? "open"
                                                        : "trace";
  json["warmup"] = schedule.warmup;
  json["concurrency"] = schedule.concurrency > 0 ? ordered_json(schedule.concurrency) : nullptr;
  json["length_factor"] = schedule.length_factor;
  for (size_t i = 0; i < schedule.requests.size(); ++i) {
    const RequestSpec& spec = schedule.requests[i];
    // In a closed loop the times are made by the run itself.
    const Time at = schedule.mode == LoadMode::kClosedLoop ? result.records[i].intended : spec.intended;
    json["arrival_s"].push_back(at.is_never() ? ordered_json(nullptr) : ordered_json(at.seconds()));
    json["input_tokens"].push_back(spec.shape.prompt_tokens > 0 ? ordered_json(spec.shape.prompt_tokens)
                                                                : nullptr);
    json["output_tokens"].push_back(spec.shape.output_tokens > 0 ? ordered_json(spec.shape.output_tokens)
                                                                 : nullptr);
    json["class"].push_back(schedule.classes[spec.class_index].name);
    json["cancel_after_tokens"].push_back(
        spec.cancel_after_tokens > 0 ? ordered_json(spec.cancel_after_tokens) : nullptr);
  }
  *out << ",\n\"schedule\": " << json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

void WriteRows(const RunResult& result, std::ostream* out) {
  const auto records = result.records;
  RowWriter rows(out, records);
  rows.Array("outcomes", [&](size_t i) { *out << '"' << OutcomeName(records[i].result.outcome) << '"'; });
  rows.Array("input_lens", [&](size_t i) {
    const int32_t tokens =
        records[i].result.prompt_tokens.value_or(result.schedule.requests[i].shape.prompt_tokens);
    tokens > 0 ? static_cast<void>(*out << tokens) : static_cast<void>(*out << "null");
  });
  rows.Array("output_lens", [&](size_t i) { *out << records[i].output_tokens(); });
  rows.Array("cached_lens", [&](size_t i) { *out << records[i].result.cached_tokens; });
  rows.Array("attempts", [&](size_t i) { *out << records[i].result.attempts; });
  // As text: not every reader of JSON has integers of 64 bits.
  rows.Array("output_digests", [&](size_t i) { *out << '"' << records[i].result.output_digest << '"'; });
  rows.Array("intended_times", [&](size_t i) { rows.Seconds(records[i].intended); });
  rows.Array("start_times", [&](size_t i) { rows.Seconds(records[i].sent); });
  rows.Array("end_times", [&](size_t i) { rows.Seconds(records[i].end); });
  rows.Array("ttfts", [&](size_t i) {
    const auto ttft = TtftMs(records[i]);
    ttft ? rows.SecondsOf(*ttft * 1e-3) : static_cast<void>(*out << "null");
  });
  rows.Array("e2els", [&](size_t i) {
    records[i].ended() ? rows.SecondsOf(E2eMs(records[i]) * 1e-3) : static_cast<void>(*out << "null");
  });
  std::vector<double> itls;
  rows.Array("itls", [&](size_t i) {
    itls.clear();
    AppendItlMs(records[i], &itls);
    *out << '[';
    for (size_t k = 0; k < itls.size(); ++k) {
      if (k > 0) *out << ',';
      rows.SecondsOf(itls[k] * 1e-3);
    }
    *out << ']';
  });
  rows.Array("chunk_lens", [&](size_t i) {
    *out << '[';
    for (size_t k = 0; k < records[i].chunks.size(); ++k)
      *out << (k > 0 ? "," : "") << records[i].chunks[k].tokens;
    *out << ']';
  });
  rows.Array("server_queue_ms", [&](size_t i) {
    const auto& timings = records[i].result.timings;
    timings ? rows.SecondsOf(timings->queue_ms) : static_cast<void>(*out << "null");
  });
  rows.Array("server_ttft_ms", [&](size_t i) {
    const auto& timings = records[i].result.timings;
    timings ? rows.SecondsOf(timings->ttft_ms) : static_cast<void>(*out << "null");
  });
  rows.Array("finish_reasons", [&](size_t i) { rows.Text(records[i].result.finish_reason); });
  rows.Array("error_messages", [&](size_t i) { rows.Text(records[i].result.message); });
}

}  // namespace

ordered_json BlockJson(const Measurement& block) {
  ordered_json out;
  out["duration"] = block.duration;
  out["completed"] = block.completed;
  out["failed"] = block.failed;
  out["rejected"] = block.rejected;
  out["cancelled"] = block.cancelled;
  out["unfinished"] = block.unfinished;
  out["total_input_tokens"] = block.total_input_tokens;
  out["total_output_tokens"] = block.total_output_tokens;
  out["total_cached_tokens"] = block.total_cached_tokens;
  out["request_throughput"] = OrNull(block.request_throughput);
  out["output_throughput"] = OrNull(block.output_throughput);
  out["total_token_throughput"] = OrNull(block.total_token_throughput);
  out["request_goodput"] = OrNull(block.request_goodput);
  out["token_goodput"] = OrNull(block.token_goodput);
  out["slo_attainment"] = OrNull(block.slo_attainment);
  AddSummary("ttft", block.ttft_ms, &out);
  AddSummary("tpot", block.tpot_ms, &out);
  AddSummary("itl", block.itl_ms, &out);
  AddSummary("e2el", block.e2el_ms, &out);
  AddSummary("chunk_gap", block.chunk_gap_ms, &out);
  AddSummary("ttft_sent", block.ttft_sent_ms, &out);
  AddSummary("e2el_sent", block.e2el_sent_ms, &out);
  out["max_concurrent_requests"] = block.max_concurrent_requests;
  out["max_output_tokens_per_s"] = block.max_output_tokens_per_s;
  out["send_lag_p99_ms"] = OrNull(block.send_lag_p99_ms);
  out["errors"] = ordered_json::object();
  for (const auto& [reason, count] : block.errors) out["errors"][reason] = count;
  out["per_class"] = ordered_json::object();
  for (const auto& [name, one] : block.per_class) out["per_class"][name] = BlockJson(one);
  return out;
}

absl::Status SaveResult(const std::string& path, const RunResult& result) {
  const std::string partial = absl::StrCat(path, ".partial");
  {
    std::ofstream out(partial, std::ios::binary);
    std::string block = BlockJson(result.block).dump(1, ' ', false, ordered_json::error_handler_t::replace);
    block.resize(block.size() - 2);  // the closing "\n}": more keys follow
    out << block << ",\n\"environment\": "
        << EnvironmentJson(result.environment).dump(1, ' ', false, ordered_json::error_handler_t::replace);
    WriteSchedule(result, &out);
    WriteRows(result, &out);
    out << "\n}\n";
    out.close();
    if (!out) return absl::UnknownError(absl::StrCat(path, ": cannot be written"));
  }
  if (std::rename(partial.c_str(), path.c_str()) != 0) {
    return absl::UnknownError(absl::StrCat(path, ": cannot be written"));
  }
  return absl::OkStatus();
}

}  // namespace orrery::bench
