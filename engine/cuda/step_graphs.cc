#include "engine/cuda/step_graphs.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace orrery::cuda {

void StepGraphs::Begin(int64_t rows) {
  rows_ = rows;
  operations_ = 0;
  const auto [record, first] = records_.try_emplace(rows);
  if (record->second.graph != nullptr) {
    replayed_ = &record->second;
    return;
  }
  if (first || broken_) return;
  absl::StatusOr<Stream> stream = device_.BeginRecording();
  if (stream.ok()) recording_ = *stream;
  broken_ = !stream.ok();
}

absl::Status StepGraphs::End(bool ok) {
  if (const Record* const record = std::exchange(replayed_, nullptr)) {
    if (operations_ != record->operations) {
      return absl::InternalError(absl::StrCat("a step of ", rows_, " rows has ", operations_,
                                              " operations, its record ", record->operations));
    }
    device_.Launch(*record->graph);
  }
  if (std::exchange(recording_, nullptr) != nullptr) {
    absl::StatusOr<std::unique_ptr<Graph>> graph = device_.EndRecording();
    broken_ = !graph.ok() || std::exchange(spoiled_, false);
    if (!broken_ && ok) records_[rows_] = {.graph = *std::move(graph), .operations = operations_};
  }
  return absl::OkStatus();
}

}  // namespace orrery::cuda
