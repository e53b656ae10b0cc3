#include "server/daemon/worker_server.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "server/link/wire.h"
#include "spdlog/spdlog.h"

namespace orrery {
namespace {

constexpr auto kPollInterval = std::chrono::milliseconds(5);
constexpr auto kLastReports = std::chrono::milliseconds(200);

orrery::v1::WorkerHello HelloOf(const ServerParts& parts, const std::vector<AttachedWorker>& workers) {
  orrery::v1::WorkerHello hello;
  hello.set_protocol_version(kWorkerProtocol);
  hello.set_config_digest(parts.config_digest);
  hello.set_model_digest(parts.model.model_digest());
  hello.set_tokenizer_digest(parts.model.tokenizer_digest());
  hello.set_dtype(parts.model.dtype());
  hello.set_weights(parts.model.weights());
  hello.set_kv_dtype(parts.model.kv_dtype());
  hello.set_hardware(parts.hardware);
  hello.set_vocab_size(static_cast<uint32_t>(parts.limits.vocab_size));
  for (const AttachedWorker& worker : workers) {
    const WorkerInfo& info = worker.info;
    orrery::v1::RankHello* rank = hello.add_ranks();
    rank->set_incarnation(info.incarnation);
    rank->set_role(static_cast<uint32_t>(info.role));
    rank->set_num_blocks(static_cast<uint32_t>(info.kv_capacity_tokens / info.block_tokens));
    rank->set_block_tokens(static_cast<uint32_t>(info.block_tokens));
    rank->set_max_context(static_cast<uint32_t>(info.max_context));
    rank->set_slots(static_cast<uint32_t>(info.slots));
    rank->set_max_step_tokens(static_cast<uint32_t>(info.max_step_tokens));
    rank->set_hash_key_id(info.hash_key_id);
  }
  return hello;
}

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerServer>> WorkerServer::Start(const ServerConfig& config,
                                                                  ServerParts parts) {
  if (absl::Status status = CheckPolicies(config); !status.ok()) return status;
  parts.limits = parts.engine.executors.front()->limits();
  std::unique_ptr<WorkerServer> server(new WorkerServer(config));
  server->metrics_ = std::make_unique<ServerMetrics>(MetricsIdentityOf(config, parts.model));
  if (absl::Status status = server->StartWorkers(parts); !status.ok()) return status;
  const absl::Status status =
      server->endpoint_.Open(config, RouterLimits(), server->service_.get(), server->metrics_->registry(),
                             [raw = server.get()] { return raw->WhatIsMissing(); });
  if (!status.ok()) return status;
  return server;
}

absl::Status WorkerServer::StartWorkers(ServerParts& parts) {
  const size_t num_ranks = parts.engine.executors.size();
  done_ = std::make_unique<std::atomic<bool>[]>(num_ranks);
  for (size_t rank = 0; rank < num_ranks; ++rank) {
    WorkerInfo info;
    info.worker = WorkerId{static_cast<uint32_t>(rank)};
    info.block_tokens = parts.limits.block_tokens;
    info.kv_capacity_tokens = int64_t{parts.limits.num_blocks} * parts.limits.block_tokens;
    metrics_->OnWorkerUp(info);
  }
  LocalWorkers::Events events;
  events.up = [](const AttachedWorker&) {};
  events.report = [this](WorkerReport report) { OnReport(std::move(report)); };
  events.group_step = [this](GroupId group, const GroupStep& step) { metrics_->OnGroupStep(group, step); };
  auto workers = LocalWorkers::Start(config_, std::move(parts.engine), &clock_, std::move(events));
  if (!workers.ok()) return workers.status();
  workers_ = *std::move(workers);
  WorkerService::Parts service;
  service.clock = &clock_;
  const std::vector<AttachedWorker> all = workers_->all();
  for (const AttachedWorker& worker : all) service.ranks.push_back(worker.link);
  service.hello = HelloOf(parts, all);
  service.ready = [this] { return endpoint_.ready().load(); };
  service_ = std::make_unique<WorkerService>(std::move(service));
  reports_to_.store(service_.get());
  return absl::OkStatus();
}

void WorkerServer::OnReport(WorkerReport report) {
  metrics_->OnReport(report);
  const WorkerState& state = report.state;
  if (state.draining && state.num_running + state.num_waiting == 0) done_[Value(state.worker)].store(true);
  if (WorkerService* service = reports_to_.load()) service->Report(std::move(report));
}

std::string WorkerServer::WhatIsMissing() {
  std::string missing = workers_->WhatIsMissing(config_.step_timeout);
  return draining_.load() ? "draining" : missing;
}

bool WorkerServer::Drain(Duration timeout) {
  draining_.store(true);
  endpoint_.Poke();
  workers_->Drain();
  const Time until = clock_.Now() + timeout;
  const auto done = [this] {
    return std::all_of(done_.get(), done_.get() + workers_->size(),
                       [](const auto& rank) { return rank.load(); });
  };
  while (!done() && clock_.Now() < until) std::this_thread::sleep_for(kPollInterval);
  const bool clean = done();
  std::this_thread::sleep_for(kLastReports);  // the last reports leave
  service_->Close();
  endpoint_.Shutdown(kLastReports);
  return clean;
}

WorkerServer::~WorkerServer() {
  if (service_ != nullptr) service_->Close();
  endpoint_.Close();
  if (workers_ != nullptr) workers_->Stop();
}

}  // namespace orrery
