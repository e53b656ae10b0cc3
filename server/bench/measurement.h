// The measurement block: what a load test (or a simulation) reports about latency, throughput and service
// levels. Milliseconds, seconds and tokens; what is undefined is absent, never NaN.
//
// Of a request with n output tokens, times counted from its intended send (t), its real send (s), the message
// with its first token (f) and the one with its last (l):
//   TTFT = f - t, TTFT_sent = f - s;  E2E = l - t, E2E_sent = l - s (without tokens: the end of the stream)
//   TPOT = (E2E - TTFT) / (n - 1), left out for n = 1
//   ITL: n - 1 values per request; a message of k tokens that came g after the one before gives k values of
//        g / k, the first message gives k - 1 of zero, so that they add up to l - f
//   chunk gap: g, one value per message after the first
// Latencies are of completed requests. A request meets its service level when it completed and each target it
// has is met (a TPOT that is undefined counts as met, and so does a request without targets); failed and
// refused requests are misses, requests that the client cancelled as planned do not count.
#ifndef ORRERY_SERVER_BENCH_MEASUREMENT_H_
#define ORRERY_SERVER_BENCH_MEASUREMENT_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "server/bench/request_record.h"
#include "server/bench/schedule.h"
#include "server/bench/statistics.h"

namespace orrery::bench {

struct Measurement {
  double duration = 0;  // s: from the send before the first measured one (or the start) to the last end
  int64_t completed = 0;
  int64_t failed = 0;
  int64_t rejected = 0;
  int64_t cancelled = 0;
  int64_t unfinished = 0;
  int64_t total_input_tokens = 0;  // of completed requests, as are the outputs
  int64_t total_output_tokens = 0;
  int64_t total_cached_tokens = 0;
  std::optional<double> request_throughput;  // per second; absent when the duration is 0
  std::optional<double> output_throughput;
  std::optional<double> total_token_throughput;
  std::optional<double> request_goodput;  // absent without any target
  std::optional<double> token_goodput;    // output tokens of requests that met their targets, per second
  std::optional<double> slo_attainment;   // [0, 1]
  std::optional<Summary> ttft_ms, tpot_ms, itl_ms, e2el_ms, chunk_gap_ms, ttft_sent_ms, e2el_sent_ms;
  int64_t max_concurrent_requests = 0;
  int64_t max_output_tokens_per_s = 0;  // in any second counted from the start of the measurement
  std::optional<double> send_lag_p99_ms;
  std::map<std::string, int64_t> errors;                       // by reason
  std::vector<std::pair<std::string, Measurement>> per_class;  // in the order of the classes; one level deep
};

// `records` as LoadDriver::Run returned them for `schedule`. Classes are broken down when they have names.
Measurement Measure(const Schedule& schedule, absl::Span<const RequestRecord> records);

// Values of one request in milliseconds; used by the reports too. REQUIRES: it ended.
std::optional<double> TtftMs(const RequestRecord& record);
double E2eMs(const RequestRecord& record);
std::optional<double> TpotMs(const RequestRecord& record);
// Appends the request's inter-token latencies.
void AppendItlMs(const RequestRecord& record, std::vector<double>* out);
bool MeetsSlo(const RequestRecord& record, const SloTargets& slo);

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_MEASUREMENT_H_
