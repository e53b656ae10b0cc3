#include "server/daemon/server.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "router/policy/registry.h"
#include "scheduler/journal.h"
#include "scheduler/policy/registry.h"
#include "scheduler/worker_factory.h"
#include "server/base/random_word.h"
#include "server/base/version.h"
#include "server/loop/journal_file.h"
#include "spdlog/spdlog.h"

namespace orrery {
namespace {

constexpr int kWarmUpTokens = 8;
constexpr auto kWatchInterval = std::chrono::milliseconds(50);
constexpr auto kLeaveInterval = std::chrono::milliseconds(5);
constexpr auto kLastFlush = std::chrono::milliseconds(200);

int32_t SmallerOf(int64_t wish, int32_t engine) {
  return wish <= 0 ? engine : static_cast<int32_t>(std::min<int64_t>(wish, engine));
}

WorkerSpec MakeWorkerSpec(const ServerConfig& config, const EngineLimits& engine, int max_in_flight) {
  WorkerSpec spec;
  spec.options.incarnation = RandomWord();
  spec.options.num_blocks = engine.num_blocks;
  spec.options.block_tokens = engine.block_tokens;
  spec.options.max_num_seqs = SmallerOf(config.max_num_seqs, engine.max_num_seqs);
  spec.options.max_step_tokens = SmallerOf(config.max_step_tokens, engine.max_step_tokens);
  spec.options.max_context = SmallerOf(config.max_context, engine.max_context);
  spec.options.vocab_size = engine.vocab_size;
  spec.options.max_waiting =
      static_cast<int32_t>(std::clamp<int64_t>(config.max_open_requests * config.max_choices, 1, 1 << 20));
  spec.options.max_in_flight = max_in_flight;
  spec.options.prefix_cache = config.prefix_cache;
  spec.options.hash_key = RandomWord();
  spec.scheduler = config.scheduler;
  spec.eviction = config.eviction;
  spec.predictor = config.predictor;
  return spec;
}

RequestLimits MakeRequestLimits(const ServerConfig& config, const EngineLimits& engine) {
  RequestLimits limits;
  limits.vocab_size = engine.vocab_size;
  limits.max_context = SmallerOf(config.max_context, engine.max_context);
  limits.kv_tokens = static_cast<int32_t>(
      std::min<int64_t>(int64_t{engine.num_blocks} * engine.block_tokens, limits.max_context));
  limits.max_text_bytes = static_cast<size_t>(config.max_text_bytes.bytes);
  limits.max_choices = static_cast<uint32_t>(config.max_choices);
  limits.max_logprobs = static_cast<uint32_t>(std::min<int64_t>(config.max_logprobs, engine.vocab_size));
  limits.hash_key = RandomWord();
  return limits;
}

}  // namespace

absl::Status CheckPolicies(const ServerConfig& config) {
  auto route = NewRoutePolicy(config.router);
  const std::pair<const char*, absl::Status> names[] = {
      {"scheduler", NewBatchPolicy(config.scheduler).status()},
      {"predictor", NewLengthPredictor(config.predictor).status()},
      {"eviction", NewEvictionPolicy(config.eviction).status()},
      {"router", route.status()}};
  for (const auto& [option, status] : names) {
    if (!status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("--", option, ": ", std::string(status.message())));
    }
  }
  if (config.workers > 1 && !config.record.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--record: the journal is of one worker, and --workers is ", config.workers));
  }
  if ((*route)->needs().kv_transfer) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--router: ", config.router, " moves KV between workers, which so far only `orrery simulate` can"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerConfig& config, ServerParts parts) {
  std::unique_ptr<Server> server(new Server(config));
  server->limits_ = parts.executors.front()->limits();
  server->codec_ = std::move(parts.codec);
  server->on_warm_up_failed_ = std::move(parts.on_warm_up_failed);
  if (absl::Status status = server->StartFront(parts); !status.ok()) return status;
  if (absl::Status status = server->StartWorkers(parts); !status.ok()) return status;
  auto grpc = StartGrpcServer(config, server->service_.get());
  if (!grpc.ok()) return grpc.status();
  server->grpc_ = *std::move(grpc);
  if (!config.metrics_listen.empty()) {
    HttpSources sources;
    sources.registry = server->metrics_->registry();
    sources.healthy = [] { return true; };
    sources.ready = [raw = server.get()] { return raw->ready(); };
    auto http = HttpServer::Start(config.metrics_listen, std::move(sources));
    if (!http.ok()) return http.status();
    server->http_ = *std::move(http);
  }
  server->WarmUp();
  server->watch_ = std::thread([raw = server.get()] { raw->Watch(); });
  return server;
}

