#include "server/daemon/server.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "router/policy/registry.h"
#include "scheduler/policy/registry.h"
#include "server/base/version.h"
#include "server/daemon/limits.h"
#include "spdlog/spdlog.h"

namespace orrery {
namespace {

constexpr auto kLeaveInterval = std::chrono::milliseconds(5);
constexpr auto kLastFlush = std::chrono::milliseconds(200);

RequestLimits MakeRequestLimits(const ServerConfig& config, const EngineLimits& engine, uint64_t hash_key) {
  RequestLimits limits;
  limits.vocab_size = engine.vocab_size;
  limits.max_context = SmallerOf(config.max_context, engine.max_context);
  const int64_t pool = int64_t{engine.num_blocks} * engine.block_tokens;
  limits.kv_tokens = SmallerOf(pool, limits.max_context);
  limits.max_text_bytes = static_cast<size_t>(config.max_text_bytes.bytes);
  limits.max_choices = static_cast<uint32_t>(config.max_choices);
  limits.max_logprobs = static_cast<uint32_t>(std::min<int64_t>(config.max_logprobs, engine.vocab_size));
  limits.hash_key = hash_key;
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
  if (config.workers % config.dp != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--dp: groups of ", config.dp, " do not divide --workers ", config.workers));
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

MetricsIdentity MetricsIdentityOf(const ServerConfig& config, const orrery::v1::GetModelResponse& model) {
  const auto name_of = [](const std::string& policy) {
    return std::string(*absl::StrSplit(policy, ':').begin());
  };
  MetricsIdentity identity;
  identity.model = model.model();
  identity.role = config.role;
  identity.version = kVersion;
  identity.backend = model.backend();
  if (config.dp > 1 && config.role != "router")
    identity.num_groups = static_cast<int32_t>(config.workers / config.dp);
  identity.scheduler = name_of(config.scheduler);
  identity.router = name_of(config.router);
  identity.vllm_names = config.metrics_compat == "vllm";
  return identity;
}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerConfig& config, ServerParts parts) {
  std::unique_ptr<Server> server(new Server(config));
  server->codec_ = std::move(parts.codec);
  const bool local = !parts.engine.executors.empty();
  if (local) parts.limits = parts.engine.executors.front()->limits();
  if (absl::Status status = server->StartFront(parts); !status.ok()) return status;
  absl::Status status = local ? server->StartWorkers(parts) : server->FindWorkers(parts);
  if (!status.ok()) return status;
  status = server->endpoint_.Open(config, ClientLimits(config), server->service_.get(),
                                  server->metrics_->registry(),
                                  [raw = server.get()] { return raw->WhatIsMissing(); });
  if (!status.ok()) return status;
  return server;
}

absl::Status Server::StartFront(ServerParts& parts) {
  if (absl::Status status = CheckPolicies(config_); !status.ok()) return status;
  metrics_ = std::make_unique<ServerMetrics>(MetricsIdentityOf(config_, parts.model));
  FrontOptions options;
  options.admission.max_queue_tokens = config_.max_queue_tokens;
  options.admission.max_samples = static_cast<int32_t>(config_.max_choices);
  options.stream_buffer_bytes = static_cast<size_t>(config_.stream_buffer_bytes.bytes);
  options.write_timeout = config_.write_timeout;
  options.plan_interval = config_.plan_interval;
  options.hash_key = parts.engine.hash_key;
  // Workers of this process have nobody to leave their requests to that would not hang with them.
  if (parts.engine.executors.empty()) options.progress_timeout = config_.step_timeout;
  auto policy = NewRoutePolicy(config_.router);
  if (!policy.ok()) return policy.status();
  front_ = std::make_unique<FrontLoop>(options, *std::move(policy), &clock_, metrics_.get());

  ServiceContext context;
  context.clock = &clock_;
  context.front = front_.get();
  context.codec = codec_.get();
  context.ready = &endpoint_.ready();
  context.limits = MakeRequestLimits(config_, parts.limits, parts.engine.hash_key);
  context.defaults = parts.defaults;
  context.model = parts.model;
  context.model.set_vocab_size(static_cast<uint32_t>(parts.limits.vocab_size));
  context.model.set_max_context(static_cast<uint32_t>(context.limits.max_context));
  context.model.set_block_tokens(static_cast<uint32_t>(parts.limits.block_tokens));
  context.model.set_num_blocks(static_cast<uint32_t>(parts.limits.num_blocks));
  context.model.set_server_version(kVersion);
  context.max_message_bytes = config_.max_message_bytes.bytes;
  context.max_open_requests = config_.max_open_requests;
  context.max_queue_tokens = config_.max_queue_tokens;
  context.log_prompts = config_.log_prompts;
  service_ = std::make_unique<InferenceService>(std::move(context));
  return absl::OkStatus();
}

absl::Status Server::StartWorkers(ServerParts& parts) {
  LocalWorkers::Events events;
  events.up = [this](AttachedWorker worker) { front_->WorkersUp({std::move(worker)}); };
  events.report = [this](WorkerReport report) { front_->Report(std::move(report)); };
  events.group_step = [this](GroupId group, const GroupStep& step) { metrics_->OnGroupStep(group, step); };
  auto workers = LocalWorkers::Start(config_, std::move(parts.engine), &clock_, std::move(events));
  if (!workers.ok()) return workers.status();
  workers_ = *std::move(workers);
  return absl::OkStatus();
}

absl::Status Server::FindWorkers(const ServerParts& parts) {
  auto membership = NewMembership(config_.worker_address, config_.worker_dns);
  if (!membership.ok()) return membership.status();
  WorkerDirectory::Options options;
  options.heartbeat = config_.heartbeat;
  options.hello.set_config_digest(parts.config_digest);
  options.hello.set_tokenizer_digest(parts.model.tokenizer_digest());
  options.vocab_size = static_cast<uint32_t>(parts.limits.vocab_size);
  WorkerDirectory::Events events;
  events.up = [this](std::vector<AttachedWorker> workers) { front_->WorkersUp(std::move(workers)); };
  events.down = [this](std::vector<WorkerInfo> workers) { front_->WorkersDown(std::move(workers)); };
  events.report = [this](WorkerReport report) { front_->Report(std::move(report)); };
  directory_ = std::make_unique<WorkerDirectory>(std::move(options), *std::move(membership), &clock_,
                                                 std::move(events));
  return absl::OkStatus();
}

std::string Server::WhatIsMissing() {
  std::string missing = workers_ == nullptr ? "" : workers_->WhatIsMissing(config_.step_timeout);
  if (draining_.load()) return "draining";
  if (!missing.empty()) return missing;
  return front_->load().accepting.load() > 0 ? "" : "no worker takes requests";
}

bool Server::Drain(Duration timeout) {
  draining_.store(true);
  endpoint_.Poke();
  auto over = std::make_shared<std::promise<void>>();
  auto done = over->get_future();
  front_->Drain([over] { over->set_value(); });
  const bool clean = done.wait_for(std::chrono::nanoseconds(timeout.ns)) == std::future_status::ready;
  if (!clean) front_->AbortAll();
  // The last messages leave. Calls that never end by themselves (a health watch) are not waited for.
  const Time until = clock_.Now() + Duration::Seconds(clean ? 5 : 1);
  while (service_->open_requests() > 0 && clock_.Now() < until) std::this_thread::sleep_for(kLeaveInterval);
  endpoint_.Shutdown(kLastFlush);
  return clean;
}

bool Server::StopWorkers(Duration timeout) { return workers_ == nullptr || workers_->StopWithin(timeout); }

Server::~Server() {
  if (front_ != nullptr) front_->AbortAll();
  endpoint_.Close();
  directory_.reset();
  if (workers_ != nullptr) workers_->Stop();
  if (front_ != nullptr) front_->Stop();
}

}  // namespace orrery
