// What serving costs over the engine: the same decode batch (a) through scheduler and engine in a bare loop,
// and (b) through the whole server, streamed over loopback gRPC to a client in this process, turn by turn.
//
//   serve_overhead_bench MODEL_DIR [--batch 64] [--prompt 32] [--tokens 128] [--rounds 3] [--weights
//   native|int8]
//                        [--threads N]
//   serve_overhead_bench --modeled MODEL_DIR STEP_MS ...   the engine takes a fixed time and no CPU
//
// Reported: tokens per second of (a) counting engine time alone, of (a) with the scheduler, of (b), and the
// server's own host time per step (everything between two engine calls).
#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "grpcpp/grpcpp.h"
#include "orrery/v1/inference.grpc.pb.h"
#include "scheduler/worker_factory.h"
#include "server/daemon/load_parts.h"
#include "server/daemon/server.h"
#include "spdlog/spdlog.h"
#include "tests/engine/worker_spec.h"

namespace orrery {
namespace {

struct Options {
  ServerConfig config;
  int batch = 64, prompt = 32, tokens = 128, rounds = 3;
};

struct Result {
  double engine_tokens_per_s = 0;  // counting the time inside the executor alone
  double tokens_per_s = 0;
  double host_us = 0;  // per step, outside the executor
};

std::vector<TokenId> PromptOf(int index, int length, int vocab) {
  std::vector<TokenId> prompt;
  for (int i = 0; i < length; ++i) prompt.push_back((index * 977 + i * 31) % vocab);
  return prompt;
}

// Scheduler and executor in one thread, nothing else. Decode steps only are counted.
Result BareLoop(const Options& options) {
  auto parts = LoadParts(options.config);
  if (!parts.ok()) std::exit((std::fprintf(stderr, "%s\n", parts.status().ToString().c_str()), 2));
  Executor& executor = *parts->engine.executors.front();
  auto core = *NewWorkerCore(testing::WorkerSpecOf(executor.limits()));
  const Clock clock;
  for (int i = 0; i < options.batch; ++i) {
    Submit submit;
    submit.key.request = RequestId{static_cast<uint64_t>(i) + 1};
    submit.tokens = std::make_shared<const std::vector<TokenId>>(
        PromptOf(i, options.prompt, executor.limits().vocab_size));
    submit.num_prompt = options.prompt;
    submit.sampling.temperature = 0;
    submit.stop.max_tokens = options.tokens;
    if (!core->OnArrival(std::move(submit), clock.Now()).ok()) std::exit(2);
  }
  StepResult result;
  std::vector<TokenEvent> events;
  int64_t tokens = 0, engine_ns = 0, steps = 0;
  Time first, last;
  while (core->has_work()) {
    const StepPlan& plan = core->Plan(clock.Now());
    if (plan.empty()) break;
    const bool counted = plan.num_tokens == options.batch && plan.num_samples == options.batch;
    const Time begin = clock.Now();
    if (counted && first.ns == 0) first = begin;
    result.Clear();
    if (!executor.Launch(plan).ok() || !executor.Wait(plan.step, &result).ok()) std::exit(1);
    const Time end = clock.Now();
    events.clear();
    if (!core->OnStepDone(result, end, &events).ok()) std::exit(1);
    if (!counted) continue;
    engine_ns += (end - begin).ns;
    tokens += options.batch;
    ++steps;
    last = clock.Now();
  }
  Result out;
  const double wall = (last - first).seconds(), engine = static_cast<double>(engine_ns) * 1e-9;
  out.engine_tokens_per_s = static_cast<double>(tokens) / engine;
  out.tokens_per_s = static_cast<double>(tokens) / wall;
  out.host_us = (wall - engine) / static_cast<double>(std::max<int64_t>(steps, 1)) * 1e6;
  return out;
}

// One stream; notes when its tokens came.
class Call final : public grpc::ClientReadReactor<orrery::v1::GenerateResponse> {
 public:
  Call(orrery::v1::Inference::Stub* stub, orrery::v1::GenerateRequest request, const Clock* clock)
      : request_(std::move(request)), clock_(clock) {
    stub->async()->Generate(&context_, &request_, this);
    StartRead(&message_);
    StartCall();
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    for (int i = 0; i < message_.delta().token_ids_size(); ++i) times.push_back(clock_->Now());
    StartRead(&message_);
  }
  void OnDone(const grpc::Status& status) override {
    std::lock_guard lock(mutex_);
    ok = status.ok();
    done_ = true;
    changed_.notify_all();
  }
  void Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_; });
  }
  std::vector<Time> times;
  bool ok = false;

 private:
  const orrery::v1::GenerateRequest request_;
  const Clock* clock_;
  grpc::ClientContext context_;
  orrery::v1::GenerateResponse message_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
};

