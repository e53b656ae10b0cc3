#include "server/daemon/local_workers.h"

#include <algorithm>
#include <utility>

#include "router/policy/registry.h"
#include "scheduler/journal.h"
#include "scheduler/kv/block_hash.h"
#include "server/base/random_word.h"
#include "server/daemon/limits.h"
#include "server/loop/journal_file.h"
#include "spdlog/spdlog.h"

namespace orrery {
namespace {

constexpr int kWarmUpTokens = 8;

WorkerSpec MakeWorkerSpec(const ServerConfig& config, const EngineLimits& engine, int max_in_flight) {
  WorkerSpec spec;
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
  spec.scheduler = config.scheduler;
  spec.eviction = config.eviction;
  spec.predictor = config.predictor;
  return spec;
}

WorkerInfo InfoOf(const WorkerOptions& options) {
  WorkerInfo info;
  info.worker = options.worker;
  info.incarnation = options.incarnation;
  info.kv_capacity_tokens = int64_t{options.num_blocks} * options.block_tokens;
  info.max_context = options.max_context;
  info.slots = options.max_num_seqs;
  info.max_step_tokens = options.max_step_tokens;
  info.block_tokens = options.block_tokens;
  info.hash_key_id = options.prefix_cache ? HashKeyId(options.hash_key) : 0;
  return info;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LocalWorkers>> LocalWorkers::Start(const ServerConfig& config,
                                                                  EngineParts parts, const Clock* clock,
                                                                  Events events) {
  auto route = NewRoutePolicy(config.router);
  if (!route.ok()) return route.status();
  Executor& first = *parts.executors.front();
  WorkerSpec spec = MakeWorkerSpec(config, first.limits(), first.max_in_flight());
  spec.cost = parts.cost;
  spec.options.hash_key = parts.hash_key;
  spec.options.lookahead = (*route)->needs().lookahead;
  std::unique_ptr<LocalWorkers> workers(
      new LocalWorkers(clock, std::move(events), std::move(parts.on_engine_failed)));
  workers->workers_.reserve(parts.executors.size());
  for (std::unique_ptr<Executor>& executor : parts.executors) {
    const auto id = static_cast<uint32_t>(workers->workers_.size());
    spec.options.worker = WorkerId{id};
    const auto group = static_cast<uint32_t>(id / config.dp);
    spec.options.group = GroupId{group};
    spec.options.rank = static_cast<uint32_t>(id % config.dp);
    if (config.dp > 1 && spec.options.rank == 0) {
      workers->barriers_.push_back(std::make_shared<StepBarrier>(
          static_cast<size_t>(config.dp), [raw = workers.get(), group](const GroupStep& step) {
            raw->events_.group_step(GroupId{group}, step);
          }));
    }
    spec.options.incarnation = RandomWord();
    absl::Status status = workers->StartWorker(spec, config.record, std::move(executor),
                                               config.dp > 1 ? workers->barriers_.back() : nullptr);
    if (!status.ok()) return status;
  }
  spdlog::info("warming up");
  for (const auto& worker : workers->workers_) workers->WarmUp(*worker);
  return workers;
}

absl::Status LocalWorkers::StartWorker(const WorkerSpec& spec, const std::string& record,
                                       std::unique_ptr<Executor> executor,
                                       std::shared_ptr<StepBarrier> barrier) {
  auto core = NewWorkerCore(spec);
  if (!core.ok()) return core.status();
  WorkerLoop::Parts loop;
  loop.core = *std::move(core);
  loop.executor = std::move(executor);
  loop.barrier = std::move(barrier);
  loop.rank = spec.options.rank;
  if (!record.empty()) {
    auto file = JournalFile::Create(record);
    if (!file.ok()) return file.status();
    loop.journal = std::make_unique<JournalWriter>(spec);
    loop.journal_file = *std::move(file);
  }
  workers_.push_back(std::make_unique<Worker>());
  Worker& worker = *workers_.back();
  worker.info = InfoOf(spec.options);
  worker.loop = std::make_shared<WorkerLoop>(
      std::move(loop), clock_, [this, &worker](WorkerReport report) { OnReport(worker, std::move(report)); });
  return absl::OkStatus();
}

// A prompt of a few tokens and two output tokens: one prefill step, one decode step.
void LocalWorkers::WarmUp(Worker& worker) {
  const int tokens = std::min(kWarmUpTokens, worker.info.max_context - 2);
  Submit submit;
  submit.key.request = kWarmUpRequest;
  submit.tokens = std::make_shared<const std::vector<TokenId>>(static_cast<size_t>(std::max(tokens, 1)), 0);
  submit.num_prompt = static_cast<int32_t>(submit.tokens->size());
  submit.sampling.temperature = 0;
  submit.stop.max_tokens = tokens > 0 ? 2 : 1;
  worker.loop->Submit(std::move(submit));
}

// What the warm-up made is nobody's business but ours.
void LocalWorkers::OnReport(Worker& worker, WorkerReport report) {
  if (worker.warm.load(std::memory_order_relaxed)) {
    const std::string lost = std::exchange(report.engine_lost, {});
    events_.report(std::move(report));
    if (!lost.empty()) Fail("the engine is lost", lost);
    return;
  }
  for (const TokenEvent& event : report.events) {
    if (event.finish == FinishReason::kNone) continue;
    if (event.finish == FinishReason::kError) return Fail("warm-up failed", event.error);
    events_.up({worker.loop, worker.info});
    worker.warm.store(true);
  }
  for (const RefusedSample& refused : report.refused) Fail("warm-up failed", refused.why.message());
}

void LocalWorkers::Fail(absl::string_view what, absl::string_view why) {
  spdlog::critical("{}, the server cannot serve: {}", std::string(what), std::string(why));
  on_engine_failed_();
}

std::vector<AttachedWorker> LocalWorkers::all() const {
  std::vector<AttachedWorker> all;
  for (const auto& worker : workers_) all.push_back({worker->loop, worker->info});
  return all;
}

std::string LocalWorkers::WhatIsMissing(Duration step_timeout) {
  bool hangs = false, warm = true;
  for (const auto& worker : workers_) {
    hangs = hangs || worker->loop->StepAge() >= step_timeout;
    warm = warm && worker->warm.load();
  }
  if (!std::exchange(hung_, hangs) && hangs) {
    spdlog::warn("the engine's step takes longer than --step-timeout");
  }
  if (hangs) return "waiting for the engine's step";
  return warm ? "" : "warming up";
}

void LocalWorkers::Drain() {
  for (const auto& worker : workers_) worker->loop->Drain();
}

void LocalWorkers::StopBarriers() {
  for (const auto& barrier : barriers_) barrier->Stop();
}

void LocalWorkers::Stop() {
  StopBarriers();
  for (const auto& worker : workers_) worker->loop->Stop();
}

bool LocalWorkers::StopWithin(Duration timeout) {
  StopBarriers();
  const Time until = clock_->Now() + timeout;
  bool all = true;
  for (const auto& worker : workers_) {
    all = worker->loop->StopWithin(std::max(Duration{}, until - clock_->Now())) && all;
  }
  return all;
}

}  // namespace orrery
