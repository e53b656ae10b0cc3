#include "scheduler/planning/hindsight.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "scheduler/base/text.h"
#include "scheduler/planning/start_program.h"

namespace orrery {
namespace {

using internal::ColumnPricer;
using internal::StartColumn;
using internal::StartProgram;

constexpr double kWanted = -1e-6;   // a reduced cost below this
constexpr double kRounding = 1e-5;  // by which an LP bound may overstate
constexpr uint64_t kSearchSeed = 1;

absl::StatusOr<HindsightSchedule> Judge(const UnitInstance& instance, std::vector<int64_t> starts) {
  const auto total = JudgeStarts(instance, starts);
  if (!total.ok()) return absl::InternalError(Cat("hindsight: ", std::string(total.status().message())));
  return HindsightSchedule{*total, std::move(starts)};
}

int64_t Makespan(const UnitInstance& instance, const HindsightSchedule& schedule) {
  int64_t end = 0;
  for (size_t i = 0; i < schedule.starts.size(); ++i)
    end = std::max(end, schedule.starts[i] + instance.requests[i].output_tokens);
  return end;
}

// The relaxation over the full horizon, with what prices its columns; or why not.
struct Relaxation {
  double bound = 0.0;
  StartProgram program;
  std::vector<double> duals;
  std::string unsolved;
};

// Is a column that ends after `horizon` wanted? Past the last price they only get dearer.
bool WantsLater(const UnitInstance& instance, const ColumnPricer& pricer, int64_t horizon, int64_t full) {
  for (size_t i = 0; i < instance.requests.size(); ++i) {
    const UnitRequest& r = instance.requests[i];
    const int64_t first = std::max(r.arrival, horizon - r.output_tokens + 1);
    const int64_t last = std::min(std::max(first, pricer.priced_until()), full - r.output_tokens);
    for (int64_t t = first; t <= last; ++t) {
      if (pricer.ReducedCost({i, t}) < kWanted) return true;
    }
  }
  return false;
}

absl::StatusOr<Relaxation> SolveRelaxation(const UnitInstance& instance, int64_t makespan,
                                           const HindsightOptions& options) {
  const int64_t full = internal::FullHorizon(instance);
  Relaxation relaxation;
  for (int64_t horizon = std::min(full, makespan);; horizon = std::min(full, horizon + horizon / 4 + 1)) {
    const double terms = internal::CountTerms(instance, horizon) + static_cast<double>(horizon);
    if (terms > static_cast<double>(options.max_lp_terms)) {
      relaxation.unsolved = Cat("too large for the solver: ", static_cast<int64_t>(terms), " terms over ",
                                horizon, " rounds, at most ", options.max_lp_terms);
      return relaxation;
    }
    relaxation.program =
        internal::BuildStartProgram(instance, internal::ColumnsUntil(instance, horizon), false);
    auto solution = SolveLp(relaxation.program.program, options.limits);
    if (!solution.ok()) return solution.status();
    if (solution->status == SolveStatus::kLimit) {
      relaxation.unsolved = "limit of time or iterations hit in the linear program";
      return relaxation;
    }
    if (solution->status != SolveStatus::kOptimal)
      return absl::InternalError(Cat("hindsight: relaxation is ", SolveStatusName(solution->status)));
    relaxation.bound = solution->objective;
    relaxation.duals = std::move(solution->duals);
    const ColumnPricer pricer(instance, relaxation.program, relaxation.duals);
    if (horizon == full || !WantsLater(instance, pricer, horizon, full)) return relaxation;
  }
}

// The integer program over the columns that a schedule of at most `best.total_latency` can use.
absl::StatusOr<MipSolution> SolveExactly(const UnitInstance& instance, const Relaxation& relaxation,
                                         const HindsightSchedule& best, const HindsightOptions& options,
                                         std::vector<StartColumn>* columns) {
  const ColumnPricer pricer(instance, relaxation.program, relaxation.duals);
  const int64_t full = internal::FullHorizon(instance);
  const double slack = static_cast<double>(best.total_latency) - relaxation.bound + kRounding;
  std::vector<double> start;
  for (size_t i = 0; i < instance.requests.size(); ++i) {
    const UnitRequest& r = instance.requests[i];
    for (int64_t t = r.arrival; t + r.output_tokens <= full; ++t) {
      const bool chosen = best.starts[i] == t;
      const double reduced = pricer.ReducedCost({i, t});
      if (reduced > slack && !chosen) {
        if (t > pricer.priced_until()) break;  // later ones only cost more
        continue;
      }
      columns->push_back({i, t});
      start.push_back(chosen ? 1.0 : 0.0);
    }
  }
  const StartProgram program = internal::BuildStartProgram(instance, *columns, true);
  return SolveMip(program.program, options.limits, &start);
}

absl::Status Prove(const UnitInstance& instance, const HindsightOptions& options,
                   const Relaxation& relaxation, HindsightPlan* plan) {
  plan->best =
      *Judge(instance, ImproveStarts(instance, plan->best.starts, options.search_trials, kSearchSeed));
  if (plan->lower_bound < plan->best.total_latency) {
    std::vector<StartColumn> columns;
    auto solved = SolveExactly(instance, relaxation, plan->best, options, &columns);
    if (!solved.ok()) return solved.status();
    plan->nodes = solved->nodes;
    if (!solved->has_point) return absl::InternalError("hindsight: the solver lost its starting point");
    std::vector<int64_t> starts(instance.requests.size(), 0);
    for (size_t k = 0; k < columns.size(); ++k) {
      if (solved->values[k] > 0.5) starts[columns[k].request] = columns[k].start;
    }
    auto judged = Judge(instance, std::move(starts));
    if (!judged.ok()) return judged.status();
    plan->best = *std::move(judged);
    // What the program leaves out costs more than the incumbent, so its bound holds for every schedule.
    plan->lower_bound =
        std::max(plan->lower_bound, static_cast<int64_t>(std::ceil(solved->bound - kRounding)));
    if (solved->status == SolveStatus::kOptimal) plan->lower_bound = plan->best.total_latency;
  }
  if (plan->lower_bound >= plan->best.total_latency) {
    plan->optimum = plan->best;
  } else {
    plan->unproven = Cat("limit of time, iterations or nodes hit: the optimum is between ", plan->lower_bound,
                         " and ", plan->best.total_latency);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<HindsightPlan> PlanHindsight(const UnitInstance& instance, const HindsightOptions& options) {
  if (absl::Status status = ValidateUnitInstance(instance); !status.ok()) return status;
  HindsightPlan plan;
  for (const auto& [order, schedule] :
       {std::pair{UnitOrder::kShortestOutput, &plan.mc_sf}, std::pair{UnitOrder::kArrival, &plan.fcfs}}) {
    auto judged = Judge(instance, RunUnitStep(instance, order));
    if (!judged.ok()) return judged.status();
    *schedule = *std::move(judged);
  }
  plan.best = plan.mc_sf.total_latency <= plan.fcfs.total_latency ? plan.mc_sf : plan.fcfs;
  plan.area_bound = AreaBound(instance);
  plan.lower_bound = plan.area_bound;

  auto relaxation = SolveRelaxation(instance, Makespan(instance, plan.best), options);
  if (!relaxation.ok()) return relaxation.status();
  if (!relaxation->unsolved.empty()) {
    plan.unproven = std::move(relaxation->unsolved);
    return plan;
  }
  plan.lp_bound = relaxation->bound;
  plan.lower_bound =
      std::max(plan.lower_bound, static_cast<int64_t>(std::ceil(relaxation->bound - kRounding)));
  if (!options.exact) return plan;
  if (instance.requests.size() > options.max_requests) {
    plan.unproven = Cat("too large for the exact solver: ", instance.requests.size(), " requests, at most ",
                        options.max_requests);
    return plan;
  }
  if (absl::Status status = Prove(instance, options, *relaxation, &plan); !status.ok()) return status;
  return plan;
}

}  // namespace orrery
