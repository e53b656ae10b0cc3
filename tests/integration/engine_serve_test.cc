// The CPU engine behind gRPC in one process: exact tokens and log-probabilities of prompts alone and in a
// crowd, with chunked prefill, preemption and clients that leave.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "orrery/v1/inference.grpc.pb.h"
#include "server/daemon/load_parts.h"
#include "server/daemon/server.h"
#include "spdlog/spdlog.h"
#include "tests/engine/reference_model.h"
#include "tests/engine/stories.h"
#include "tests/places.h"
#include "tests/server/eventually.h"

namespace orrery {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

fs::path Stories() { return testing::SharedFolder() / "data/models/stories260K"; }

// What one client asks for and what it got.
struct Client {
  json prompt;
  json expected = nullptr;              // greedy tokens; null: it samples, nobody looks
  std::atomic<size_t> leaves_after{0};  // ids; 0: stays to the end
  uint32_t choices = 1;
  int prompt_logprobs = -1;

  json ids = json::array();  // of all choices
  std::vector<orrery::v1::TokenLogprob> scored;
  std::vector<uint32_t> cached;  // tokens, of the choices in the order of their ends
  uint32_t preemptions = 0;
  std::atomic<bool> started{false};
};

class EngineServe : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(Stories())) GTEST_SKIP() << "needs " << Stories();
    spdlog::set_level(spdlog::level::off);
    ServerConfig config;
    config.model = (Stories() / "hf").string();
    config.listen = "127.0.0.1:0";
    config.metrics_listen = "";
    config.threads = 1;
    config.kv_cache_tokens = 3600;  // all prompts of the crowd, half of what it grows to
    config.max_step_tokens = 48;    // prompts come in chunks
    config.max_num_seqs = kCrowd;
    auto parts = LoadParts(config);
    ASSERT_TRUE(parts.ok()) << parts.status();
    auto server = Server::Start(config, *std::move(parts));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    stub_ = orrery::v1::Inference::NewStub(grpc::CreateChannel(
        "127.0.0.1:" + std::to_string(server_->grpc_port()), grpc::InsecureChannelCredentials()));
    ASSERT_TRUE(testing::Eventually([this] { return server_->ready(); }));
    std::ifstream file(Stories() / "greedy_cases.json");
    const json recorded = json::parse(file);
    for (const json& c : recorded["cases"]) AddChecked(c["prompt_tokens"], c["generated_tokens"]);
    for (const testing::StoryCase& c : testing::TwentyStoryCases((Stories() / "hf").string()))
      AddChecked(c.prompt, c.output);
    ASSERT_EQ(checked_.size(), 22u);
  }

  void AddChecked(const json& prompt, const json& expected) {
    checked_.push_back(std::make_unique<Client>());
    checked_.back()->prompt = prompt;
    checked_.back()->expected = expected;
  }

  void Run(Client* client) {
    orrery::v1::GenerateRequest request;
    for (const json& id : client->prompt) request.mutable_token_ids()->add_ids(id.get<uint32_t>());
    request.mutable_sampling()->set_n(client->choices);
    request.mutable_sampling()->set_max_tokens(client->choices < kCrowd ? 200 : 511);
    if (!client->expected.is_null()) request.mutable_sampling()->set_temperature(0);
    request.mutable_sampling()->set_ignore_eos(true);
    if (client->prompt_logprobs >= 0) {
      request.mutable_sampling()->set_prompt_logprobs(static_cast<uint32_t>(client->prompt_logprobs));
    }
    client->scored.clear();
    grpc::ClientContext context;
    auto reader = stub_->Generate(&context, request);
    orrery::v1::GenerateResponse message;
    while (reader->Read(&message)) {
      client->started = true;
      for (const uint32_t id : message.delta().token_ids()) client->ids.push_back(id);
      for (const auto& scored : message.delta().prompt_logprobs()) {
        EXPECT_EQ(message.delta().choice(), 0u);
        client->scored.push_back(scored);
      }
      if (message.has_finished()) client->cached.push_back(message.finished().usage().cached_tokens());
      for (const auto& attempt : message.finished().attempts()) client->preemptions += attempt.preemptions();
      if (client->leaves_after > 0 && client->ids.size() >= client->leaves_after) context.TryCancel();
    }
    reader->Finish();
    client->started = true;
  }

  // The positions of the prompt, one by one, against the double-precision reference.
  static void ExpectScoredAsTheReference(const Client& client) {
    const auto prompt = client.prompt.get<std::vector<int32_t>>();
    ASSERT_EQ(client.scored.size(), prompt.size() - 1);
    static const testing::ReferenceModel reference((Stories() / "hf").string());
    testing::ReferenceModel::Run run(reference);
    for (size_t i = 0; i + 1 < prompt.size(); ++i) {
      std::vector<double> logprobs = run.Feed(prompt[i]);
      double sum = 0;
      for (const double logit : logprobs) sum += std::exp(logit);
      for (double& logit : logprobs) logit -= std::log(sum);
      const orrery::v1::TokenLogprob& got = client.scored[i];
      EXPECT_EQ(got.id(), static_cast<uint32_t>(prompt[i + 1]));
      EXPECT_NEAR(got.logprob(), logprobs[got.id()], 1e-4) << "position " << i + 1;
      ASSERT_EQ(got.top_size(), client.prompt_logprobs);
      std::vector<double> sorted = logprobs;
      std::sort(sorted.rbegin(), sorted.rend());
      for (int k = 0; k < got.top_size(); ++k) {
        EXPECT_NEAR(got.top(k).logprob(), logprobs[got.top(k).id()], 1e-4) << "position " << i + 1;
        EXPECT_NEAR(got.top(k).logprob(), sorted[static_cast<size_t>(k)], 1e-4) << "position " << i + 1;
      }
    }
  }

  static std::vector<std::string> Bytes(const std::vector<orrery::v1::TokenLogprob>& scored) {
    std::vector<std::string> bytes;
    for (const auto& position : scored) bytes.push_back(position.SerializeAsString());
    return bytes;
  }

  // Everybody at once, in this order: one request holds all slots until the last has come.
  void RunCrowd(const std::vector<Client*>& clients) {
    Client holder;
    holder.prompt = {1};
    holder.choices = kCrowd;
    std::vector<std::thread> threads;
    const auto start = [&](Client* client) {
      client->ids = json::array();
      client->started = false;
      threads.emplace_back([this, client] { Run(client); });
      EXPECT_TRUE(testing::Eventually([client] { return client->started.load(); }));
    };
    start(&holder);
    for (Client* client : clients) start(client);
    holder.leaves_after = 1;
    threads[0].join();
    const uint64_t full_steps = FullSteps();
    for (size_t i = 1; i < threads.size(); ++i) threads[i].join();
    for (const auto& client : checked_) EXPECT_EQ(client->ids, client->expected) << client->prompt.size();
    // In each of these every checked one had 32 others beside it.
    EXPECT_GT(FullSteps() - full_steps, 10u);
  }

  const prometheus::ClientMetric& Metric(const std::string& name) {
    collected_ = server_->metrics().registry()->Collect();
    for (const auto& family : collected_) {
      if (family.name == name) return family.metric[0];
    }
    ADD_FAILURE() << "no metric " << name;
    static const prometheus::ClientMetric none;
    return none;
  }

  // Steps that computed all the sequences there can be.
  uint64_t FullSteps() {
    static_assert(kCrowd > 32 && kCrowd <= 64);
    const auto steps = Metric("orrery_step_sequences").histogram;
    for (const auto& bucket : steps.bucket) {
      if (bucket.upper_bound == 32) return steps.sample_count - bucket.cumulative_count;
    }
    return 0;
  }

  static constexpr int kCrowd = 33;
  std::unique_ptr<Server> server_;
  std::unique_ptr<orrery::v1::Inference::Stub> stub_;
  std::vector<std::unique_ptr<Client>> checked_;
  std::vector<prometheus::MetricFamily> collected_;
};