Result ThroughServer(const Options& options) {
  auto parts = LoadParts(options.config);
  if (!parts.ok()) std::exit(2);
  const int vocab = parts->engine.executors.front()->limits().vocab_size;
  auto server = Server::Start(options.config, *std::move(parts));
  if (!server.ok()) std::exit((std::fprintf(stderr, "%s\n", server.status().ToString().c_str()), 2));
  while (!(*server)->ready()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  auto stub = orrery::v1::Inference::NewStub(grpc::CreateChannel(
      "127.0.0.1:" + std::to_string((*server)->grpc_port()), grpc::InsecureChannelCredentials()));
  const Clock clock;
  std::vector<std::unique_ptr<Call>> calls;
  for (int i = 0; i < options.batch; ++i) {
    orrery::v1::GenerateRequest request;
    for (const TokenId id : PromptOf(i, options.prompt, vocab)) {
      request.mutable_token_ids()->add_ids(static_cast<uint32_t>(id));
    }
    request.mutable_sampling()->set_temperature(0);
    request.mutable_sampling()->set_ignore_eos(true);
    request.mutable_sampling()->set_max_tokens(static_cast<uint32_t>(options.tokens));
    calls.push_back(std::make_unique<Call>(stub.get(), std::move(request), &clock));
  }
  // Counted: from when the last stream has begun until the first one ends.
  Time begin, end = Time::Never();
  for (auto& call : calls) {
    call->Wait();
    if (!call->ok || call->times.empty()) std::exit(1);
    begin = std::max(begin, call->times.front());
    end = std::min(end, call->times.back());
  }
  int64_t tokens = 0;
  for (auto& call : calls) {
    tokens +=
        std::count_if(call->times.begin(), call->times.end(), [&](Time t) { return t > begin && t <= end; });
  }
  Result out;
  out.tokens_per_s = static_cast<double>(tokens) / (end - begin).seconds();
  for (const auto& family : (*server)->metrics().registry()->Collect()) {
    if (family.name != "orrery_host_step_seconds") continue;
    const auto& histogram = family.metric[0].histogram;
    out.host_us = histogram.sample_sum / static_cast<double>(histogram.sample_count) * 1e6;
  }
  return out;
}

int Main(int argc, char** argv) {
  spdlog::set_level(spdlog::level::warn);
  Options options;
  int i = 1;
  if (argc > 3 && std::strcmp(argv[1], "--modeled") == 0) {
    options.config.backend = "modeled";
    options.config.cost_profile = std::string("constant:") + argv[3];
    options.config.model = argv[2];
    i = 4;
  } else if (argc > 1) {
    options.config.model = argv[i++];
  }
  for (; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--batch") options.batch = std::atoi(argv[i + 1]);
    if (flag == "--prompt") options.prompt = std::atoi(argv[i + 1]);
    if (flag == "--tokens") options.tokens = std::atoi(argv[i + 1]);
    if (flag == "--rounds") options.rounds = std::atoi(argv[i + 1]);
    if (flag == "--weights") options.config.weights = argv[i + 1];
    if (flag == "--threads") options.config.threads = std::atoi(argv[i + 1]);
  }
  options.config.listen = "127.0.0.1:0";
  options.config.metrics_listen = "";
  options.config.kv_cache_tokens = int64_t{options.batch} * (options.prompt + options.tokens + 32);
  std::printf("batch %d, prompt %d, %d tokens each\n", options.batch, options.prompt, options.tokens);
  std::printf("%22s %14s %14s %10s %12s %12s\n", "engine alone tok/s", "+ scheduler", "over gRPC", "ratio",
              "host us bare", "host us srv");
  std::vector<double> ratios;
  for (int round = 0; round < options.rounds; ++round) {
    const Result bare = BareLoop(options);
    const Result served = ThroughServer(options);
    ratios.push_back(served.tokens_per_s / bare.engine_tokens_per_s);
    std::printf("%22.0f %14.0f %14.0f %10.3f %12.1f %12.1f\n", bare.engine_tokens_per_s, bare.tokens_per_s,
                served.tokens_per_s, ratios.back(), bare.host_us, served.host_us);
    std::fflush(stdout);
  }
  std::sort(ratios.begin(), ratios.end());
  std::printf("median ratio %.3f\n", ratios[ratios.size() / 2]);
  return 0;
}

}  // namespace
}  // namespace orrery

int main(int argc, char** argv) { return orrery::Main(argc, argv); }
