#include "server/traces/trace_reader.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace orrery {

absl::StatusOr<TraceFormat> ParseTraceFormat(absl::string_view name) {
  if (name == "lengths") return TraceFormat::kLengths;
  if (name == "azure") return TraceFormat::kAzure;
  if (name == "mooncake") return TraceFormat::kMooncake;
  if (name == "bench") return TraceFormat::kBench;
  return absl::NotFoundError(absl::StrCat("unknown trace format '", name, "'"));
}

absl::StatusOr<std::unique_ptr<TraceReader>> OpenTrace(TraceFormat format, const std::string& path,
                                                       uint64_t seed) {
  switch (format) {
    case TraceFormat::kLengths:
      return OpenLengthsTrace(path);
    case TraceFormat::kAzure:
      return OpenAzureTrace(path);
    case TraceFormat::kMooncake:
      return OpenMooncakeTrace(path, seed);
    case TraceFormat::kBench:
      return OpenBenchTrace(path);
  }
  return absl::InvalidArgumentError("unknown trace format");
}

}  // namespace orrery
