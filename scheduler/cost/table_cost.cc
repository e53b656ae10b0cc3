#include "scheduler/cost/table_cost.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "scheduler/base/options.h"
#include "scheduler/base/text.h"

namespace orrery {
namespace {

constexpr double kMaxMs = 1e7;
constexpr double kLeastGap = 1e-3;  // between points, so that slopes are finite

// Where x lies among the points: the lower neighbour and how far towards the next, which may exceed 1.
std::pair<size_t, double> Locate(const std::vector<double>& points, double x) {
  const auto after = static_cast<size_t>(std::upper_bound(points.begin(), points.end(), x) - points.begin());
  const size_t low = std::min(after == 0 ? 0 : after - 1, points.size() - 2);
  return {low, (x - points[low]) / (points[low + 1] - points[low])};
}

// Measured times that fall with x are noise.
void MakeMonotone(CostCurve* curve) {
  for (size_t i = 1; i < curve->y.size(); ++i) curve->y[i] = std::max(curve->y[i], curve->y[i - 1]);
}

void StartAtZero(CostCurve* curve) {
  if (curve->x.empty() || curve->x.front() <= 0) return;
  curve->x.insert(curve->x.begin(), 0);
  curve->y.insert(curve->y.begin(), 0);
}

class TableCost final : public StepCostModel {
 public:
  explicit TableCost(CostTable table) : table_(std::move(table)) {
    MakeMonotone(&table_.tokens);
    StartAtZero(&table_.prefill);
    MakeMonotone(&table_.prefill);
    for (CostCurve& curve : table_.decode) {
      StartAtZero(&curve);
      MakeMonotone(&curve);
    }
  }

  Duration Predict(const StepShape& shape) const override {
    if (shape.tokens() == 0) return {};
    double ms = CurveAt(table_.tokens, std::max<double>(shape.tokens(), table_.tokens.x.front()));
    if (shape.chunks > 0 && !table_.prefill.x.empty()) ms += CurveAt(table_.prefill, shape.prefill_squares);
    if (shape.decodes > 0 && !table_.decode.empty()) {
      ms += Decode(shape.decodes, static_cast<double>(shape.decode_context) / shape.decodes);
    }
    return Duration::Nanoseconds(std::llround(std::clamp(ms, 0.0, kMaxMs) * 1e6));
  }

 private:
  double Decode(double sequences, double context) const {
    const std::vector<double>& counts = table_.decode_seqs;
    if (counts.size() == 1 || sequences <= counts.front()) return CurveAt(table_.decode.front(), context);
    const auto [low, share] = Locate(counts, sequences);
    const double few = CurveAt(table_.decode[low], context), many = CurveAt(table_.decode[low + 1], context);
    return few + share * std::max(0.0, many - few);
  }

