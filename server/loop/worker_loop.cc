#include "server/loop/worker_loop.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "scheduler/base/check.h"
#include "scheduler/cost/step_cost.h"

namespace orrery {

namespace {
constexpr Duration kTellInterval = Duration::Milliseconds(2);
// Steps that end within this of each other share a report: nobody reads faster, and each report costs whoever
// takes it the waking of a thread.
constexpr Duration kReportInterval = Duration::Microseconds(250);
}  // namespace

WorkerLoop::WorkerLoop(Parts parts, const Clock* clock, WorkerReportSink sink)
    : parts_(std::move(parts)),
      core_(parts_.core.get()),
      executor_(parts_.executor.get()),
      clock_(clock),
      sink_(std::move(sink)),
      host_since_(clock->Now()) {
  if (parts_.journal != nullptr) core_->set_journal(parts_.journal.get());
  if (parts_.barrier != nullptr) parts_.barrier->Join(parts_.rank, sink_, [this] { mailbox_.Interrupt(); });
  thread_ = std::thread([this] {
    Run();
    ended_.set_value();
  });
}

WorkerLoop::~WorkerLoop() { Stop(); }

void WorkerLoop::Stop() {
  if (!thread_.joinable()) return;
  stop_.store(true);
  mailbox_.Interrupt();
  thread_.join();
}

bool WorkerLoop::StopWithin(Duration timeout) {
  stop_.store(true);
  mailbox_.Interrupt();
  return end_.wait_for(std::chrono::nanoseconds(timeout.ns)) == std::future_status::ready;
}

void WorkerLoop::Submit(orrery::Submit submit) { mailbox_.Push(std::move(submit)); }
void WorkerLoop::CancelRequest(RequestId request) { mailbox_.Push(request); }
void WorkerLoop::CancelSample(const SampleKey& key) { mailbox_.Push(key); }

Duration WorkerLoop::StepAge() const {
  const int64_t began = step_began_ns_.load(std::memory_order_relaxed);
  return began < 0 ? Duration{} : clock_->Now() - Time{began};
}

void WorkerLoop::Run() {
  pthread_setname_np(pthread_self(), "worker");
  while (!stop_.load(std::memory_order_relaxed)) {
    mailbox_.Drain(&commands_);
    const Time now = clock_->Now();
    for (Command& command : commands_) Apply(command, now);
    commands_.clear();
    if (core_->NextWake() <= now) core_->OnTimer(now, &report_.events);
    TakeFacts();
    if (MustPublish(now)) Publish(now);
    LaunchReady();
    Record();
    if (!in_flight_.empty()) {
      // What the report holds does not wait for a long step's end, nor for one of unknown length.
      const Duration predicted = in_flight_.front().stats.predicted;
      if (holds_step_ && (predicted.ns == 0 || predicted >= kReportInterval)) Publish(now);
      if (parts_.barrier != nullptr) parts_.barrier->Want(parts_.rank);
      FinishOldest();
    } else if (parts_.barrier != nullptr && parts_.barrier->wanted()) {
      TakePart();
    } else {
      RunOutOfWork();
    }
  }
  for (const InFlight& step : in_flight_) {
    if (step.error.ok()) (void)executor_->Wait(step.step, &result_);
  }
  Record();
}

void WorkerLoop::Record() {
  if (parts_.journal == nullptr) return;
  if (!parts_.journal_file->recording()) {
    core_->set_journal(nullptr);
    parts_.journal.reset();
  } else if (parts_.journal->buffered_bytes() > 0) {
    parts_.journal_file->Append(parts_.journal->TakeBytes());
  }
}

void WorkerLoop::Apply(Command& command, Time now) {
  if (auto* submit = std::get_if<orrery::Submit>(&command)) {
    const SampleKey key = submit->key;
    absl::Status status = core_->OnArrival(std::move(*submit), now);
    if (!status.ok()) report_.refused.push_back({key, std::move(status)});
  } else if (auto* request = std::get_if<RequestId>(&command)) {
    core_->OnCancelRequest(*request, now, &report_.events);
  } else if (std::holds_alternative<DrainCommand>(command)) {
    core_->Drain(now);
    to_publish_ = true;
  } else if (std::holds_alternative<TellPrefixesCommand>(command)) {
    core_->TellPrefixes();
    to_publish_ = to_publish_ || core_->has_prefix_events();
  } else {
    core_->OnCancel(std::get<SampleKey>(command), now, &report_.events);
  }
}

void WorkerLoop::LaunchReady() {
  while (core_->can_plan() && core_->has_work()) {
    const Time planned = clock_->Now();
    const StepPlan& plan = core_->Plan(planned);
    if (plan.empty()) return;
    InFlight step;
    step.step = plan.step;
    step.stats.decision = clock_->Now() - planned;
    step.stats.why = core_->last_decision();
    step.stats.shape = ShapeOf(plan);
    step.stats.scores = plan.num_scoring > 0;
    if (core_->cost() != nullptr && !step.stats.scores)
      step.stats.predicted = core_->cost()->Predict(step.stats.shape);
    step.stats.num_sequences = static_cast<int32_t>(plan.slices.size());
    for (const Slice& slice : plan.slices) {
      const bool decode = slice.count == 1 && slice.output_index > 0;
      decode ? ++step.stats.num_decodes : step.stats.num_prefill_tokens += slice.count;
    }
    if (in_flight_.empty()) step_began_ns_.store(planned.ns, std::memory_order_relaxed);
    step.error = executor_->Launch(plan);
    step.launched = clock_->Now();
    step.stats.host = step.launched - host_since_;
    host_since_ = step.launched;
    in_flight_.push_back(std::move(step));
  }
}

void WorkerLoop::FinishOldest() {
  InFlight& step = in_flight_.front();
  result_.Clear();
  if (step.error.ok()) step.error = executor_->Wait(step.step, &result_);
  const Time now = clock_->Now();
  // Of two steps in flight the second waits for the first: that is not time it takes.
  step.stats.engine = now - std::max(step.launched, std::exchange(last_done_, now));
  result_.start = step.launched;
  result_.end = host_since_ = now;
  if (step.error.ok()) step.error = core_->OnStepDone(result_, now, &report_.events);
  if (!step.error.ok()) {
    const absl::string_view message = step.error.message();
    const absl::Status status =
        core_->OnStepFailed(step.step, {message.data(), message.size()}, now, &report_.events);
    ORRERY_CHECK(status.ok());
    if (absl::IsDataLoss(step.error) && !std::exchange(engine_lost_, true)) {
      report_.engine_lost.assign(message.data(), message.size());
      to_publish_ = true;
    }
  }
  // A step that only gives slots back computes nothing: it is not one of those that are measured.
  if (step.stats.num_sequences > 0) report_.steps.push_back(step.stats);
  in_flight_.erase(in_flight_.begin());
  step_began_ns_.store(in_flight_.empty() ? -1 : now.ns, std::memory_order_relaxed);
  num_steps_.fetch_add(1, std::memory_order_relaxed);
  holds_step_ = parts_.barrier == nullptr;
  if (holds_step_) return;
  const Duration engine = report_.steps.empty() ? Duration{} : report_.steps.back().engine;
  parts_.barrier->Arrive(parts_.rank, TakeReport(now), engine);
}

// In a step of the group's to which this rank has nothing to give.
void WorkerLoop::TakePart() {
  parts_.barrier->Arrive(parts_.rank, TakeReport(clock_->Now()), Duration{});
  host_since_ = clock_->Now();
}

void WorkerLoop::RunOutOfWork() {
  const Time wake = core_->NextWake();
  if (core_->has_prefix_events()) {
    // More than fitted the last report: the rest follows at a pace that a stream can carry.
    mailbox_.Wait(*clock_, std::min(wake, clock_->Now() + kTellInterval));
    to_publish_ = true;
  } else {
    mailbox_.Wait(*clock_, wake);
  }
  host_since_ = clock_->Now();
}

bool WorkerLoop::MustPublish(Time now) {
  if (std::exchange(to_publish_, false) || !report_.refused.empty()) return true;
  if (holds_step_ && (now - published_ >= kReportInterval || !core_->has_work())) return true;
  // Who waits for a first token does not wait for this, nor do ends that no step made (cancels, deadlines).
  return std::any_of(report_.events.begin(), report_.events.end(),
                     [](const TokenEvent& event) { return event.index <= 0 || event.token < 0; });
}

void WorkerLoop::Publish(Time now) {
  published_ = now;
  holds_step_ = false;
  sink_(TakeReport(now));
}

void WorkerLoop::TakeFacts() {
  for (; num_looked_at_ < report_.events.size(); ++num_looked_at_) {
    const TokenEvent& event = report_.events[num_looked_at_];
    if (event.finish == FinishReason::kNone) continue;
    if (auto report = core_->Report(event.key)) report_.ended.push_back({event.key, *report});
  }
}

WorkerReport WorkerLoop::TakeReport(Time now) {
  TakeFacts();
  num_looked_at_ = 0;
  const WorkerCounters& counters = core_->counters();
  report_.preemptions = static_cast<int64_t>(counters.preemptions);
  report_.prefix_hit_tokens = static_cast<int64_t>(counters.prefix_hit_tokens);
  report_.policy_fallbacks = static_cast<int64_t>(counters.fallbacks);
  core_->State(now, &report_.state);
  return std::exchange(report_, {});
}

}  // namespace orrery
