// What the emulated device can be made to do: launches that fail, memory that is short, and telling what was
// recorded.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "engine/backend_cuda.h"
#include "engine/cpu_engine.h"
#include "engine/cuda/matrix.h"
#include "engine/cuda_engine.h"
#include "engine/warm_up.h"
#include "kernels/emulate/launch.h"
#include "tests/engine/emulated_device.h"
#include "tests/engine/plan_driver.h"
#include "tests/engine/test_model.h"

namespace orrery {
namespace {

using testing::Greedy;
using testing::PlanDriver;

class EmulatedCudaTest : public ::testing::Test {
 protected:
  EmulatedCudaTest() {
    nlohmann::json config = testing::TinyConfig("llama");
    config["hidden_size"] = 64;
    config["head_dim"] = 64;
    config["num_hidden_layers"] = 2;
    config["num_attention_heads"] = 2;
    config["num_key_value_heads"] = 1;
    testing::WriteModel(dir_.path(), config, testing::RandomTensors(config, 2), DType::kBF16);
    options_.model_dir = dir_.path();
    options_.kv_cache_tokens = 4096;
    options_.max_num_seqs = 48;
    options_.max_step_tokens = 128;
    options_.max_context = 256;
    options_.batch_invariant = false;
  }
  static OpenCuda Open(size_t memory_bytes) {
    return [memory_bytes](const EngineOptions&) -> absl::StatusOr<CudaParts> {
      return CudaParts{.device = testing::NewEmulatedDevice({.memory_bytes = memory_bytes}),
                       .gemm = testing::NewPlainGemm()};
    };
  }