  CostTable table_;
};

absl::Status CheckCurve(std::string_view name, const CostCurve& curve) {
  if (curve.x.empty() || curve.x.size() != curve.y.size()) {
    return absl::InvalidArgumentError(Cat("table: ", name, " has no points"));
  }
  for (size_t i = 0; i < curve.x.size(); ++i) {
    const bool fine =
        curve.x[i] >= 0 && curve.x[i] <= 1e15 && curve.y[i] >= 0 && curve.y[i] <= kMaxMs &&
        (i == 0 ? curve.x[i] == 0 || curve.x[i] >= kLeastGap : curve.x[i] >= curve.x[i - 1] + kLeastGap);
    if (!fine) {
      return absl::InvalidArgumentError(
          Cat("table: ", name, ": point ", i + 1, " is out of range or not above the one before"));
    }
  }
  return absl::OkStatus();
}

// The part of *text up to the separator, which is taken off too.
std::string_view Take(char separator, std::string_view* text) {
  const size_t at = text->find(separator);
  const std::string_view part = text->substr(0, at);
  *text = at == std::string_view::npos ? std::string_view() : text->substr(at + 1);
  return part;
}

absl::Status ReadPoints(std::string_view key, std::string_view list, CostTable* table) {
  size_t count = 0;
  while (!list.empty()) {
    std::string_view point = Take('/', &list);
    const std::string text(point);
    std::optional<double> seqs = 0;
    if (key == "decode") seqs = ParseNumber<double>(Take('x', &point));
    const auto x = ParseNumber<double>(Take(':', &point));
    const auto y = ParseNumber<double>(point);
    if (!seqs || !x || !y || ++count > kMaxTablePoints) {
      return absl::InvalidArgumentError(Cat("table: ", key, ": '", text.substr(0, 64), "' is not a point"));
    }
    CostCurve* curve = key == "tokens" ? &table->tokens : &table->prefill;
    if (key == "decode") {
      if (table->decode_seqs.empty() || table->decode_seqs.back() != *seqs) {
        table->decode_seqs.push_back(*seqs);
        table->decode.emplace_back();
      }
      curve = &table->decode.back();
    }
    curve->x.push_back(*x);
    curve->y.push_back(*y);
  }
  return absl::OkStatus();
}

void WriteCurve(std::string_view prefix, const CostCurve& curve, std::string* out) {
  for (size_t i = 0; i < curve.x.size(); ++i) {
    const bool first = out->empty() || out->back() == '=';
    *out += Cat(first ? "" : "/", prefix, curve.x[i], ":", curve.y[i]);
  }
}

}  // namespace

double CurveAt(const CostCurve& curve, double x) {
  if (curve.x.size() == 1) return curve.y[0];
  const auto [low, share] = Locate(curve.x, x);
  return curve.y[low] + share * (curve.y[low + 1] - curve.y[low]);
}

absl::Status CheckTable(const CostTable& table) {
  if (absl::Status status = CheckCurve("tokens", table.tokens); !status.ok()) return status;
  if (!table.prefill.x.empty()) {
    if (absl::Status status = CheckCurve("prefill", table.prefill); !status.ok()) return status;
  }
  size_t points = table.tokens.x.size() + table.prefill.x.size();
  for (size_t i = 0; i < table.decode.size(); ++i) {
    if (absl::Status status = CheckCurve("decode", table.decode[i]); !status.ok()) return status;
    if (!(table.decode_seqs[i] >= 1 && table.decode_seqs[i] <= 1e6) ||
        (i > 0 && table.decode_seqs[i] <= table.decode_seqs[i - 1])) {
      return absl::InvalidArgumentError("table: decode: sequences are out of range or do not ascend");
    }
    points += table.decode[i].x.size();
  }
  if (points > kMaxTablePoints) {
    return absl::InvalidArgumentError(Cat("table: ", points, " points are more than ", kMaxTablePoints));
  }
  return absl::OkStatus();
}

std::unique_ptr<StepCostModel> NewTableCost(CostTable table) {
  return std::make_unique<TableCost>(std::move(table));
}

absl::StatusOr<CostTable> ParseCostTable(std::string_view text) {
  CostTable table;
  while (!text.empty()) {
    std::string_view list = Take(',', &text);
    const std::string_view key = Take('=', &list);
    if (key != "tokens" && key != "prefill" && key != "decode") {
      return UnknownName("part of table", key, {"tokens", "prefill", "decode"});
    }
    if (absl::Status status = ReadPoints(key, list, &table); !status.ok()) return status;
  }
  if (absl::Status status = CheckTable(table); !status.ok()) return status;
  return table;
}

std::string FormatCostTable(const CostTable& table) {
  std::string text = "tokens=", part;
  WriteCurve("", table.tokens, &text);
  if (!table.prefill.x.empty()) WriteCurve("", table.prefill, &(text += ",prefill="));
  if (!table.decode.empty()) text += ",decode=";
  for (size_t i = 0; i < table.decode.size(); ++i) {
    WriteCurve(Cat(table.decode_seqs[i], "x"), table.decode[i], &text);
  }
  return Cat("table:", text);
}

}  // namespace orrery
