// A simulation fed from a list and everything it told, for tests.
#ifndef ORRERY_TESTS_ROUTER_SIM_SIM_HARNESS_H_
#define ORRERY_TESTS_ROUTER_SIM_SIM_HARNESS_H_

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "router/sim/simulation.h"

namespace orrery::sim {

class ListSource final : public RequestSource {
 public:
  explicit ListSource(std::vector<SimRequest> requests) : requests_(std::move(requests)) {}
  absl::StatusOr<bool> Next(SimRequest* request) override {
    if (next_ == requests_.size()) return false;
    *request = requests_[next_++];
    return true;
  }

 private:
  std::vector<SimRequest> requests_;
  size_t next_ = 0;
};

// Calls a function for each request, without end.
class EndlessSource final : public RequestSource {
 public:
  explicit EndlessSource(std::function<SimRequest(uint64_t)> make) : make_(std::move(make)) {}
  absl::StatusOr<bool> Next(SimRequest* request) override {
    *request = make_(next_++);
    return true;
  }

 private:
  std::function<SimRequest(uint64_t)> make_;
  uint64_t next_ = 0;
};

struct Told final : public Observer {
  std::map<uint64_t, std::vector<RequestEnd>> ends;  // by serial
  std::vector<StepFacts> steps;
  std::map<int64_t, int64_t> gaps;  // ns -> count
  std::string log;                  // everything, for comparisons

  void OnRequestEnd(const SimRequest&, const RequestEnd& end) override {
    ends[end.serial].push_back(end);
    log += "end " + std::to_string(end.serial) + " " + std::to_string(static_cast<int>(end.outcome)) + " " +
           std::to_string(end.end.ns) + " " + std::to_string(end.made_tokens) + "\n";
  }
  void OnTokenGaps(int32_t class_index, Duration gap, int64_t count) override {
    gaps[gap.ns] += count;
    log += "gap " + std::to_string(class_index) + " " + std::to_string(gap.ns) + " " + std::to_string(count) +
           "\n";
  }
  void OnStep(const StepFacts& step) override {
    steps.push_back(step);
    log += "step " + std::to_string(Value(step.worker)) + " " + std::to_string(step.end.ns) + " " +
           std::to_string(step.kv_tokens) + " " + std::to_string(step.num_waiting) + " " +
           std::to_string(step.pooled) + " " + std::to_string(step.shape.decode_context) + "\n";
  }
  void OnDecision(const DecisionRecord& why, int64_t) override {
    log += std::string(why.policy) + " " + std::to_string(why.value) + " " + std::to_string(why.bound) + " " +
           std::to_string(why.work) + "\n";
  }
};

// Where two logs part, with the lines around it.
inline std::string Difference(const std::string& a, const std::string& b) {
  size_t at = 0;
  while (at < std::min(a.size(), b.size()) && a[at] == b[at]) ++at;
  if (at == a.size() && at == b.size()) return "";
  const size_t from = at < 300 ? 0 : at - 300;
  return "...\n" + a.substr(from, 500) + "\n=== is not\n" + b.substr(from, 500);
}

// Everything in a report that does not say how it was computed.
inline std::string Summary(const SimReport& report) {
  const WorkerCounters& c = report.counters;
  std::string out;
  for (const double value : {report.imbalance_mean, report.idle_fraction_mean, report.energy_j}) {
    out += std::to_string(value) + " ";
  }
  for (const uint64_t value : {report.requests,
                               static_cast<uint64_t>(report.steps),
                               static_cast<uint64_t>(report.sequence_steps),
                               report.events,
                               static_cast<uint64_t>(report.begin.ns),
                               static_cast<uint64_t>(report.end.ns),
                               static_cast<uint64_t>(report.measured_tokens),
                               c.accepted,
                               c.generated_tokens,
                               c.computed_tokens,
                               c.prefix_hit_tokens,
                               c.preemptions,
                               c.recomputed_tokens,
                               c.wasted_rows,
                               c.evicted_blocks,
                               c.steps,
                               c.repairs,
                               c.fallbacks,
                               report.router.replayed,
                               report.router.ejections,
                               report.router.gap_events}) {
    out += std::to_string(value) + " ";
  }
  return out;
}

inline SimRequest Row(double arrival_s, int32_t prompt, int32_t output, int32_t bound = 0) {
  SimRequest request;
  request.arrival = Time{} + Duration::Seconds(arrival_s);
  request.prompt_tokens = prompt;
  request.output_tokens = output;
  request.max_tokens = std::max(output, bound);
  return request;
}

inline SimOptions SmallOptions(int32_t workers, int32_t slots) {
  SimOptions options;
  options.num_workers = workers;
  options.worker.options.num_blocks = 1 << 16;
  options.worker.options.max_num_seqs = slots;
  options.worker.options.max_context = 1 << 20;
  options.worker.options.max_waiting = 1 << 20;
  options.admission.max_queue_tokens = int64_t{1} << 60;
  return options;
}

inline SimReport MustSimulate(const SimOptions& options, const std::string& cost, RequestSource* source,
                              Observer* observer) {
  auto model = ParseStepCost(cost);
  EXPECT_TRUE(model.ok()) << model.status();
  auto report = Simulate(options, **model, source, observer);
  EXPECT_TRUE(report.ok()) << report.status();
  return report.ok() ? *std::move(report) : SimReport{};
}

}  // namespace orrery::sim

#endif  // ORRERY_TESTS_ROUTER_SIM_SIM_HARNESS_H_