  testing::TempDir dir_;
  EngineOptions options_;
};

// A launch that the device refuses, before the layers and between them and sampling: an error of the step,
// which gives no token, and the next step is computed.
TEST_F(EmulatedCudaTest, KernelErrorsAreErrorsOfTheirStep) {
  auto engines = LoadCudaEngines(options_, Open(size_t{1} << 30));
  ASSERT_TRUE(engines.ok()) << engines.status();
  ModelExecutor* const engine = engines->executors.front().get();
  const auto fail = [] { emulate::LaunchGrid({1, 1, 1}, 1 << 20, 0, [] {}); };
  PlanDriver whole(*engine);
  whole.Add({1, 2, 3}, 6, Greedy());
  ASSERT_TRUE(whole.RunAll(128).ok());
  const std::vector<TokenId> expected = whole.sequence(0).output;
  PlanDriver driver(*engine);
  const int handle = driver.Add({1, 2, 3}, 6, Greedy());
  ASSERT_TRUE(driver.Step({{handle, 3}}).ok());
  fail();
  absl::Status status = driver.Step({{handle, 1}});
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_NE(status.message().find("kernel: bad launch"), std::string::npos) << status;
  EXPECT_EQ(driver.sequence(handle).output.size(), 1u);
  engine->set_logits_observer([&](const Tensor&) { fail(); });
  EXPECT_EQ(driver.Step({{handle, 1}}).code(), absl::StatusCode::kInternal);
  engine->set_logits_observer(nullptr);
  EXPECT_EQ(driver.sequence(handle).output.size(), 1u);
  ASSERT_TRUE(driver.RunAll(128).ok());
  EXPECT_EQ(driver.sequence(handle).output, expected);
}

// Products that fail are an error of their step; those of a device that is lost do not hide that it is.
TEST_F(EmulatedCudaTest, ALostDeviceIsToldAsSuch) {
  bool fails = false, lost = false;
  const auto open = [&](const EngineOptions&) -> absl::StatusOr<CudaParts> {
    return CudaParts{.device = testing::NewEmulatedDevice({.lost = &lost}),
                     .gemm = testing::NewPlainGemm(&fails)};
  };
  auto engines = LoadCudaEngines(options_, open);
  ASSERT_TRUE(engines.ok()) << engines.status();
  PlanDriver driver(*engines->executors.front());
  const int handle = driver.Add(std::vector<TokenId>(12, 5), 3, Greedy());
  fails = true;
  EXPECT_EQ(driver.Step({{handle, 12}}).code(), absl::StatusCode::kInternal);
  lost = true;
  EXPECT_EQ(driver.Step({{handle, 12}}).code(), absl::StatusCode::kDataLoss);
  fails = lost = false;
  EXPECT_TRUE(driver.Step({{handle, 12}}).ok());
  EXPECT_EQ(driver.sequence(handle).output.size(), 1u);
}

TEST_F(EmulatedCudaTest, MemoryThatIsShortIsAnErrorOfTheLoad) {
  const auto plan = PlanCudaEngine(options_, Open(size_t{1} << 30));
  ASSERT_TRUE(plan.ok()) << plan.status();
  // From nothing up to what is needed, whichever allocation is the one that fails.
  const auto needed = static_cast<size_t>(plan->memory.total_bytes());
  int failed = 0;
  for (size_t bytes = 0; bytes <= 2 * needed; bytes += needed / 16) {
    // The plan is told of plenty: allocations themselves fail.
    EngineOptions hopeful = options_;
    hopeful.memory_bytes = int64_t{1} << 30;
    const absl::Status status = LoadCudaEngines(hopeful, Open(bytes)).status();
    if (status.ok()) break;
    ++failed;
    ASSERT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  }
  EXPECT_GE(failed, 12);
  EXPECT_LE(failed, 18) << "the plan counts far too little";
  // Asked, the plan finds out beforehand.
  const absl::Status status = LoadCudaEngines(options_, Open(needed - 1)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(status.message().find("1 MiB are missing: lower --kv-cache-tokens"), std::string::npos) << status;
}

// Sequences come and go, so that steps are filled up, and grow past a page.
TEST_F(EmulatedCudaTest, RecordedStepsGiveTheBitsOfStepsThatAreNot) {
  struct Run {
    int graph_launches = 0;
    std::vector<std::vector<TokenId>> outputs;
    std::vector<float> logprobs;
  };
  const auto run = [&](bool graphs, bool records, bool warm = false) {
    Run out;
    options_.cuda_graphs = graphs;
    const auto open = [&](const EngineOptions&) -> absl::StatusOr<CudaParts> {
      return CudaParts{
          .device = testing::NewEmulatedDevice({.records = records, .graph_launches = &out.graph_launches}),
          .gemm = testing::NewPlainGemm()};
    };
    auto engines = LoadCudaEngines(options_, open);
    EXPECT_TRUE(engines.ok()) << engines.status();
    if (warm) {
      EXPECT_TRUE(WarmUp(*engines->executors.front()).ok());
    }
    PlanDriver driver(*engines->executors.front());
    Sampling sampling;
    sampling.num_logprobs = 1;
    for (int i = 0; i < 5; ++i) {
      sampling.seed = static_cast<uint64_t>(i);
      sampling.temperature = i % 2 == 0 ? 0.0f : 0.8f;
      std::vector<TokenId> prompt(static_cast<size_t>(1 + 6 * i), 3 + i);
      driver.Add(prompt, 5 + 4 * i, sampling);
    }
    EXPECT_TRUE(driver.RunAll(128).ok());
    for (int handle = 0; handle < 5; ++handle) {
      out.outputs.push_back(driver.sequence(handle).output);
      for (const auto& sampled : driver.sequence(handle).sampled) {
        out.logprobs.push_back(sampled.logprobs->chosen);
      }
    }
    return out;
  };
  const Run eager = run(false, true), recorded = run(true, true), refused = run(true, false);
  const Run warm = run(true, true, true);
  EXPECT_EQ(eager.graph_launches, 0);
  EXPECT_GE(recorded.graph_launches, 6);
  EXPECT_GT(warm.graph_launches, recorded.graph_launches);
  EXPECT_EQ(refused.graph_launches, 0);
  EXPECT_EQ(recorded.outputs, eager.outputs);
  EXPECT_EQ(recorded.logprobs, eager.logprobs);
  EXPECT_EQ(refused.outputs, eager.outputs);
  EXPECT_EQ(refused.logprobs, eager.logprobs);
  EXPECT_EQ(warm.outputs, eager.outputs);
  EXPECT_EQ(warm.logprobs, eager.logprobs);
}

TEST_F(EmulatedCudaTest, ProductsInPiecesGiveTheSameBits) {
  options_.dtype = options_.kv_dtype = DType::kBF16;
  options_.memory_bytes = int64_t{1} << 30;
  std::vector<TokenId> prompt(40);
  std::iota(prompt.begin(), prompt.end(), 50);
  const auto run = [&](int64_t scratch_rows) {
    auto engine =
        LoadEngine(options_, NewCudaBackend(testing::NewEmulatedDevice(), testing::NewPlainGemm(),
                                            {.batch_invariant = true, .scratch_rows = scratch_rows}));
    EXPECT_TRUE(engine.ok()) << engine.status();
    std::vector<float> logits;
    (*engine)->set_logits_observer([&](const Tensor& rows) {
      const auto* first = static_cast<const float*>(rows.data);
      logits.insert(logits.end(), first, first + rows.rows * rows.cols);
    });
    PlanDriver driver(**engine);
    for (int i = 0; i < 9; ++i) driver.Add({prompt.begin() + i, prompt.end()}, 2, Greedy());
    EXPECT_TRUE(driver.RunAll(128).ok());
    return logits;
  };
  const std::vector<float> whole = run(2048);
  EXPECT_EQ(whole, run(2));
}

// More values than are converted at a time.
TEST_F(EmulatedCudaTest, WeightsAreConvertedInPieces) {
  constexpr int64_t kRows = 600'000, kColumns = 8;
  std::vector<float> values(static_cast<size_t>(kRows * kColumns));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 8191) * 0.37f;
  const WeightView part{.dtype = DType::kF32,
                        .rows = kRows,
                        .cols = kColumns,
                        .data = reinterpret_cast<const std::byte*>(values.data())};
  const auto device = testing::NewEmulatedDevice();
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    const auto matrix = cuda::DeviceMatrix::Pack(*device, {part, part}, dtype, MatrixKind::kPlain);
    ASSERT_TRUE(matrix.ok()) << matrix.status();
    ASSERT_EQ((*matrix)->n(), 2 * kRows);
    const auto* const packed = static_cast<const uint16_t*>(cuda::DeviceMatrix::Of(**matrix).data());
    int64_t wrong = 0;
    for (size_t i = 0; i < 2 * values.size(); ++i) {
      const float value = values[i % values.size()];
      wrong += packed[i] != (dtype == DType::kF16 ? F16FromF32(value) : BF16FromF32(value));
    }
    EXPECT_EQ(wrong, 0);
  }
}

// A gate that f16 does not hold is as good as closed, in products of few rows and of many.
TEST_F(EmulatedCudaTest, GatesBelowTheRangeOfF16AreClosed) {
  constexpr int64_t kInner = 64;
  const auto backend = NewCudaBackend(testing::NewEmulatedDevice(), testing::NewPlainGemm());
  const BackendLimits limits{
      .attention = {.num_heads = 1, .num_kv_heads = 1, .head_dim = 64, .kv_dtype = DType::kBF16},
      .inverse_frequencies = std::vector<float>(32, 1.0f),
      .max_rows = 16,
      .max_slices = 4,
      .max_context = 64,
      .hidden = kInner,
      .max_inner = kInner,
      .vocab_size = 8};
  ASSERT_TRUE(backend->Prepare(limits).ok());
  const std::vector<uint16_t> gate(kInner * kInner, F16FromF32(-1.0f)), up(gate.size(), F16FromF32(0x1p-10f));
  const auto part = [](const std::vector<uint16_t>& values) {
    return WeightView{.dtype = DType::kF16,
                      .rows = kInner,
                      .cols = kInner,
                      .data = reinterpret_cast<const std::byte*>(values.data())};
  };
  const WeightView parts[] = {part(gate), part(up)};
  const auto weight = backend->Pack(parts, DType::kF16, MatrixKind::kGated);
  ASSERT_TRUE(weight.ok()) << weight.status();
  const std::vector<uint16_t> x(16 * kInner, F16FromF32(60000.0f));
  const auto in = backend->Allocate(x.size() * 2), out = backend->Allocate(x.size() * 2);
  ASSERT_TRUE(in.ok() && out.ok());
  for (const int64_t rows : {1, 16}) {
    ASSERT_TRUE(backend->Upload(x.data(), x.size() * 2, (*in)->data()).ok());
    ASSERT_TRUE(backend->Upload(x.data(), x.size() * 2, (*out)->data()).ok());
    const auto tensor = [&](const auto& buffer) {
      return Tensor{.data = (*buffer)->data(),
                    .dtype = DType::kF16,
                    .device = Device::kCuda,
                    .rows = rows,
                    .cols = kInner};
    };
    backend->MatMul(tensor(out), tensor(in), **weight, nullptr, nullptr);
    backend->Synchronize();
    for (int64_t i = 0; i < rows * kInner; ++i) {
      ASSERT_EQ(F32FromF16(static_cast<const uint16_t*>((*out)->data())[i]), 0.0f) << rows << " rows";
    }
  }
}

// Of bf16 any value, of f16 finite ones alone: on the CPU, too.
TEST_F(EmulatedCudaTest, WeightsThatF16DoesNotHoldAreRefused) {
  const auto device = testing::NewEmulatedDevice();
  const auto pack = [&](DType from, std::vector<uint16_t> values, DType to) {
    const WeightView part{.dtype = from,
                          .rows = static_cast<int64_t>(values.size()) / 8,
                          .cols = 8,
                          .data = reinterpret_cast<const std::byte*>(values.data())};
    return cuda::DeviceMatrix::Pack(*device, {part}, to, MatrixKind::kPlain).status();
  };
  std::vector<uint16_t> narrow(32, BF16FromF32(-65280.0f)), half(32, F16FromF32(65504.0f));
  EXPECT_TRUE(pack(DType::kBF16, narrow, DType::kF16).ok());
  EXPECT_TRUE(pack(DType::kF16, half, DType::kF16).ok());
  narrow[19] = BF16FromF32(-65536.0f);
  half[31] = 0x7c00;
  EXPECT_TRUE(pack(DType::kBF16, narrow, DType::kBF16).ok());
  EXPECT_TRUE(pack(DType::kF16, half, DType::kBF16).ok());
  EXPECT_EQ(
      pack(DType::kBF16, narrow, DType::kF16),
      absl::InvalidArgumentError("cannot be packed from bf16 as f16: the value -65536 in row 2 is not in "
                                 "[-65504, 65504] (--dtype bf16 holds it)"));
  EXPECT_EQ(pack(DType::kF16, half, DType::kF16),
            absl::InvalidArgumentError("cannot be packed from f16 as f16: the value inf in row 3 is not in "
                                       "[-65504, 65504]"));
  EXPECT_EQ(pack(DType::kBF16, narrow, DType::kF32).message(),
            "cannot be packed as f32: CUDA computes with weights of bf16 or f16 (--dtype)");
}

}  // namespace
}  // namespace orrery
