// A measurement as JSON: the block that `orrery bench --json` prints and the file that --save writes.
#ifndef ORRERY_SERVER_BENCH_RESULT_JSON_H_
#define ORRERY_SERVER_BENCH_RESULT_JSON_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "server/bench/environment.h"
#include "server/bench/measurement.h"
#include "server/bench/request_record.h"
#include "server/bench/schedule.h"

namespace orrery::bench {

// The block; undefined values are null. Keys are a superset of those of vLLM's serving benchmark.
nlohmann::ordered_json BlockJson(const Measurement& block);

// Everything of a run.
struct RunResult {
  const Schedule& schedule;
  absl::Span<const RequestRecord> records;
  const Measurement& block;
  const Environment& environment;
};

// Writes the block with `environment`, `schedule` {arrival_s, input_tokens, output_tokens, class,
// cancel_after_tokens; warm-up included} and, one entry per request of the schedule, outcomes,
// input_lens, output_lens, ttfts, itls, start_times, ... (seconds). The file is also a trace of format
// `bench` (server/traces).
absl::Status SaveResult(const std::string& path, const RunResult& result);

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_RESULT_JSON_H_
