#include "server/loop/front_loop.h"

#include <pthread.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/base/check.h"
#include "scheduler/types/refusal.h"
#include "server/base/errors.h"
#include "server/loop/timed_route_policy.h"
#include "spdlog/spdlog.h"

namespace orrery {
namespace {

constexpr Duration kSweepInterval = Duration::Milliseconds(500);

void LogEnd(const std::string& request_id, Outcome outcome, const RequestTimes& times, Time now) {
  const bool answered = !times.first_token.is_never();
  spdlog::info("request={} outcome={} prompt={} cached={} output={} ttft_ms={:.1f} total_ms={:.1f}",
               request_id, NameOf(outcome), times.prompt_tokens, times.cached_tokens, times.output_tokens,
               answered ? (times.first_token - times.arrived).milliseconds() : 0.0,
               (now - times.arrived).milliseconds());
}

Outcome OutcomeOf(const absl::Status& why) {
  switch (why.code()) {
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnavailable:
      return Outcome::kRejected;
    case absl::StatusCode::kDeadlineExceeded:
      return Outcome::kDeadline;
    case absl::StatusCode::kInternal:
      return Outcome::kFailed;
    default:
      return Outcome::kInvalid;
  }
}

}  // namespace

FrontLoop::FrontLoop(const FrontOptions& options, std::unique_ptr<RoutePolicy> policy, const Clock* clock,
                     ServerMetrics* metrics)
    : options_(options),
      clock_(clock),
      metrics_(metrics),
      router_(options.admission, std::make_unique<TimedRoutePolicy>(std::move(policy), clock, metrics),
              ReplayLimits{.progress_timeout = options.progress_timeout}, {}, options.hash_key),
      planner_(options.plan_interval, clock->Now(),
               [this](ResourcePrices prices) { mailbox_.Push(std::move(prices)); }),
      thread_([this] { Run(); }) {}

FrontLoop::~FrontLoop() { Stop(); }

void FrontLoop::Stop() {
  if (!thread_.joinable()) return;
  stop_.store(true);
  mailbox_.Interrupt();
  thread_.join();
}

void FrontLoop::Arrive(std::unique_ptr<Generation> generation) { mailbox_.Push(std::move(generation)); }
void FrontLoop::Writable(RequestId request) { mailbox_.Push(WritableMessage{request}); }
void FrontLoop::Cancelled(RequestId request, bool deadline) {
  mailbox_.Push(CancelledMessage{request, deadline});
}
void FrontLoop::Closed(RequestId request) { mailbox_.PushQuietly(ClosedMessage{request}); }
void FrontLoop::RefuseEarly(StreamWriter& writer, absl::string_view name, const absl::Status& why) {
  // Beside the mailbox: no number of refused calls can fill it or delay those that were let in.
  const orrery::v1::ErrorInfo info = ErrorInfoOf(why);
  metrics_->OnRefused(OutcomeOf(why), info.reason());
  refusal_log_.Write(name, info, clock_->Now());
  writer.Finish(ToGrpcStatus(why), RetryMilliseconds(why));
}
void FrontLoop::WorkersUp(std::vector<AttachedWorker> workers) {
  mailbox_.Push(UpMessage{std::move(workers)});
}
void FrontLoop::WorkersDown(std::vector<WorkerInfo> workers) {
  mailbox_.Push(DownMessage{std::move(workers)});
}
void FrontLoop::Report(WorkerReport report) { mailbox_.Push(std::move(report)); }
void FrontLoop::Drain(std::function<void()> drained) { mailbox_.Push(DrainMessage{std::move(drained)}); }
void FrontLoop::AbortAll() { mailbox_.Push(AbortMessage{}); }

void FrontLoop::Run() {
  pthread_setname_np(pthread_self(), "front");
  next_sweep_ = clock_->Now() + kSweepInterval;
  while (!stop_.load(std::memory_order_relaxed)) {
    mailbox_.Drain(&messages_);
    now_ = clock_->Now();
    for (Message& message : messages_) std::visit([this](auto& m) { On(m); }, message);
    const bool due = router_.NextWake() <= now_;
    if (due) {
      router_.OnTimer(now_, &orders_);
      Carry();
    }
    EndAtDeadline();
    if (now_ >= next_sweep_) Sweep();
    planner_.Tick(now_);
    if (due || !messages_.empty()) PublishLoad();
    messages_.clear();
    // Ends that no report brought still have to be told.
    for (const RequestId id : std::exchange(touched_, {})) {
      if (Generation* generation = Find(id)) Pump(*generation);
    }
    if (drained_ && live_.empty()) std::exchange(drained_, nullptr)();
    mailbox_.Wait(*clock_, NextWake());
  }
}

Time FrontLoop::NextWake() const {
  // With nothing open there is nothing to sweep.
  const Time sweep = live_.empty() && closing_.empty() ? Time::Never() : next_sweep_;
  const Time beside = std::min({sweep, planner_.next(), router_.NextWake()});
  return deadlines_.empty() ? beside : std::min(beside, deadlines_.begin()->first);
}

Generation* FrontLoop::Find(RequestId id) {
  const auto it = live_.find(id);
  return it == live_.end() ? nullptr : it->second.get();
}

// ------------------------------------------------------------------------------------------- from the calls

// Asks the router. What it orders is left for Carry, after the request has become live.
absl::Status FrontLoop::Admit(Generation& generation) {
  const GenerationSpec& spec = generation.spec();
  if (live_names_.contains(spec.request_id)) {
    return ToStatus({.reason = RefusalReason::kDuplicate,
                     .field = "request_id",
                     .message = "a request with this request_id is running"});
  }
  return router_.OnArrival(generation.Prototype(), static_cast<int32_t>(spec.num_choices), now_, &orders_);
}

void FrontLoop::On(std::unique_ptr<Generation>& arrival) {
  Generation& generation = *arrival;
  planner_.OnArrival(static_cast<int64_t>(generation.spec().num_choices));
  if (absl::Status why = Admit(generation); !why.ok()) return Refuse(generation, why);
  const RequestId id = generation.id();
  live_names_.insert(generation.spec().request_id);
  live_.emplace(id, std::move(arrival));
  if (!generation.deadline().is_never()) deadlines_.emplace(generation.deadline(), id);
  metrics_->OnAdmitted(static_cast<int64_t>(generation.spec().prompt->size()));
  Pump(generation);
  Carry();
}

// Carries out what the router ordered.
void FrontLoop::Carry() {
  for (const WorkerId hung : orders_.given_up) {
    spdlog::warn("worker {} makes no progress and is given up", Value(hung));
    const std::shared_ptr<WorkerLink> link = workers_[Value(hung)].link;
    TakeDown(hung);
    link->Reset();
  }
  for (const WorkerId worker : orders_.ask_prefixes) {
    if (WorkerLink* link = LinkOf(worker)) link->TellPrefixes();
  }
  for (const LeaveOrder& order : orders_.leave) {
    if (WorkerLink* link = LinkOf(order.worker)) link->CancelSample(order.sample);
  }
  for (Dispatch& dispatch : orders_.dispatch) {
    const SampleKey key = dispatch.submit.key;
    bool wanted = true;
    if (Generation* generation = Find(key.request)) {
      generation->set_route_decision(router_.last_decision());
      wanted = generation->OnSent(key, dispatch.worker);
    }
    WorkerLink* const link = LinkOf(dispatch.worker);
    if (link == nullptr) continue;
    link->Submit(std::move(dispatch.submit));
    // A stop string had ended the choice when its worker was lost: the next one says the last word alone.
    if (!wanted) link->CancelSample(key);
  }
  for (const CancelOrder& order : orders_.cancel) {
    if (WorkerLink* link = LinkOf(order.worker)) link->CancelRequest(order.request);
  }
  const std::vector<EndedSample> ended = std::exchange(orders_.ended, {});
  orders_.Clear();
  for (const EndedSample& lost : ended) OnLost(lost);
}

void FrontLoop::Cancel(RequestId id) {
  router_.OnCancel(id, now_, &orders_);
  Carry();
}

// A request that never became live: its call ends with the reason.
void FrontLoop::Refuse(Generation& generation, const absl::Status& why) {
  const orrery::v1::ErrorInfo info = ErrorInfoOf(why);
  metrics_->OnRefused(OutcomeOf(why), info.reason());
  refusal_log_.Write(generation.spec().request_id, info, now_);
  generation.writer()->Finish(ToGrpcStatus(why), RetryMilliseconds(why));
  closing_.emplace(generation.id(), Closing{generation.writer(), now_});
}

void FrontLoop::On(WritableMessage& message) {
  if (Generation* generation = Find(message.request)) Pump(*generation);
}

void FrontLoop::On(CancelledMessage& message) {
  Generation* generation = Find(message.request);
  if (generation == nullptr) return;
  Cancel(message.request);
  generation->writer()->Finish(grpc::Status(grpc::CANCELLED, "cancelled by the client"), -1);
  Close(*generation, message.deadline ? Outcome::kDeadline : Outcome::kCancelled);
}

void FrontLoop::On(ClosedMessage& message) { closing_.erase(message.request); }

void FrontLoop::On(DrainMessage& message) {
  load_.draining.store(true, std::memory_order_relaxed);
  drained_ = std::move(message.drained);
  router_.Drain();
}

void FrontLoop::On(AbortMessage&) {
  const grpc::Status status =
      ToGrpcStatus(ToStatus({.reason = RefusalReason::kDraining,
                             .field = "server",
                             .message = "the server stopped before the request was done"}));
  while (!live_.empty()) {
    Generation& generation = *live_.begin()->second;
    Cancel(generation.id());
    generation.writer()->Finish(status, -1);
    Close(generation, Outcome::kFailed);
  }
}

// ----------------------------------------------------------------------------------------- from the workers

WorkerLink* FrontLoop::LinkOf(WorkerId worker) {
  return Value(worker) < workers_.size() ? workers_[Value(worker)].link.get() : nullptr;
}

bool FrontLoop::IsThere(WorkerId worker, uint64_t incarnation) const {
  const size_t place = Value(worker);
  return place < workers_.size() && workers_[place].link != nullptr &&
         workers_[place].info.incarnation == incarnation;
}

void FrontLoop::On(UpMessage& message) {
  for (size_t i = 0; i < message.workers.size(); ++i) {
    const AttachedWorker& worker = message.workers[i];
    const size_t place = Value(worker.info.worker);
    if (place >= workers_.size()) {
      workers_.resize(place + 1);
      held_.resize(place + 1);
    }
    metrics_->OnWorkerUp(worker.info);
    Hold(worker.info.worker, {});
    workers_[place] = worker;
    router_.OnWorkerUp(worker.info, now_, &orders_, i + 1 < message.workers.size());
    const auto& asked = orders_.ask_prefixes;
    if (router_.wants_prefixes() && (asked.empty() || asked.back() != worker.info.worker)) {
      spdlog::info("worker {}: what it has cached is guessed, since its key or block size is another",
                   Value(worker.info.worker));
    }
  }
  Carry();
  CountWorkers();
}

void FrontLoop::On(DownMessage& message) {
  const auto gone = [this](const WorkerInfo& info) { return !IsThere(info.worker, info.incarnation); };
  std::erase_if(message.workers, gone);
  for (const WorkerInfo& info : message.workers) TakeDown(info.worker);
  for (size_t i = 0; i < message.workers.size(); ++i) {
    router_.OnWorkerDown(message.workers[i].worker, now_, &orders_, i + 1 < message.workers.size());
  }
  Carry();
}

void FrontLoop::TakeDown(WorkerId worker) {
  workers_[Value(worker)] = {};
  Hold(worker, {});
  metrics_->OnWorkerDown(worker);
  CountWorkers();
}

void FrontLoop::CountWorkers() {
  int64_t there = 0;
  const WorkerInfo* one = nullptr;
  for (const AttachedWorker& worker : workers_) {
    if (worker.link == nullptr) continue;
    ++there;
    one = &worker.info;
  }
  if (one != nullptr) planner_.SetWorkers(*one, there);
  load_.workers.store(there, std::memory_order_relaxed);
}

void FrontLoop::On(WorkerReport& report) {
  const WorkerId worker = report.state.worker;
  if (!IsThere(worker, report.state.incarnation)) return;
  if (!report.steps.empty()) step_decision_ = report.steps.back().why;
  for (const TokenEvent& event : report.events) {
    if (router_.OnTokenEvent(worker, event, now_, &orders_)) OnEvent(event);
  }
  for (const SampleEnd& end : report.ended) {
    Generation* generation = Find(end.key.request);
    if (generation == nullptr) continue;
    generation->OnSampleReport(end.key, end.report);
    touched_.push_back(end.key.request);
  }
  for (const RefusedSample& refused : report.refused) {
    router_.OnRefused(worker, refused.key, refused.why, now_, &orders_);
  }
  router_.OnWorkerState(report.state, now_, &orders_, report.more_follow);
  Carry();
  metrics_->OnReport(report);
  for (const StepStats& step : report.steps) planner_.OnStep(step);
  if (new_tokens_ > 0) metrics_->OnTokens(std::exchange(new_tokens_, 0));
  for (const RequestId id : touched_) {
    if (Generation* generation = Find(id)) Pump(*generation);
  }
  touched_.clear();
  const WorkerState& state = report.state;
  Hold(worker, {.waiting = state.num_waiting,
                .running = state.num_running,
                .kv_tokens = state.kv_tokens,
                .blocks_total = state.blocks_total,
                .blocks_free = state.blocks_free + state.blocks_cached});
}

// The board's sums follow by the difference: a report costs the same however many workers there are.
void FrontLoop::Hold(WorkerId worker, const Held& held) {
  const Held before = std::exchange(held_[Value(worker)], held);
  const auto add = [](std::atomic<int64_t>& sum, int64_t from, int64_t to) {
    if (from != to) sum.fetch_add(to - from, std::memory_order_relaxed);
  };
  add(load_.waiting, before.waiting, held.waiting);
  add(load_.running, before.running, held.running);
  add(load_.kv_tokens, before.kv_tokens, held.kv_tokens);
  add(load_.blocks_total, before.blocks_total, held.blocks_total);
  add(load_.blocks_free, before.blocks_free, held.blocks_free);
}

void FrontLoop::OnEvent(const TokenEvent& event) {
  Generation* generation = Find(event.key.request);
  if (generation == nullptr) return;
  const Generation::Effect effect = generation->OnEvent(event);
  if (effect.token) {
    ++new_tokens_;
    if (effect.gap.ns > 0) metrics_->OnGap(effect.gap);
    if (effect.first) {
      metrics_->OnFirstToken(event.at - generation->arrived());
      generation->set_batch_decision(step_decision_);
    }
  }
  if (event.finish == FinishReason::kError) {
    spdlog::error("request={} choice={} failed: {}", generation->spec().request_id, event.key.sample,
                  event.error);
  }
  if (effect.cancel_sample) {
    if (WorkerLink* link = LinkOf(generation->worker())) link->CancelSample(event.key);
  }
  if (touched_.empty() || touched_.back() != event.key.request) touched_.push_back(event.key.request);
}

// A sample ended without a word of a worker's: refused by it, lost with it, or never placed.
void FrontLoop::OnLost(const EndedSample& lost) {
  Generation* generation = Find(lost.key.request);
  if (generation == nullptr) return;
  if (!lost.why.ok() && !generation->has_token()) {
    Cancel(lost.key.request);  // its other samples
    generation = Find(lost.key.request);
    if (generation == nullptr) return;
    Refuse(*generation, lost.why);
    return Forget(*generation);
  }
  generation->OnLost(lost.key, lost.why);
  TokenEvent end;
  end.key = lost.key;
  end.finish = lost.finish;
  end.error = std::string(lost.why.message());
  end.at = now_;
  OnEvent(end);
}

// ------------------------------------------------------------------------------------------------ delivery

void FrontLoop::Pump(Generation& generation) {
  if (generation.Pump(now_)) {
    const Outcome outcome = generation.outcome();
    return Close(generation, outcome);
  }
  if (generation.pending_bytes() <= options_.stream_buffer_bytes) return;
  Cancel(generation.id());
  orrery::v1::ErrorInfo info;
  info.set_reason("slow_reader");
  info.set_field("stream_buffer_bytes");
  info.set_limit(absl::StrCat(options_.stream_buffer_bytes));
  info.set_actual(absl::StrCat(generation.pending_bytes()));
  generation.writer()->Finish(
      ToGrpcStatus(ErrorWithInfo(absl::StatusCode::kResourceExhausted, "the client reads too slowly", info)),
      -1);
  Close(generation, Outcome::kCancelled);
}

void FrontLoop::Close(Generation& generation, Outcome outcome) {
  const RequestTimes times = generation.times();
  metrics_->OnEnd(outcome, times);
  planner_.OnEnd(times, static_cast<int64_t>(generation.spec().num_choices));
  if (const auto met = generation.MetSlo(outcome)) metrics_->OnSloEnd(generation.spec().slo_class, *met);
  if (spdlog::should_log(spdlog::level::info)) LogEnd(generation.spec().request_id, outcome, times, now_);
  closing_.emplace(generation.id(), Closing{generation.writer(), now_});
  Forget(generation);
}

void FrontLoop::Forget(Generation& generation) {
  live_names_.erase(generation.spec().request_id);
  deadlines_.erase({generation.deadline(), generation.id()});
  live_.erase(generation.id());
}

void FrontLoop::EndAtDeadline() {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now_) {
    const RequestId id = deadlines_.begin()->second;
    deadlines_.erase(deadlines_.begin());
    Cancel(id);
    Generation* generation = Find(id);
    if (generation == nullptr) continue;
    // Also where all choices have ended: what the worker still owes about them is not waited for any longer.
    generation->EndAll(FinishReason::kDeadline);
    Pump(*generation);
  }
}

