// A server in this process on a free port, around the fake engine, and a client for it.
#ifndef ORRERY_TESTS_SERVER_SERVER_HARNESS_H_
#define ORRERY_TESTS_SERVER_SERVER_HARNESS_H_

#include <chrono>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "orrery/v1/inference.grpc.pb.h"
#include "server/base/errors.h"
#include "server/daemon/server.h"
#include "spdlog/spdlog.h"
#include "tests/server/byte_codec.h"
#include "tests/server/eventually.h"
#include "tests/server/fake_engine.h"

namespace orrery::testing {

namespace v1 = ::orrery::v1;

// Everything a Generate call brought.
struct Answer {
  grpc::Status status;
  bool started = false;
  std::string request_id;
  uint32_t prompt_tokens = 0;
  std::vector<std::string> text;
  std::vector<std::vector<uint32_t>> tokens;
  std::vector<v1::Finished> finished;
  int64_t num_messages = 0;
  std::string retry;  // the pushback trailer

  void Take(const v1::GenerateResponse& message) {
    ++num_messages;
    const auto choice = [&](uint32_t index) {
      if (text.size() <= index) text.resize(index + 1), tokens.resize(index + 1);
    };
    if (message.has_started()) {
      started = true;
      request_id = message.started().request_id();
      prompt_tokens = message.started().prompt_tokens();
    } else if (message.has_delta()) {
      const v1::Delta& delta = message.delta();
      choice(delta.choice());
      text[delta.choice()] += delta.text();
      tokens[delta.choice()].insert(tokens[delta.choice()].end(), delta.token_ids().begin(),
                                    delta.token_ids().end());
    } else {
      choice(message.finished().choice());
      finished.push_back(message.finished());
    }
  }
  v1::ErrorInfo error() const { return ErrorInfoOf(status).value_or(v1::ErrorInfo()); }
};

class Harness {
 public:
  struct Setup {
    ServerConfig config;
    EngineLimits limits{.num_blocks = 1024,
                        .block_tokens = 16,
                        .max_num_seqs = 64,
                        .max_step_tokens = 2048,
                        .max_context = 4096,
                        .vocab_size = kByteVocab};
    SamplingDefaults defaults;
    bool wait_until_ready = true;
    bool hold_at_start = false;  // the warm-up hangs until the engine is released
    bool fail_at_start = false;  // the warm-up fails
    Setup() {
      config.model = "fake";
      config.listen = "127.0.0.1:0";
      config.metrics_listen = "";  // its shutdown takes seconds
      defaults.end_ids = {kByteEos};
    }
  };

  explicit Harness(Setup setup = Setup())
      : control_(std::make_shared<EngineControl>()), setup_(std::move(setup)) {
    spdlog::set_level(spdlog::level::off);
    if (setup_.hold_at_start) control_->Hold();
    control_->fail_next = setup_.fail_at_start;
    ServerParts parts;
    for (int64_t i = 0; i < setup_.config.workers; ++i) {
      parts.engine.executors.push_back(std::make_unique<FakeEngine>(setup_.limits, control_));
    }
    parts.codec = std::make_unique<ByteCodec>();
    parts.defaults = setup_.defaults;
    parts.model.set_model("fake");
    parts.model.set_backend("fake");
    parts.engine.on_engine_failed = [this] { engine_failed_.store(true); };
    auto server = Server::Start(setup_.config, std::move(parts));
    if (!server.ok()) throw std::runtime_error(std::string(server.status().message()));
    server_ = *std::move(server);
    stub_ = NewStub();
    if (setup_.wait_until_ready && !Eventually([this] { return server_->ready(); })) {
      throw std::runtime_error("the server is not ready");
    }
  }

  std::unique_ptr<v1::Inference::Stub> NewStub(const grpc::ChannelArguments& arguments = {}) const {
    grpc::ChannelArguments own = arguments;
    own.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return v1::Inference::NewStub(grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", server_->grpc_port()),
                                                            grpc::InsecureChannelCredentials(), own));
  }

  static v1::GenerateRequest Request(const std::string& text, uint32_t max_tokens) {
    v1::GenerateRequest request;
    request.set_text(text);
    request.mutable_sampling()->set_max_tokens(max_tokens);
    request.mutable_sampling()->set_temperature(0);
    return request;
  }

  // Runs one call to its end; `before` may set up the context, `each` sees every message and may act.
  Answer Generate(
      const v1::GenerateRequest& request, const std::function<void(grpc::ClientContext&)>& before = nullptr,
      const std::function<void(const v1::GenerateResponse&, grpc::ClientContext&)>& each = nullptr) {
    grpc::ClientContext context;
    if (before) before(context);
    auto reader = stub_->Generate(&context, request);
    Answer answer;
    v1::GenerateResponse message;
    while (reader->Read(&message)) {
      answer.Take(message);
      if (each) each(message, context);
    }
    answer.status = reader->Finish();
    const auto& trailers = context.GetServerTrailingMetadata();
    if (const auto it = trailers.find("grpc-retry-pushback-ms"); it != trailers.end()) {
      answer.retry = std::string(it->second.data(), it->second.size());
    }
    return answer;
  }

  v1::GetLoadResponse Load() {
    grpc::ClientContext context;
    v1::GetLoadResponse load;
    EXPECT_TRUE(stub_->GetLoad(&context, {}, &load).ok());
    return load;
  }

  // Nothing runs, nothing waits, and every block is free or evictable.
  bool IsIdle() {
    const v1::GetLoadResponse load = Load();
    return load.requests_running() == 0 && load.requests_waiting() == 0 && load.open_streams() == 0 &&
           load.blocks_free() == load.blocks_total();
  }

  // The value of one sample in the text that /metrics would show; NaN when absent.
  double Metric(const std::string& name, const std::map<std::string, std::string>& labels = {}) const {
    for (const auto& family : server_->metrics().registry()->Collect()) {
      if (family.name != name) continue;
      for (const auto& metric : family.metric) {
        bool matches = true;
        for (const auto& [key, value] : labels) {
          bool found = false;
          for (const auto& label : metric.label) found |= label.name == key && label.value == value;
          matches &= found;
        }
        if (!matches) continue;
        if (family.type == prometheus::MetricType::Counter) return metric.counter.value;
        if (family.type == prometheus::MetricType::Gauge) return metric.gauge.value;
        return static_cast<double>(metric.histogram.sample_count);
      }
    }
    return std::numeric_limits<double>::quiet_NaN();
  }

  bool engine_failed() const { return engine_failed_.load(); }
  EngineControl& engine() { return *control_; }
  Server& server() { return *server_; }
  v1::Inference::Stub& stub() { return *stub_; }

 private:
  std::shared_ptr<EngineControl> control_;
  Setup setup_;
  std::atomic<bool> engine_failed_{false};
  std::unique_ptr<Server> server_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

}  // namespace orrery::testing

#endif  // ORRERY_TESTS_SERVER_SERVER_HARNESS_H_
