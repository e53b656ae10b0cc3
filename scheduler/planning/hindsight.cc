#include "scheduler/planning/hindsight.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "scheduler/base/text.h"
#include "scheduler/planning/dual_bound.h"
#include "scheduler/planning/start_cliques.h"
#include "scheduler/planning/start_program.h"

namespace orrery {
namespace {

using internal::ColumnPricer;
using internal::StartColumn;
using internal::StartProgram;

constexpr double kWanted = -1e-6;   // a reduced cost below this
constexpr double kRounding = 1e-5;  // by which an LP bound may overstate
constexpr uint64_t kSearchSeed = 1;
constexpr size_t kCutsPerRound = 60;
constexpr int kIdleRounds = 3;
constexpr double kPays = 2e-4;  // of the bound: a round of cuts that raises it less is idle
constexpr double kNoPrice = 1e-9;
// Starts that the dual bound prices in all, and the fewest climbs that say anything.
constexpr double kDualWork = 2e9;
constexpr double kFewestClimbs = 100;

SolveLimits LimitsNow(const HindsightOptions& options) {
  SolveLimits limits = options.limits;
  if (options.seconds_left)
    limits.wall_seconds = std::clamp(options.seconds_left(), 1e-3, limits.wall_seconds);
  return limits;
}

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

std::optional<double> BoundByDual(const UnitInstance& instance, int64_t makespan,
                                  const HindsightOptions& options) {
  const double starts = static_cast<double>(instance.requests.size()) * static_cast<double>(makespan);
  const double climbs = std::min<double>(options.dual_climbs, kDualWork / std::max(1.0, starts));
  if (climbs < std::min<double>(options.dual_climbs, kFewestClimbs)) return std::nullopt;
  return DualBound(instance, makespan, static_cast<int>(climbs),
                   [&] { return !options.seconds_left || options.seconds_left() > 0; });
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
    auto solution = SolveLp(relaxation.program.program, LimitsNow(options));
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

// The integer program, as far as it has been cut down.
struct Exact {
  std::vector<StartColumn> columns;
  std::vector<std::vector<size_t>> cliques;
  double bound = 0.0;
};

// Drops the columns that `keep` does not name; indices in the cliques follow.
void Keep(const std::vector<bool>& keep, Exact* exact) {
  std::vector<size_t> place(keep.size(), 0);
  std::vector<StartColumn> columns;
  for (size_t k = 0; k < keep.size(); ++k) {
    place[k] = columns.size();
    if (keep[k]) columns.push_back(exact->columns[k]);
  }
  for (std::vector<size_t>& clique : exact->cliques) {
    std::vector<size_t> left;
    for (const size_t k : clique) {
      if (keep[k]) left.push_back(place[k]);
    }
    clique = std::move(left);
  }
  exact->columns = std::move(columns);
}

// Every column that a schedule of at most `best.total_latency` can use: any other costs its reduced cost more
// than the relaxation.
Exact UsableColumns(const UnitInstance& instance, const Relaxation& relaxation,
                    const HindsightSchedule& best) {
  const ColumnPricer pricer(instance, relaxation.program, relaxation.duals);
  const int64_t full = internal::FullHorizon(instance);
  const double slack = static_cast<double>(best.total_latency) - relaxation.bound + kRounding;
  Exact exact;
  exact.bound = relaxation.bound;
  for (size_t i = 0; i < instance.requests.size(); ++i) {
    const UnitRequest& r = instance.requests[i];
    for (int64_t t = r.arrival; t + r.output_tokens <= full; ++t) {
      if (best.starts[i] == t || pricer.ReducedCost({i, t}) <= slack) {
        exact.columns.push_back({i, t});
      } else if (t > std::max(pricer.priced_until(), best.starts[i])) {
        break;  // later ones only cost more
      }
    }
  }
  return exact;
}

// What no better schedule uses, and cuts that cost nothing at this optimum, go.
void Shrink(const LpSolution& solved, const HindsightSchedule& best, double slack, Exact* exact) {
  const size_t first = solved.duals.size() - exact->cliques.size();
  std::vector<std::vector<size_t>> binding;
  for (size_t c = 0; c < exact->cliques.size(); ++c) {
    if (std::abs(solved.duals[first + c]) > kNoPrice) binding.push_back(std::move(exact->cliques[c]));
  }
  exact->cliques = std::move(binding);
  std::vector<bool> keep(exact->columns.size(), true);
  for (size_t k = 0; k < keep.size(); ++k) {
    const StartColumn& c = exact->columns[k];
    keep[k] = solved.reduced_costs[k] <= slack || best.starts[c.request] == c.start;
  }
  Keep(keep, exact);
}

// Rounds of cuts: each solves the relaxation, shrinks the program, and cuts the point off. Ends when the
// schedule is proven, when no cut is found, and when cuts no longer pay.
absl::Status Tighten(const UnitInstance& instance, const HindsightSchedule& best,
                     const HindsightOptions& options, Exact* exact) {
  int idle_rounds = 0;
  for (int round = 0; round < options.cut_rounds && idle_rounds < kIdleRounds; ++round) {
    const StartProgram program = internal::BuildStartProgram(instance, exact->columns, false, exact->cliques);
    const auto solved = SolveLp(program.program, LimitsNow(options));
    if (!solved.ok()) return solved.status();
    if (solved->status != SolveStatus::kOptimal) return absl::OkStatus();
    idle_rounds = solved->objective < exact->bound * (1.0 + kPays) ? idle_rounds + 1 : 0;
    exact->bound = std::max(exact->bound, solved->objective);
    // Better means at least one round less.
    const double slack = static_cast<double>(best.total_latency) - 1.0 - solved->objective + kRounding;
    if (slack < 0.0) return absl::OkStatus();
    auto cliques = internal::ViolatedCliques(instance, exact->columns, solved->values, kCutsPerRound);
    if (cliques.empty()) idle_rounds = kIdleRounds;
    const size_t old = exact->cliques.size();
    for (auto& clique : cliques) exact->cliques.push_back(std::move(clique));
    LpSolution priced = *solved;  // the new cuts have no price yet and stay
    priced.duals.resize(priced.duals.size() + exact->cliques.size() - old, 1.0);
    Shrink(priced, best, slack, exact);
  }
  return absl::OkStatus();
}

absl::StatusOr<MipSolution> Branch(const UnitInstance& instance, const HindsightSchedule& best,
                                   const HindsightOptions& options, const Exact& exact) {
  std::vector<double> start;
  for (const StartColumn& c : exact.columns) start.push_back(best.starts[c.request] == c.start ? 1.0 : 0.0);
  const StartProgram program = internal::BuildStartProgram(instance, exact.columns, true, exact.cliques);
  return SolveMip(program.program, LimitsNow(options), &start);
}

absl::Status Prove(const UnitInstance& instance, const HindsightOptions& options,
                   const Relaxation& relaxation, HindsightPlan* plan) {
  auto searched =
      Judge(instance, ImproveStarts(instance, plan->best.starts, options.search_trials, kSearchSeed));
  if (!searched.ok()) return searched.status();
  plan->best = *std::move(searched);
  // What is left out on the way costs at least as much as `best`: a bound above it only says that it is
  // optimal.
  const auto raise = [plan](double bound) {
    const auto whole = static_cast<int64_t>(std::ceil(bound - kRounding));
    plan->lower_bound = std::max(plan->lower_bound, std::min(whole, plan->best.total_latency));
  };
  Exact exact;
  if (plan->lower_bound < plan->best.total_latency) {
    exact = UsableColumns(instance, relaxation, plan->best);
    if (absl::Status status = Tighten(instance, plan->best, options, &exact); !status.ok()) return status;
    raise(exact.bound);
  }
  if (plan->lower_bound < plan->best.total_latency) {
    auto solved = Branch(instance, plan->best, options, exact);
    if (!solved.ok()) return solved.status();
    plan->nodes = solved->nodes;
    if (!solved->has_point) return absl::InternalError("hindsight: the solver lost its starting point");
    std::vector<int64_t> starts(instance.requests.size(), 0);
    for (size_t k = 0; k < exact.columns.size(); ++k) {
      if (solved->values[k] > 0.5) starts[exact.columns[k].request] = exact.columns[k].start;
    }
    raise(solved->bound);
    auto judged = Judge(instance, std::move(starts));
    if (!judged.ok()) return judged.status();
    plan->best = *std::move(judged);
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

  const int64_t makespan = Makespan(instance, plan.best);
  auto relaxation = SolveRelaxation(instance, makespan, options);
  if (!relaxation.ok()) return relaxation.status();
  const bool solved = relaxation->unsolved.empty();
  if (solved) {
    plan.lp_bound = relaxation->bound;
  } else {
    plan.dual_bound = BoundByDual(instance, makespan, options);
    if (options.exact || !plan.dual_bound.has_value()) plan.unproven = std::move(relaxation->unsolved);
  }
  if (const auto bound = solved ? plan.lp_bound : plan.dual_bound; bound.has_value()) {
    plan.lower_bound = std::max(plan.lower_bound, static_cast<int64_t>(std::ceil(*bound - kRounding)));
  }
  if (!solved || !options.exact) return plan;
  if (instance.requests.size() > options.max_requests) {
    plan.unproven = Cat("too large for the exact solver: ", instance.requests.size(), " requests, at most ",
                        options.max_requests);
    return plan;
  }
  if (absl::Status status = Prove(instance, options, *relaxation, &plan); !status.ok()) return status;
  return plan;
}

}  // namespace orrery
