// The CPU engine behind gRPC in one process: exact tokens alone and in a crowd, with chunked prefill,
// preemption and clients that leave.
#include <atomic>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "orrery/v1/inference.grpc.pb.h"
#include "server/daemon/load_parts.h"
#include "server/daemon/server.h"
#include "spdlog/spdlog.h"
#include "tests/places.h"
#include "tests/server/eventually.h"

namespace orrery {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

fs::path Stories() { return testing::SharedFolder() / "data/models/stories260K"; }

class EngineServe : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(Stories())) GTEST_SKIP() << "needs " << Stories();
    spdlog::set_level(spdlog::level::off);
    ServerConfig config;
    config.model = (Stories() / "hf").string();
    config.listen = "127.0.0.1:0";
    config.metrics_listen = "";
    config.kv_cache_tokens = 1600;  // far less than the crowd needs
    config.max_step_tokens = 48;    // prompts come in chunks
    config.max_num_seqs = 33;
    auto parts = LoadParts(config);
    ASSERT_TRUE(parts.ok()) << parts.status();
    auto server = Server::Start(config, *std::move(parts));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    stub_ = orrery::v1::Inference::NewStub(grpc::CreateChannel(
        "127.0.0.1:" + std::to_string(server_->grpc_port()), grpc::InsecureChannelCredentials()));
    ASSERT_TRUE(testing::Eventually([this] { return server_->ready(); }));
    std::ifstream file(Stories() / "greedy_cases.json");
    cases_ = json::parse(file)["cases"];
  }

  // The ids of a greedy answer; leaves after `patience` messages.
  std::vector<uint32_t> Greedy(const json& prompt_ids, uint32_t max_tokens, int patience = 1 << 30) {
    orrery::v1::GenerateRequest request;
    for (const json& id : prompt_ids) request.mutable_token_ids()->add_ids(id.get<uint32_t>());
    request.mutable_sampling()->set_max_tokens(max_tokens);
    request.mutable_sampling()->set_temperature(0);
    request.mutable_sampling()->set_ignore_eos(true);
    grpc::ClientContext context;
    auto reader = stub_->Generate(&context, request);
    orrery::v1::GenerateResponse message;
    std::vector<uint32_t> ids;
    while (reader->Read(&message)) {
      ids.insert(ids.end(), message.delta().token_ids().begin(), message.delta().token_ids().end());
      if (--patience == 0) context.TryCancel();
    }
    reader->Finish();
    return ids;
  }

  double Metric(const std::string& name) const {
    for (const auto& family : server_->metrics().registry()->Collect()) {
      if (family.name == name) return family.metric[0].counter.value;
    }
    return -1;
  }

  std::unique_ptr<Server> server_;
  std::unique_ptr<orrery::v1::Inference::Stub> stub_;
  json cases_;
};

TEST_F(EngineServe, SameTokensInACrowdOf32WithChunksPreemptionsAndLeavers) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> crowd;
  for (int c = 0; c < 32; ++c) {
    crowd.emplace_back([&, c] {
      for (int round = 0; !stop; ++round) {
        json prompt = json::array({1});
        for (int i = 0; i < 40 + (c * 7 + round) % 60; ++i)
          prompt.push_back(259 + (c * 37 + i * 11 + round) % 250);
        Greedy(prompt, 120, c % 4 == 0 ? 10 + c : 1 << 30);
      }
    });
  }
  for (int round = 0; round < 2; ++round) {
    for (const json& expected : cases_) {
      EXPECT_EQ(json(Greedy(expected["prompt_tokens"], 200)), expected["generated_tokens"]);
    }
  }
  stop = true;
  for (std::thread& client : crowd) client.join();
  EXPECT_GT(Metric("orrery_preemptions_total"), 0);
  EXPECT_GT(Metric("orrery_prefix_cache_hit_tokens_total"), 0);
}

}  // namespace
}  // namespace orrery
