#include "server/bench/dataset.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/base/random.h"
#include "server/bench/unknown_name.h"
#include "server/traces/trace_reader.h"

namespace orrery::bench {
namespace {

constexpr std::array<std::pair<absl::string_view, DatasetKind>, 6> kKinds = {{
    {"lengths", DatasetKind::kLengths},
    {"azure", DatasetKind::kAzure},
    {"mooncake", DatasetKind::kMooncake},
    {"sharegpt", DatasetKind::kShareGpt},
    {"prompts", DatasetKind::kPrompts},
    {"random", DatasetKind::kRandom},
}};
constexpr uint32_t kLengthStream = 3;

absl::Status LoadTrace(TraceFormat format, const std::string& path, int64_t count, uint64_t seed,
                       std::vector<RequestShape>* shapes) {
  auto trace = OpenTrace(format, path, seed);
  if (!trace.ok()) return trace.status();
  TraceRow row;
  while (static_cast<int64_t>(shapes->size()) < count) {
    auto more = (*trace)->Next(&row);
    if (!more.ok()) return more.status();
    if (!*more) break;
    RequestShape shape;
    shape.prompt_tokens = row.prompt_tokens;
    shape.output_tokens = row.output_tokens;
    shape.fixed_output = true;
    shape.arrival_s = row.arrival_s;
    shape.hash_ids = std::move(row.hash_ids);
    shape.block_tokens = kMooncakeBlockTokens;
    shapes->push_back(std::move(shape));
  }
  return absl::OkStatus();
}

int32_t DrawLength(int32_t middle, double ratio, RandomStream* random) {
  const int64_t low = std::max<int64_t>(1, std::llround(middle * (1 - ratio)));
  const int64_t high = std::max<int64_t>(low, std::llround(middle * (1 + ratio)));
  return static_cast<int32_t>(low + static_cast<int64_t>(random->Below(high - low + 1)));
}

void DrawRandom(const DatasetSpec& spec, int64_t count, uint64_t seed, std::vector<RequestShape>* shapes) {
  RandomStream random(seed, kLengthStream);
  for (int64_t i = 0; i < count; ++i) {
    RequestShape shape;
    shape.prompt_tokens = DrawLength(spec.input_len, spec.range_ratio, &random);
    shape.output_tokens = DrawLength(spec.output_len.value_or(128), spec.range_ratio, &random);
    shape.fixed_output = true;
    shapes->push_back(std::move(shape));
  }
}

absl::Status Validate(const DatasetSpec& spec) {
  if (spec.kind == DatasetKind::kRandom) {
    if (spec.input_len < 1 || spec.input_len > kMaxTraceTokens) {
      return absl::InvalidArgumentError(absl::StrCat("input-len: must be in [1, ", kMaxTraceTokens, "]"));
    }
    if (!(spec.range_ratio >= 0 && spec.range_ratio < 1)) {
      return absl::InvalidArgumentError("range-ratio: must be in [0, 1)");
    }
    if (!spec.paths.empty()) return absl::InvalidArgumentError("path: dataset 'random' reads no file");
  } else if (spec.paths.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("path: dataset '", DatasetKindName(spec.kind), "' needs a file"));
  }
  if (spec.output_len && (*spec.output_len < 1 || *spec.output_len > kMaxTraceTokens)) {
    return absl::InvalidArgumentError(absl::StrCat("output-len: must be in [1, ", kMaxTraceTokens, "]"));
  }
  return absl::OkStatus();
}

absl::Status LoadFile(const DatasetSpec& spec, const std::string& path, int64_t count, uint64_t seed,
                      const TokenCounter& counter, std::vector<RequestShape>* shapes) {
  switch (spec.kind) {
    case DatasetKind::kLengths:
      return LoadTrace(TraceFormat::kLengths, path, count, seed, shapes);
    case DatasetKind::kAzure:
      return LoadTrace(TraceFormat::kAzure, path, count, seed, shapes);
    case DatasetKind::kMooncake:
      return LoadTrace(TraceFormat::kMooncake, path, count, seed, shapes);
    case DatasetKind::kPrompts:
      return LoadPrompts(path, spec, count, shapes);
    case DatasetKind::kShareGpt:
      return LoadShareGpt(path, spec, count, counter, shapes);
    case DatasetKind::kRandom:
      break;
  }
  return absl::InternalError("dataset kind without a file");
}

}  // namespace

absl::StatusOr<DatasetKind> ParseDatasetKind(absl::string_view name) {
  for (const auto& [known, kind] : kKinds) {
    if (name == known) return kind;
  }
  std::vector<absl::string_view> names;
  for (const auto& known : kKinds) names.push_back(known.first);
  return UnknownName("dataset", name, names);
}

absl::string_view DatasetKindName(DatasetKind kind) {
  for (const auto& [name, known] : kKinds) {
    if (kind == known) return name;
  }
  return "";
}

absl::StatusOr<std::vector<RequestShape>> LoadDataset(const DatasetSpec& spec, int64_t count, uint64_t seed,
                                                      const TokenCounter& counter) {
  if (auto status = Validate(spec); !status.ok()) return status;
  std::vector<RequestShape> shapes;
  if (spec.kind == DatasetKind::kRandom) DrawRandom(spec, count, seed, &shapes);
  for (const std::string& path : spec.paths) {
    if (auto s = LoadFile(spec, path, count, seed, counter, &shapes); !s.ok()) return s;
    if (static_cast<int64_t>(shapes.size()) >= count) break;
  }
  if (shapes.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(spec.paths.empty() ? "dataset" : spec.paths.front(), ": no requests in it"));
  }
  return shapes;
}

double ScaleLengths(int32_t context, std::vector<RequestShape>* shapes) {
  int64_t largest = 0;
  for (const RequestShape& shape : *shapes) {
    if (shape.prompt_tokens == 0) continue;
    largest = std::max<int64_t>(largest, int64_t{shape.prompt_tokens} + shape.output_tokens);
  }
  if (largest <= context) return 1;
  const double factor = static_cast<double>(context) / static_cast<double>(largest);
  for (RequestShape& shape : *shapes) {
    if (shape.prompt_tokens == 0) continue;
    // In integers, so that the largest request fills the context exactly where rounding allows it.
    const auto scale = [&](int32_t length) {
      return static_cast<int32_t>(std::max<int64_t>(1, int64_t{length} * context / largest));
    };
    shape.prompt_tokens = scale(shape.prompt_tokens);
    shape.output_tokens = scale(shape.output_tokens);
    shape.block_tokens *= factor;
  }
  return factor;
}

}  // namespace orrery::bench
