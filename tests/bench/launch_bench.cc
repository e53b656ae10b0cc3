// What a decode step costs the host on the CUDA backend: a worker's loop over a device that does nothing, so
// that all time is the scheduler's, the executor's and the backend's own. While the device computes a step
// the host has to be done with this for the next one.
//
//   launch_bench [SEQUENCES [CONTEXT]]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "engine/cuda_engine.h"
#include "kernels/emulate/launch.h"
#include "scheduler/base/check.h"
#include "scheduler/worker_factory.h"
#include "tests/engine/test_model.h"
#include "tests/engine/worker_spec.h"

namespace orrery {
namespace {

constexpr int kLayers = 32, kSteps = 1000, kMultiprocessors = 132;

// Of the device: an address that nobody follows. Of the host: memory.
class NullBuffer final : public Buffer {
 public:
  NullBuffer(size_t bytes, bool host)
      : bytes_(bytes), data_(std::aligned_alloc(64, ((host ? bytes : 1) / 64 + 1) * 64), std::free) {}
  void* data() const override { return data_.get(); }
  size_t bytes() const override { return bytes_; }

 private:
  size_t bytes_;
  std::unique_ptr<void, void (*)(void*)> data_;
};

// Takes all and does nothing; every token that it samples is 0.
class NullDevice final : public cuda::Device {
 public:
  NullDevice() { emulate::Defer(this, &launches_); }
  ~NullDevice() override { emulate::Defer(this, nullptr); }
  absl::StatusOr<int64_t> FreeBytes() override { return int64_t{1} << 40; }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes) override {
    return std::make_unique<NullBuffer>(bytes, false);
  }
  absl::StatusOr<std::unique_ptr<Buffer>> AllocateHost(size_t bytes) override {
    return std::make_unique<NullBuffer>(bytes, true);
  }
  void Upload(void* /*device*/, const void* /*host*/, size_t /*bytes*/) override {}
  void Download(void* host, const void* /*device*/, size_t bytes) override { std::memset(host, 0, bytes); }
  void Copy(void* /*to*/, const void* /*from*/, size_t /*bytes*/) override {}
  absl::StatusOr<cuda::Stream> BeginRecording() override { return stream(); }
  absl::StatusOr<std::unique_ptr<cuda::Graph>> EndRecording() override {
    return std::make_unique<cuda::Graph>();
  }
  void Launch(const cuda::Graph& /*graph*/) override {}
  absl::StatusOr<std::unique_ptr<cuda::Event>> NewEvent() override { return std::make_unique<cuda::Event>(); }
  void Record(cuda::Event& /*event*/) override {}
  absl::Status Wait(cuda::Event& /*event*/) override { return Synchronize(); }
  absl::Status Synchronize() override {
    launches_.clear();
    return absl::OkStatus();
  }
  cuda::Stream stream() const override {
    return reinterpret_cast<cuda::Stream>(const_cast<NullDevice*>(this));
  }
  int multiprocessors() const override { return kMultiprocessors; }

 private:
  emulate::Work launches_;
};

class NullGemm final : public cuda::Gemm {
 public:
  size_t WorkspaceBytes() const override { return 64; }
  void set_workspace(void* /*workspace*/) override {}
  absl::Status Multiply(cuda::Stream /*stream*/, const cuda::GemmArgs& /*args*/) override {
    return absl::OkStatus();
  }
};

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Microseconds.
class Times {
 public:
  template <typename Call>
  auto Measure(const Call& call) {
    const double begin = Now();
    auto result = call();
    values_.push_back((Now() - begin) * 1e6);
    return result;
  }
  void Clear() { values_.clear(); }
  void Print(const char* name) {
    std::sort(values_.begin(), values_.end());
    std::printf("%-12s median %7.1f us   90%% %7.1f   most %7.1f\n", name, values_[values_.size() / 2],
                values_[values_.size() * 9 / 10], values_.back());
  }

 private:
  std::vector<double> values_;
};

void Run(int sequences, int context, bool graphs) {
  testing::TempDir dir;
  nlohmann::json config = testing::TinyConfig("llama");
  config["hidden_size"] = 64;
  config["head_dim"] = 64;
  config["num_hidden_layers"] = kLayers;
  config["num_attention_heads"] = 32;
  config["num_key_value_heads"] = 8;
  config["max_position_embeddings"] = 2 * context + 2 * kSteps;
  testing::WriteModel(dir.path(), config, testing::RandomTensors(config, 1), DType::kBF16);
  EngineOptions options;
  options.model_dir = dir.path();
  options.max_num_seqs = sequences;
  options.max_step_tokens = 8192;
  options.max_context = context + 2 * kSteps;
  options.kv_cache_tokens = int64_t{sequences} * (options.max_context + 16);
  options.batch_invariant = false;
  options.cuda_graphs = graphs;
  auto engines = LoadCudaEngines(options, [](const EngineOptions&) -> absl::StatusOr<CudaParts> {
    return CudaParts{.device = std::make_unique<NullDevice>(), .gemm = std::make_unique<NullGemm>()};
  });
  ORRERY_CHECK(engines.ok());
  ModelExecutor& executor = *engines->executors.front();
  WorkerSpec spec = testing::WorkerSpecOf(executor.limits());
  spec.options.max_in_flight = executor.max_in_flight();
  auto core = *NewWorkerCore(spec);
  for (int i = 0; i < sequences; ++i) {
    Submit submit;
    submit.key.request = RequestId{static_cast<uint64_t>(i) + 1};
    submit.tokens = std::make_shared<const std::vector<TokenId>>(static_cast<size_t>(context), i % 50);
    submit.num_prompt = context;
    submit.stop.max_tokens = 2 * kSteps;
    submit.sampling.temperature = i % 2 == 0 ? 0.0f : 1.0f;
    submit.cache_salt = static_cast<uint64_t>(i);
    ORRERY_CHECK(core->OnArrival(std::move(submit), Time{}).ok());
  }
  Times plan_times, launch_times, wait_times, done_times;
  std::deque<StepId> flying;
  std::vector<TokenEvent> events;
  StepResult result;
  for (int steps = 0; steps < kSteps;) {
    while (core->can_plan()) {
      const StepPlan& plan = *plan_times.Measure([&] { return &core->Plan(Time{}); });
      // Then all of them decode.
      if (plan.num_samples < sequences || plan.num_tokens > sequences) {
        for (Times* times : {&plan_times, &launch_times, &wait_times, &done_times}) times->Clear();
        steps = 0;
      }
      ORRERY_CHECK(launch_times.Measure([&] { return executor.Launch(plan); }).ok());
      flying.push_back(plan.step);
    }
    ORRERY_CHECK(wait_times.Measure([&] { return executor.Wait(flying.front(), &result); }).ok());
    flying.pop_front();
    ORRERY_CHECK(done_times.Measure([&] { return core->OnStepDone(result, Time{}, &events); }).ok());
    events.clear();
    ++steps;
  }
  std::printf("%d sequences of %d tokens, %d layers, graphs %s\n", sequences, context, kLayers,
              graphs ? "on" : "off");
  plan_times.Print("Plan");
  launch_times.Print("Launch");
  wait_times.Print("Wait");
  done_times.Print("OnStepDone");
}

}  // namespace
}  // namespace orrery

int main(int argc, char** argv) {
  const int sequences = argc > 1 ? std::atoi(argv[1]) : 256, context = argc > 2 ? std::atoi(argv[2]) : 1024;
  for (const bool graphs : {true, false}) orrery::Run(std::max(1, sequences), std::max(1, context), graphs);
}
