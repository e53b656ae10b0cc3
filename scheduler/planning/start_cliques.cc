#include "scheduler/planning/start_cliques.h"

#include <algorithm>
#include <set>
#include <utility>

namespace orrery::internal {
namespace {

constexpr double kSupport = 1e-6;    // a value below is nothing
constexpr double kViolation = 1e-2;  // a cut must cut off this much
constexpr size_t kMostSeeds = 400;   // of the largest values

class Separator {
 public:
  Separator(const UnitInstance& instance, const std::vector<StartColumn>& columns,
            const std::vector<double>& values)
      : instance_(instance), columns_(columns), values_(values) {
    for (size_t k = 0; k < columns.size(); ++k) {
      if (values[k] > kSupport) support_.push_back(k);
    }
    std::stable_sort(support_.begin(), support_.end(),
                     [&](size_t a, size_t b) { return values[a] > values[b]; });
  }

  const std::vector<size_t>& support() const { return support_; }

  // Greedily by value around one column; empty when it is not violated.
  std::vector<size_t> Around(size_t seed) const {
    std::vector<size_t> clique = {seed};
    double sum = values_[seed];
    for (const size_t k : support_) {
      if (!Joins(k, clique)) continue;
      clique.push_back(k);
      sum += values_[k];
    }
    if (sum < 1.0 + kViolation) return {};
    std::sort(clique.begin(), clique.end());
    return clique;
  }

  // With every other column that excludes all of it.
  std::vector<size_t> Grown(std::vector<size_t> clique) const {
    for (size_t k = 0; k < columns_.size(); ++k) {
      if (values_[k] <= kSupport && Joins(k, clique)) clique.push_back(k);
    }
    std::sort(clique.begin(), clique.end());
    return clique;
  }

  double Sum(const std::vector<size_t>& clique) const {
    double sum = 0.0;
    for (const size_t k : clique) sum += values_[k];
    return sum;
  }

 private:
  bool Joins(size_t k, const std::vector<size_t>& clique) const {
    return std::all_of(clique.begin(), clique.end(), [&](size_t other) {
      return other != k && Exclude(instance_, columns_[k], columns_[other]);
    });
  }

  const UnitInstance& instance_;
  const std::vector<StartColumn>& columns_;
  const std::vector<double>& values_;
  std::vector<size_t> support_;  // columns in use, largest value first
};

}  // namespace

bool Exclude(const UnitInstance& instance, const StartColumn& a, const StartColumn& b) {
  if (a.request == b.request) return true;
  const UnitRequest &ra = instance.requests[a.request], &rb = instance.requests[b.request];
  // Both grow until the first completes: that is their fullest round together.
  const int64_t end = std::min(a.start + ra.output_tokens, b.start + rb.output_tokens);
  if (end <= a.start || end <= b.start) return false;
  return ra.prompt_tokens + (end - a.start) + rb.prompt_tokens + (end - b.start) >
         instance.kv_capacity_tokens;
}

std::vector<std::vector<size_t>> ViolatedCliques(const UnitInstance& instance,
                                                 const std::vector<StartColumn>& columns,
                                                 const std::vector<double>& values, size_t most) {
  const Separator separator(instance, columns, values);
  std::set<std::vector<size_t>> seen;
  std::vector<std::pair<double, std::vector<size_t>>> found;
  const auto& support = separator.support();
  for (size_t s = 0; s < std::min(support.size(), kMostSeeds); ++s) {
    std::vector<size_t> clique = separator.Around(support[s]);
    if (clique.empty() || !seen.insert(clique).second) continue;
    found.emplace_back(separator.Sum(clique), std::move(clique));
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  if (found.size() > most) found.resize(most);
  std::vector<std::vector<size_t>> cliques;
  for (auto& [sum, clique] : found) cliques.push_back(separator.Grown(std::move(clique)));
  return cliques;
}

}  // namespace orrery::internal
