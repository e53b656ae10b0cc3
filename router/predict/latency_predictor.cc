#include "router/predict/latency_predictor.h"

#include <algorithm>
#include <utility>

namespace orrery {
namespace {

constexpr size_t kMostPending = 1 << 16;  // first tokens that are waited for
constexpr double kOutputMemory = 256;     // samples
constexpr double kBesideMemory = 32;      // steps

}  // namespace

LatencyPredictor::Seen* LatencyPredictor::Find(WorkerId worker) {
  const auto found = std::lower_bound(seen_.begin(), seen_.end(), worker,
                                      [](const Seen& seen, WorkerId id) { return seen.worker < id; });
  return found != seen_.end() && found->worker == worker ? &*found : nullptr;
}

LatencyPredictor::Seen* LatencyPredictor::FindOrAdd(WorkerId worker) {
  if (Seen* seen = Find(worker); seen != nullptr) return seen;
  const auto after =
      std::find_if(seen_.begin(), seen_.end(), [&](const Seen& seen) { return worker < seen.worker; });
  const auto added = seen_.insert(after, Seen{.worker = worker});
  added->last.step = -1;
  return &*added;
}

void LatencyPredictor::OnWorkerState(const WorkerLoad& load, int64_t applied_tokens) {
  Seen* seen = FindOrAdd(load.worker);
  seen->applied += applied_tokens;
  if (load.step == seen->last.step) return;
  if (seen->last.step >= 0 && load.step == seen->last.step + 1) {
    Learn(load, seen);
  } else {
    seen->computed = 0;
  }
  seen->applied = 0;
  seen->last = load;
}

// The step ran with those that the snapshot before it had running; then it computed what left the backlog,
// the prompt that was begun first.
void LatencyPredictor::Learn(const WorkerLoad& load, Seen* seen) {
  const WorkerLoad& before = seen->last;
  const int64_t prompt =
      before.waiting_tokens + before.prompt_left + seen->applied - load.waiting_tokens - load.prompt_left;
  const int64_t begun = std::clamp<int64_t>(prompt, 0, before.prompt_left), fresh = prompt - begun;
  const int64_t computed = before.prompt_left > 0 ? seen->computed : 0;
  seen->computed = load.prompt_left == 0 ? 0 : fresh > 0 ? fresh : computed + begun;
  StepShape shape;
  shape.decodes = std::max(0, before.num_running - (before.prompt_left > 0 ? 1 : 0));
  shape.decode_context =
      shape.decodes == 0 ? 0 : std::max<int64_t>(0, before.kv_tokens - computed) + shape.decodes;
  if (begun > 0) shape.AddChunk(static_cast<int32_t>(computed), static_cast<int32_t>(begun));
  if (fresh > 0) shape.AddChunk(0, static_cast<int32_t>(std::min<int64_t>(fresh, load.max_step_tokens + 1)));
  if (prompt < 0 || shape.tokens() == 0 || shape.tokens() > load.max_step_tokens) return;
  if (load.step_time.ns <= 0) return;

  if (seen->cost == nullptr && shared_.observed() >= kSharedSteps) {
    seen->cost = std::make_unique<OnlineStepCost>(&shared_);
  }
  OnlineStepCost& cost = seen->cost == nullptr ? shared_ : *seen->cost;
  if (cost.observed() > 0) {
    errors_.step.Add(cost.Predict(shape).milliseconds(), load.step_time.milliseconds());
  }
  cost.Observe(shape, load.step_time);
  if (shape.decodes == 0) return;
  const OnlineStepCost::Vector c = cost.coefficients();
  const double prompts_ms = c[3] * shape.prefill_tokens + c[4] * shape.prefill_squares;
  seen->beside_ms += (prompts_ms - seen->beside_ms) / kBesideMemory;
}

void LatencyPredictor::OnFinished(int32_t output_tokens) {
  ++ended_;
  mean_output_ += (output_tokens - mean_output_) / std::min(kOutputMemory, static_cast<double>(ended_));
}

double LatencyPredictor::ExpectedOutput(int32_t max_new_tokens) const {
  const auto bound = static_cast<double>(max_new_tokens);
  return ended_ == 0 ? bound : std::min(bound, mean_output_);
}

void LatencyPredictor::OnPlaced(RequestId request, WorkerId worker, int32_t samples, const Latency& latency,
                                Time now) {
  const Time first = now + Duration::Seconds(std::min(latency.ttft_ms(), 1e9) * 1e-3);
  Begun& begun = FindOrAdd(worker)->begun;
  const Time in_order = begun.empty() ? first : std::max(first, begun.back());
  for (int32_t i = 0; i < samples; ++i) begun.push_back(in_order);
  // Requests that end without a first token leave theirs behind.
  if (pending_.size() >= kMostPending) pending_.clear();
  pending_[request] = {now, latency.ttft_ms()};
}

void LatencyPredictor::OnFirstToken(RequestId request, Time now) {
  const auto found = pending_.find(request);
  if (found == pending_.end()) return;
  if (shared_.observed() > 0) {
    errors_.ttft.Add(found->second.ttft_ms, (now - found->second.placed).milliseconds());
  }
  pending_.erase(found);
}

void LatencyPredictor::Keep(absl::Span<const WorkerLoad> workers) {
  auto load = workers.begin();
  size_t kept = 0;
  for (Seen& seen : seen_) {
    while (load != workers.end() && load->worker < seen.worker) ++load;
    if (load == workers.end() || load->worker != seen.worker) continue;
    // Who began first is taken to have ended first.
    while (static_cast<int64_t>(seen.begun.size()) > load->num_bound) seen.begun.pop_front();
    if (&seen_[kept] != &seen) seen_[kept] = std::move(seen);
    ++kept;
  }
  seen_.resize(kept);
}

LatencyModel LatencyPredictor::ModelOf(WorkerId worker) const {
  const Seen* seen = Find(worker);
  const OnlineStepCost& cost = seen == nullptr || seen->cost == nullptr ? shared_ : *seen->cost;
  const OnlineStepCost::Vector c = cost.coefficients();
  return {c[0], c[1], c[2], c[3], c[4]};
}

Latency LatencyPredictor::Predict(const WorkerLoad& load, const Demand& demand, Time now) const {
  static const Begun kNone;
  const Seen* seen = Find(load.worker);
  const LatencyModel model = ModelOf(load.worker);
  const double beside_ms = seen == nullptr ? 0 : seen->beside_ms;
  const double step_ms = model.StepMs(load.num_running, static_cast<double>(load.kv_tokens)) + beside_ms;
  const double life_ms = step_ms * (ended_ > 0 ? mean_output_ : demand.max_new_tokens);
  const Duration life = life_ms > 0 ? Duration::Seconds(std::min(life_ms, 1e9) * 1e-3) : Duration::Infinite();
  return PredictLatency(model, load, seen == nullptr ? kNone : seen->begun, life, demand, now, beside_ms);
}

}  // namespace orrery
