#include "scheduler/predict/empirical.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace orrery {
namespace {

constexpr int32_t kAsLongAsAllowed = std::numeric_limits<int32_t>::max();

}  // namespace

absl::Span<const OptionField<EmpiricalOptions>> EmpiricalPredictor::Fields() {
  static constexpr OptionField<EmpiricalOptions> kFields[] = {
      {"window", &EmpiricalOptions::window, 1, 1 << 16, "finished lengths that count"},
      {"min_own", &EmpiricalOptions::min_own, 1, 1 << 16,
       "finished lengths before a tenant's own window is believed"},
      {"initial_fill", &EmpiricalOptions::initial_fill, 0, 1,
       "share of a new window that expects the longest output allowed"},
  };
  return kFields;
}

EmpiricalPredictor::EmpiricalPredictor(const EmpiricalOptions& options)
    : options_(options), all_(NewWindow()) {}

EmpiricalPredictor::Window EmpiricalPredictor::NewWindow() const {
  Window window;
  const auto filled = static_cast<size_t>(std::lround(options_.initial_fill * options_.window));
  window.ring.assign(filled, kAsLongAsAllowed);
  window.sorted = window.ring;
  return window;
}

void EmpiricalPredictor::Push(int32_t length, Window* window) const {
  std::vector<int32_t>& sorted = window->sorted;
  if (window->ring.size() < static_cast<size_t>(options_.window)) {
    window->ring.push_back(length);
  } else {
    int32_t& oldest = window->ring[window->next];
    sorted.erase(std::lower_bound(sorted.begin(), sorted.end(), oldest));
    oldest = length;
    window->next = (window->next + 1) % window->ring.size();
  }
  sorted.insert(std::upper_bound(sorted.begin(), sorted.end(), length), length);
  window->finished = std::min(window->finished + 1, options_.min_own);
}

const EmpiricalPredictor::Window& EmpiricalPredictor::WindowOf(uint32_t tenant) const {
  const auto own = tenants_.find(tenant);
  return own != tenants_.end() && own->second.finished >= options_.min_own ? own->second : all_;
}

int32_t EmpiricalPredictor::Quantile(const SequenceView& sequence, double q) const {
  if (q <= 0 && sequence.num_generated > 0) return sequence.num_generated;  // L[0]
  const std::vector<int32_t>& sorted = WindowOf(sequence.tenant).sorted;
  const int32_t bound = sequence.max_new_tokens;
  if (q >= 1) return bound;
  q = std::max(q, 0.0);
  const int32_t generated = sequence.num_generated;
  if (generated == 0) {
    if (sorted.empty()) return bound;
    const auto at = static_cast<size_t>(q * static_cast<double>(sorted.size()));
    return std::clamp(sorted[std::min(at, sorted.size() - 1)], 1, bound);
  }
  const auto longer = std::upper_bound(sorted.begin(), sorted.end(), generated);
  const auto count = static_cast<size_t>(sorted.end() - longer);
  // L[0] = generated, L[1..count] = longer ones, L[count + 1] = bound.
  const auto value = [&](size_t i) {
    if (i == 0) return generated;
    return i > count ? bound : std::min(longer[static_cast<ptrdiff_t>(i) - 1], bound);
  };
  const double at = q * static_cast<double>(count + 1);
  const auto below = static_cast<size_t>(at);
  const double low = value(below), high = value(below + 1);
  return static_cast<int32_t>(std::lround(low + (at - static_cast<double>(below)) * (high - low)));
}

void EmpiricalPredictor::OnFinished(const SequenceView& sequence) {
  Push(sequence.num_generated, &all_);
  auto own = tenants_.find(sequence.tenant);
  if (own == tenants_.end()) {
    if (tenants_.size() >= kMaxTenants) return;  // the window over all speaks for the others
    own = tenants_.emplace(sequence.tenant, NewWindow()).first;
  }
  Push(sequence.num_generated, &own->second);
}

}  // namespace orrery