absl::Status Server::StartFront(ServerParts& parts) {
  MetricsIdentity identity;
  identity.model = parts.model.model();
  identity.role = config_.role;
  identity.version = kVersion;
  identity.backend = parts.model.backend();
  identity.num_workers = static_cast<int32_t>(parts.executors.size());
  identity.block_tokens = limits_.block_tokens;
  identity.num_blocks = limits_.num_blocks;
  const auto name_of = [](const std::string& policy) {
    return std::string(*absl::StrSplit(policy, ':').begin());
  };
  identity.scheduler = name_of(config_.scheduler);
  identity.router = name_of(config_.router);
  identity.vllm_names = config_.metrics_compat == "vllm";
  metrics_ = std::make_unique<ServerMetrics>(identity);
  FrontOptions options;
  options.admission.max_queue_tokens = config_.max_queue_tokens;
  options.admission.max_samples = static_cast<int32_t>(config_.max_choices);
  options.stream_buffer_bytes = static_cast<size_t>(config_.stream_buffer_bytes.bytes);
  options.write_timeout = config_.write_timeout;
  options.plan_interval = config_.plan_interval;
  if (absl::Status status = CheckPolicies(config_); !status.ok()) return status;
  auto policy = NewRoutePolicy(config_.router);
  if (!policy.ok()) return policy.status();
  lookahead_ = (*policy)->needs().lookahead;
  front_ = std::make_unique<FrontLoop>(options, *std::move(policy), &clock_, metrics_.get());

  ServiceContext context;
  context.clock = &clock_;
  context.front = front_.get();
  context.codec = codec_.get();
  context.ready = &ready_;
  context.limits = MakeRequestLimits(config_, limits_);
  context.defaults = parts.defaults;
  context.model = parts.model;
  context.model.set_vocab_size(static_cast<uint32_t>(limits_.vocab_size));
  context.model.set_max_context(static_cast<uint32_t>(context.limits.max_context));
  context.model.set_block_tokens(static_cast<uint32_t>(limits_.block_tokens));
  context.model.set_num_blocks(static_cast<uint32_t>(limits_.num_blocks));
  context.model.set_server_version(kVersion);
  context.max_message_bytes = config_.max_message_bytes.bytes;
  context.max_open_requests = config_.max_open_requests;
  context.max_queue_tokens = config_.max_queue_tokens;
  context.log_prompts = config_.log_prompts;
  service_ = std::make_unique<InferenceService>(std::move(context));
  return absl::OkStatus();
}

absl::Status Server::StartWorkers(ServerParts& parts) {
  WorkerSpec spec = MakeWorkerSpec(config_, limits_, parts.executors.front()->max_in_flight());
  spec.cost = parts.cost;
  spec.options.lookahead = lookahead_;
  for (std::unique_ptr<Executor>& executor : parts.executors) {
    const auto id = static_cast<uint32_t>(workers_.size());
    spec.options.worker = WorkerId{id};
    spec.options.rank = id;
    spec.options.incarnation = RandomWord();
    if (absl::Status status = StartWorker(spec, std::move(executor)); !status.ok()) return status;
  }
  WorkerInfo info;
  info.kv_capacity_tokens = int64_t{spec.options.num_blocks} * spec.options.block_tokens;
  info.max_context = spec.options.max_context;
  info.slots = spec.options.max_num_seqs;
  info.max_step_tokens = spec.options.max_step_tokens;
  info.block_tokens = spec.options.block_tokens;
  std::vector<AttachedWorker> attached;
  for (const auto& worker : workers_) {
    info.worker = WorkerId{static_cast<uint32_t>(attached.size())};
    info.incarnation = worker->incarnation;
    attached.push_back({worker->loop.get(), info});
  }
  front_->AttachWorkers(std::move(attached));
  return absl::OkStatus();
}

absl::Status Server::StartWorker(const WorkerSpec& spec, std::unique_ptr<Executor> executor) {
  auto core = NewWorkerCore(spec);
  if (!core.ok()) return core.status();
  WorkerLoop::Parts loop;
  loop.core = *std::move(core);
  loop.executor = std::move(executor);
  if (!config_.record.empty()) {
    auto file = JournalFile::Create(config_.record);
    if (!file.ok()) return file.status();
    loop.journal = std::make_unique<JournalWriter>(spec);
    loop.journal_file = *std::move(file);
  }
  workers_.push_back(std::make_unique<Worker>());
  Worker& worker = *workers_.back();
  worker.incarnation = spec.options.incarnation;
  worker.loop = std::make_unique<WorkerLoop>(std::move(loop), &clock_, [this, &worker](WorkerReport report) {
    OnReport(worker, std::move(report));
  });
  return absl::OkStatus();
}

