#include "router/sim/simulation.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include "router/policy/registry.h"
#include "router/router_core.h"
#include "router/sim/event_queue.h"
#include "router/sim/live_table.h"
#include "router/sim/sim_worker.h"
#include "scheduler/base/text.h"
#include "scheduler/types/refusal.h"

namespace orrery::sim {
namespace {

constexpr int32_t kMaxWorkers = 1 << 16;

absl::Status CheckOptions(const SimOptions& options) {
  const auto bad = [](const std::string& what) { return absl::InvalidArgumentError(what); };
  if (options.num_workers < 1 || options.num_workers > kMaxWorkers) {
    return bad(Cat("workers must be in [1, ", kMaxWorkers, "], not ", options.num_workers));
  }
  if (options.worker.options.max_in_flight != 1) return bad("a simulated worker has one step in flight");
  if (!options.slowdown.empty() && options.slowdown.size() != static_cast<size_t>(options.num_workers)) {
    return bad("slowdown must name every worker");
  }
  for (const double factor : options.slowdown) {
    if (!(factor > 0 && factor <= 1e6)) return bad(Cat("slow: factor must be in (0, 1e6], not ", factor));
  }
  for (const Failure& failure : options.failures) {
    if (failure.worker >= static_cast<uint32_t>(options.num_workers)) {
      return bad(Cat("fail: there is no worker ", failure.worker));
    }
  }
  if (options.pool < 0 || (options.pool > 0 && (options.steps < 1 || options.warmup_steps < 0))) {
    return bad("a saturated run needs a pool and at least one step");
  }
  return absl::OkStatus();
}

void AddCounters(const WorkerCounters& from, WorkerCounters* to) {
  to->accepted += from.accepted;
  to->refused += from.refused;
  for (size_t i = 0; i < std::size(to->finished); ++i) to->finished[i] += from.finished[i];
  to->prompt_tokens += from.prompt_tokens;
  to->generated_tokens += from.generated_tokens;
  to->computed_tokens += from.computed_tokens;
  to->prefix_hit_tokens += from.prefix_hit_tokens;
  to->preemptions += from.preemptions;
  to->recomputed_tokens += from.recomputed_tokens;
  to->wasted_rows += from.wasted_rows;
  to->evicted_blocks += from.evicted_blocks;
  to->steps += from.steps;
  to->failed_steps += from.failed_steps;
  to->repairs += from.repairs;
  to->fallbacks += from.fallbacks;
}

class Simulation {
 public:
  Simulation(const SimOptions& options, const StepCostModel& cost, RequestSource* source, Observer* observer)
      : options_(options), cost_(cost), source_(source), observer_(observer) {}

  absl::Status Start();
  absl::Status Run();
  SimReport TakeReport();

 private:
  // A worker with its place in the simulation.
  struct Seat {
    SimWorker worker;
    double slowdown = 1;
    Time step_start;
    Duration takes;
    bool busy = false;          // a step is in flight
    bool dirty = false;         // something changed since it last planned
    Time wake = Time::Never();  // of the event that is waiting
  };

  absl::Status BringUp(uint32_t w, Time now);
  absl::Status PullArrival();
  absl::Status Handle(const Event& event);
  absl::Status OnArrival(Time now);
  absl::Status Refill(Time now);
  absl::Status FinishStep(uint32_t w, Time now);
  void CountTokens(Seat* seat, Time now);
  void LoseWorker(uint32_t w, Time now);
  // Gives the router's output to the workers.
  void Deliver(Time now);
  // Gives a worker's events to the router.
  void Forward(uint32_t w, Time now);
  void End(LiveRequest* live, Outcome outcome, std::string_view reason, Time now,
           const SampleReport* report = nullptr);
  void PlanAll(Time now);
  void PlanOne(uint32_t w, Time now);
  void Launch(uint32_t w, Time now, Duration takes);
  void CountStep(const Seat& seat, Time now);
  void WatchLoads();
  void SetLoad(uint32_t w, int64_t kv_tokens);
  void MarkDirty(uint32_t w);
  void CountWaiting(uint32_t w);
  bool Saturated() const { return options_.pool > 0; }
  bool Measuring() const { return !Saturated() || counted_steps_ >= options_.warmup_steps; }
  bool Done() const;
  bool Explained(const LiveRequest& live) const { return options_.explain == live.serial; }
  void Tell(Time now, std::string what) { report_.story.push_back({now, std::move(what)}); }
  void TellPlan(uint32_t w, Time now);