// Of a prompt that is in the cache, for two choices, and of one token.
TEST_F(EngineServe, PromptLogprobsEqualTheReference) {
  Client client;
  client.prompt = checked_.back()->prompt;
  Run(&client);
  client.choices = 2;
  client.prompt_logprobs = 20;
  client.cached.clear();
  Run(&client);
  ExpectScoredAsTheReference(client);
  std::sort(client.cached.begin(), client.cached.end());
  ASSERT_EQ(client.cached.size(), 2u);
  EXPECT_EQ(client.cached[0], 0u);
  EXPECT_GT(client.cached[1], 0u) << "the other choice";
  client.prompt = {1};
  client.choices = 1;
  Run(&client);
  ExpectScoredAsTheReference(client);
}

TEST_F(EngineServe, SameTokensAloneAndAmong32OthersWithChunksPreemptionsAndLeavers) {
  std::vector<std::vector<std::string>> scored_alone;
  for (const auto& client : checked_) {
    client->prompt_logprobs = scored_alone.size() % 3 == 0 ? 2 : -1;
    Run(client.get());
    EXPECT_EQ(client->ids, client->expected) << "alone, " << client->prompt.size();
    EXPECT_EQ(client->preemptions, 0u);
    if (client->prompt_logprobs >= 0) ExpectScoredAsTheReference(*client);
    scored_alone.push_back(Bytes(client->scored));
  }
  EXPECT_EQ(FullSteps(), 0u);

  std::vector<std::unique_ptr<Client>> others;
  std::vector<Client*> crowd;
  while (checked_.size() + others.size() < kCrowd) {
    const auto c = static_cast<int>(others.size());
    others.push_back(std::make_unique<Client>());
    others.back()->prompt = {1};
    for (int i = 0; i < 30 + c; ++i) others.back()->prompt.push_back(259 + (c * 37 + i * 11) % 250);
    if (c % 3 == 0) others.back()->leaves_after = static_cast<size_t>(150 + c);
    crowd.push_back(others.back().get());
  }
  // Who came last gives way first: with the order turned round everybody's turn comes.
  std::vector<Client*> forward = crowd, backward = crowd;
  for (const auto& client : checked_) forward.push_back(client.get());
  for (auto client = checked_.rbegin(); client != checked_.rend(); ++client)
    backward.push_back(client->get());
  for (const auto& order : {forward, backward}) {
    RunCrowd(order);
    for (size_t i = 0; i < checked_.size(); ++i) EXPECT_EQ(Bytes(checked_[i]->scored), scored_alone[i]) << i;
  }
  for (const auto& client : checked_) EXPECT_GT(client->preemptions, 0u) << client->prompt.size();
  EXPECT_GT(Metric("orrery_prefix_cache_hit_tokens_total").counter.value, 0);
}

}  // namespace
}  // namespace orrery
