// Prices the resources of a worker, one of several that are alike, while they serve: the front loop tells
// what arrived, ended and was computed; every `interval` a thread of its own solves the fluid program of
// planning/resource_prices.h for the traffic seen lately and hands back the duals. Nothing waits for the
// solver.
//
// Classes are the octaves of prompt and output length of the requests that ended. What is remembered loses
// half of its weight with every plan.
#ifndef ORRERY_SERVER_LOOP_PRICE_PLANNER_H_
#define ORRERY_SERVER_LOOP_PRICE_PLANNER_H_

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "router/router_core.h"
#include "scheduler/cost/step_cost.h"
#include "scheduler/planning/resource_prices.h"
#include "server/delivery/generation.h"
#include "server/link/worker_link.h"

namespace orrery {

class PricePlanner {
 public:
  // `sink` is called on the planner's thread and must be quick.
  PricePlanner(Duration interval, Time now, std::function<void(ResourcePrices)> sink);
  ~PricePlanner();

  // One thread from here on. There are so many workers like this one; none at first.
  void SetWorkers(const WorkerInfo& worker, int64_t count);
  // A request that arrived, refused or not, is `num_samples` of the traffic.
  void OnArrival(int64_t num_samples) { arrivals_ += static_cast<double>(num_samples); }
  void OnEnd(const RequestTimes& times, int64_t num_samples);
  void OnStep(const StepStats& step);
  // Starts a plan when it is time and there is a worker. Never(): nothing is remembered, so that nothing is
  // worth anything.
  void Tick(Time now);
  Time next() const { return next_; }

 private:
  struct Sums {
    double samples = 0, prompt = 0, output = 0, steps = 0, block_steps = 0;
  };
  struct Question {
    WorkerResources worker;
    std::vector<TrafficClass> classes;
  };

  Question Ask(double worker_seconds) const;
  void Forget();
  void Run();

  WorkerInfo worker_;
  double num_workers_ = 0;
  const Duration interval_;
  const std::function<void(ResourcePrices)> sink_;
  std::unique_ptr<StepCostModel> cost_;  // learns from the steps
  Time since_, next_;
  // With their weights.
  double seconds_ = 0, arrivals_ = 0, steps_ = 0, step_seconds_ = 0, decodes_ = 0;
  std::map<std::pair<int, int>, Sums> classes_;  // by octave

  std::mutex mutex_;
  std::condition_variable wake_;
  std::optional<Question> question_;  // the newest; an older one that nobody took is dropped
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_LOOP_PRICE_PLANNER_H_
