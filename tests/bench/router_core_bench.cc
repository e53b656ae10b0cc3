// What RouterCore costs beside workers that answer at once: no sockets, no engine, one thread. Every worker
// in turn ends a step: a token event for each of its requests, then its snapshot; whoever ended is followed
// by a new arrival, so that 64 a worker are in flight. Times are of the processor and contain the loop
// itself.
//
//   BM_Place   outputs of one token: a request is an arrival, a dispatch and an end
//   BM_Serve   outputs of 200 tokens on average, as in serving
//
// Beside each, in the same run, the same loop over what nobody can do without: a hash map of the requests
// with their tokens, and an array of loads whose least is looked for. `of_bare` is the router's rate over
// that. Aim: 200,000 requests/s and 2 million token events/s with 16 workers.
//   build/bin/router_core_bench --benchmark_repetitions=5 --benchmark_report_aggregates_only=true
#include <benchmark/benchmark.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "router/policy/registry.h"
#include "router/router_core.h"
#include "scheduler/base/random.h"

namespace orrery {
namespace {

constexpr int32_t kInFlight = 64, kSlots = 72;  // a worker
constexpr int32_t kLongestPrompt = 2000;
constexpr Duration kStep = Duration::Milliseconds(10);

double CpuSeconds() {
  timespec now = {};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// A request, and what its worker has made of it. Lengths in tokens.
struct Running {
  SampleKey key;
  int32_t prompt = 0, output = 0, made = 0;
};

class Router {
 public:
  Router(const std::string& policy, uint32_t num_workers)
      : core_({.max_queue_tokens = int64_t{1} << 50}, *NewRoutePolicy(policy)),
        prompt_(std::make_shared<const std::vector<TokenId>>(kLongestPrompt, 7)) {
    for (uint32_t w = 0; w < num_workers; ++w) {
      core_.OnWorkerUp({.worker = WorkerId{w},
                        .kv_capacity_tokens = 1 << 20,
                        .max_context = 1 << 16,
                        .slots = kSlots,
                        .peers = 1},
                       Time{}, &out_);
    }
  }
  // `placed(worker, request, submission)` is called for whoever is dispatched, here and below.
  template <typename Placed>
  void Arrive(const Running& request, Time now, const Placed& placed) {
    Submit submit;
    submit.key = request.key;
    submit.num_prompt = request.prompt;
    submit.stop.max_tokens = request.output;
    submit.tokens = prompt_;
    if (!core_.OnArrival(std::move(submit), 1, now, &out_).ok()) std::abort();
    Deliver(placed);
  }
  void Token(uint32_t worker, const TokenEvent& event, Time now) {
    if (!core_.OnTokenEvent(WorkerId{worker}, event, now, &out_)) std::abort();
  }
  template <typename Placed>
  void State(const WorkerState& state, Time now, const Placed& placed) {
    core_.OnWorkerState(state, now, &out_);
    Deliver(placed);
  }

 private:
  template <typename Placed>
  void Deliver(const Placed& placed) {
    for (const Dispatch& dispatch : out_.dispatch) {
      const Submit& submit = dispatch.submit;
      placed(Value(dispatch.worker),
             Running{.key = submit.key, .prompt = submit.num_prompt, .output = submit.stop.max_tokens},
             submit.submission);
    }
    out_.Clear();
  }

  RouterCore core_;
  std::shared_ptr<const std::vector<TokenId>> prompt_;
  RouterOutput out_;
};

class BareMap {
 public:
  BareMap(const std::string&, uint32_t num_workers) : loads_(num_workers) {}
  template <typename Placed>
  void Arrive(const Running& request, Time, const Placed& placed) {
    const auto least = std::min_element(loads_.begin(), loads_.end());
    *least += request.prompt;
    requests_.try_emplace(request.key.request);
    placed(static_cast<uint32_t>(least - loads_.begin()), request, 0);
  }
  void Token(uint32_t, const TokenEvent& event, Time) {
    const auto found = requests_.find(event.key.request);
    found->second.push_back(event.token);
    if (event.finish != FinishReason::kNone) requests_.erase(found);
  }
  template <typename Placed>
  void State(const WorkerState& state, Time, const Placed&) {
    loads_[Value(state.worker)] = state.kv_tokens;
  }

 private:
  std::vector<int64_t> loads_;
  absl::flat_hash_map<RequestId, std::vector<TokenId>> requests_;
};

template <typename Core>
class Cluster {
 public:
  Cluster(const std::string& policy, uint32_t num_workers, int32_t mean_output)
      : core_(policy, num_workers), mean_output_(mean_output), workers_(num_workers) {
    for (uint32_t w = 0; w < num_workers; ++w) {
      workers_[w].state.worker = WorkerId{w};
      workers_[w].state.step_time = kStep;
    }
    Refill();
    for (int i = 0; i < 20; ++i) Round();
  }

  // Every worker ends a step.
  void Round() {
    for (uint32_t w = 0; w < workers_.size(); ++w) {
      now_ = now_ + Duration::Nanoseconds(kStep.ns / static_cast<int64_t>(workers_.size()));
      EndStep(w);
      Refill();
    }
  }
  uint64_t requests() const { return requests_; }
  uint64_t events() const { return events_; }

 private:
  struct Worker {
    std::vector<Running> running;
    WorkerState state;
  };

  void EndStep(uint32_t w) {
    Worker& worker = workers_[w];
    WorkerState& state = worker.state;
    events_ += worker.running.size();
    for (size_t i = worker.running.size(); i-- > 0;) {
      Running& running = worker.running[i];
      event_.key = running.key;
      event_.index = running.made++;
      event_.token = 5;
      event_.at = now_;
      const bool ends = running.made == running.output;
      event_.finish = ends ? FinishReason::kLength : FinishReason::kNone;
      core_.Token(w, event_, now_);
      ++state.kv_tokens;
      if (!ends) continue;
      state.kv_tokens -= running.prompt + running.output;
      running = worker.running.back();
      worker.running.pop_back();
      --in_flight_;
    }
    ++state.sequence_number;
    state.step = StepId{Value(state.step) + 1};
    state.at = now_;
    state.num_running = static_cast<int32_t>(worker.running.size());
    state.free_slots = std::max(0, kSlots - state.num_running);
    core_.State(state, now_, Placed());
  }

  void Refill() {
    while (in_flight_ < kInFlight * static_cast<int32_t>(workers_.size())) {
      ++in_flight_;
      core_.Arrive({.key = {.request = RequestId{requests_++}},
                    .prompt = 1 + static_cast<int32_t>(random_.Below(kLongestPrompt)),
                    .output = Geometric()},
                   now_, Placed());
    }
  }

  // Without memory: the mix is from the start what it stays.
  int32_t Geometric() {
    return 1 + static_cast<int32_t>(std::log1p(-random_.Uniform()) / std::log1p(-1.0 / mean_output_));
  }

  auto Placed() {
    return [this](uint32_t w, const Running& request, uint64_t submission) {
      Worker& worker = workers_[w];
      worker.running.push_back(request);
      worker.state.kv_tokens += request.prompt;
      worker.state.last_submission = submission;
    };
  }

  Core core_;
  const int32_t mean_output_;
  std::vector<Worker> workers_;
  RandomStream random_{3};
  TokenEvent event_;
  Time now_;
  uint64_t requests_ = 0, events_ = 0;
  int32_t in_flight_ = 0;
};

// `count`: of what a cluster has done; its rate is `name` a second.
template <typename Count>
void Measure(benchmark::State& state, const std::string& policy, int32_t mean_output, int rounds,
             const std::string& name, const Count& count) {
  const auto num_workers = static_cast<uint32_t>(state.range(0));
  Cluster<Router> cluster(policy, num_workers, mean_output);
  Cluster<BareMap> bare(policy, num_workers, mean_output);
  double router_s = 0, bare_s = 0;
  const uint64_t router_begin = count(cluster), bare_begin = count(bare);
  const auto run = [rounds](auto* of) {
    const double began = CpuSeconds();
    for (int i = 0; i < rounds; ++i) of->Round();
    return CpuSeconds() - began;
  };
  for (auto _ : state) {
    const double seconds = run(&cluster);
    state.SetIterationTime(seconds);
    router_s += seconds;
    bare_s += run(&bare);
  }
  const double rate = static_cast<double>(count(cluster) - router_begin) / router_s;
  const double bare_rate = static_cast<double>(count(bare) - bare_begin) / bare_s;
  state.counters[name + "/s"] = rate;
  state.counters["bare/s"] = bare_rate;
  state.counters["of_bare"] = rate / bare_rate;
}

void BM_Place(benchmark::State& state, const std::string& policy) {
  const int rounds = static_cast<int>(4096 / state.range(0));
  Measure(state, policy, 1, rounds, "requests", [](const auto& cluster) { return cluster.requests(); });
}
void BM_Serve(benchmark::State& state, const std::string& policy) {
  const int rounds = static_cast<int>(32768 / state.range(0));
  Measure(state, policy, 200, rounds, "events", [](const auto& cluster) { return cluster.events(); });
}

#define ROUTER_BENCH(function, policy)                     \
  BENCHMARK_CAPTURE(function, policy, std::string(policy)) \
      ->Arg(16)                                            \
      ->Arg(256)                                           \
      ->ArgName("workers")                                 \
      ->Iterations(1)                                      \
      ->UseManualTime()                                    \
      ->Unit(benchmark::kMillisecond)
ROUTER_BENCH(BM_Place, "jsq-tokens");
ROUTER_BENCH(BM_Place, "bf-io");
ROUTER_BENCH(BM_Serve, "jsq-tokens");
ROUTER_BENCH(BM_Serve, "bf-io");

}  // namespace
}  // namespace orrery

BENCHMARK_MAIN();
