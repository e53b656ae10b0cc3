// A step that is launched while the one before it runs: WorkerCore and the executor over the CUDA backend on
// the emulated device give every request the tokens that they give it step by step, whatever comes between.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/cpu_engine.h"
#include "engine/cuda/staging.h"
#include "engine/cuda_engine.h"
#include "kernels/emulate/launch.h"
#include "scheduler/base/random.h"
#include "scheduler/worker_factory.h"
#include "tests/engine/emulated_device.h"
#include "tests/engine/plan_driver.h"
#include "tests/engine/test_model.h"

namespace orrery {
namespace {

constexpr int kWords = 48;
constexpr TokenId kNanId = 41;  // its embedding is not a number

// What a request got. Bits of floats, so that equal means equal.
struct Answer {
  std::vector<TokenId> tokens;
  std::vector<float> logprobs;         // of the tokens, where asked for
  std::vector<float> prompt_logprobs;  // likewise
  FinishReason finish = FinishReason::kNone;
};

struct Counts {
  WorkerCounters worker;
  int64_t ahead = 0;  // rows whose token the host had not seen
  int graph_launches = 0;
};

// One worker as a server's loop drives it.
class Worker {
 public:
  Worker(const EngineOptions& options, int depth, bool lazy, Counts* counts) : counts_(*counts) {
    auto engines = LoadCudaEngines(options, [&](const EngineOptions&) -> absl::StatusOr<CudaParts> {
      return CudaParts{
          .device = testing::NewEmulatedDevice({.graph_launches = &counts->graph_launches, .lazy = lazy}),
          .gemm = testing::NewPlainGemm()};
    });
    EXPECT_TRUE(engines.ok()) << engines.status();
    executor_ = std::move(engines->executors.front());
    EXPECT_EQ(executor_->max_in_flight(), 2);
    const EngineLimits& limits = executor_->limits();
    WorkerSpec spec;
    spec.scheduler = "fcfs:watermark=0";
    spec.options.num_blocks = limits.num_blocks;
    spec.options.block_tokens = limits.block_tokens;
    spec.options.max_num_seqs = limits.max_num_seqs;
    spec.options.max_step_tokens = limits.max_step_tokens;
    spec.options.max_context = limits.max_context;
    spec.options.vocab_size = limits.vocab_size;
    spec.options.max_in_flight = depth;
    core_ = *NewWorkerCore(spec);
  }
  ~Worker() { counts_.worker = core_->counters(); }

  void Arrive(Submit submit) {
    const SampleKey key = submit.key;
    answers_[key];
    ASSERT_TRUE(core_->OnArrival(std::move(submit), now_).ok());
  }
  void Cancel(const SampleKey& key) {
    core_->OnCancel(key, now_, &events_);
    Receive();
  }
  // Called before every Launch.
  void set_before_launch(std::function<void()> call) { before_launch_ = std::move(call); }

