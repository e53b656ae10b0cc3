// Decode steps that are recorded once and then launched as a whole: a step of few sequences takes the host
// longer to launch, kernel by kernel, than the device to compute.
//
// The first step of so many rows is computed as ever: algorithms that are looked for and code that is loaded
// then have no place in a recording. The second is computed and recorded on the side. When as many come
// again, operations are counted only and End launches the record. That the same operations come on the same
// memory is the caller's promise.
#ifndef ORRERY_ENGINE_CUDA_STEP_GRAPHS_H_
#define ORRERY_ENGINE_CUDA_STEP_GRAPHS_H_

#include <cstdint>
#include <map>
#include <memory>

#include "absl/status/status.h"
#include "engine/cuda/device.h"
#include "kernels/cuda/stream.h"

namespace orrery::cuda {

class StepGraphs {
 public:
  // `device` outlives this.
  explicit StepGraphs(Device& device) : device_(device) {}

  // What a step of so many rows is filled up to: 1, 2, 4, multiples of 8.
  static constexpr int64_t PaddedRows(int64_t rows) {
    return rows <= 2 ? rows : rows <= 4 ? 4 : (rows + 7) / 8 * 8;
  }

  // From here to End operations belong to a step of so many rows.
  void Begin(int64_t rows);
  // launch(stream) enqueues an operation. Outside of a step it runs.
  template <typename Function>
  void Run(const Function& launch) {
    ++operations_;
    if (replayed_ != nullptr) return;
    launch(device_.stream());
    if (recording_ != nullptr) launch(recording_);
  }
  // The record that is being made lacks an operation: it is not kept, and no other is made.
  void Spoil() { spoiled_ = true; }
  // Nothing to do outside of a step. `ok`: all operations could be enqueued; otherwise no record is kept.
  // Internal: the step had other operations than its record, and was not run.
  absl::Status End(bool ok);

 private:
  struct Record {
    std::unique_ptr<Graph> graph;  // null: not recorded so far
    int64_t operations = 0;
  };
  Device& device_;
  std::map<int64_t, Record> records_;  // by rows, of all that have come
  bool broken_ = false;                // the device did not record: steps run as ever
  // The step.
  int64_t rows_ = 0;
  const Record* replayed_ = nullptr;
  Stream recording_ = nullptr;
  bool spoiled_ = false;
  int64_t operations_ = 0;
};

}  // namespace orrery::cuda

#endif  // ORRERY_ENGINE_CUDA_STEP_GRAPHS_H_
