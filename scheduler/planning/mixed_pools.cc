#include "scheduler/planning/mixed_pools.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "scheduler/base/text.h"
#include "scheduler/solver/solver.h"

namespace orrery {
namespace {

constexpr double kMost = 1e12;     // of any number given
constexpr double kBinding = 1e-9;  // a price above this, relative to the largest, holds its limit
constexpr double kWhole = 1e-9;    // n * share is a whole number of workers within this

absl::Status CheckNumber(std::string_view field, double value, double low, bool low_allowed) {
  if (std::isfinite(value) && value <= kMost && (value > low || (low_allowed && value == low)))
    return absl::OkStatus();
  return absl::InvalidArgumentError(
      Cat(field, " must be in ", low_allowed ? "[" : "(", low, ", ", kMost, "], not ", value));
}

absl::Status CheckClass(const MixedPoolsInput& in, size_t i) {
  const PoolClass& c = in.classes[i];
  const std::string at = Cat("classes[", i, "].");
  for (const absl::Status& status :
       {CheckNumber(at + "prompt_tokens", c.prompt_tokens, 0, false),
        CheckNumber(at + "output_tokens", c.output_tokens, 0, false),
        CheckNumber(at + "arrival_rate_per_worker_s", c.arrival_rate_per_worker_s, 0, true),
        CheckNumber(at + "abandon_rate_per_s", c.abandon_rate_per_s, 0, true),
        CheckNumber(at + "reward", c.reward.value_or(0), 0, true)}) {
    if (!status.ok()) return status;
  }
  if (c.reward && in.charge_separately)
    return absl::InvalidArgumentError(at +
                                      "reward: is for bundled charging; separate charging uses the prices");
  return absl::OkStatus();
}

absl::Status Check(const MixedPoolsInput& in) {
  if (in.classes.empty()) return absl::InvalidArgumentError("classes: at least one");
  if (in.classes.size() > kMaxPoolClasses)
    return absl::ResourceExhaustedError(Cat("classes: ", in.classes.size(), ", at most ", kMaxPoolClasses));
  if (in.fleet_sizes.size() > kMaxFleetSizes)
    return absl::ResourceExhaustedError(
        Cat("fleet_sizes: ", in.fleet_sizes.size(), ", at most ", kMaxFleetSizes));
  for (const absl::Status& status :
       {CheckNumber("alpha_s", in.alpha_s, 0, true),
        CheckNumber("beta_s_per_token", in.beta_s_per_token, 0, true),
        CheckNumber("solo_decode_rate_per_s", in.solo_decode_rate_per_s, 0, false),
        CheckNumber("slots", static_cast<double>(in.slots), 1, true),
        CheckNumber("prefill_chunk_tokens", static_cast<double>(in.prefill_chunk_tokens), 1, true),
        CheckNumber("price_prompt", in.price_prompt, 0, true),
        CheckNumber("price_output", in.price_output, 0, true),
        CheckNumber("alpha_s + beta_s_per_token * prefill_chunk_tokens",
                    in.alpha_s + in.beta_s_per_token * static_cast<double>(in.prefill_chunk_tokens), 0,
                    false)}) {
    if (!status.ok()) return status;
  }
  for (size_t k = 0; k < in.fleet_sizes.size(); ++k) {
    if (in.fleet_sizes[k] < 1 || in.fleet_sizes[k] > 1'000'000'000)
      return absl::InvalidArgumentError(
          Cat("fleet_sizes[", k, "] must be in [1, 1000000000], not ", in.fleet_sizes[k]));
  }
  for (size_t i = 0; i < in.classes.size(); ++i) {
    if (absl::Status status = CheckClass(in, i); !status.ok()) return status;
  }
  return absl::OkStatus();
}

// The five variables of a class, in this order; the three shared rows come before its two.
enum Column : int32_t { kX, kMixed, kSolo, kWaitPrefill, kWaitDecode, kColumns };
enum Row : int32_t { kWorkers, kMixedSlots, kSoloSlots, kSharedRows };

VariableId ColumnOf(size_t i, Column column) {
  return static_cast<VariableId>(static_cast<int32_t>(i) * kColumns + column);
}
size_t Index(size_t i, Column column) { return static_cast<size_t>(ColumnOf(i, column)); }
size_t PrefillRow(size_t i) { return kSharedRows + 2 * i; }
size_t DecodeRow(size_t i) { return PrefillRow(i) + 1; }

struct Rates {
  double prefill, mixed, solo;  // p_i, m_i, s_i
};

Rates RatesOf(const MixedPoolsInput& in, const PoolClass& c) {
  const double chunk = static_cast<double>(in.prefill_chunk_tokens);
  const double tau = in.alpha_s + in.beta_s_per_token * chunk;
  return {chunk / (c.prompt_tokens * tau), 1.0 / (c.output_tokens * tau),
          in.solo_decode_rate_per_s / c.output_tokens};
}

void AddClass(const MixedPoolsInput& in, size_t i, LinearProgram* program) {
  const PoolClass& c = in.classes[i];
  const Rates rates = RatesOf(in, c);
  const std::string name = c.name.empty() ? Cat("class ", i) : Cat("class '", c.name, "'");
  double per_prefill = 0.0;
  double per_completion =
      c.reward.value_or(in.price_prompt * c.prompt_tokens + in.price_output * c.output_tokens);
  if (in.charge_separately) {
    per_prefill = in.price_prompt * c.prompt_tokens;
    per_completion = in.price_output * c.output_tokens;
  }
  const auto add = [&](std::string_view what, double objective) {
    program->Add(Variable{Cat(what, " of ", name), 0.0, kInfinity, objective, false});
  };
  add("prefill", per_prefill * rates.prefill);
  add("mixed decode", per_completion * rates.mixed);
  add("solo decode", per_completion * rates.solo);
  add("waiting for prefill", 0.0);
  add("waiting for decode", 0.0);
  const ConstraintId prefill = program->Add(
      Constraint{Cat("prefill flow of ", name), c.arrival_rate_per_worker_s, c.arrival_rate_per_worker_s});
  const ConstraintId decode = program->Add(Constraint{Cat("decode flow of ", name), 0.0, 0.0});

  const auto slots = static_cast<double>(in.slots);
  const auto shared = [&](Row row, Column column, double coefficient) {
    program->AddTerm(static_cast<ConstraintId>(row), ColumnOf(i, column), coefficient);
  };
  shared(kWorkers, kX, 1.0);
  shared(kMixedSlots, kMixed, 1.0);
  shared(kMixedSlots, kX, -(slots - 1.0));
  shared(kSoloSlots, kSolo, 1.0);
  shared(kSoloSlots, kX, slots);
  program->AddTerm(prefill, ColumnOf(i, kX), rates.prefill);
  program->AddTerm(prefill, ColumnOf(i, kWaitPrefill), c.abandon_rate_per_s);
  program->AddTerm(decode, ColumnOf(i, kX), rates.prefill);
  program->AddTerm(decode, ColumnOf(i, kWaitDecode), -c.abandon_rate_per_s);
  program->AddTerm(decode, ColumnOf(i, kMixed), -rates.mixed);
  program->AddTerm(decode, ColumnOf(i, kSolo), -rates.solo);
}

// The optima of a solved program and nothing else (complementary slackness: what has a price stays at its
// limit), with the sum of one kind of variables to minimise.
LinearProgram OptimalFace(const LinearProgram& program, const LpSolution& solution, Column least) {
  LinearProgram face(Sense::kMinimize);
  double largest = 0.0;
  for (const double cost : solution.reduced_costs) largest = std::max(largest, std::abs(cost));
  for (const double dual : solution.duals) largest = std::max(largest, std::abs(dual));
  const double binding = kBinding * std::max(largest, 1e-3);
  for (size_t j = 0; j < program.variables().size(); ++j) {
    Variable v = program.variables()[j];
    if (std::abs(solution.reduced_costs[j]) > binding) v.upper = v.lower;
    v.objective = j % kColumns == static_cast<size_t>(least) ? 1.0 : 0.0;
    face.Add(std::move(v));
  }
  for (size_t r = 0; r < program.constraints().size(); ++r) {
    Constraint c = program.constraints()[r];
    if (std::abs(solution.duals[r]) > binding) c.lower = c.upper;
    face.Add(std::move(c));
  }
  for (const Term& term : program.terms()) face.AddTerm(term.constraint, term.variable, term.coefficient);
  return face;
}

absl::Status NoPlan(const LpSolution& solution) {
  if (solution.status != SolveStatus::kInfeasible)
    return absl::InternalError(Cat("mixed-pools: program is ", SolveStatusName(solution.status)));
  std::string names;
  for (const std::string& name : solution.conflict) {
    if (!names.empty()) names += ", ";
    names += Cat("\"", name, "\"");
  }
  return absl::FailedPreconditionError(Cat("no plan meets these constraints together: ", names,
                                           "; without abandonment every arrival must be served"));
}

MixedPoolsPlan Read(const MixedPoolsInput& in, const LpSolution& prices, const std::vector<double>& values) {
  MixedPoolsPlan plan;
  plan.objective = prices.objective;
  // Adding 0 makes -0 of the solver 0.
  plan.price_worker = prices.duals[kWorkers] + 0.0;
  plan.price_mixed_slot = prices.duals[kMixedSlots] + 0.0;
  plan.price_solo_slot = prices.duals[kSoloSlots] + 0.0;
  double share = 0.0;
  for (size_t i = 0; i < in.classes.size(); ++i) {
    const auto value = [&](Column column) { return std::max(0.0, values[Index(i, column)]); };
    const Rates rates = RatesOf(in, in.classes[i]);
    plan.x.push_back(value(kX));
    plan.y_mixed.push_back(value(kMixed));
    plan.y_solo.push_back(value(kSolo));
    plan.q_prefill.push_back(value(kWaitPrefill));
    plan.q_decode.push_back(value(kWaitDecode));
    const double solo = rates.solo * value(kSolo), all = solo + rates.mixed * value(kMixed);
    plan.solo_probability.push_back(all > 0.0 ? solo / all : 1.0);
    plan.price_prefill.push_back(prices.duals[PrefillRow(i)] + 0.0);
    plan.price_decode.push_back(prices.duals[DecodeRow(i)] + 0.0);
    share += value(kX);
  }
  for (const int64_t n : in.fleet_sizes) {
    const double mixed = std::ceil(static_cast<double>(n) * (share - kWhole));
    plan.mixed_workers.push_back(std::clamp<int64_t>(static_cast<int64_t>(mixed), 0, n));
  }
  return plan;
}

}  // namespace

absl::StatusOr<MixedPoolsPlan> PlanMixedPools(const MixedPoolsInput& in) {
  if (absl::Status status = Check(in); !status.ok()) return status;
  LinearProgram program(Sense::kMaximize);
  program.Add(Constraint{"workers", -kInfinity, 1.0});
  program.Add(Constraint{"mixed decode slots", -kInfinity, 0.0});
  program.Add(Constraint{"solo decode slots", -kInfinity, static_cast<double>(in.slots)});
  for (size_t i = 0; i < in.classes.size(); ++i) AddClass(in, i, &program);
  const auto solution = SolveLp(program);
  if (!solution.ok()) return solution.status();
  if (solution->status != SolveStatus::kOptimal) return NoPlan(*solution);

  // Among all optima: few waiting for decode, few waiting for prefill, few decodes on mixed workers.
  LpSolution last = *solution;
  for (const Column least : {kWaitDecode, kWaitPrefill, kMixed}) {
    LinearProgram face = OptimalFace(program, last, least);
    auto chosen = SolveLp(face);
    if (!chosen.ok() || chosen->status != SolveStatus::kOptimal) break;  // a rounding: any optimum will do
    program = std::move(face);
    last = *std::move(chosen);
  }
  return Read(in, *solution, last.values);
}

}  // namespace orrery
