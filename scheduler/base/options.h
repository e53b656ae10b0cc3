// Options of policies and cost models as written by an operator: `NAME[:key=value,...]`, read into a typed
// struct through a table of fields that also feeds --help and `orrery policies --json`.
#ifndef ORRERY_SCHEDULER_BASE_OPTIONS_H_
#define ORRERY_SCHEDULER_BASE_OPTIONS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace orrery {

struct NamedSpec {
  std::string name;
  std::vector<std::pair<std::string, std::string>> options;  // as written, in order
};

// A name without options, an empty list after the colon, a key twice or without a value: INVALID_ARGUMENT.
absl::StatusOr<NamedSpec> ParseNamedSpec(std::string_view text);

// One option for people and programs. Integers and flags (0, 1) are exact in a double.
struct OptionInfo {
  std::string_view name;
  std::string_view type;  // "int", "real", "flag"
  double default_value = 0, low = 0, high = 0;
  std::string_view help;
};

// One option of struct O: a member of one of three types.
template <typename O>
struct OptionField {
  constexpr OptionField(std::string_view name, int32_t O::*member, double low, double high,
                        std::string_view help)
      : name(name), low(low), high(high), help(help), default_value(O{}.*member), whole(member) {}
  constexpr OptionField(std::string_view name, double O::*member, double low, double high,
                        std::string_view help)
      : name(name), low(low), high(high), help(help), default_value(O{}.*member), real(member) {}
  constexpr OptionField(std::string_view name, bool O::*member, std::string_view help)
      : name(name), low(0), high(1), help(help), default_value(O{}.*member), flag(member) {}

  std::string_view type() const { return whole != nullptr ? "int" : real != nullptr ? "real" : "flag"; }
  void Set(double value, O* options) const {
    if (whole != nullptr) options->*whole = static_cast<int32_t>(value);
    if (real != nullptr) options->*real = value;
    if (flag != nullptr) options->*flag = value != 0;
  }

  std::string_view name;
  double low, high;
  std::string_view help;
  double default_value;
  int32_t O::*whole = nullptr;
  double O::*real = nullptr;
  bool O::*flag = nullptr;
};

// The value as a number, or what is wrong with it; `owner` names the policy in the message.
absl::StatusOr<double> ParseOptionValue(std::string_view owner, const OptionInfo& option,
                                        std::string_view text);
// The one of `known` that is nearest to `name` by edit distance; empty when none is near.
std::string_view NearestName(std::string_view name, absl::Span<const std::string_view> known);
// `what` of that `name` does not exist; suggests the nearest of `known`.
absl::Status UnknownName(std::string_view what, std::string_view name,
                         absl::Span<const std::string_view> known);

template <typename O>
std::vector<OptionInfo> DescribeOptions(absl::Span<const OptionField<O>> fields) {
  std::vector<OptionInfo> infos;
  infos.reserve(fields.size());
  for (const OptionField<O>& field : fields) {
    infos.push_back({field.name, field.type(), field.default_value, field.low, field.high, field.help});
  }
  return infos;
}

template <typename O>
absl::StatusOr<O> ReadOptions(const NamedSpec& spec, absl::Span<const OptionField<O>> fields) {
  const std::vector<OptionInfo> infos = DescribeOptions(fields);
  O options{};
  for (const auto& [key, text] : spec.options) {
    size_t i = 0;
    while (i < infos.size() && infos[i].name != key) ++i;
    if (i == infos.size()) {
      std::vector<std::string_view> known;
      known.reserve(infos.size());
      for (const OptionInfo& info : infos) known.push_back(info.name);
      return UnknownName("option of " + spec.name, key, known);
    }
    auto value = ParseOptionValue(spec.name, infos[i], text);
    if (!value.ok()) return value.status();
    fields[i].Set(*value, &options);
  }
  return options;
}

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_BASE_OPTIONS_H_
