#include "scheduler/cost/prefill_cost.h"

#include <algorithm>

namespace orrery {

PrefillCost FitPrefill(const StepCostModel& cost) {
  // Wide enough to see past the steps of tiles and the points of tables.
  constexpr int32_t kTokens = 2048;
  constexpr double kSquares = double{kTokens} * kTokens, kMoreSquares = 64 * kSquares;
  const auto predict = [&](int32_t tokens, double squares) {
    return cost.Predict({.chunks = 1, .prefill_tokens = tokens, .prefill_squares = squares}).milliseconds();
  };
  const double base = predict(kTokens, kSquares);
  return {.per_token = std::max(0.0, predict(2 * kTokens, kSquares) - base) / kTokens,
          .per_token_sq = std::max(0.0, predict(kTokens, kMoreSquares) - base) / (kMoreSquares - kSquares)};
}

}  // namespace orrery