// A prompt of a few tokens and two output tokens: one prefill step, one decode step.
void Server::WarmUp() {
  const int tokens = std::min(kWarmUpTokens, limits_.max_context - 2);
  for (const auto& worker : workers_) {
    Submit submit;
    submit.key.request = kWarmUpRequest;
    submit.tokens = std::make_shared<const std::vector<TokenId>>(static_cast<size_t>(std::max(tokens, 1)), 0);
    submit.num_prompt = static_cast<int32_t>(submit.tokens->size());
    submit.sampling.temperature = 0;
    submit.stop.max_tokens = tokens > 0 ? 2 : 1;
    worker->loop->Submit(std::move(submit));
  }
  spdlog::info("warming up");
}

bool Server::Warm() const {
  return std::all_of(workers_.begin(), workers_.end(),
                     [](const auto& worker) { return worker->warm.load(); });
}

Duration Server::OldestStepAge() const {
  Duration oldest;
  for (const auto& worker : workers_) oldest = std::max(oldest, worker->loop->StepAge());
  return oldest;
}

// On the worker's thread. What the warm-up made is nobody's business but ours.
void Server::OnReport(Worker& worker, WorkerReport report) {
  if (worker.warm.load(std::memory_order_relaxed)) return front_->Report(std::move(report));
  for (const TokenEvent& event : report.events) {
    if (event.finish == FinishReason::kNone) continue;
    if (event.finish == FinishReason::kError) return FailWarmUp(event.error);
    worker.warm.store(true);
  }
  for (const RefusedSample& refused : report.refused) FailWarmUp(refused.why.message());
}

void Server::FailWarmUp(absl::string_view why) {
  spdlog::critical("warm-up failed, the server cannot serve: {}", std::string(why));
  on_warm_up_failed_();
}

void Server::SetReady(bool ready) {
  if (ready_.exchange(ready) == ready) return;
  grpc_.server->GetHealthCheckService()->SetServingStatus(ready);  // of every service
  if (ready) {
    spdlog::info("ready: grpc port {}, metrics port {}", grpc_port(), http_port());
  } else {
    spdlog::warn("not ready: {}", draining_.load() ? "draining" : "waiting for the engine's step");
  }
}

void Server::Watch() {
  std::unique_lock lock(watch_mutex_);
  bool hung = false;  // also while it warms up, when it was never ready
  while (!stop_watching_) {
    const bool was_hung = std::exchange(hung, OldestStepAge() >= config_.step_timeout);
    if (hung && !was_hung) spdlog::warn("the engine's step takes longer than --step-timeout");
    SetReady(Warm() && !draining_.load() && !hung);
    watch_wake_.wait_for(lock, kWatchInterval);
  }
}

bool Server::Drain(Duration timeout) {
  draining_.store(true);
  watch_wake_.notify_all();
  auto over = std::make_shared<std::promise<void>>();
  auto done = over->get_future();
  front_->Drain([over] { over->set_value(); });
  const bool clean = done.wait_for(std::chrono::nanoseconds(timeout.ns)) == std::future_status::ready;
  if (!clean) front_->AbortAll();
  // The last messages leave. Calls that never end by themselves (a health watch) are not waited for.
  const Time until = clock_.Now() + Duration::Seconds(clean ? 5 : 1);
  while (service_->open_requests() > 0 && clock_.Now() < until) std::this_thread::sleep_for(kLeaveInterval);
  grpc_.server->Shutdown(std::chrono::system_clock::now() + kLastFlush);
  return clean;
}

bool Server::StopWorkers(Duration timeout) {
  const Time until = clock_.Now() + timeout;
  bool all = true;
  for (const auto& worker : workers_) {
    all = worker->loop->StopWithin(std::max(Duration{}, until - clock_.Now())) && all;
  }
  return all;
}

Server::~Server() {
  if (watch_.joinable()) {
    {
      std::lock_guard lock(watch_mutex_);
      stop_watching_ = true;
    }
    watch_wake_.notify_all();
    watch_.join();
  }
  http_.reset();
  if (grpc_.server != nullptr) {
    if (front_ != nullptr) front_->AbortAll();
    grpc_.server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
    grpc_.server->Wait();
  }
  for (const auto& worker : workers_) worker->loop->Stop();
  if (front_ != nullptr) front_->Stop();
}

}  // namespace orrery
