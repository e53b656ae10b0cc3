// A discrete-event simulation of a deployment: an event queue around the same RouterCore and WorkerCore
// objects that serve live. Nothing about a policy, the KV pool or the prefix cache exists twice; only the
// engine is replaced, by a cost model, and the tokens by their number.
//
// What happens at one instant takes effect together (router/sim/event_queue.h), then every worker that can
// plan does, in ascending order. Steps are not pipelined. Behind a barrier all workers plan at once when all
// are done, and a step takes as long as its slowest worker.
//
// A run is a pure function of its inputs: same options and rows, same report, byte for byte. Memory follows
// the requests that are in the system, not those that passed.
#ifndef ORRERY_ROUTER_SIM_SIMULATION_H_
#define ORRERY_ROUTER_SIM_SIMULATION_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "router/admission.h"
#include "router/policy/route_plan.h"
#include "router/router_core.h"
#include "router/sim/observer.h"
#include "router/sim/workload.h"
#include "scheduler/base/time.h"
#include "scheduler/cost/step_cost.h"
#include "scheduler/worker_factory.h"

namespace orrery::sim {

struct Failure {
  uint32_t worker = 0;
  Time at;
  Duration lasts;  // infinite: never comes back
};

// Watts of one worker: idle + (peak - idle) * u^gamma, u = its KV tokens over those of the fullest worker.
struct PowerModel {
  double idle_w = 100, peak_w = 400, gamma = 0.7;
};

struct SimOptions {
  WorkerSpec worker;  // every worker; `cost` is what its policies believe
  std::string router = "jsq-tokens";
  std::optional<RoutePlan> plan;  // the router is told at time 0
  AdmissionLimits admission;
  OutlierOptions outliers;
  int32_t num_workers = 1;
  bool barrier = false;
  bool prefill = true;  // false: a prompt is resident once placed, and costs nothing
  PowerModel power;
  std::vector<Failure> failures;
  std::vector<double> slowdown;  // [num_workers] factors on step times; empty: none

  uint64_t warmup_requests = 0;  // the first ones are not measured
  // Saturated: requests that wait for a slot are kept at this number, and the run ends after warmup_steps +
  // steps. Steps are those of the group behind a barrier, else the mean over the workers.
  int64_t pool = 0;
  int64_t warmup_steps = 0, steps = 0;

  // Decodes stand apart where the worker lets them (WorkerCore::PlanBeside), and steps of theirs alone are
  // passed; the report is the same. Off with `explain`.
  bool fast_forward = true;
  int64_t (*wall_clock)() = nullptr;  // ns; times decisions from outside, never enters the simulation
  std::optional<uint64_t> explain;    // serial of a request whose story is told
};

struct ExplainEntry {
  Time at;
  std::string what;
};

struct SimReport {
  uint64_t requests = 0;       // drawn from the source
  int64_t steps = 0;           // measured; as counted by SimOptions::steps with a barrier, else worker steps
  int64_t sequence_steps = 0;  // sum over all steps of their sequences, warm-up included
  int64_t passed_steps = 0;    // worker steps that were known beforehand and not planned
  uint64_t events = 0;
  Time begin, end;  // of what was measured
  // Over planning instants, loads L in resident KV tokens: G max L - sum L, and that over G max L where max L
  // > 0. Saturated: of the measured steps. Else from the arrival that ends the warm-up to the last one, both
  // included: how the workers fill and empty, with few requests on many of them, says nothing of the router.
  double imbalance_mean = 0, idle_fraction_mean = 0;
  double energy_j = 0;
  int64_t measured_tokens = 0;  // output tokens made between begin and end
  int64_t max_concurrent = 0;   // requests in the system at once
  WorkerCounters counters;      // summed over workers and incarnations
  RouterCounters router;
  std::optional<PredictionErrors> prediction_errors;  // of the route policy
  std::vector<ExplainEntry> story;                    // of SimOptions::explain
};

// `cost` is what steps really take. INVALID_ARGUMENT for options out of range or unknown policies; errors of
// the source are passed on.
absl::StatusOr<SimReport> Simulate(const SimOptions& options, const StepCostModel& cost,
                                   RequestSource* source, Observer* observer);

}  // namespace orrery::sim

#endif  // ORRERY_ROUTER_SIM_SIMULATION_H_
