// The shape of the policy tables: one line per policy, read by construction, help and listings alike. Used by
// the scheduler's registry and by the router's.
#ifndef ORRERY_SCHEDULER_POLICY_POLICY_TABLE_H_
#define ORRERY_SCHEDULER_POLICY_POLICY_TABLE_H_

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/base/options.h"
#include "scheduler/base/text.h"
#include "scheduler/policy/policy_info.h"

namespace orrery {

template <typename Base>
struct PolicyEntry {
  std::string_view name, paper, summary;
  std::vector<OptionInfo> (*describe)();
  absl::StatusOr<std::unique_ptr<Base>> (*make)(const NamedSpec&);
};

// A line for a policy built from `Options`, whose table is Policy::Fields().
template <typename Base, typename Policy, typename Options>
constexpr PolicyEntry<Base> PolicyLine(std::string_view name, std::string_view paper,
                                       std::string_view summary) {
  return {name, paper, summary, [] { return DescribeOptions(Policy::Fields()); },
          [](const NamedSpec& spec) -> absl::StatusOr<std::unique_ptr<Base>> {
            auto options = ReadOptions<Options>(spec, Policy::Fields());
            if (!options.ok()) return options.status();
            return std::make_unique<Policy>(*options);
          }};
}

// A line for a policy without options.
template <typename Base, typename Policy>
constexpr PolicyEntry<Base> PolicyLine(std::string_view name, std::string_view paper,
                                       std::string_view summary) {
  return {name, paper, summary, [] { return std::vector<OptionInfo>(); },
          [](const NamedSpec& spec) -> absl::StatusOr<std::unique_ptr<Base>> {
            if (!spec.options.empty())
              return UnknownName("option of " + spec.name, spec.options[0].first, {});
            return std::make_unique<Policy>();
          }};
}

template <typename Base, size_t n>
void DescribePolicies(std::string_view kind, const PolicyEntry<Base> (&table)[n],
                      std::vector<PolicyInfo>* infos) {
  for (const PolicyEntry<Base>& entry : table) {
    infos->push_back({kind, entry.name, entry.paper, entry.summary, entry.describe()});
  }
}

template <typename Base, size_t n>
absl::StatusOr<std::unique_ptr<Base>> NewPolicy(std::string_view kind, const PolicyEntry<Base> (&table)[n],
                                                std::string_view text) {
  auto spec = ParseNamedSpec(text);
  if (!spec.ok()) return spec.status();
  std::vector<std::string_view> known;
  for (const PolicyEntry<Base>& entry : table) {
    if (entry.name == spec->name) return entry.make(*spec);
    known.push_back(entry.name);
  }
  return UnknownName(Cat(kind, " policy"), spec->name, known);
}

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_POLICY_TABLE_H_
