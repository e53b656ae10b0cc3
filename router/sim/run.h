// The body of a simulation, shared by its three files: simulation (options, start, events, arrivals), traffic
// (between router and workers) and steps (planning, counting). Nobody else includes it.
#ifndef ORRERY_ROUTER_SIM_RUN_H_
#define ORRERY_ROUTER_SIM_RUN_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "router/router_core.h"
#include "router/sim/event_queue.h"
#include "router/sim/live_table.h"
#include "router/sim/sim_worker.h"
#include "router/sim/simulation.h"

namespace orrery::sim {

void AddCounters(const WorkerCounters& from, WorkerCounters* to);

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
  // The tokens that the router was spared.
  void TellProgress(uint32_t w, Time now);
  // A request goes on elsewhere: what it leaves stops.
  void LeaveWorker(const LeaveOrder& order, Time now);
  // Gives the router's output to the workers.
  void Deliver(Time now);
  bool Replayed(const TokenEvent& event);
  // Gives a worker's events to the router.
  void Forward(uint32_t w, Time now);
  void End(LiveRequest* live, Outcome outcome, std::string_view reason, Time now,
           const SampleReport* report = nullptr);
  void PlanAll(Time now);
  void PlanOne(uint32_t w, Time now);
  void Launch(uint32_t w, Time now, Duration takes);
  void CountStep(const Seat& seat, Time now);
  void WatchLoads(Time now);
  void SetLoad(uint32_t w, int64_t kv_tokens);
  void MarkDirty(uint32_t w);
  void CountWaiting(uint32_t w);
  bool Saturated() const { return options_.pool > 0; }
  bool Measuring() const { return !Saturated() || counted_steps_ >= options_.warmup_steps; }
  // Whether the loads at this instant are part of SimReport's means.
  bool LoadsCount(Time now) const;
  bool Done() const;
  bool Explained(const LiveRequest& live) const { return options_.explain == live.serial; }
  void Tell(Time now, std::string what) { report_.story.push_back({now, std::move(what)}); }
  void TellPlan(uint32_t w, Time now);

  const SimOptions& options_;
  const StepCostModel& cost_;
  RequestSource* const source_;
  Observer* const observer_;

  std::unique_ptr<RouterCore> router_;
  int32_t lookahead_ = 0;  // of the router's policy
  RouterOutput router_out_;
  Time router_wake_ = Time::Never();
  std::vector<Seat> seats_;
  LiveTable live_;
  EventQueue events_;
  std::optional<SimRequest> next_;  // drawn, not yet arrived
  uint64_t drawn_ = 0;
  Time last_arrival_;

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

}  // namespace orrery::sim

#endif  // ORRERY_ROUTER_SIM_RUN_H_
