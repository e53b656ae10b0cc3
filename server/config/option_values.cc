#include "server/config/option_values.h"

#include <cmath>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace orrery {
namespace {

struct Unit {
  absl::string_view name;
  double factor;
};
constexpr Unit kByteUnits[] = {
    {"", 1}, {"b", 1}, {"k", 1024.0}, {"m", 1048576.0}, {"g", 1073741824.0}, {"t", 1099511627776.0}};
constexpr Unit kTimeUnits[] = {{"ns", 1},  {"us", 1e3}, {"ms", 1e6},  {"", 1e9},
                               {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}};

// Splits "1.5s" into 1.5 and "s".
bool SplitUnit(absl::string_view text, double* number, std::string* unit) {
  size_t end = 0;
  while (end < text.size() && (absl::ascii_isdigit(text[end]) || text[end] == '.')) ++end;
  *unit = absl::AsciiStrToLower(absl::StripAsciiWhitespace(text.substr(end)));
  return end > 0 && absl::SimpleAtod(text.substr(0, end), number) && std::isfinite(*number);
}

template <size_t N>
bool Scale(double number, absl::string_view unit, const Unit (&units)[N], int64_t* out) {
  for (const Unit& known : units) {
    if (unit != known.name) continue;
    const double value = number * known.factor;
    if (!(value < 9.2e18)) return false;
    *out = static_cast<int64_t>(std::llround(value));
    return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<int64_t> ParseInteger(absl::string_view text) {
  int64_t value = 0;
  if (!absl::SimpleAtoi(text, &value)) return absl::InvalidArgumentError("expected an integer");
  return value;
}

absl::StatusOr<bool> ParseSwitch(absl::string_view text) {
  bool value = false;
  if (absl::EqualsIgnoreCase(text, "on")) return true;
  if (absl::EqualsIgnoreCase(text, "off")) return false;
  if (!absl::SimpleAtob(text, &value)) return absl::InvalidArgumentError("expected on or off");
  return value;
}

absl::StatusOr<ByteSize> ParseByteSize(absl::string_view text) {
  double number = 0;
  std::string unit;
  ByteSize size;
  if (!SplitUnit(text, &number, &unit)) return absl::InvalidArgumentError("expected a size such as 512MiB");
  if (unit.size() > 1 && absl::EndsWith(unit, "b")) unit.pop_back();
  if (unit.size() > 1 && absl::EndsWith(unit, "i")) unit.pop_back();
  if (!Scale(number, unit, kByteUnits, &size.bytes)) {
    return absl::InvalidArgumentError("expected a size such as 512MiB");
  }
  return size;
}

absl::StatusOr<Duration> ParseDuration(absl::string_view text) {
  if (absl::EqualsIgnoreCase(text, "inf")) return Duration::Infinite();
  double number = 0;
  std::string unit;
  Duration duration;
  if (!SplitUnit(text, &number, &unit) || !Scale(number, unit, kTimeUnits, &duration.ns)) {
    return absl::InvalidArgumentError("expected a time such as 30s or 200ms");
  }
  return duration;
}

std::string FormatByteSize(ByteSize size) {
  constexpr absl::string_view kNames[] = {"", "KiB", "MiB", "GiB", "TiB"};
  int64_t value = size.bytes;
  size_t unit = 0;
  while (value != 0 && value % 1024 == 0 && unit + 1 < std::size(kNames)) value /= 1024, ++unit;
  return absl::StrCat(value, kNames[unit]);
}

std::string FormatDuration(Duration duration) {
  if (duration.is_infinite()) return "inf";
  if (duration.ns % 1'000'000'000 == 0) return absl::StrCat(duration.ns / 1'000'000'000, "s");
  if (duration.ns % 1'000'000 == 0) return absl::StrCat(duration.ns / 1'000'000, "ms");
  return absl::StrCat(duration.ns, "ns");
}

}  // namespace orrery
