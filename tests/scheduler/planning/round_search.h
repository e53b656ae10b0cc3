// The optimum of the unit-step model by dynamic programming over rounds, for small instances: shares nothing
// with hindsight.h but the instance. A state is who has not started, and the tokens that those who have will
// hold in each round to come; of two states with the same remainder one that costs no less and holds no less
// everywhere is dropped, and so is one whose bound (area, and outputs) reaches the best schedule known.
#ifndef ORRERY_TESTS_SCHEDULER_PLANNING_ROUND_SEARCH_H_
#define ORRERY_TESTS_SCHEDULER_PLANNING_ROUND_SEARCH_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <unordered_map>
#include <vector>

#include "scheduler/planning/unit_step.h"

namespace orrery {

class RoundSearch {
 public:
  static constexpr size_t kMaxRequests = 24;
  static constexpr size_t kSpan = 64;
  // REQUIRES: at most kMaxRequests, outputs below kSpan, a capacity below 256.
  explicit RoundSearch(const UnitInstance& instance)
      : capacity_(instance.kv_capacity_tokens), requests_(instance.requests) {
    std::sort(requests_.begin(), requests_.end(), [](const UnitRequest& a, const UnitRequest& b) {
      return a.volume() != b.volume() ? a.volume() < b.volume() : a.arrival < b.arrival;
    });
  }

  // The least total latency if it is below `known`, else `known`, that of some schedule. Nothing when
  // `go_on`, asked before each remainder, says to stop.
  std::optional<int64_t> Optimum(int64_t known, const std::function<bool()>& go_on) {
    best_ = known;
    Layer layer;
    layer[(uint32_t{1} << requests_.size()) - 1].push_back({});
    for (now_ = 0; !layer.empty(); ++now_) {
      Layer next;
      for (auto& [left, states] : layer) {
        if (!go_on()) return std::nullopt;
        for (const State& state : states) Expand(left, state, 0, &next);
        states = {};
      }
      layer = std::move(next);
    }
    return best_;
  }

 private:
  struct State {
    std::array<uint8_t, kSpan> held{};  // [j]: tokens in round now + 1 + j
    int64_t cost = 0;
  };
  using Layer = std::unordered_map<uint32_t, std::vector<State>>;

  // Starts every set of requests from `first` on, the empty one included.
  void Expand(uint32_t left, const State& state, size_t first, Layer* next) {
    Keep(left, state, next);
    for (size_t i = first; i < requests_.size(); ++i) {
      const UnitRequest& r = requests_[i];
      if ((left >> i & 1) == 0 || r.arrival > now_ || HasTwinBefore(left, i)) continue;
      State started = state;
      bool fits = true;
      for (int64_t j = 0; j < r.output_tokens && fits; ++j) {
        const int64_t held = started.held[static_cast<size_t>(j)] + r.prompt_tokens + j + 1;
        fits = held <= capacity_;
        started.held[static_cast<size_t>(j)] = static_cast<uint8_t>(held);
      }
      if (!fits) continue;
      started.cost += now_ + r.output_tokens - r.arrival;
      Expand(left & ~(uint32_t{1} << i), started, i + 1, next);
    }
  }

  // Of requests alike the first is started first.
  bool HasTwinBefore(uint32_t left, size_t i) const {
    for (size_t k = i; k-- > 0 && requests_[k].volume() == requests_[i].volume();) {
      if ((left >> k & 1) != 0 && requests_[k].output_tokens == requests_[i].output_tokens &&
          requests_[k].arrival == requests_[i].arrival) {
        return true;
      }
    }
    return false;
  }

  void Keep(uint32_t left, State state, Layer* next) {
    if (left == 0) {
      best_ = std::min(best_, state.cost);
      return;
    }
    std::copy(state.held.begin() + 1, state.held.end(), state.held.begin());
    state.held.back() = 0;
    if (state.cost + AtLeast(left, state) >= best_) return;
    std::vector<State>& others = (*next)[left];
    const auto covers = [](const State& a, const State& b) {
      bool all = a.cost <= b.cost;
      for (size_t j = 0; j < kSpan; ++j) all &= a.held[j] <= b.held[j];
      return all;
    };
    for (const State& other : others) {
      if (covers(other, state)) return;
    }
    std::erase_if(others, [&](const State& other) { return covers(state, other); });
    others.push_back(state);
  }

  // Latency of those left, of whom none starts before the next round.
  int64_t AtLeast(uint32_t left, const State& state) const {
    std::array<int64_t, kMaxRequests> ends{};
    size_t n = 0;
    int64_t arrivals = 0;
    for (size_t i = 0; i < requests_.size(); ++i) {
      if ((left >> i & 1) == 0) continue;
      const int64_t end = std::max(requests_[i].arrival, now_ + 1) + requests_[i].output_tokens;
      arrivals += requests_[i].arrival;
      size_t at = n++;
      for (; at > 0 && ends[at - 1] > end; --at) ends[at] = ends[at - 1];
      ends[at] = end;
    }
    int64_t sum = 0, volume = 0, free = 0, round = now_ + 1;  // free: token-rounds up to `round`
    size_t k = 0, j = 0;
    for (size_t i = 0; i < requests_.size(); ++i) {
      if ((left >> i & 1) == 0) continue;
      volume += requests_[i].volume();
      for (; free < volume; ++round, ++j) free += capacity_ - (j < kSpan ? state.held[j] : 0);
      sum += std::max(ends[k++], round);
    }
    return sum - arrivals;
  }

  int64_t capacity_;
  std::vector<UnitRequest> requests_;  // ascending volume
  int64_t best_ = 0, now_ = 0;
};

}  // namespace orrery

#endif  // ORRERY_TESTS_SCHEDULER_PLANNING_ROUND_SEARCH_H_
