// A step that is launched while the one before it runs: on the emulated device, which takes its time, and on
// the machine's, every request gets the tokens that it gets step by step, whatever comes between.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "scheduler/base/random.h"
#include "tests/engine/test_model.h"
#include "tests/engine/tested_cuda.h"
#include "tests/engine/worker_driver.h"

namespace orrery {
namespace {

using testing::WorkerDriver;

constexpr int kWords = 48;
constexpr TokenId kNanId = 41;  // its embedding is not a number

class OneStepAheadTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = testing::WhyNoCuda(); !why.empty()) GTEST_SKIP() << why;
    nlohmann::json config = testing::OneLayer();
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

  void Play(uint64_t seed, WorkerDriver* worker) {
    RandomStream random(seed, 1);
    uint64_t requests = 0;
    for (int turn = 0; turn < 30 && !HasFatalFailure(); ++turn) {
      for (uint64_t i = random.Below(3); i > 0; --i) worker->Arrive(RandomRequest(++requests, random));
      const RequestId recent{1 + random.Below(requests + 1)};
      if (random.Below(8) == 0) worker->Cancel({.request = recent});
      worker->Turn();
    }
    worker->Finish();
  }

  testing::TempDir dir_;
  EngineOptions options_;
};

TEST_F(OneStepAheadTest, RandomHistoriesGiveTheTokensOfStepByStep) {
  WorkerCounters totals;
  int64_t ahead = 0;
  for (uint64_t seed = 1; seed <= 16; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    WorkerDriver plain(options_, testing::OpenTestedCuda, 1), ours(options_, testing::OpenTestedCuda, 2);
    Play(seed, &plain);
    Play(seed, &ours);
    if (HasFatalFailure()) return;
    ExpectTheSame(ours.answers(), plain.answers());
    if (HasFailure()) return;
    EXPECT_EQ(plain.rows_ahead(), 0);
    ahead += ours.rows_ahead();
    totals.wasted_rows += ours.counters().wasted_rows;
    totals.preemptions += ours.counters().preemptions;
    totals.prefix_hit_tokens += ours.counters().prefix_hit_tokens;
    for (int i = 0; i < 6; ++i) totals.finished[i] += ours.counters().finished[i];
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
  options_.cache_dir = dir_.path();  // the second engine's products shall be the first one's
  testing::Answers expected;
  int expected_launches = 0;
  for (const int depth : {1, 2}) {
    const int before = testing::GraphLaunches();
    WorkerDriver worker(options_, testing::OpenTestedCuda, depth);
    for (int i = 0; i < 11; ++i) {
      Submit submit;
      submit.key.request = RequestId{static_cast<uint64_t>(i) + 1};
      submit.tokens = std::make_shared<const std::vector<TokenId>>(static_cast<size_t>(1 + i % 5), 3 + i);
      submit.num_prompt = 1 + i % 5;
      submit.stop.max_tokens = 5 + 3 * i;
      submit.sampling.temperature = i % 2 == 0 ? 0.0f : 0.8f;
      submit.sampling.seed = static_cast<uint64_t>(i);
      submit.sampling.logit_bias = {{kNanId, -100.0f}};  // it would end its request early
      submit.sampling.num_logprobs = 1;
      worker.Arrive(std::move(submit));
    }
    worker.Finish();
    ASSERT_FALSE(HasFatalFailure());
    const int launches = testing::GraphLaunches() - before;
    if (depth == 1) {
      expected = worker.answers();
      expected_launches = launches;
      EXPECT_GE(launches, 12);
      EXPECT_EQ(expected.at({.request = RequestId{11}}).tokens.size(), 35u);
    } else {
      EXPECT_EQ(launches, expected_launches);
      EXPECT_GT(worker.rows_ahead(), 100);
      ExpectTheSame(worker.answers(), expected);
    }
  }
}

// Prompt and output fill the context: no row is planned behind its last token.
TEST_F(OneStepAheadTest, ASequenceMayFillItsContext) {
  WorkerDriver worker(options_, testing::OpenTestedCuda, 2);
  Submit submit;
  submit.key.request = RequestId{1};
  submit.tokens = std::make_shared<const std::vector<TokenId>>(60, 3);
  submit.num_prompt = 60;
  submit.stop.max_tokens = 20;
  submit.sampling.logit_bias = {{kNanId, -100.0f}};
  worker.Arrive(std::move(submit));
  worker.Finish();
  ASSERT_FALSE(HasFatalFailure());
  EXPECT_EQ(worker.answers().at({.request = RequestId{1}}).finish, FinishReason::kLength);
  EXPECT_EQ(worker.answers().at({.request = RequestId{1}}).tokens.size(), 20u);
  EXPECT_GT(worker.rows_ahead(), 10);
}

}  // namespace
}  // namespace orrery
