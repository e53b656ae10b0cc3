#include "scheduler/base/options.h"

#include <algorithm>
#include <cmath>

#include "scheduler/base/text.h"

namespace orrery {
namespace {

constexpr size_t kMaxSpecBytes = 4096;
constexpr size_t kMaxNameBytes = 64;  // of a name that is compared with known ones

// Levenshtein distance; both are short names.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string_view NearestName(std::string_view name, absl::Span<const std::string_view> known) {
  name = name.substr(0, kMaxNameBytes);
  std::string_view nearest;
  size_t least = name.size() / 2 + 1;
  for (const std::string_view candidate : known) {
    const size_t distance = EditDistance(name, candidate);
    if (distance < least) nearest = candidate, least = distance;
  }
  return nearest;
}

absl::StatusOr<NamedSpec> ParseNamedSpec(std::string_view text) {
  if (text.size() > kMaxSpecBytes) return absl::InvalidArgumentError("policy specification is too long");
  NamedSpec spec;
  const size_t colon = text.find(':');
  spec.name = std::string(text.substr(0, colon));
  if (spec.name.empty()) return absl::InvalidArgumentError(Cat("'", text, "' has no name"));
  if (colon == std::string_view::npos) return spec;
  for (const std::string_view item : Split(text.substr(colon + 1), ',')) {
    const size_t equals = item.find('=');
    if (equals == 0 || equals == std::string_view::npos || equals + 1 == item.size()) {
      return absl::InvalidArgumentError(Cat("'", item, "' in '", text, "' is not of the form key=value"));
    }
    const std::string key(item.substr(0, equals));
    for (const auto& [known, value] : spec.options) {
      if (known == key) return absl::InvalidArgumentError(Cat("'", key, "' is given twice in '", text, "'"));
    }
    spec.options.emplace_back(key, std::string(item.substr(equals + 1)));
  }
  return spec;
}

absl::StatusOr<double> ParseOptionValue(std::string_view owner, const OptionInfo& option,
                                        std::string_view text) {
  double value = 0;
  bool parsed = false;
  if (option.type == "int") {
    const auto whole = ParseNumber<int64_t>(text);
    parsed = whole.has_value();
    value = static_cast<double>(whole.value_or(0));
  } else if (option.type == "flag") {
    value = text == "on" || text == "true" || text == "1";
    parsed = value != 0 || text == "off" || text == "false" || text == "0";
  } else {
    const auto real = ParseNumber<double>(text);
    parsed = real.has_value() && std::isfinite(*real);
    value = real.value_or(0);
  }
  if (!parsed) {
    return absl::InvalidArgumentError(
        Cat(owner, ": option ", option.name, " = '", text, "' is not of type ", option.type));
  }
  if (value < option.low || value > option.high) {
    return absl::InvalidArgumentError(Cat(owner, ": option ", option.name, " = ", text, " is outside [",
                                          option.low, ", ", option.high, "]"));
  }
  return value;
}

absl::Status UnknownName(std::string_view what, std::string_view name,
                         absl::Span<const std::string_view> known) {
  if (known.empty())
    return absl::InvalidArgumentError(Cat("unknown ", what, " '", name, "'; there are none"));
  std::string all;
  for (const std::string_view candidate : known) all += Cat(all.empty() ? "" : ", ", candidate);
  const std::string_view nearest = NearestName(name, known);
  const std::string meant = nearest.empty() ? "." : Cat("; did you mean '", nearest, "'?");
  return absl::InvalidArgumentError(
      Cat("unknown ", what, " '", name.substr(0, kMaxNameBytes), "'", meant, " Known: ", all));
}

}  // namespace orrery
