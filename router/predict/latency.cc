#include "router/predict/latency.h"

#include <algorithm>
#include <cmath>

namespace orrery {
namespace {

// Until enough samples have ended for slots and KV to take what is ahead and the request itself.
double RoomMs(const WorkerLoad& worker, const Begun& begun, Duration life, const Demand& demand, Time now) {
  if (worker.num_running == 0 || life.is_infinite()) return 0;
  const auto running = static_cast<double>(worker.num_running);
  const double slots = worker.num_waiting + worker.num_sent + demand.samples - worker.free_slots;
  const auto over =
      static_cast<double>(worker.load_tokens() + demand.prompt_tokens - worker.kv_capacity_tokens);
  const double held = std::max(1.0, static_cast<double>(worker.kv_tokens) / running);
  const double ends = std::ceil(std::max({0.0, slots, over / held}));
  if (ends == 0) return 0;
  if (ends > static_cast<double>(begun.size())) return ends * life.milliseconds() / running;
  return std::max(0.0, (begun[static_cast<size_t>(ends) - 1] + life - now).milliseconds());
}

}  // namespace

int64_t DecodesAt(const Begun& begun, Duration life, Time at) {
  // Oldest first: the first that is still there, and all after it.
  const auto there =
      std::partition_point(begun.begin(), begun.end(), [&](Time since) { return since + life <= at; });
  return begun.end() - there;
}

Latency PredictLatency(const LatencyModel& model, const WorkerLoad& worker, const Begun& begun, Duration life,
                       const Demand& demand, Time now, double beside_ms) {
  const int64_t decodes = worker.num_running - (worker.prompt_left > 0 ? 1 : 0);
  const double step_ms =
      model.StepMs(static_cast<double>(std::max<int64_t>(0, decodes)), static_cast<double>(worker.kv_tokens));
  const int64_t chunk = std::max<int64_t>(1, worker.max_step_tokens - decodes);

  Latency latency;
  const int64_t known = worker.prompt_left + worker.waiting_tokens;
  const int64_t in_pass = std::min(known, chunk);
  if (worker.num_running + worker.num_waiting > 0) {
    const double since = (now - worker.state_at).milliseconds();
    latency.pass_ms = std::max(0.0, step_ms + model.PromptMs(in_pass, 0) - since);
  }
  const int64_t queued = known - in_pass + worker.sent_tokens;
  const int64_t own = demand.prompt_tokens - demand.hit_tokens;
  const auto passes = [&](int64_t tokens) { return static_cast<double>((tokens + chunk - 1) / chunk); };
  const int64_t prompts = std::max(1, worker.num_waiting + worker.num_sent);
  const double prompts_ms = static_cast<double>(prompts) * model.PromptMs(queued / prompts, 0);
  latency.queue_ms =
      std::max(RoomMs(worker, begun, life, demand, now), prompts_ms + passes(queued) * step_ms);
  latency.prompt_ms = model.PromptMs(demand.prompt_tokens, demand.hit_tokens) +
                      (passes(queued + own) - passes(queued)) * step_ms;

  // The share of what is there now that will be there then.
  const Time first_token = now + Duration::Seconds(std::min(latency.ttft_ms(), 1e9) * 1e-3);
  const double stays = begun.empty() ? 1
                                     : static_cast<double>(DecodesAt(begun, life, first_token)) /
                                           static_cast<double>(begun.size());
  const double slots = std::max(1, worker.num_running + worker.free_slots);
  const double batch = std::min(slots, stays * worker.num_bound + demand.samples);
  const auto capacity = static_cast<double>(worker.kv_capacity_tokens);
  const double held = stays * static_cast<double>(worker.load_tokens()) + demand.prompt_tokens;
  latency.tpot_ms = model.StepMs(batch, std::min(capacity, held)) + beside_ms;
  return latency;
}

}  // namespace orrery
