// What a request would see on a worker, from a linear model of the worker's steps and what the router knows
// of its load: the predictors of TTFT and TPOT as functions. Milliseconds and tokens.
//
//   TTFT = what is left of the pass that runs + what is queued before it + its own prompt
//   TPOT = base + per_seq (samples + its own) + per_kv (tokens + its own) + prompts that are computed beside
//
// Prompts are computed in passes of what the decodes leave of max_step_tokens, each of which costs a step of
// the decodes too. The queue is known as a sum: its prompts count as equally long. Where slots or KV are
// short, what is ahead waits for samples to end: each after its `life`, or where it is not known when they
// began, one every life / running. TPOT is that at the first token: who will have ended by then does not
// count.
#ifndef ORRERY_ROUTER_PREDICT_LATENCY_H_
#define ORRERY_ROUTER_PREDICT_LATENCY_H_

#include <cstdint>
#include <deque>

#include "router/policy/route_policy.h"
#include "scheduler/base/time.h"

namespace orrery {

struct LatencyModel {
  double base = 0, per_seq = 0, per_kv = 0, per_token = 0, per_token_sq = 0;

  // Of `tokens` of which the first `hit` are in the cache, without the steps they are part of.
  double PromptMs(int64_t tokens, int64_t hit) const {
    const auto n = static_cast<double>(tokens), p = static_cast<double>(hit);
    return per_token * (n - p) + per_token_sq * (n * n - p * p);
  }
  // A step of decodes.
  double StepMs(double samples, double kv_tokens) const {
    return base + per_seq * samples + per_kv * kv_tokens;
  }
};

struct Demand {
  int32_t prompt_tokens = 0;
  int32_t hit_tokens = 0;  // of those, in the worker's cache
  int32_t samples = 1;
  int32_t max_new_tokens = 0;
};

struct Latency {
  double pass_ms = 0;    // what is left of the pass that runs
  double queue_ms = 0;   // then, until its prompt begins
  double prompt_ms = 0;  // its own, with the passes it takes
  double tpot_ms = 0;
  double ttft_ms() const { return pass_ms + queue_ms + prompt_ms; }
};

// When the samples of a worker began or will begin to decode, oldest first.
using Begun = std::deque<Time>;

// Of them, those that will not have ended at `at`, if each decodes for `life`.
int64_t DecodesAt(const Begun& begun, Duration life, Time at);

// `life` infinite: nobody is known to end. `beside_ms`: of prompts, in each step of the decodes.
Latency PredictLatency(const LatencyModel& model, const WorkerLoad& worker, const Begun& begun, Duration life,
                       const Demand& demand, Time now, double beside_ms = 0);

}  // namespace orrery

#endif  // ORRERY_ROUTER_PREDICT_LATENCY_H_
