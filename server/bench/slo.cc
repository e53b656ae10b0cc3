#include "server/bench/slo.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/bench/unknown_name.h"

namespace orrery::bench {

absl::Status SetSloTarget(absl::string_view name, double value_ms, SloTargets* targets) {
  std::optional<double>* target = name == "ttft"                      ? &targets->ttft_ms
                                  : name == "tpot"                    ? &targets->tpot_ms
                                  : (name == "e2e" || name == "e2el") ? &targets->e2e_ms
                                                                      : nullptr;
  if (target == nullptr) {
    return UnknownName("slo", name, {"ttft", "tpot", "e2e"});
  }
  if (!std::isfinite(value_ms) || value_ms <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("slo: ", name, " must be above 0 milliseconds"));
  }
  if (target->has_value()) return absl::InvalidArgumentError(absl::StrCat("slo: ", name, " is set twice"));
  *target = value_ms;
  return absl::OkStatus();
}

absl::StatusOr<SloTargets> ParseSlo(absl::string_view text) {
  SloTargets targets;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    const std::pair<absl::string_view, absl::string_view> pair =
        absl::StrSplit(part, absl::MaxSplits('=', 1));
    double value = 0;
    if (!absl::SimpleAtod(absl::StripAsciiWhitespace(pair.second), &value)) {
      return absl::InvalidArgumentError(
          absl::StrCat("slo: '", part, "' is not NAME=MS (as in ttft=500,tpot=50,e2e=10000)"));
    }
    if (auto s = SetSloTarget(absl::StripAsciiWhitespace(pair.first), value, &targets); !s.ok()) return s;
  }
  return targets;
}

}  // namespace orrery::bench
