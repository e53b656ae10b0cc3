// Host time of one scheduling step: Plan + OnStepDone (+ State) around an engine that answers at once. Aim:
// 64 decoding sequences well under 50 us, 512 under 300 us; Plan with 256 running and 1,024 waiting under 50
// us.
//   build/bin/scheduler_bench --benchmark_repetitions=5 --benchmark_report_aggregates_only=true
#include <benchmark/benchmark.h>

#include <memory>
#include <vector>

#include "router/policy/jsq_tokens.h"
#include "router/router_core.h"
#include "scheduler/journal.h"
#include "scheduler/worker_factory.h"

namespace orrery {
namespace {

constexpr int32_t kContext = 1024;

WorkerSpec Spec(int32_t num_seqs, int depth) {
  WorkerSpec spec;
  spec.options.num_blocks = 1 << 17;
  spec.options.max_num_seqs = num_seqs;
  spec.options.max_step_tokens = 2048;
  spec.options.max_context = 1 << 20;
  spec.options.max_in_flight = depth;
  return spec;
}

Submit Request(uint64_t id, int32_t prompt, int32_t max_tokens) {
  Submit submit;
  submit.key.request = RequestId{id};
  submit.num_prompt = prompt;
  submit.stop.max_tokens = max_tokens;
  std::vector<TokenId> tokens(static_cast<size_t>(prompt));
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<TokenId>((id * 7919 + i) % 50000);
  submit.tokens = std::make_shared<const std::vector<TokenId>>(std::move(tokens));
  return submit;
}

class Driver {
 public:
  Driver(const WorkerSpec& spec) : core_(*NewWorkerCore(spec)) {}
  WorkerCore* core() { return core_.get(); }

  void Turn() {
    while (core_->can_plan()) flying_.push_back(&core_->Plan(Time{}));
    const StepPlan& plan = *flying_.front();
    result_.Clear();
    result_.step = plan.step;
    for (const Slice& slice : plan.slices) {
      if (!slice.sample) continue;
      result_.sampled.emplace_back();
      result_.sampled.back().sequence = slice.sequence;
      result_.sampled.back().token = 5;
    }
    flying_.erase(flying_.begin());
    events_.clear();
    if (!core_->OnStepDone(result_, Time{}, &events_).ok()) std::abort();
  }

 private:
  std::unique_ptr<WorkerCore> core_;
  std::vector<const StepPlan*> flying_;
  std::vector<TokenEvent> events_;
  StepResult result_;
};

// All prompts in, everybody decodes.
void Fill(Driver* driver, int32_t num_seqs) {
  for (int32_t i = 0; i < num_seqs; ++i) {
    if (!driver->core()->OnArrival(Request(static_cast<uint64_t>(i), kContext, 1 << 19), Time{}).ok())
      std::abort();
  }
  while (driver->core()->num_waiting() > 0) driver->Turn();
  for (int i = 0; i < 4; ++i) driver->Turn();
}

void BM_DecodeStep(benchmark::State& state) {
  const auto num_seqs = static_cast<int32_t>(state.range(0));
  Driver driver(Spec(num_seqs, static_cast<int>(state.range(1))));
  Fill(&driver, num_seqs);
  WorkerState snapshot;
  for (auto _ : state) {
    driver.Turn();
    driver.core()->State(Time{}, &snapshot);
  }
}
// Few iterations: the pool must last, and contexts stay comparable.
BENCHMARK(BM_DecodeStep)
    ->ArgsProduct({{8, 64, 256, 512}, {1, 2}})
    ->Iterations(300)
    ->Unit(benchmark::kMicrosecond);

void BM_DecodeStepRecorded(benchmark::State& state) {
  const auto num_seqs = static_cast<int32_t>(state.range(0));
  const WorkerSpec spec = Spec(num_seqs, 1);
  Driver driver(spec);
  JournalWriter journal(spec);
  driver.core()->set_journal(&journal);
  Fill(&driver, num_seqs);
  for (auto _ : state) {
    driver.Turn();
    benchmark::DoNotOptimize(journal.TakeBytes());
  }
}
BENCHMARK(BM_DecodeStepRecorded)->Arg(64)->Arg(512)->Iterations(300)->Unit(benchmark::kMicrosecond);

// A long queue beside full slots: what waiting costs in every step.
void BM_DecodeStepWithQueue(benchmark::State& state) {
  Driver driver(Spec(256, 1));
  Fill(&driver, 256);
  for (uint64_t i = 0; i < static_cast<uint64_t>(state.range(0)); ++i) {
    if (!driver.core()->OnArrival(Request(10000 + i, 512, 100), Time{}).ok()) std::abort();
  }
  for (auto _ : state) driver.Turn();
}
BENCHMARK(BM_DecodeStepWithQueue)->Arg(0)->Arg(1024)->Iterations(300)->Unit(benchmark::kMicrosecond);

void BM_Arrival(benchmark::State& state) {
  WorkerSpec spec = Spec(256, 1);
  spec.options.max_waiting = 1 << 20;
  Driver driver(spec);
  uint64_t id = 0;
  for (auto _ : state) {
    if (!driver.core()->OnArrival(Request(++id, static_cast<int32_t>(state.range(0)), 100), Time{}).ok())
      std::abort();
  }
}
BENCHMARK(BM_Arrival)->Arg(128)->Arg(4096)->Iterations(2000)->Unit(benchmark::kMicrosecond);

void BM_RouteJsqTokens(benchmark::State& state) {
  RouterCore router({.max_queue_tokens = int64_t{1} << 50}, std::make_unique<JsqTokensPolicy>());
  RouterOutput out;
  for (uint32_t i = 0; i < static_cast<uint32_t>(state.range(0)); ++i) {
    router.OnWorkerUp(
        {.worker = WorkerId{i}, .kv_capacity_tokens = 1 << 20, .max_context = 1 << 20, .slots = 256}, Time{},
        &out);
  }
  const Submit request = Request(1, 128, 100);
  uint64_t id = 0;
  for (auto _ : state) {
    Submit submit = request;
    submit.key.request = RequestId{++id};
    out.Clear();
    if (!router.OnArrival(std::move(submit), 1, Time{}, &out).ok()) std::abort();
    TokenEvent end{.key = out.dispatch[0].submit.key,
                   .finish = FinishReason::kCancelled,
                   .error = {},
                   .logprobs = {},
                   .prompt_logprobs = {},
                   .at = {}};
    router.OnTokenEvent(out.dispatch[0].worker, end, Time{}, &out);
  }
}
BENCHMARK(BM_RouteJsqTokens)->Arg(1)->Arg(256)->Iterations(20000)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace orrery

BENCHMARK_MAIN();
