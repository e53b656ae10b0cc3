#include "scheduler/planning/start_program.h"

#include <algorithm>

#include "scheduler/base/text.h"

namespace orrery::internal {

int64_t FullHorizon(const UnitInstance& instance) {
  int64_t last = 0, sum = 0;
  for (const UnitRequest& r : instance.requests) {
    last = std::max(last, r.arrival);
    sum += r.output_tokens;
  }
  return last + sum;
}

std::vector<StartColumn> ColumnsUntil(const UnitInstance& instance, int64_t horizon) {
  std::vector<StartColumn> columns;
  for (size_t i = 0; i < instance.requests.size(); ++i) {
    const UnitRequest& r = instance.requests[i];
    for (int64_t t = r.arrival; t + r.output_tokens <= horizon; ++t) columns.push_back({i, t});
  }
  return columns;
}

double CountTerms(const UnitInstance& instance, int64_t horizon) {
  double terms = 0.0;
  for (const UnitRequest& r : instance.requests) {
    const auto starts = static_cast<double>(std::max<int64_t>(0, horizon - r.output_tokens - r.arrival + 1));
    terms += starts * static_cast<double>(r.output_tokens + 1);
  }
  return terms;
}

StartProgram BuildStartProgram(const UnitInstance& instance, const std::vector<StartColumn>& columns,
                               bool integer, const std::vector<std::vector<size_t>>& cliques) {
  StartProgram built;
  for (size_t i = 0; i < instance.requests.size(); ++i)
    built.program.Add(Constraint{Cat("request ", i), 1, 1});

  // The most each round could hold: every request there with its largest token count. Rounds that cannot
  // overflow need no row.
  int64_t horizon = 0;
  for (const StartColumn& c : columns)
    horizon = std::max(horizon, c.start + instance.requests[c.request].output_tokens);
  std::vector<int64_t> most(static_cast<size_t>(horizon) + 1, 0), held(most.size(), 0);
  for (size_t k = 0; k < columns.size();) {
    const size_t i = columns[k].request;
    const UnitRequest& r = instance.requests[i];
    std::fill(held.begin(), held.end(), int64_t{0});
    for (; k < columns.size() && columns[k].request == i; ++k) {
      for (int64_t j = 1; j <= r.output_tokens; ++j) {
        int64_t& there = held[static_cast<size_t>(columns[k].start + j)];
        there = std::max(there, r.prompt_tokens + j);
      }
    }
    for (size_t round = 0; round < most.size(); ++round) most[round] += held[round];
  }
  constexpr int32_t kNoRow = -1;
  std::vector<int32_t> row(most.size(), kNoRow);
  for (size_t round = 0; round < most.size(); ++round) {
    if (most[round] <= instance.kv_capacity_tokens) continue;
    row[round] = static_cast<int32_t>(built.program.Add(
        Constraint{Cat("round ", round), -kInfinity, static_cast<double>(instance.kv_capacity_tokens)}));
    built.rounds.push_back(static_cast<int64_t>(round));
  }

  for (const StartColumn& c : columns) {
    const UnitRequest& r = instance.requests[c.request];
    const VariableId x =
        built.program.Add(Variable{"", 0.0, integer ? 1.0 : kInfinity,
                                   static_cast<double>(c.start + r.output_tokens - r.arrival), integer});
    built.program.AddTerm(static_cast<ConstraintId>(c.request), x, 1.0);
    for (int64_t j = 1; j <= r.output_tokens; ++j) {
      const int32_t id = row[static_cast<size_t>(c.start + j)];
      if (id != kNoRow)
        built.program.AddTerm(static_cast<ConstraintId>(id), x, static_cast<double>(r.prompt_tokens + j));
    }
  }
  for (size_t c = 0; c < cliques.size(); ++c) {
    const ConstraintId row_of = built.program.Add(Constraint{Cat("clique ", c), -kInfinity, 1.0});
    for (const size_t column : cliques[c])
      built.program.AddTerm(row_of, static_cast<VariableId>(column), 1.0);
  }
  return built;
}

ColumnPricer::ColumnPricer(const UnitInstance& instance, const StartProgram& solved,
                           const std::vector<double>& duals)
    : instance_(instance) {
  const size_t n = instance.requests.size();
  choice_.assign(duals.begin(), duals.begin() + static_cast<std::ptrdiff_t>(n));
  const int64_t last = solved.rounds.empty() ? 0 : solved.rounds.back();
  price_.assign(static_cast<size_t>(last) + 1, 0.0);
  weighted_ = price_;
  for (size_t k = 0; k < solved.rounds.size(); ++k) {
    const auto round = static_cast<size_t>(solved.rounds[k]);
    price_[round] = duals[n + k];
    weighted_[round] = duals[n + k] * static_cast<double>(round);
  }
  for (size_t round = 1; round < price_.size(); ++round) {
    price_[round] += price_[round - 1];
    weighted_[round] += weighted_[round - 1];
  }
}

double ColumnPricer::ReducedCost(const StartColumn& column) const {
  const UnitRequest& r = instance_.requests[column.request];
  const auto at = [last = priced_until()](const std::vector<double>& sums, int64_t round) {
    return sums[static_cast<size_t>(std::min(round, last))];
  };
  const int64_t end = column.start + r.output_tokens;
  const double price = at(price_, end) - at(price_, column.start);
  const double weighted = at(weighted_, end) - at(weighted_, column.start);
  const double memory = static_cast<double>(r.prompt_tokens - column.start) * price + weighted;
  return static_cast<double>(end - r.arrival) - choice_[column.request] - memory;
}

}  // namespace orrery::internal
