// Step times from tables of measurements, interpolated between them:
//   T = tokens(decodes + prefill tokens) + prefill(sum of (end^2 - begin^2)) + decode(sequences, mean
//   context)
// The first part is everything that depends on the number of rows alone (matrix products, normalisation,
// communication; of whole-model measurements all of it), the others are attention. Linear between points and
// beyond the last ones; below the first point of `tokens` its time, of the others a line from nothing. Times
// that fall along a curve are noise and kept level.
#ifndef ORRERY_SCHEDULER_COST_TABLE_COST_H_
#define ORRERY_SCHEDULER_COST_TABLE_COST_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "scheduler/cost/step_cost.h"

namespace orrery {

// y over x, ascending x.
struct CostCurve {
  std::vector<double> x, y;
};

// Linear between points and beyond them. REQUIRES: a point.
double CurveAt(const CostCurve& curve, double x);

struct CostTable {
  CostCurve tokens;                 // tokens -> ms; at least one point
  CostCurve prefill;                // sum of end^2 - begin^2 -> ms; may be empty
  std::vector<double> decode_seqs;  // ascending; may be empty
  std::vector<CostCurve> decode;    // by sequences: mean context -> ms
};

// At most this many points in all.
inline constexpr size_t kMaxTablePoints = 4096;

// Points that are not finite, negative or not ascending by at least 0.001, a curve without points, too many:
// INVALID_ARGUMENT.
absl::Status CheckTable(const CostTable& table);
// REQUIRES: CheckTable is ok.
std::unique_ptr<StepCostModel> NewTableCost(CostTable table);

// "table:tokens=X:MS/X:MS/...[,prefill=X:MS/...][,decode=SEQSxCONTEXT:MS/...]"; Parse takes what follows the
// first colon.
absl::StatusOr<CostTable> ParseCostTable(std::string_view text);
std::string FormatCostTable(const CostTable& table);

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_COST_TABLE_COST_H_
