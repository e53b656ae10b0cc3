// Generate end to end: client, gRPC, front loop, worker loop, scheduler, fake engine, and back.
#include <atomic>
#include <future>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/server_harness.h"

namespace orrery::testing {
namespace {

using ::testing::HasSubstr;

std::string Letters(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text.push_back(static_cast<char>(FakeToken(i)));
  return text;
}

TEST(Generate, StreamsTextAndEndsAtMaxTokens) {
  Harness harness;
  v1::GenerateRequest request = Harness::Request("hello", 30);
  request.set_request_id("mine");
  request.mutable_sampling()->set_seed(7);
  const Answer answer = harness.Generate(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.request_id, "mine");
  EXPECT_EQ(answer.prompt_tokens, 6u);  // BOS and five bytes
  EXPECT_EQ(answer.text[0], Letters(30));
  EXPECT_EQ(answer.tokens[0].size(), 30u);
  EXPECT_GE(answer.num_messages, 3);
  ASSERT_EQ(answer.finished.size(), 1u);
  const v1::Finished& finished = answer.finished[0];
  EXPECT_EQ(finished.finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(finished.usage().prompt_tokens(), 6u);
  EXPECT_EQ(finished.usage().completion_tokens(), 30u);
  EXPECT_EQ(finished.effective().seed(), 7u);
  EXPECT_EQ(finished.effective().max_tokens(), 30u);
  EXPECT_NEAR(finished.timings().queue_ms() + finished.timings().prefill_ms(), finished.timings().ttft_ms(),
              1e-6);
  std::set<std::string> policies;
  for (const v1::Decision& decision : finished.decisions())
    policies.insert(decision.kind() + " " + decision.policy());
  EXPECT_EQ(policies, (std::set<std::string>{"batch fcfs", "route jsq-tokens"}));
  EXPECT_TRUE(Eventually([&] { return harness.IsIdle(); }));
}

// What was asked for, in full, where none of it is a default.
TEST(Generate, EveryParameterComesBackAsItWasUsed) {
  Harness harness;
  v1::GenerateRequest request = Harness::Request("hello", 9);
  v1::Sampling& asked = *request.mutable_sampling();
  asked.set_temperature(0.5f);
  asked.set_top_k(7);
  asked.set_top_p(0.75f);
  asked.set_min_p(0.125f);
  asked.set_presence_penalty(0.5f);
  asked.set_frequency_penalty(-0.5f);
  asked.set_repetition_penalty(1.25f);
  (*asked.mutable_logit_bias())[17] = -2.5f;
  asked.set_seed(11);
  asked.set_min_tokens(2);
  asked.add_stop("zz");
  asked.add_stop_token_ids(3);
  asked.set_include_stop_in_output(true);
  asked.set_skip_special_tokens(false);
  asked.set_truncate_prompt_tokens(4);
  asked.set_ignore_eos(true);
  asked.set_n(1);
  asked.set_logprobs(0);
  asked.set_prompt_logprobs(0);
  const Answer answer = harness.Generate(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.prompt_tokens, 4u);
  EXPECT_EQ(answer.finished[0].effective().ShortDebugString(), asked.ShortDebugString());
}

TEST(Generate, TokenIdsAreUsedAsGivenAndEchoed) {
  Harness harness;
  v1::GenerateRequest request;
  for (const uint32_t id : {5u, 6u, 7u}) request.mutable_token_ids()->add_ids(id);
  request.set_echo_prompt_token_ids(true);
  request.mutable_sampling()->set_max_tokens(2);
  std::vector<uint32_t> echoed;
  const Answer answer = harness.Generate(request, nullptr, [&](const v1::GenerateResponse& message, auto&) {
    if (message.has_started()) {
      echoed.assign(message.started().prompt_token_ids().begin(), message.started().prompt_token_ids().end());
    }
  });
  ASSERT_TRUE(answer.status.ok());
  EXPECT_EQ(echoed, (std::vector<uint32_t>{5, 6, 7}));
  EXPECT_FALSE(answer.request_id.empty());
}

TEST(Generate, StopStringCutsTheTextAndFreesTheSequence) {
  Harness harness;
  harness.engine().step_us = 2000;  // eight seconds, if the worker were not told
  const int64_t before = harness.engine().num_steps;
  v1::GenerateRequest request = Harness::Request("x", 4000);
  request.mutable_sampling()->add_stop("efg");
  request.mutable_sampling()->add_stop("zzz");
  const Answer answer = harness.Generate(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.text[0], "abcd");
  EXPECT_EQ(answer.finished[0].finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(answer.finished[0].stop_text(), "efg");
  EXPECT_EQ(answer.finished[0].usage().completion_tokens(), 7u);
  EXPECT_EQ(answer.tokens[0].size(), 7u);
  EXPECT_TRUE(Eventually([&] { return harness.IsIdle(); }));
  EXPECT_LT(harness.engine().num_steps - before, 2000);
}

TEST(Generate, StopIdIsCountedAndHasNoText) {
  Harness harness;
  v1::GenerateRequest request = Harness::Request("x", 1000);
  request.mutable_sampling()->add_stop_token_ids('d');
  const Answer answer = harness.Generate(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.text[0], "abc");
  EXPECT_EQ(answer.tokens[0].back(), static_cast<uint32_t>('d'));
  EXPECT_EQ(answer.finished[0].finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(answer.finished[0].stop_token_id(), static_cast<uint32_t>('d'));
  EXPECT_EQ(answer.finished[0].usage().completion_tokens(), 4u);
}

TEST(Generate, SeveralChoicesEachFinishOnce) {
  Harness harness;
  v1::GenerateRequest request = Harness::Request("prompt", 9);
  request.mutable_sampling()->set_n(5);
  const Answer answer = harness.Generate(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  ASSERT_EQ(answer.finished.size(), 5u);
  std::set<uint32_t> choices;
  for (const v1::Finished& finished : answer.finished) choices.insert(finished.choice());
  EXPECT_EQ(choices.size(), 5u);
  for (const std::string& text : answer.text) EXPECT_EQ(text, Letters(9));
}

// More of them than a message holds, from prompts in chunks: every position once, in order, with choice 0 and
// before its first token, whether the prompt is in the cache or not.
TEST(Generate, PromptLogprobsOfEveryPositionOnceBeforeTheFirstToken) {
  Harness::Setup setup;
  setup.config.max_step_tokens = 500;
  Harness harness(setup);
  v1::GenerateRequest request;
  for (uint32_t i = 0; i < 1300; ++i) request.mutable_token_ids()->add_ids(i % 250);
  request.mutable_sampling()->set_max_tokens(5);
  request.mutable_sampling()->set_n(3);
  for (const int cut : {0, 900, 1}) {
    // The first asks for none of its own and fills the cache.
    for (const int k : {-1, 20, 0}) {
      if (k >= 0) request.mutable_sampling()->set_prompt_logprobs(static_cast<uint32_t>(k));
      if (cut > 0) request.mutable_sampling()->set_truncate_prompt_tokens(static_cast<uint32_t>(cut));
      const int kept = cut > 0 ? cut : 1300;
      int position = 1, messages = 0;
      bool early = false;
      const Answer answer =
          harness.Generate(request, nullptr, [&](const v1::GenerateResponse& message, auto&) {
            const v1::Delta& delta = message.delta();
            EXPECT_TRUE(delta.choice() == 0 || delta.prompt_logprobs().empty());
            messages += !delta.prompt_logprobs().empty();
            early |= delta.choice() == 0 && !delta.token_ids().empty() && k >= 0 && position < kept;
            EXPECT_LT(message.ByteSizeLong(), 100u << 10);
            for (const v1::TokenLogprob& got : delta.prompt_logprobs()) {
              ASSERT_EQ(got.id(), static_cast<uint32_t>((1300 - kept + position) % 250));
              ASSERT_EQ(got.logprob(), static_cast<float>(-position));
              ASSERT_EQ(got.top_size(), k);
              if (k > 0) {
                ASSERT_EQ(got.top(k - 1).logprob(), static_cast<float>(-position - k));
              }
              ++position;
            }
          });
      ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
      EXPECT_EQ(position, k < 0 ? 1 : kept) << "cut " << cut << ", k " << k;
      EXPECT_FALSE(early);
      EXPECT_TRUE(messages > 3 || k < 20 || kept < 500) << messages;
      for (const v1::Finished& finished : answer.finished) {
        EXPECT_EQ(finished.usage().prompt_tokens(), static_cast<uint32_t>(kept));
        EXPECT_EQ(finished.usage().cached_tokens() > 0, finished.choice() > 0 && kept > 1);
      }
    }
    request.mutable_sampling()->clear_prompt_logprobs();
  }
  EXPECT_TRUE(Eventually([&] { return harness.IsIdle(); }));
}

TEST(Generate, ManyAtOnceAllComplete) {
  Harness harness;
  constexpr int kClients = 40, kEach = 10;
  std::atomic<int> good{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < kClients; ++c) {
    clients.emplace_back([&, c] {
      for (int i = 0; i < kEach; ++i) {
        const int tokens = 1 + (c * 7 + i * 13) % 40;
        const Answer answer =
            harness.Generate(Harness::Request(std::string(static_cast<size_t>(1 + c), 'p'), tokens));
        if (answer.status.ok() && answer.text[0] == Letters(tokens)) ++good;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(good, kClients * kEach);
  EXPECT_TRUE(Eventually([&] { return harness.IsIdle(); }));
  EXPECT_EQ(harness.Metric("orrery_requests_total", {{"outcome", "length"}}), kClients * kEach);
}

TEST(Generate, EngineFailureEndsTheStepsRequestsAndServingGoesOn) {
  Harness harness;
  harness.engine().fail_next = true;
  const Answer broken = harness.Generate(Harness::Request("x", 5));
  EXPECT_EQ(broken.status.error_code(), grpc::INTERNAL);
  ASSERT_EQ(broken.finished.size(), 1u);
  EXPECT_EQ(broken.finished[0].finish_reason(), v1::FINISH_REASON_ERROR);
  EXPECT_TRUE(harness.Generate(Harness::Request("x", 5)).status.ok());
  EXPECT_EQ(harness.Metric("orrery_requests_total", {{"outcome", "failed"}}), 1);
  EXPECT_TRUE(Eventually([&] { return harness.IsIdle(); }));
}

TEST(Generate, DuplicateRequestIdIsRefusedWhileTheFirstRuns) {
  Harness harness;
  harness.engine().Hold();
  v1::GenerateRequest request = Harness::Request("x", 200);
  request.set_request_id("same");
  Answer second;
  const Answer first = harness.Generate(request, nullptr, [&](const v1::GenerateResponse& message, auto&) {
    if (!message.has_started()) return;
    second = harness.Generate(request);
    auto stub = harness.NewStub();  // another client's names are not its own either
    grpc::ClientContext context;
    auto reader = stub->Generate(&context, request);
    v1::GenerateResponse none;
    EXPECT_FALSE(reader->Read(&none));
    EXPECT_EQ(reader->Finish().error_code(), grpc::ALREADY_EXISTS);
    harness.engine().Release();
  });
  EXPECT_TRUE(first.status.ok());
  EXPECT_EQ(second.status.error_code(), grpc::ALREADY_EXISTS);
  EXPECT_EQ(second.error().field(), "request_id");
  EXPECT_EQ(second.error().reason(), "duplicate_request_id");
  EXPECT_TRUE(harness.Generate(request).status.ok());  // free again
}

TEST(Generate, MalformedMessagesAreTypedErrors) {
  Harness harness;
  v1::GenerateRequest bad = Harness::Request("x", 5);
  const Answer answer = harness.Generate([&] {
    v1::GenerateRequest request = bad;
    request.clear_prompt();
    return request;
  }());
  EXPECT_EQ(answer.status.error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_EQ(answer.error().field(), "prompt");
  EXPECT_TRUE(Eventually([&] {
    return harness.Metric("orrery_requests_total", {{"outcome", "invalid"}}) == 1;
  }));
}

TEST(OtherMethods, TokenizeDetokenizeModelAndLoad) {
  Harness harness;
  grpc::ClientContext contexts[4];
  v1::TokenizeRequest tokenize;
  tokenize.set_text("ab");
  v1::TokenizeResponse tokens;
  ASSERT_TRUE(harness.stub().Tokenize(&contexts[0], tokenize, &tokens).ok());
  EXPECT_EQ(std::vector<uint32_t>(tokens.token_ids().begin(), tokens.token_ids().end()),
            (std::vector<uint32_t>{256, 97, 98}));
  v1::DetokenizeRequest ids;
  ids.add_token_ids('h');
  ids.add_token_ids('i');
  v1::DetokenizeResponse text;
  ASSERT_TRUE(harness.stub().Detokenize(&contexts[1], ids, &text).ok());
  EXPECT_EQ(text.text(), "hi");
  ids.add_token_ids(9999);
  const grpc::Status bad = harness.stub().Detokenize(&contexts[2], ids, &text);
  EXPECT_EQ(bad.error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_THAT(bad.error_message(), HasSubstr("ids below 258"));
  v1::GetModelResponse model;
  ASSERT_TRUE(harness.stub().GetModel(&contexts[3], {}, &model).ok());
  EXPECT_EQ(model.vocab_size(), 258u);
  EXPECT_EQ(model.num_blocks(), 1024u);
  EXPECT_TRUE(harness.Load().ready());
}

}  // namespace
}  // namespace orrery::testing
