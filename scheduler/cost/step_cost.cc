#include "scheduler/cost/step_cost.h"

#include <algorithm>
#include <cmath>

#include "scheduler/base/options.h"
#include "scheduler/base/text.h"
#include "scheduler/cost/online_cost.h"
#include "scheduler/cost/table_cost.h"

namespace orrery {
namespace {

constexpr double kMaxMilliseconds = 1e7;

Duration FromMilliseconds(double ms) {
  return Duration::Nanoseconds(std::llround(std::clamp(ms, 0.0, kMaxMilliseconds) * 1e6));
}

class LinearCost final : public StepCostModel {
 public:
  explicit LinearCost(const LinearCostOptions& options) : o_(options) {}
  Duration Predict(const StepShape& shape) const override {
    double ms = std::max(shape.decodes > 0 ? o_.alpha_decode : 0, shape.chunks > 0 ? o_.alpha_prefill : 0);
    ms += o_.per_seq * shape.decodes + o_.per_kv_token * static_cast<double>(shape.decode_context);
    ms += o_.per_token * shape.prefill_tokens + o_.per_token_sq * shape.prefill_squares;
    return FromMilliseconds(ms);
  }

 private:
  LinearCostOptions o_;
};

struct TileCostOptions {
  double c = 0, a = 0;
  int32_t b0 = 128;
};

class TileCost final : public StepCostModel {
 public:
  explicit TileCost(const TileCostOptions& options) : o_(options) {}
  Duration Predict(const StepShape& shape) const override {
    if (shape.tokens() == 0) return {};
    return FromMilliseconds(o_.c + o_.a * ((shape.tokens() + o_.b0 - 1) / o_.b0));
  }

 private:
  TileCostOptions o_;
};

constexpr OptionField<LinearCostOptions> kLinearFields[] = {
    {"alpha_decode", &LinearCostOptions::alpha_decode, 0, kMaxMilliseconds, "ms of a step with decodes"},
    {"per_seq", &LinearCostOptions::per_seq, 0, kMaxMilliseconds, "ms per decoding sequence"},
    {"per_kv_token", &LinearCostOptions::per_kv_token, 0, kMaxMilliseconds, "ms per token decodes read"},
    {"alpha_prefill", &LinearCostOptions::alpha_prefill, 0, kMaxMilliseconds, "ms of a step with prefill"},
    {"per_token", &LinearCostOptions::per_token, 0, kMaxMilliseconds, "ms per prefill token"},
    {"per_token_sq", &LinearCostOptions::per_token_sq, 0, kMaxMilliseconds, "ms per squared prefill token"},
};

constexpr OptionField<TileCostOptions> kTileFields[] = {
    {"c", &TileCostOptions::c, 0, kMaxMilliseconds, "ms of any step"},
    {"a", &TileCostOptions::a, 0, kMaxMilliseconds, "ms per tile"},
    {"b0", &TileCostOptions::b0, 1, 1 << 20, "tokens of a tile"},
};

}  // namespace

StepShape ShapeOf(const StepPlan& plan) {
  StepShape shape;
  for (const Slice& slice : plan.slices) {
    if (slice.sample && slice.count == 1) {
      shape.AddDecode(slice.begin + 1);
    } else {
      shape.AddChunk(slice.begin, slice.count);
    }
  }
  return shape;
}

std::unique_ptr<StepCostModel> NewLinearCost(const LinearCostOptions& options) {
  return std::make_unique<LinearCost>(options);
}

absl::StatusOr<std::unique_ptr<StepCostModel>> ParseStepCost(std::string_view text) {
  constexpr std::string_view kConstant = "constant:", kTable = "table:", kOnline = "online";
  if (text == kOnline) return std::make_unique<OnlineStepCost>();
  if (text.substr(0, kOnline.size() + 1) == "online:") {
    const std::string_view prior_text = text.substr(kOnline.size() + 1);
    if (prior_text.substr(0, kOnline.size()) == kOnline) {
      return absl::InvalidArgumentError("online: its prior cannot be online as well");
    }
    auto prior = ParseStepCost(prior_text);
    if (!prior.ok()) return prior.status();
    return std::make_unique<OnlineStepCost>(prior->get());
  }
  if (text.substr(0, kTable.size()) == kTable) {
    auto table = ParseCostTable(text.substr(kTable.size()));
    if (!table.ok()) return table.status();
    return NewTableCost(*std::move(table));
  }
  if (text.substr(0, kConstant.size()) == kConstant) {
    const std::string_view ms_text = text.substr(kConstant.size());
    const auto ms = ParseNumber<double>(ms_text);
    if (!ms.has_value() || !(*ms >= 0 && *ms <= kMaxMilliseconds)) {
      return absl::InvalidArgumentError(
          Cat("constant: '", ms_text, "' is not a number of milliseconds in [0, 1e7]"));
    }
    return std::make_unique<TileCost>(TileCostOptions{.c = *ms, .a = 0, .b0 = 1});
  }
  auto spec = ParseNamedSpec(text);
  if (!spec.ok()) return spec.status();
  if (spec->name == "linear") {
    auto options = ReadOptions<LinearCostOptions>(*spec, kLinearFields);
    if (!options.ok()) return options.status();
    return NewLinearCost(*options);
  }
  if (spec->name == "tile") {
    auto options = ReadOptions<TileCostOptions>(*spec, kTileFields);
    if (!options.ok()) return options.status();
    return std::make_unique<TileCost>(*options);
  }
  return UnknownName("cost model", spec->name, {"constant", "linear", "online", "table", "tile"});
}

std::string FormatLinearCost(const LinearCostOptions& o) {
  return Cat("linear:alpha_decode=", o.alpha_decode, ",per_seq=", o.per_seq, ",per_kv_token=", o.per_kv_token,
             ",alpha_prefill=", o.alpha_prefill, ",per_token=", o.per_token,
             ",per_token_sq=", o.per_token_sq);
}

}  // namespace orrery
