// Simulation: the steps of the workers, from planning to what they count for.
#include <algorithm>
#include <cmath>
#include <utility>

#include "router/sim/run.h"
#include "scheduler/base/text.h"

namespace orrery::sim {

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
      LiveRequest* live = live_.Find(slot.key.request);
      if (live != nullptr) live->first_token = live->last_token = now;
    } else if (saturated ? measuring : slot.measured) {
      add(slot.class_index, now - slot.last_token, 1);
    }
    slot.last_token = now;
    slot.made = slice.output_index + 1;
  }
  if (count > 0) observer_->OnTokenGaps(class_index, gap, count);
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
  if (Measuring()) WatchLoads(now);
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
  seat.takes = Duration::Nanoseconds(static_cast<int64_t>(ns + 0.5));
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
                     .pooled = router_->num_pooled() + router_->num_between(),
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

bool Simulation::LoadsCount(Time now) const {
  if (Saturated()) return Measuring();
  return drawn_ >= options_.warmup_requests && (next_.has_value() || now == last_arrival_);
}

void Simulation::WatchLoads(Time now) {
  if (std::exchange(load_max_fell_, false)) load_max_ = *std::max_element(loads_.begin(), loads_.end());
  const int64_t most = load_max_, sum = load_sum_;
  const bool counts = LoadsCount(now);
  instants_ += counts;
  if (most == 0) return;
  if (counts) {
    const auto full = static_cast<double>(most) * static_cast<double>(loads_.size());
    imbalance_sum_ += full - static_cast<double>(sum);
    idle_sum_ += 1 - static_cast<double>(sum) / full;
    ++loaded_instants_;
  }
  const PowerModel& power = options_.power;
  const auto gamma = static_cast<float>(power.gamma);
  for (const uint32_t w : planned_) {
    // Single precision: one of these for every step is a tenth of a run.
    const float use = std::pow(static_cast<float>(loads_[w]) / static_cast<float>(most), gamma);
    report_.energy_j += (power.peak_w - power.idle_w) * double{use} * seats_[w].takes.seconds();
  }
}

// What the step means for the request whose story is told.
void Simulation::TellPlan(uint32_t w, Time now) {
  const LiveRequest* live = live_.Find(explained_);
  SimWorker& worker = seats_[w].worker;
  const StepPlan& step = worker.plan();
  const DecisionRecord& why = worker.core()->last_decision();
  for (const Slice& slice : step.slices) {
    if (live == nullptr || worker.slot(slice).key.request != explained_) continue;
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

}  // namespace orrery::sim