// Cuts off the calls whose clients take nothing.
void FrontLoop::Sweep() {
  next_sweep_ = now_ + kSweepInterval;
  for (auto& [id, closing] : closing_) {
    if (closing.aborted || now_ < closing.since + options_.write_timeout) continue;
    closing.writer->Abort();
    closing.aborted = true;
  }
  std::vector<Generation*> stuck;
  for (auto& [id, generation] : live_) {
    const Time since = generation->blocked_since();
    if (!since.is_never() && now_ >= since + options_.write_timeout) stuck.push_back(generation.get());
  }
  for (Generation* generation : stuck) {
    Cancel(generation->id());
    generation->writer()->Abort();
    generation->writer()->Finish(grpc::Status(grpc::CANCELLED, "the client reads nothing"), -1);
    Close(*generation, Outcome::kCancelled);
  }
}

void FrontLoop::PublishLoad() {
  const int64_t queued = router_.queued_tokens();
  metrics_->SetQueueTokens(queued);
  load_.queue_tokens.store(queued, std::memory_order_relaxed);
  load_.accepting.store(router_.num_accepting(), std::memory_order_relaxed);
  load_.predicted_wait_ns.store(router_.predicted_wait().ns, std::memory_order_relaxed);
  metrics_->OnReplays(router_.counters());
  load_.live_requests.store(static_cast<int64_t>(live_.size()), std::memory_order_relaxed);
}

}  // namespace orrery
