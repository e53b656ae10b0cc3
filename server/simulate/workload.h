// Simulated requests from trace files: rows by server/traces, arrivals by the load generator's processes.
//
//   trace      the times of the trace, scaled to `rate` when one is given
//   poisson    one process over the rows in file order, starting at a row drawn by the seed, round and round;
//   gamma      `shape` as in `orrery bench --burstiness`; by default that of the trace's own gaps
//   saturated  rows drawn uniformly with replacement, for ever; no times
//
// The same seed gives the same requests, whatever policies they meet.
#ifndef ORRERY_SERVER_SIMULATE_WORKLOAD_H_
#define ORRERY_SERVER_SIMULATE_WORKLOAD_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "router/sim/workload.h"
#include "server/bench/slo.h"
#include "server/traces/trace_reader.h"

namespace orrery::simulate {

enum class Arrival { kTrace, kPoisson, kGamma, kSaturated };

// What a request of a class earns, by the prices of its file.
struct ClassReward {
  double prefill = 0;     // when its prompt is computed
  double completion = 0;  // when it completes
};

struct SimClass {
  std::string name;
  double share = 1;  // of the rows
  int32_t priority = 0;
  uint32_t tenant = 0;
  bench::SloTargets slo;
  ClassReward reward{};
};

struct WorkloadOptions {
  std::string path, format;
  Arrival arrival = Arrival::kTrace;
  std::optional<double> rate;   // requests per second
  std::optional<double> shape;  // of gamma arrivals
  std::optional<int64_t> num_requests;
  std::vector<SimClass> classes = {SimClass{}};
  int32_t num_workers = 1;  // rates per worker (format classes) are multiplied by it
  // What a request asks for: this many tokens, but never fewer than it makes nor, where that can be, more
  // than `max_context` holds beside its prompt. 0: exactly what it makes.
  int32_t max_tokens = 4096;
  int32_t max_context = 1 << 24;
  bool shared_prefixes = true;  // mooncake: prompts carry ids
};

// A trace that was opened and measured once; any number of runs draw from it.
class Workload {
 public:
  // Unknown format (the nearest is suggested), unreadable or malformed file, options that do not go together:
  // INVALID_ARGUMENT or NOT_FOUND, one line.
  static absl::StatusOr<Workload> Open(WorkloadOptions options);

  absl::StatusOr<std::unique_ptr<sim::RequestSource>> Draw(uint64_t seed) const;
  // The classes of the report.
  const std::vector<SimClass>& classes() const { return options_.classes; }
  double mean_output_tokens() const { return mean_output_; }
  double mean_prompt_tokens() const { return mean_prompt_; }
  std::optional<double> rate() const { return rate_; }  // requests per second; none when saturated
  void set_rate(double rate) { rate_ = rate; }
  int64_t num_requests() const { return num_requests_; }  // of one run

 private:
  absl::Status ReadRows();
  absl::Status ReadGenerator();

  WorkloadOptions options_;
  // Rows of a file; empty where they are generated (servegen, classes).
  std::shared_ptr<const std::vector<TraceRow>> rows_;
  std::shared_ptr<const class RowGenerator> generator_;
  double mean_prompt_ = 0, mean_output_ = 0;
  double own_rate_ = 0;  // of the trace's times; 0: it has none
  std::optional<double> rate_;
  double shape_ = 1;
  int64_t num_requests_ = 0;
};

}  // namespace orrery::simulate

#endif  // ORRERY_SERVER_SIMULATE_WORKLOAD_H_