  const SimOptions& options_;
  const StepCostModel& cost_;
  RequestSource* const source_;
  Observer* const observer_;

  std::unique_ptr<RouterCore> router_;
  RouterOutput router_out_;
  Time router_wake_ = Time::Never();
  std::vector<Seat> seats_;
  LiveTable live_;
  EventQueue events_;
  std::optional<SimRequest> next_;  // drawn, not yet arrived
  uint64_t drawn_ = 0;

  std::vector<uint32_t> dirty_, planned_;  // workers; planned_: of this instant
  std::vector<int64_t> loads_;             // [workers] resident KV tokens
  int64_t load_sum_ = 0, load_max_ = 0;
  bool load_max_fell_ = false;  // the largest may be smaller than load_max_
  int32_t num_busy_ = 0;
  // A request ended, a planned step did, or a worker came or went: only then the pool may want refilling.
  bool pool_changed_ = true;
  // Saturated: who waits on a worker beyond its free slots.
  std::vector<int32_t> waiting_for_slots_;  // [workers]
  int64_t num_waiting_for_slots_ = 0;
  std::vector<TokenEvent> token_events_;
  WorkerState state_;

  int64_t finished_steps_ = 0;  // of single workers
  bool group_worked_ = false;   // somebody computed something in the group's step
  int64_t counted_steps_ = 0;   // as SimOptions::steps counts them
  int64_t instants_ = 0, loaded_instants_ = 0;
  double imbalance_sum_ = 0, idle_sum_ = 0;
  RequestId explained_{~uint64_t{0}};
  bool told_decoding_ = false;
  SimReport report_;
};

absl::Status Simulation::Start() {
  auto policy = NewRoutePolicy(options_.router);
  if (!policy.ok()) return policy.status();
  router_ = std::make_unique<RouterCore>(options_.admission, *std::move(policy));
  seats_ = std::vector<Seat>(static_cast<size_t>(options_.num_workers));
  loads_.assign(seats_.size(), 0);
  waiting_for_slots_.assign(seats_.size(), 0);
  for (uint32_t w = 0; w < seats_.size(); ++w) {
    if (!options_.slowdown.empty()) seats_[w].slowdown = options_.slowdown[w];
    if (absl::Status status = BringUp(w, Time{}); !status.ok()) return status;
  }
  for (const Failure& failure : options_.failures) {
    events_.Push({.at = failure.at, .kind = EventKind::kWorkerLost, .worker = failure.worker});
    const Time back = failure.at + failure.lasts;
    if (!back.is_never()) {
      events_.Push({.at = back, .kind = EventKind::kWorkerBack, .worker = failure.worker});
    }
  }
  if (!Saturated()) return PullArrival();
  if (absl::Status status = Refill(Time{}); !status.ok()) return status;
  PlanAll(Time{});
  return absl::OkStatus();
}

absl::Status Simulation::BringUp(uint32_t w, Time now) {
  pool_changed_ = true;
  Seat& seat = seats_[w];
  WorkerSpec spec = options_.worker;
  spec.options.worker = WorkerId{w};
  spec.options.rank = w;
  spec.options.block_tables = false;
  if (absl::Status status = seat.worker.Start(spec, seat.worker.incarnation() + 1,
                                              options_.fast_forward && !options_.explain.has_value());
      !status.ok()) {
    return status;
  }
  const WorkerOptions& made = seat.worker.core()->options();
  const int64_t kv_tokens = int64_t{made.num_blocks} * made.block_tokens;
  router_->OnWorkerUp({.worker = WorkerId{w},
                       .incarnation = made.incarnation,
                       .kv_capacity_tokens = kv_tokens,
                       .max_context = made.max_context,
                       .slots = std::min(made.max_num_seqs, made.max_step_tokens)},
                      now, &router_out_);
  Deliver(now);
  return absl::OkStatus();
}

absl::Status Simulation::PullArrival() {
  SimRequest request;
  auto more = source_->Next(&request);
  if (!more.ok()) return more.status();
  next_.reset();
  if (!*more) return absl::OkStatus();
  events_.Push({.at = request.arrival, .kind = EventKind::kArrival});
  next_ = std::move(request);
  return absl::OkStatus();
}

bool Simulation::Done() const {
  return Saturated() ? counted_steps_ >= options_.warmup_steps + options_.steps
                     : !next_.has_value() && live_.size() == 0;
}

absl::Status Simulation::Run() {
  while (!Done() && !events_.empty()) {
    const Time now = events_.next().at;
    while (!events_.empty() && events_.next().at == now) {
      ++report_.events;
      if (absl::Status status = Handle(events_.Pop()); !status.ok()) return status;
    }
    if (Done()) break;
    if (Saturated()) {
      if (absl::Status status = Refill(now); !status.ok()) return status;
    }
    PlanAll(now);
  }
  return Done() ? absl::OkStatus() : absl::InternalError("simulation stands still with requests inside");
}

absl::Status Simulation::Handle(const Event& event) {
  Seat& seat = seats_[event.worker];
  const bool current = seat.worker.up() && event.number == seat.worker.incarnation();
  switch (event.kind) {
    case EventKind::kWorkerLost:
      LoseWorker(event.worker, event.at);
      return absl::OkStatus();
    case EventKind::kWorkerBack:
      return seat.worker.up() ? absl::OkStatus() : BringUp(event.worker, event.at);
    case EventKind::kStepDone:
      return current ? FinishStep(event.worker, event.at) : absl::OkStatus();
    case EventKind::kArrival:
      return OnArrival(event.at);
    case EventKind::kPatience:
      if (const LiveRequest* live = live_.Find(RequestId{event.number});
          live != nullptr && live->first_scheduled.is_never()) {
        router_->OnCancel(live->id, event.at, &router_out_);
        Deliver(event.at);
      }
      return absl::OkStatus();
    case EventKind::kWake:
      if (!current) return absl::OkStatus();
      if (seat.wake <= event.at) seat.wake = Time::Never();
      if (seat.worker.core()->NextWake() <= event.at) {
        seat.worker.Interrupt();
        seat.worker.core()->OnTimer(event.at, &token_events_);
        Forward(event.worker, event.at);
      }
      MarkDirty(event.worker);
      return absl::OkStatus();
    case EventKind::kRouterWake:
      router_wake_ = Time::Never();
      router_->OnTimer(event.at, &router_out_);
      Deliver(event.at);
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

absl::Status Simulation::OnArrival(Time now) {
  if (live_.full()) return absl::ResourceExhaustedError("more than 16 million requests are in the system");
  const uint64_t serial = drawn_++;
  LiveRequest* live = live_.Add(*std::move(next_), serial);
  live->measured = Saturated() ? Measuring() : serial >= options_.warmup_requests;
  report_.max_concurrent = std::max(report_.max_concurrent, live_.size());
  const RequestId id = live->id;
  if (serial + 1 == options_.warmup_requests) report_.begin = now;
  if (Explained(*live)) {
    explained_ = id;
    Tell(now, Cat("arrives: prompt ", live->request.prompt_tokens, ", output ", live->request.output_tokens,
                  " (bound ", live->request.max_tokens, ")"));
  }
  const Duration patience = live->request.patience;
  const absl::Status accepted = router_->OnArrival(SubmitOf(*live, options_.prefill), 1, now, &router_out_);
  if (!accepted.ok()) {
    const auto refusal = RefusalOf(accepted);
    End(live, Outcome::kRejected, refusal ? ReasonName(refusal->reason) : "invalid", now);
  } else {
    Deliver(now);
    if (!patience.is_infinite()) {
      events_.Push({.at = now + patience, .kind = EventKind::kPatience, .number = Value(id)});
    }
  }
  return Saturated() ? absl::OkStatus() : PullArrival();
}

void Simulation::CountWaiting(uint32_t w) {
  if (!Saturated()) return;
  int32_t waiting = 0;
  if (seats_[w].worker.up()) {
    const WorkerCore& core = *seats_[w].worker.core();
    const WorkerOptions& made = core.options();
    const int32_t free = std::min(made.max_num_seqs, made.max_step_tokens) - core.num_running();
    waiting = std::max(0, core.num_waiting() - free);
  }
  num_waiting_for_slots_ += waiting - std::exchange(waiting_for_slots_[w], waiting);
}

absl::Status Simulation::Refill(Time now) {
  if (!std::exchange(pool_changed_, false)) return absl::OkStatus();
  const auto waiting = [&] { return router_->num_pooled() + num_waiting_for_slots_; };
  for (int64_t missing = options_.pool - waiting(); missing > 0; missing = options_.pool - waiting()) {
    for (; missing > 0; --missing) {
      SimRequest request;
      auto more = source_->Next(&request);
      if (!more.ok()) return more.status();
      if (!*more) return absl::InternalError("the source of a saturated run ended");
      request.arrival = now;
      next_ = std::move(request);
      const uint64_t refused = router_->counters().refused;
      if (absl::Status status = OnArrival(now); !status.ok()) return status;
      if (router_->counters().refused != refused && live_.size() == 0) {
        return absl::InvalidArgumentError("pool: no row of the trace fits a worker");
      }
    }
  }
  return absl::OkStatus();
}

absl::Status Simulation::FinishStep(uint32_t w, Time now) {
  Seat& seat = seats_[w];
  seat.busy = false;
  --num_busy_;
  CountTokens(&seat, now);
  pool_changed_ |= !seat.worker.known();
  if (absl::Status status = seat.worker.Finish(seat.step_start, now, &token_events_); !status.ok()) {
    return status;
  }
  CountStep(seat, now);
  SetLoad(w, seat.worker.core()->kv_tokens());
  Forward(w, now);
  MarkDirty(w);
  return absl::OkStatus();
}

void Simulation::CountStep(const Seat& seat, Time now) {
  const bool worked = seat.worker.num_sequences() > 0;
  const bool was_measuring = Measuring();
  finished_steps_ += worked;
  group_worked_ |= worked;
  if (!options_.barrier) {
    counted_steps_ = finished_steps_ / options_.num_workers;
    report_.steps += worked && was_measuring;
  } else if (num_busy_ == 0) {
    counted_steps_ += group_worked_;
    report_.steps += group_worked_ && was_measuring;
    group_worked_ = false;
  }
  if (Saturated()) {
    if (!was_measuring && Measuring()) report_.begin = now;
    report_.end = now;
  }
}

void Simulation::CountTokens(Seat* seat, Time now) {
  const bool saturated = Saturated(), measuring = Measuring();
  report_.passed_steps += seat->worker.known();
  if (measuring) report_.measured_tokens += seat->worker.num_samples();
  // Equal gaps that follow each other are told together.
  Duration gap;
  int32_t class_index = -1;
  int64_t count = 0;
  const auto add = [&](int32_t its_class, Duration its_gap, int64_t n) {
    if (its_gap != gap || its_class != class_index) {
      if (count > 0) observer_->OnTokenGaps(class_index, gap, count);
      gap = its_gap;
      class_index = its_class;
      count = 0;
    }
    count += n;
  };
  for (const SimWorker::ClassRun& run : seat->worker.class_runs()) {
    if (saturated ? measuring : run.measured) add(run.class_index, now - seat->worker.last_end(), run.count);
  }
  for (const Slice& slice : seat->worker.plan().slices) {
    if (!slice.sample) continue;
    SimWorker::Slot& slot = seat->worker.slot(slice);
    if (slice.output_index == 0) {
      LiveRequest* live = live_.Find(slot.request);
      if (live != nullptr) live->first_token = now;
    } else if (saturated ? measuring : slot.measured) {
      add(slot.class_index, now - slot.last_token, 1);
    }
    slot.last_token = now;
  }
  if (count > 0) observer_->OnTokenGaps(class_index, gap, count);
}

void Simulation::LoseWorker(uint32_t w, Time now) {
  pool_changed_ = true;
  Seat& seat = seats_[w];
  if (!seat.worker.up()) return;
  AddCounters(seat.worker.core()->counters(), &report_.counters);
  if (seat.busy) --num_busy_;
  seat.busy = false;
  seat.wake = Time::Never();
  SetLoad(w, 0);
  seat.worker.Stop();
  CountWaiting(w);
  router_->OnWorkerDown(WorkerId{w}, now, &router_out_);
  Deliver(now);
  // Behind a barrier the others may have waited for this one.
  for (uint32_t other = 0; other < seats_.size(); ++other) MarkDirty(other);
}

void Simulation::Deliver(Time now) {
  while (!router_out_.dispatch.empty() || !router_out_.cancel.empty() || !router_out_.ended.empty()) {
    // What a worker answers makes the router speak again.
    RouterOutput out = std::exchange(router_out_, {});
    for (const EndedSample& ended : out.ended) {
      LiveRequest* live = live_.Find(ended.key.request);
      if (live == nullptr) continue;
      const auto refusal = RefusalOf(ended.why);
      if (ended.finish == FinishReason::kCancelled || ended.finish == FinishReason::kDeadline) {
        End(live, Outcome::kCancelled, "patience", now);
      } else if (refusal.has_value()) {
        End(live, Outcome::kRejected, ReasonName(refusal->reason), now);
      } else {
        End(live, Outcome::kFailed, "worker_lost", now);
      }
    }
    for (Dispatch& dispatch : out.dispatch) {
      const uint32_t w = Value(dispatch.worker);
      const SampleKey key = dispatch.submit.key;
      if (const LiveRequest* live = live_.Find(key.request); live != nullptr && Explained(*live)) {
        const DecisionRecord& why = router_->last_decision();
        Tell(now, Cat("placed on worker ", w, " by ", why.policy, ": ", why.objective, " = ", why.value));
      }
      seats_[w].worker.ExpectArrival(dispatch.submit);
      const absl::Status status = seats_[w].worker.core()->OnArrival(std::move(dispatch.submit), now);
      if (!status.ok()) {
        router_->OnRefused(dispatch.worker, key, status, now, &router_out_);
      } else if (const LiveRequest* live = live_.Find(key.request); live != nullptr) {
        seats_[w].worker.OnAccepted(*live);
      }
      MarkDirty(w);
    }
    for (const CancelOrder& cancel : out.cancel) {
      const uint32_t w = Value(cancel.worker);
      if (!seats_[w].worker.up()) continue;
      seats_[w].worker.Interrupt();
      seats_[w].worker.core()->OnCancelRequest(cancel.request, now, &token_events_);
      MarkDirty(w);
      Forward(w, now);
    }
  }
  const Time wake = router_->NextWake();
  if (wake < router_wake_) {
    router_wake_ = wake;
    events_.Push({.at = wake, .kind = EventKind::kRouterWake});
  }
}

void Simulation::Forward(uint32_t w, Time now) {
  WorkerCore* core = seats_[w].worker.core();
  for (TokenEvent& event : token_events_) {
    // The ids between the first and the last say nothing here: the router is spared them.
    if (event.finish == FinishReason::kNone && event.index > 0) continue;
    if (event.finish != FinishReason::kNone) {
      if (LiveRequest* live = live_.Find(event.key.request); live != nullptr) {
        live->made = event.index + 1;
        const auto facts = core->Report(event.key);
        const bool whole = event.finish == FinishReason::kStop || event.finish == FinishReason::kLength;
        End(live, whole ? Outcome::kCompleted : Outcome::kCancelled, whole ? "" : "patience", now,
            facts ? &*facts : nullptr);
      }
      if (event.index > 0) event.token = -1;
    }
    router_->OnTokenEvent(WorkerId{w}, event, now, &router_out_);
  }
  token_events_.clear();
  core->State(now, &state_, StateScope::kSums);
  router_->OnWorkerState(state_, now, &router_out_);
  Deliver(now);
}

void Simulation::End(LiveRequest* live, Outcome outcome, std::string_view reason, Time now,
                     const SampleReport* facts) {
  RequestEnd end{.serial = live->serial,
                 .outcome = outcome,
                 .measured = Saturated() ? Measuring() : live->measured,
                 .reason = reason,
                 .end = now,
                 .first_scheduled = live->first_scheduled,
                 .first_token = live->first_token,
                 .made_tokens = live->made};
  if (facts != nullptr) {
    end.cached_tokens = facts->cached_tokens;
    end.num_preemptions = facts->num_preemptions;
  }
  static constexpr std::string_view kNames[] = {"completed", "rejected", "cancelled", "failed"};
  if (Explained(*live)) {
    Tell(now, Cat(kNames[static_cast<size_t>(outcome)], reason.empty() ? "" : ": ", reason, ", ", live->made,
                  " tokens, ", end.num_preemptions, " preemptions"));
  }
  pool_changed_ = true;
  if (end.measured) report_.end = std::max(report_.end, now);
  observer_->OnRequestEnd(live->request, end);
  live_.Remove(live);
}

void Simulation::MarkDirty(uint32_t w) {
  CountWaiting(w);
  if (std::exchange(seats_[w].dirty, true)) return;
  dirty_.push_back(w);
}

void Simulation::PlanAll(Time now) {
  if (options_.barrier) {
    if (num_busy_ > 0) return;
    for (uint32_t w = 0; w < seats_.size(); ++w) MarkDirty(w);
  }
  std::sort(dirty_.begin(), dirty_.end());
  planned_.clear();
  for (const uint32_t w : dirty_) {
    seats_[w].dirty = false;
    PlanOne(w, now);
  }
  dirty_.clear();
  if (planned_.empty()) return;
  Duration slowest;
  for (const uint32_t w : planned_) slowest = std::max(slowest, seats_[w].takes);
  for (const uint32_t w : planned_) Launch(w, now, options_.barrier ? slowest : seats_[w].takes);
  if (Measuring()) WatchLoads();
}

void Simulation::PlanOne(uint32_t w, Time now) {
  Seat& seat = seats_[w];
  if (!seat.worker.up() || seat.busy) return;
  WorkerCore* core = seat.worker.core();
  if (!core->has_work()) return;
  const bool timed = options_.wall_clock != nullptr && !seat.worker.knows_next();
  const int64_t clock = timed ? options_.wall_clock() : 0;
  const bool planned = seat.worker.Plan(now, &live_);
  observer_->OnDecision(seat.worker.decision(), timed ? options_.wall_clock() - clock : -1);
  if (!seat.worker.known()) CountWaiting(w);
  SetLoad(w, seat.worker.kv_tokens());
  if (!planned) {
    const Time wake = core->NextWake();
    if (wake < seat.wake) {
      seat.wake = wake;
      events_.Push({.at = std::max(wake, now),
                    .kind = EventKind::kWake,
                    .worker = w,
                    .number = seat.worker.incarnation()});
    }
    return;
  }
  const auto ns = static_cast<double>(cost_.Predict(seat.worker.shape()).ns) * seat.slowdown;
  seat.takes = Duration::Nanoseconds(std::llround(ns));
  planned_.push_back(w);
  if (options_.explain.has_value()) TellPlan(w, now);
}

void Simulation::Launch(uint32_t w, Time now, Duration takes) {
  Seat& seat = seats_[w];
  seat.busy = true;
  ++num_busy_;
  seat.step_start = now;
  seat.takes = takes;
  report_.sequence_steps += seat.worker.num_sequences();
  events_.Push(
      {.at = now + takes, .kind = EventKind::kStepDone, .worker = w, .number = seat.worker.incarnation()});
  const WorkerCore& core = *seat.worker.core();
  observer_->OnStep({.worker = WorkerId{w},
                     .start = now,
                     .end = now + takes,
                     .shape = seat.worker.shape(),
                     .kv_tokens = loads_[w],
                     .num_samples = seat.worker.num_samples(),
                     .num_running = core.num_running(),
                     .num_waiting = core.num_waiting(),
                     .pooled = router_->num_pooled(),
                     .measured = Measuring()});
}

void Simulation::SetLoad(uint32_t w, int64_t kv_tokens) {
  const int64_t before = std::exchange(loads_[w], kv_tokens);
  load_sum_ += kv_tokens - before;
  if (kv_tokens >= load_max_) {
    load_max_ = kv_tokens;
    load_max_fell_ = false;
  } else if (before == load_max_) {
    load_max_fell_ = true;
  }
}

void Simulation::WatchLoads() {
  if (std::exchange(load_max_fell_, false)) load_max_ = *std::max_element(loads_.begin(), loads_.end());
  const int64_t most = load_max_, sum = load_sum_;
  ++instants_;
  if (most == 0) return;
  const auto full = static_cast<double>(most) * static_cast<double>(loads_.size());
  imbalance_sum_ += full - static_cast<double>(sum);
  idle_sum_ += 1 - static_cast<double>(sum) / full;
  ++loaded_instants_;
  const PowerModel& power = options_.power;
  for (const uint32_t w : planned_) {
    const double use = std::pow(static_cast<double>(loads_[w]) / static_cast<double>(most), power.gamma);
    report_.energy_j += (power.peak_w - power.idle_w) * use * seats_[w].takes.seconds();
  }
}

// What the step means for the request whose story is told.
void Simulation::TellPlan(uint32_t w, Time now) {
  const LiveRequest* live = live_.Find(explained_);
  SimWorker& worker = seats_[w].worker;
  const StepPlan& step = worker.plan();
  const DecisionRecord& why = worker.core()->last_decision();
  for (const Slice& slice : step.slices) {
    if (live == nullptr || worker.slot(slice).request != explained_) continue;
    const bool decode = slice.sample && slice.count == 1 && slice.output_index > 0;
    if (decode && told_decoding_) continue;
    told_decoding_ = decode;
    Tell(now, Cat("worker ", w, " step ", Value(step.step), ": ", decode ? "decodes" : "computes tokens ",
                  decode ? Cat(" from output ", slice.output_index)
                         : Cat(slice.begin, " to ", slice.begin + slice.count - 1),
                  " beside ", step.slices.size() - 1, " sequences; ", why.policy, ": ", why.objective, " = ",
                  why.value));
  }
}

SimReport Simulation::TakeReport() {
  for (Seat& seat : seats_) {
    if (seat.worker.up()) AddCounters(seat.worker.core()->counters(), &report_.counters);
  }
  report_.requests = drawn_;
  if (instants_ > 0) report_.imbalance_mean = imbalance_sum_ / static_cast<double>(instants_);
  if (loaded_instants_ > 0) report_.idle_fraction_mean = idle_sum_ / static_cast<double>(loaded_instants_);
  report_.energy_j += options_.power.idle_w * options_.num_workers * (report_.end - report_.begin).seconds();
  return std::move(report_);
}

}  // namespace

absl::StatusOr<SimReport> Simulate(const SimOptions& options, const StepCostModel& cost,
                                   RequestSource* source, Observer* observer) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  Simulation simulation(options, cost, source, observer);
  if (absl::Status status = simulation.Start(); !status.ok()) return status;
  if (absl::Status status = simulation.Run(); !status.ok()) return status;
  return simulation.TakeReport();
}

}  // namespace orrery::sim
