#include "scheduler/policy/registry.h"

#include "scheduler/base/text.h"
#include "scheduler/kv/lru.h"
#include "scheduler/policy/fcfs.h"
#include "scheduler/predict/request_bound.h"

namespace orrery {
namespace {

// One line of a table.
template <typename Base>
struct Entry {
  std::string_view name, paper, summary;
  std::vector<OptionInfo> (*describe)();
  absl::StatusOr<std::unique_ptr<Base>> (*make)(const NamedSpec&);
};

// A policy with an option struct, named by its Fields().
template <typename Base, typename Policy, typename Options>
constexpr Entry<Base> WithOptions(std::string_view name, std::string_view paper, std::string_view summary) {
  return {name, paper, summary, [] { return DescribeOptions(Policy::Fields()); },
          [](const NamedSpec& spec) -> absl::StatusOr<std::unique_ptr<Base>> {
            auto options = ReadOptions<Options>(spec, Policy::Fields());
            if (!options.ok()) return options.status();
            return std::make_unique<Policy>(*options);
          }};
}

struct NoOptions {};

// A policy without options.
template <typename Base, typename Policy>
constexpr Entry<Base> Plain(std::string_view name, std::string_view paper, std::string_view summary) {
  return {name, paper, summary, [] { return std::vector<OptionInfo>(); },
          [](const NamedSpec& spec) -> absl::StatusOr<std::unique_ptr<Base>> {
            auto options = ReadOptions<NoOptions>(spec, {});
            if (!options.ok()) return options.status();
            return std::make_unique<Policy>();
          }};
}

constexpr Entry<BatchPolicy> kBatch[] = {
    WithOptions<BatchPolicy, FcfsPolicy, FcfsOptions>(
        "fcfs", "arXiv:2403.02310", "arrival order, decode first, chunked prefill under a token budget"),
};

constexpr Entry<EvictionPolicy> kEviction[] = {
    Plain<EvictionPolicy, LruEviction>("lru", "", "least recently used block first"),
};

constexpr Entry<LengthPredictor> kPredictor[] = {
    Plain<LengthPredictor, RequestBoundPredictor>("request-bound", "",
                                                  "every request reaches its max_tokens"),
};

template <typename Table>
void Describe(std::string_view kind, const Table& table, std::vector<PolicyInfo>* infos) {
  for (const auto& entry : table) {
    infos->push_back({kind, entry.name, entry.paper, entry.summary, entry.describe()});
  }
}

template <typename Base, size_t n>
absl::StatusOr<std::unique_ptr<Base>> New(std::string_view kind, const Entry<Base> (&table)[n],
                                          std::string_view text) {
  auto spec = ParseNamedSpec(text);
  if (!spec.ok()) return spec.status();
  std::vector<std::string_view> known;
  for (const auto& entry : table) {
    if (entry.name == spec->name) return entry.make(*spec);
    known.push_back(entry.name);
  }
  return UnknownName(Cat(kind, " policy"), spec->name, known);
}

}  // namespace

std::vector<PolicyInfo> SchedulerPolicies() {
  std::vector<PolicyInfo> infos;
  Describe("batch", kBatch, &infos);
  Describe("eviction", kEviction, &infos);
  Describe("predictor", kPredictor, &infos);
  return infos;
}

absl::StatusOr<std::unique_ptr<BatchPolicy>> NewBatchPolicy(std::string_view spec) {
  return New("batch", kBatch, spec);
}

absl::StatusOr<std::unique_ptr<EvictionPolicy>> NewEvictionPolicy(std::string_view spec) {
  return New("eviction", kEviction, spec);
}

absl::StatusOr<std::unique_ptr<LengthPredictor>> NewLengthPredictor(std::string_view spec) {
  return New("predictor", kPredictor, spec);
}

}  // namespace orrery
