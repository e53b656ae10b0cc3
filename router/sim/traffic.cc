// Simulation: what goes between the router and the workers, and what leaves.
#include <algorithm>
#include <iterator>
#include <utility>

#include "router/sim/run.h"
#include "scheduler/base/text.h"
#include "scheduler/types/refusal.h"

namespace orrery::sim {

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

void Simulation::LoseWorker(uint32_t w, Time now) {
  pool_changed_ = true;
  Seat& seat = seats_[w];
  if (!seat.worker.up()) return;
  AddCounters(seat.worker.core()->counters(), &report_.counters);
  if (seat.busy) --num_busy_;
  seat.busy = false;
  seat.wake = Time::Never();
  TellProgress(w, now);
  SetLoad(w, 0);
  seat.worker.Stop();
  CountWaiting(w);
  router_->OnWorkerDown(WorkerId{w}, now, &router_out_);
  Deliver(now);
  // Behind a barrier the others may have waited for this one.
  for (uint32_t other = 0; other < seats_.size(); ++other) MarkDirty(other);
}

void Simulation::TellProgress(uint32_t w, Time now) {
  SimWorker& worker = seats_[w].worker;
  worker.Interrupt();
  for (const SimWorker::Slot& slot : worker.slots()) {
    LiveRequest* live = live_.Find(slot.key.request);
    if (live == nullptr || slot.made < 1) continue;
    live->made = std::max(live->made, slot.made);
    if (live->last_token.is_never() || live->last_token < slot.last_token) live->last_token = slot.last_token;
    TokenEvent event;
    event.key = slot.key;
    const std::vector<TokenId>* told = router_->Emitted(slot.key.request, slot.key.sample);
    for (event.index = static_cast<int32_t>(told->size()); event.index < slot.made; ++event.index) {
      event.token = SimWorker::OutputToken(slot, event.index);
      router_->OnTokenEvent(WorkerId{w}, event, now, &router_out_);
    }
  }
}

void Simulation::LeaveWorker(const LeaveOrder& order, Time now) {
  const uint32_t w = Value(order.worker);
  LiveRequest* live = live_.Find(order.sample.request);
  if (live != nullptr && router_->Parked(live->id)) {
    live->made = 1;
    const Duration waited = live->first_scheduled - live->request.arrival;
    if (!live->request.patience.is_infinite()) {
      live->gives_up = now + (live->request.patience - waited);
      events_.Push({.at = live->gives_up, .kind = EventKind::kPatience, .number = Value(live->id)});
    }
    if (Explained(*live)) Tell(now, Cat("leaves worker ", w, " and waits for a decode slot"));
  }
  if (!seats_[w].worker.up()) return;
  seats_[w].worker.Interrupt();
  seats_[w].worker.core()->OnCancel(order.sample, now, &token_events_);
  token_events_.clear();  // that it stopped: nobody wants to know
  MarkDirty(w);
}

void Simulation::Deliver(Time now) {
  while (!router_out_.empty()) {
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
    for (const WorkerId worker : out.ask_prefixes) seats_[Value(worker)].worker.core()->TellPrefixes();
    for (const LeaveOrder& leave : out.leave) LeaveWorker(leave, now);
    for (Dispatch& dispatch : out.dispatch) {
      const uint32_t w = Value(dispatch.worker);
      const SampleKey key = dispatch.submit.key;
      if (const LiveRequest* live = live_.Find(key.request); live != nullptr && Explained(*live)) {
        const DecisionRecord& why = router_->last_decision();
        Tell(now, Cat("placed on worker ", w, " by ", why.policy, ": ", why.objective, " = ", why.value));
      }
      if (dispatch.submit.num_emitted > 0 && !dispatch.submit.kv_source.has_value()) {
        if (LiveRequest* live = live_.Find(key.request); live != nullptr) live->replayed = true;
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
    for (const LeaveOrder& leave : out.leave) {
      if (seats_[Value(leave.worker)].worker.up()) Forward(Value(leave.worker), now);
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

bool Simulation::Replayed(const TokenEvent& event) {
  if (event.key.attempt == 0 || router_->counters().replayed == 0) return false;
  const LiveRequest* live = live_.Find(event.key.request);
  if (live == nullptr || !live->replayed) return false;
  // Not one after others that were spared.
  const std::vector<TokenId>* told = router_->Emitted(event.key.request, event.key.sample);
  return told != nullptr && event.index <= static_cast<int32_t>(told->size());
}

void Simulation::Forward(uint32_t w, Time now) {
  WorkerCore* core = seats_[w].worker.core();
  for (TokenEvent& event : token_events_) {
    // The ids between the first and the last say nothing here: the router is spared them, as long as it has
    // none to replay.
    if (event.finish == FinishReason::kNone && event.index > 0 && !Replayed(event)) continue;
    const bool ends = event.finish != FinishReason::kNone;
    const int32_t made = event.index + 1;
    if (ends && event.index > 0) event.token = -1;
    const bool fresh = router_->OnTokenEvent(WorkerId{w}, event, now, &router_out_);
    if (ends && fresh) {
      if (LiveRequest* live = live_.Find(event.key.request); live != nullptr) {
        live->made = std::max(live->made, made);
        const auto facts = core->Report(event.key);
        const bool whole = event.finish == FinishReason::kStop || event.finish == FinishReason::kLength;
        End(live, whole ? Outcome::kCompleted : Outcome::kCancelled, whole ? "" : "patience", now,
            facts ? &*facts : nullptr);
      }
    }
  }
  token_events_.clear();
  core->State(now, &state_, StateScope::kSums);
  // Behind a barrier the others report at this instant too.
  router_->OnWorkerState(state_, now, &router_out_, options_.barrier && num_busy_ > 0);
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

}  // namespace orrery::sim
