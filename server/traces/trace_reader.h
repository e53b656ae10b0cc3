// Request traces as typed rows from an iterator: what the load generator replays and the simulator runs.
//
//   lengths   CSV with a header that names num_prefill_tokens, num_decode_tokens and maybe arrived_at (s);
//             other columns are ignored
//   azure     CSV TIMESTAMP,ContextTokens,GeneratedTokens (Azure LLM inference traces); arrivals are counted
//             from the first row
//   mooncake  one JSON object per line {timestamp (ms), input_length, output_length, hash_ids}; rows share
//             coarse ticks (3 s), over which they are spread uniformly (order statistics of seeded uniform
//             draws, so the process inside a tick stays Poisson)
//   bench     the file that `orrery bench --save` writes
//
// Every format may be packed (.xz, .gz). Rows come in file order. A malformed row is InvalidArgument with
// "FILE:LINE: ..."; after an error the reader gives no more rows.
#ifndef ORRERY_SERVER_TRACES_TRACE_READER_H_
#define ORRERY_SERVER_TRACES_TRACE_READER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace orrery {

struct TraceRow {
  int64_t line = 0;  // where the row stands in its file, from 1 (bench: index of the request, from 1)
  int32_t prompt_tokens = 0;
  int32_t output_tokens = 0;
  std::optional<double> arrival_s;
  // mooncake: one id per kMooncakeBlockTokens of the prompt; equal ids are equal tokens. Empty elsewhere.
  std::vector<int64_t> hash_ids;
};

inline constexpr int32_t kMooncakeBlockTokens = 512;
inline constexpr double kMooncakeTickSeconds = 3.0;
// The longest prompt or output a row may state.
inline constexpr int64_t kMaxTraceTokens = int64_t{1} << 24;

class TraceReader {
 public:
  virtual ~TraceReader() = default;
  // Fills *row with the next row; false at the end.
  virtual absl::StatusOr<bool> Next(TraceRow* row) = 0;
};

enum class TraceFormat { kLengths, kAzure, kMooncake, kBench };
// NotFound for a name that is none of these.
absl::StatusOr<TraceFormat> ParseTraceFormat(absl::string_view name);

// `seed` places the rows of a tick (mooncake); the other formats have no randomness.
absl::StatusOr<std::unique_ptr<TraceReader>> OpenTrace(TraceFormat format, const std::string& path,
                                                       uint64_t seed = 0);

// One per format; see OpenTrace.
absl::StatusOr<std::unique_ptr<TraceReader>> OpenLengthsTrace(const std::string& path);
absl::StatusOr<std::unique_ptr<TraceReader>> OpenAzureTrace(const std::string& path);
absl::StatusOr<std::unique_ptr<TraceReader>> OpenMooncakeTrace(const std::string& path, uint64_t seed);
absl::StatusOr<std::unique_ptr<TraceReader>> OpenBenchTrace(const std::string& path);

}  // namespace orrery

#endif  // ORRERY_SERVER_TRACES_TRACE_READER_H_