  void Turn() {
    now_ = now_ + Duration::Microseconds(100);
    while (core_->can_plan() && core_->has_work()) {
      const StepPlan& plan = core_->Plan(now_);
      if (plan.empty()) break;
      for (const Slice& slice : plan.slices) counts_.ahead += slice.input == InputSource::kPreviousStep;
      if (before_launch_) before_launch_();
      const absl::Status status = executor_->Launch(plan);
      ASSERT_TRUE(status.ok()) << status;
      flying_.push_back(plan.step);
    }
    if (flying_.empty()) return;
    StepResult result;
    const absl::Status status = executor_->Wait(flying_.front(), &result);
    const absl::Status taken =
        status.ok() ? core_->OnStepDone(result, now_, &events_)
                    : core_->OnStepFailed(flying_.front(), std::string(status.message()), now_, &events_);
    flying_.pop_front();
    ASSERT_TRUE(taken.ok()) << taken;
    ASSERT_TRUE(core_->CheckInvariants().ok()) << core_->CheckInvariants();
    Receive();
  }
  void Finish() {
    for (int turns = 0; !core_->idle(); ++turns) {
      ASSERT_LT(turns, 20000);
      Turn();
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
  const std::map<SampleKey, Answer>& answers() const { return answers_; }
  ModelExecutor& executor() { return *executor_; }

 private:
  void Receive() {
    for (const TokenEvent& event : events_) {
      Answer& answer = answers_.at(event.key);
      EXPECT_EQ(answer.finish, FinishReason::kNone);
      if (event.token >= 0) answer.tokens.push_back(event.token);
      if (event.logprobs != nullptr) answer.logprobs.push_back(event.logprobs->chosen);
      if (event.prompt_logprobs != nullptr) {
        const std::vector<float>& part = event.prompt_logprobs->chosen;
        answer.prompt_logprobs.insert(answer.prompt_logprobs.end(), part.begin(), part.end());
      }
      answer.finish = event.finish;
    }
    events_.clear();
  }

  Counts& counts_;
  std::unique_ptr<ModelExecutor> executor_;
  std::unique_ptr<WorkerCore> core_;
  std::deque<StepId> flying_;
  std::vector<TokenEvent> events_;
  std::map<SampleKey, Answer> answers_;
  std::function<void()> before_launch_;
  Time now_;
};

class OneStepAheadTest : public ::testing::Test {
 protected:
  OneStepAheadTest() {
    nlohmann::json config = testing::TinyConfig("llama");
    config["hidden_size"] = 32;
    config["intermediate_size"] = 32;
    config["head_dim"] = 64;
    config["num_hidden_layers"] = 1;
    config["num_attention_heads"] = 1;
    config["num_key_value_heads"] = 1;
    config["vocab_size"] = kWords;
    config["tie_word_embeddings"] = false;
    auto tensors = testing::RandomTensors(config, 4, 0.4f);
    for (auto& tensor : tensors) {
      if (tensor.name == "model.embed_tokens.weight") tensor.values[kNanId * 32] = std::nanf("");
    }
    testing::WriteModel(dir_.path(), config, tensors, DType::kBF16);
    options_.model_dir = dir_.path();
    options_.kv_cache_tokens = 16 * 8;  // less than its sequences want
    options_.max_num_seqs = 5;
    options_.max_step_tokens = 20;
    options_.max_context = 80;
    options_.batch_invariant = true;
  }

  // Prompts that begin alike, some longer than a step; rules of all kinds. The same for every depth: drawn
  // from the seed and the turn alone.
  static Submit RandomRequest(uint64_t id, RandomStream& random) {
    Submit submit;
    submit.key.request = RequestId{id};
    std::vector<TokenId> tokens(1 + random.Below(45));
    const uint64_t stream = random.Below(2);
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = static_cast<TokenId>(UniformAt(stream, i, 3) * (kNanId - 1));
    }
    if (random.Below(16) == 0) tokens.back() = kNanId;
    submit.num_prompt = static_cast<int32_t>(tokens.size());
    submit.stop.max_tokens = static_cast<int32_t>(1 + random.Below(16));
    submit.stop.min_tokens = static_cast<int32_t>(random.Below(6));
    std::set<TokenId> stops;
    for (uint64_t i = random.Below(4); i > 0; --i) stops.insert(static_cast<TokenId>(random.Below(kWords)));
    submit.stop.stop_ids.assign(stops.begin(), stops.end());
    submit.tokens = std::make_shared<const std::vector<TokenId>>(std::move(tokens));
    Sampling& sampling = submit.sampling;
    sampling.temperature = random.Below(3) == 0 ? 0.0f : 0.5f + static_cast<float>(random.Below(4));
    sampling.top_k = random.Below(3) == 0 ? 7 : 0;
    sampling.top_p = random.Below(3) == 0 ? 0.7f : 1.0f;
    sampling.seed = id;
    if (random.Below(6) == 0) sampling.repetition_penalty = 1.5f;
    if (random.Below(4) == 0) sampling.logit_bias = {{3, 2.0f}, {kNanId, 3.0f}};
    if (random.Below(3) == 0) sampling.num_logprobs = static_cast<int32_t>(random.Below(3));
    if (random.Below(6) == 0) sampling.num_prompt_logprobs = static_cast<int32_t>(random.Below(3));
    return submit;
  }

  std::map<SampleKey, Answer> History(uint64_t seed, int depth, bool lazy, Counts* counts) {
    Worker worker(options_, depth, lazy, counts);
    RandomStream random(seed, 1);
    uint64_t requests = 0;
    for (int turn = 0; turn < 30 && !HasFatalFailure(); ++turn) {
      for (uint64_t i = random.Below(3); i > 0; --i) worker.Arrive(RandomRequest(++requests, random));
      const RequestId recent{1 + random.Below(requests + 1)};
      if (random.Below(8) == 0) worker.Cancel({.request = recent});
      worker.Turn();
    }
    worker.Finish();
    return worker.answers();
  }

  testing::TempDir dir_;
  EngineOptions options_;
};

// Of a request that was cancelled as much as both have: it is cancelled by the clock. Of a prompt that is
// broken likewise: a chunk with logits that are not finite tells nothing, and the clock says what is a chunk.
void ExpectTheSame(const std::map<SampleKey, Answer>& ours, const std::map<SampleKey, Answer>& expected) {
  ASSERT_EQ(ours.size(), expected.size());
  for (const auto& [key, answer] : ours) {
    SCOPED_TRACE(absl::StrCat("request ", Value(key.request)));
    const Answer& other = expected.at(key);
    const bool cancelled =
        answer.finish == FinishReason::kCancelled || other.finish == FinishReason::kCancelled;
    const auto same = [](const auto& a, const auto& b, bool whole) {
      const size_t size = std::min(a.size(), b.size());
      return (!whole || a.size() == b.size()) && std::equal(a.begin(), a.begin() + size, b.begin());
    };
    EXPECT_TRUE(cancelled || answer.finish == other.finish);
    EXPECT_TRUE(same(answer.tokens, other.tokens, !cancelled));
    EXPECT_TRUE(same(answer.logprobs, other.logprobs, !cancelled));
    const bool broken = answer.finish == FinishReason::kError;
    EXPECT_TRUE(same(answer.prompt_logprobs, other.prompt_logprobs, !cancelled && !broken));
  }
}

TEST_F(OneStepAheadTest, RandomHistoriesGiveTheTokensOfStepByStep) {
  WorkerCounters totals;
  int64_t ahead = 0;
  for (uint64_t seed = 1; seed <= 16; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Counts plain, ours;
    const auto expected = History(seed, 1, false, &plain);
    const auto answers = History(seed, 2, seed % 3 != 0, &ours);
    if (HasFatalFailure()) return;
    ExpectTheSame(answers, expected);
    if (HasFailure()) return;
    EXPECT_EQ(plain.ahead, 0);
    ahead += ours.ahead;
    totals.wasted_rows += ours.worker.wasted_rows;
    totals.preemptions += ours.worker.preemptions;
    totals.prefix_hit_tokens += ours.worker.prefix_hit_tokens;
    for (int i = 0; i < 6; ++i) totals.finished[i] += ours.worker.finished[i];
  }
  // The corners that the histories are meant to reach.
  EXPECT_GT(ahead, 800);
  EXPECT_GT(totals.wasted_rows, 50u);
  EXPECT_GT(totals.preemptions, 20u);
  EXPECT_GT(totals.prefix_hit_tokens, 1000u);
  EXPECT_GT(totals.finished[static_cast<size_t>(FinishReason::kStop)], 50u);
  EXPECT_GT(totals.finished[static_cast<size_t>(FinishReason::kLength)], 50u);
  EXPECT_GT(totals.finished[static_cast<size_t>(FinishReason::kCancelled)], 10u);
  EXPECT_GT(totals.finished[static_cast<size_t>(FinishReason::kError)], 10u);
}

// All come at once and end by their length, so that the steps are the same at either depth, and with them the
// bits: decoding, filled up, recorded and replayed.
TEST_F(OneStepAheadTest, RecordedStepsGoOnFromTheTokenInFlight) {
  options_.batch_invariant = false;
  options_.kv_cache_tokens = 16 * 40;
  options_.max_num_seqs = 16;
  options_.max_step_tokens = 64;
  std::map<SampleKey, Answer> expected;
  int replays = 0;
  for (const auto& [depth, lazy] : {std::pair(1, false), {2, false}, {2, true}}) {
    Counts counts;
    Worker worker(options_, depth, lazy, &counts);
    for (int i = 0; i < 11; ++i) {
      Submit submit;
      submit.key.request = RequestId{static_cast<uint64_t>(i) + 1};
      submit.tokens = std::make_shared<const std::vector<TokenId>>(static_cast<size_t>(1 + i % 5), 3 + i);
      submit.num_prompt = 1 + i % 5;
      submit.stop.max_tokens = 5 + 2 * i;
      submit.sampling.temperature = i % 2 == 0 ? 0.0f : 0.8f;
      submit.sampling.logit_bias = {{kNanId, -100.0f}};
      submit.sampling.seed = static_cast<uint64_t>(i);
      submit.sampling.num_logprobs = 1;
      worker.Arrive(std::move(submit));
    }
    worker.Finish();
    ASSERT_FALSE(HasFatalFailure());
    if (depth == 1) {
      expected = worker.answers();
      replays = counts.graph_launches;
      EXPECT_GE(replays, 12);
      EXPECT_EQ(expected.at({.request = RequestId{11}}).tokens.size(), 25u);
    } else {
      EXPECT_EQ(counts.graph_launches, replays);
      EXPECT_GT(counts.ahead, 100);
      ExpectTheSame(worker.answers(), expected);
    }
  }
}

// A launch that the device refuses costs the sequences of its step, not those of the step before, which is in
// flight, nor what comes after.
TEST_F(OneStepAheadTest, AFailedStepIsItsOwn) {
  for (const bool lazy : {false, true}) {
    Counts counts;
    Worker worker(options_, 2, lazy, &counts);
    const auto arrive = [&](uint64_t id) {
      Submit submit;
      submit.key.request = RequestId{id};
      submit.tokens = std::make_shared<const std::vector<TokenId>>(std::vector<TokenId>{1, 2, 3});
      submit.num_prompt = 3;
      submit.stop.max_tokens = 6;
      submit.sampling.logit_bias = {{kNanId, -100.0f}};
      worker.Arrive(std::move(submit));
    };
    arrive(1);
    int launches = 0;
    worker.set_before_launch([&] {
      if (++launches == 4) emulate::LaunchGrid({1, 1, 1}, 1 << 20, 0, [] {});
    });
    worker.Finish();
    arrive(2);
    worker.Finish();
    ASSERT_FALSE(HasFatalFailure());
    EXPECT_EQ(worker.answers().at({.request = RequestId{1}}).finish, FinishReason::kError);
    EXPECT_EQ(worker.answers().at({.request = RequestId{1}}).tokens.size(), 3u);
    EXPECT_EQ(worker.answers().at({.request = RequestId{2}}).finish, FinishReason::kLength);
  }
}

TEST_F(OneStepAheadTest, PlansThatDoNotFitTheStepInFlightAreRefused) {
  Counts counts;
  Worker worker(options_, 2, true, &counts);
  ModelExecutor& executor = worker.executor();
  auto submit = std::make_shared<Submit>();
  submit->tokens = std::make_shared<const std::vector<TokenId>>(std::vector<TokenId>{5, 6});
  submit->num_prompt = 2;
  submit->stop.max_tokens = 9;
  auto penalised = std::make_shared<Submit>(*submit);
  penalised->sampling.frequency_penalty = 1;
  StepPlan first;
  first.step = StepId{1};
  first.admitted = {{SequenceId{1}, 0, submit}, {SequenceId{2}, 1, penalised}, {SequenceId{3}, 2, submit}};
  first.slices = {{.sequence = SequenceId{1}, .slot = 0, .begin = 0, .count = 2, .sample = true},
                  {.sequence = SequenceId{2}, .slot = 1, .begin = 0, .count = 2, .sample = true}};
  first.blocks = {BlockId{3}, BlockId{4}};
  first.block_begin = {0, 1, 2};
  first.num_tokens = 4;
  first.num_samples = 2;
  const auto ahead = [](uint64_t sequence, uint32_t slot) {
    StepPlan plan;
    plan.step = StepId{2};
    plan.slices = {{.sequence = SequenceId{sequence},
                    .slot = slot,
                    .begin = 2,
                    .count = 1,
                    .sample = true,
                    .input = InputSource::kPreviousStep,
                    .output_index = 1}};
    plan.blocks = {BlockId{static_cast<int32_t>(3 + slot)}};
    plan.block_begin = {0, 1};
    plan.num_tokens = plan.num_samples = 1;
    return plan;
  };
  const auto message = [&](const StepPlan& plan) { return std::string(executor.Launch(plan).message()); };
  ASSERT_TRUE(executor.Launch(first).ok());
  EXPECT_EQ(message(ahead(2, 1)), "step 2: slice 0 has penalties of a token in flight");
  EXPECT_EQ(message(ahead(3, 2)), "step 2: slice 0 is not the token of the step in flight");
  StepPlan second = ahead(1, 0);
  second.slices[0].begin = 1;
  EXPECT_EQ(message(second), "step 2: slice 0 is not the token of the step in flight");
  second = ahead(1, 0);
  second.slices[0].output_index = 0;
  EXPECT_EQ(message(second), "step 2: slice 0 samples before its last token");
  second = ahead(1, 0);
  ASSERT_TRUE(executor.Launch(second).ok());
  StepPlan third = ahead(1, 0);
  third.step = StepId{3};
  EXPECT_EQ(message(third), "step 3: at most 2 steps can be in flight");
  StepResult result;
  EXPECT_FALSE(executor.Wait(StepId{2}, &result).ok()) << "out of order";
  ASSERT_TRUE(executor.Wait(StepId{1}, &result).ok());
  EXPECT_EQ(result.sampled.size(), 2u);
  // What is in flight when the executor goes is not waited for by anybody.
}

// The measure of the tests above: what is written too early shows on a device that takes its time.
TEST(LazyDeviceTest, ShowsABufferThatIsWrittenBeforeItsStepIsDone) {
  const auto device = testing::NewEmulatedDevice({.lazy = true});
  cuda::Staging staging;
  ASSERT_TRUE(staging.Allocate(*device, 1024).ok());
  const int32_t* on_device = nullptr;
  std::vector<std::unique_ptr<cuda::Event>> done;
  for (int32_t step = 1; step <= 3; ++step) {
    staging.BeginStep();
    on_device = staging.Put(absl::MakeConstSpan(std::vector<int32_t>{step}));
    staging.Upload();
    done.push_back(*device->NewEvent());
    device->Record(*done.back());
    EXPECT_EQ(*on_device, 0) << "nobody waited";
  }
  ASSERT_TRUE(device->Wait(*done[0]).ok());
  EXPECT_EQ(*on_device, 3) << "the third step took the first one's memory before that was done";
  ASSERT_TRUE(device->Wait(*done[1]).ok());
  EXPECT_EQ(*on_device, 2);
}

}  // namespace
}  // namespace orrery
