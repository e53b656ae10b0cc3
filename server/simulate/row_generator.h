// Workloads that are drawn instead of read: client mixes (servegen) and request classes (classes).
#ifndef ORRERY_SERVER_SIMULATE_ROW_GENERATOR_H_
#define ORRERY_SERVER_SIMULATE_ROW_GENERATOR_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/simulate/workload.h"

namespace orrery::simulate {

struct DrawnRow {
  double arrival_s = 0;
  int32_t prompt_tokens = 1, output_tokens = 1;
  int32_t class_index = 0;
  double patience_s = -1;  // below 0: none
};

class RowStream {
 public:
  virtual ~RowStream() = default;
  // The next row, arrivals ascending, without end.
  virtual void Next(DrawnRow* row) = 0;
};

class RowGenerator {
 public:
  virtual ~RowGenerator() = default;
  virtual std::unique_ptr<RowStream> Start(uint64_t seed) const = 0;
  // Means over the whole span.
  double rate_per_s = 0, mean_prompt = 0, mean_output = 0;
  std::vector<std::string> class_names;  // empty: one class without a name
  std::vector<ClassReward> rewards;      // of these
};

// ServeGen's per-client models. `path` is the ..._rates.csv[.xz] (the ..._lengths.jsonl[.xz] beside it is
// found by its name). Gaps are drawn from each client's own Gamma or Weibull process, window by window, with
// the shape of the file and the mean that its rate states; lengths from the histograms of the client's window
// of the day. Clients without lengths are left out. After the last window the first one follows.
absl::StatusOr<std::unique_ptr<RowGenerator>> LoadServeGen(const std::string& path);

// The JSON of `orrery plan mixed-pools`: Poisson arrivals per worker, constant lengths, exponential patience.
absl::StatusOr<std::unique_ptr<RowGenerator>> LoadClassRows(const std::string& path, int32_t num_workers);

}  // namespace orrery::simulate

#endif  // ORRERY_SERVER_SIMULATE_ROW_GENERATOR_H_
