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
  void OnTokenGaps(int32_t, Duration gap, int64_t count) override { gaps[gap.ns] += count; }
  void OnStep(const StepFacts& step) override {
    steps.push_back(step);
    log += "step " + std::to_string(Value(step.worker)) + " " + std::to_string(step.end.ns) + " " +
           std::to_string(step.kv_tokens) + "\n";
  }
  void OnDecision(const DecisionRecord&, int64_t) override {}
};

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
