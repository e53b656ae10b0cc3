// Data of a load test: where prompts and lengths come from.
//
//   lengths, azure, mooncake   request traces (server/traces): synthetic prompts of the stated lengths
//   random                     synthetic prompts; lengths uniform in [len (1 - r), len (1 + r)]
//   prompts                    .jsonl with `turns` (each turn is one request with one user message) or
//                              `prompt` (sent as text); any other file: each line that is not blank, as text
//   sharegpt                   JSON array (or .jsonl) of {conversations: [{from, value}, ...]}: the first
//                              message is the prompt, the length of the reply the output length
//
// Every file may be packed (.xz, .gz). Rows come in file order, files one after the other.
#ifndef ORRERY_SERVER_BENCH_DATASET_H_
#define ORRERY_SERVER_BENCH_DATASET_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/bench/request_spec.h"

namespace orrery::bench {

enum class DatasetKind { kLengths, kAzure, kMooncake, kShareGpt, kPrompts, kRandom };
absl::StatusOr<DatasetKind> ParseDatasetKind(absl::string_view name);
absl::string_view DatasetKindName(DatasetKind kind);

struct DatasetSpec {
  DatasetKind kind = DatasetKind::kRandom;
  std::vector<std::string> paths;
  int32_t input_len = 1024;           // random
  std::optional<int32_t> output_len;  // random: 128; prompts: 256; sharegpt: the reply's own length
  double range_ratio = 0;             // random: r in [0, 1)
};

// Tokens of a text, for lengths that the data gives as text only.
using TokenCounter = std::function<absl::StatusOr<int32_t>(const std::string& text)>;

// The first `count` rows, or all when there are fewer (never none). InvalidArgument for malformed data, with
// the line; `counter` is called for sharegpt replies only and may be empty otherwise.
absl::StatusOr<std::vector<RequestShape>> LoadDataset(const DatasetSpec& spec, int64_t count, uint64_t seed,
                                                      const TokenCounter& counter);

// Scales prompt and output lengths of all rows by one factor, min(1, context / largest prompt + output), and
// returns it: the largest request then just fits the context and the distribution keeps its shape. Lengths
// are rounded down, never below 1. Rows of unknown prompt length are left alone. context >= 2.
double ScaleLengths(int32_t context, std::vector<RequestShape>* shapes);

// The text datasets (dataset_text.cc); append to *shapes up to `count` in all.
absl::Status LoadPrompts(const std::string& path, const DatasetSpec& spec, int64_t count,
                         std::vector<RequestShape>* shapes);
absl::Status LoadShareGpt(const std::string& path, const DatasetSpec& spec, int64_t count,
                          const TokenCounter& counter, std::vector<RequestShape>* shapes);

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_DATASET_H_
