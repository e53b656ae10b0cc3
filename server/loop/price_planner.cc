#include "server/loop/price_planner.h"

#include <pthread.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "scheduler/base/check.h"

namespace orrery {
namespace {

constexpr double kKept = 0.5;        // weight of what is remembered, from plan to plan
constexpr double kForgotten = 0.01;  // samples that are not worth remembering
constexpr double kShortestStep = 1e-9;

int Octave(double tokens) { return std::bit_width(static_cast<uint64_t>(std::max(0.0, tokens))); }

}  // namespace

PricePlanner::PricePlanner(Duration interval, Time now, std::function<void(ResourcePrices)> sink)
    : interval_(interval), sink_(std::move(sink)), since_(now), next_(now + interval) {
  auto cost = ParseStepCost("online");
  ORRERY_CHECK(cost.ok());
  cost_ = *std::move(cost);
  thread_ = std::thread([this] { Run(); });
}

PricePlanner::~PricePlanner() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void PricePlanner::SetWorkers(const WorkerInfo& worker, int64_t count) {
  worker_ = worker;
  num_workers_ = static_cast<double>(count);
}

void PricePlanner::OnEnd(const RequestTimes& times, int64_t num_samples) {
  const auto n = static_cast<double>(std::max<int64_t>(1, num_samples));
  const auto prompt = static_cast<double>(times.prompt_tokens);
  const double cached = std::min(prompt, static_cast<double>(times.cached_tokens) / n);  // all samples' sum
  const double output = static_cast<double>(times.output_tokens) / n;
  const RequestUse use = UseOf(prompt, cached, output, worker_.max_step_tokens, worker_.block_tokens);
  Sums& sums = classes_[{Octave(prompt - cached), Octave(output)}];
  sums.samples += n;
  sums.prompt += n * (prompt - cached);
  sums.output += n * output;
  sums.steps += n * use.steps;
  sums.block_steps += n * use.block_steps;
}

void PricePlanner::OnStep(const StepStats& step) {
  if (!step.scores) cost_->Observe(step.shape, step.engine);
  steps_ += 1;
  step_seconds_ += step.engine.seconds();
  decodes_ += step.shape.decodes;
}

void PricePlanner::Tick(Time now) {
  if (next_.is_never() && arrivals_ > kForgotten) {
    since_ = now;
    seconds_ = 0;
    next_ = now + interval_;
  }
  if (now < next_) return;
  seconds_ += (now - since_).seconds();
  since_ = now;
  if (num_workers_ == 0) {
    next_ = now + interval_;
    return;
  }
  Question question = Ask(seconds_ * num_workers_);
  const bool nothing = question.classes.empty();
  {
    std::lock_guard lock(mutex_);
    question_ = std::move(question);
  }
  wake_.notify_one();
  Forget();
  next_ = nothing && arrivals_ < kForgotten ? Time::Never() : now + interval_;
}

// The room that a step of the mean number of decodes leaves is what prompts can have.
PricePlanner::Question PricePlanner::Ask(double worker_seconds) const {
  Question question;
  WorkerResources& worker = question.worker;
  worker.kv_blocks = static_cast<double>(worker_.kv_capacity_tokens) / worker_.block_tokens;
  worker.slots = worker_.slots;
  worker.mean_step_s = std::max(kShortestStep, steps_ > 0 ? step_seconds_ / steps_ : 0);
  StepShape full;
  const int32_t decodes = steps_ > 0 ? static_cast<int32_t>(std::lround(decodes_ / steps_)) : 0;
  const int32_t room = std::max(1, worker_.max_step_tokens - decodes);
  full.decodes = decodes;
  full.AddChunk(0, room);
  worker.prefill_tokens_per_s = room / std::max(kShortestStep, cost_->Predict(full).seconds());

  double samples = 0;
  for (const auto& [octaves, sums] : classes_) samples += sums.samples;
  for (const auto& [octaves, sums] : classes_) {
    question.classes.push_back({.arrival_rate_per_s = sums.samples / samples * arrivals_ / worker_seconds,
                                .prompt_tokens = sums.prompt / sums.samples,
                                .output_tokens = sums.output / sums.samples,
                                .steps = sums.steps / sums.samples,
                                .block_steps = sums.block_steps / sums.samples});
  }
  return question;
}

void PricePlanner::Forget() {
  for (double* weight : {&seconds_, &arrivals_, &steps_, &step_seconds_, &decodes_}) *weight *= kKept;
  for (auto& [octaves, sums] : classes_) {
    for (double* sum : {&sums.samples, &sums.prompt, &sums.output, &sums.steps, &sums.block_steps}) {
      *sum *= kKept;
    }
  }
  std::erase_if(classes_, [](const auto& entry) { return entry.second.samples < kForgotten; });
}

void PricePlanner::Run() {
  pthread_setname_np(pthread_self(), "planner");
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stop_ || question_.has_value(); });
    if (stop_) return;
    const Question question = *std::exchange(question_, std::nullopt);
    lock.unlock();
    // A question that has no answer (a number that overflowed) leaves the old prices.
    if (auto prices = PriceResources(question.worker, question.classes); prices.ok())
      sink_(*std::move(prices));
    lock.lock();
  }
}

}  // namespace orrery
