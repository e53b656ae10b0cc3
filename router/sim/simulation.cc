#include "router/sim/simulation.h"

#include <algorithm>
#include <utility>

#include "router/policy/registry.h"
#include "router/sim/run.h"
#include "scheduler/base/text.h"
#include "scheduler/kv/block_hash.h"
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

}  // namespace

absl::Status Simulation::Start() {
  auto policy = NewRoutePolicy(options_.router);
  if (!policy.ok()) return policy.status();
  if ((*policy)->needs().plan && !options_.plan.has_value()) {
    return absl::InvalidArgumentError(
        Cat("router: ", options_.router, " decides by a plan, and there is none"));
  }
  lookahead_ = (*policy)->needs().lookahead;
  // A simulated step takes as long as it takes: nobody hangs.
  router_ = std::make_unique<RouterCore>(options_.admission, *std::move(policy),
                                         ReplayLimits{.progress_timeout = Duration::Infinite()},
                                         options_.outliers, options_.worker.options.hash_key);
  seats_ = std::vector<Seat>(static_cast<size_t>(options_.num_workers));
  loads_.assign(seats_.size(), 0);
  waiting_for_slots_.assign(seats_.size(), 0);
  for (uint32_t w = 0; w < seats_.size(); ++w) {
    if (!options_.slowdown.empty()) seats_[w].slowdown = options_.slowdown[w];
    if (absl::Status status = BringUp(w, Time{}); !status.ok()) return status;
  }
  if (options_.plan.has_value()) {
    router_->OnPlanReady(*options_.plan, Time{}, &router_out_);
    Deliver(Time{});
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
  spec.options.lookahead = lookahead_;
  // Who looks ahead asks about everybody in every step: then nobody stands apart.
  const bool fast_forward = options_.fast_forward && !options_.explain.has_value() && lookahead_ == 0;
  if (absl::Status status = seat.worker.Start(spec, seat.worker.incarnation() + 1, fast_forward);
      !status.ok()) {
    return status;
  }
  const WorkerOptions& made = seat.worker.core()->options();
  const int64_t kv_tokens = int64_t{made.num_blocks} * made.block_tokens;
  router_->OnWorkerUp({.worker = WorkerId{w},
                       .incarnation = made.incarnation,
                       .kv_capacity_tokens = kv_tokens,
                       .max_context = made.max_context,
                       .slots = std::min(made.max_num_seqs, made.max_step_tokens),
                       .max_step_tokens = made.max_step_tokens,
                       .block_tokens = made.block_tokens,
                       .hash_key_id = made.prefix_cache ? HashKeyId(made.hash_key) : 0,
                       .peers = options_.barrier ? 0u : 1u},
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
          live != nullptr && live->gives_up == event.at &&
          (live->first_scheduled.is_never() || router_->Parked(live->id))) {
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
  last_arrival_ = now;
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
  live->gives_up = now + live->request.patience;
  const Time gives_up = live->gives_up;
  const absl::Status accepted = router_->OnArrival(SubmitOf(*live, options_.prefill), 1, now, &router_out_);
  if (!accepted.ok()) {
    const auto refusal = RefusalOf(accepted);
    End(live, Outcome::kRejected, refusal ? ReasonName(refusal->reason) : "invalid", now);
  } else {
    Deliver(now);
    if (!gives_up.is_never()) {
      events_.Push({.at = gives_up, .kind = EventKind::kPatience, .number = Value(id)});
    }
  }
  return Saturated() ? absl::OkStatus() : PullArrival();
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
      const uint64_t refused = router_->counters().refused, shed = router_->counters().shed;
      if (absl::Status status = OnArrival(now); !status.ok()) return status;
      if (router_->counters().refused != refused && live_.size() == 0) {
        return absl::InvalidArgumentError("pool: no row of the trace fits a worker");
      }
      // Others would be too, until something changes.
      if (router_->counters().shed != shed) return absl::OkStatus();
    }
  }
  return absl::OkStatus();
}

SimReport Simulation::TakeReport() {
  for (Seat& seat : seats_) {
    if (seat.worker.up()) AddCounters(seat.worker.core()->counters(), &report_.counters);
  }
  report_.requests = drawn_;
  report_.router = router_->counters();
  if (const PredictionErrors* errors = router_->prediction_errors()) report_.prediction_errors = *errors;
  if (instants_ > 0) report_.imbalance_mean = imbalance_sum_ / static_cast<double>(instants_);
  if (loaded_instants_ > 0) report_.idle_fraction_mean = idle_sum_ / static_cast<double>(loaded_instants_);
  report_.energy_j += options_.power.idle_w * options_.num_workers * (report_.end - report_.begin).seconds();
  return std::move(report_);
}

absl::StatusOr<SimReport> Simulate(const SimOptions& options, const StepCostModel& cost,
                                   RequestSource* source, Observer* observer) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  Simulation simulation(options, cost, source, observer);
  if (absl::Status status = simulation.Start(); !status.ok()) return status;
  if (absl::Status status = simulation.Run(); !status.ok()) return status;
  return simulation.TakeReport();
}

}  // namespace orrery::sim
