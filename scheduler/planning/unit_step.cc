#include "scheduler/planning/unit_step.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <limits>
#include <numeric>
#include <queue>
#include <set>
#include <tuple>
#include <utility>

#include "scheduler/base/random.h"
#include "scheduler/base/text.h"

namespace orrery {
namespace {

constexpr int64_t kMaxSearchRounds = 4'000'000;  // an array of them is what the search needs

// What runs, latest completion first. With e = completion round and b = prompt - start, the memory held when
// the i-th completes is i * e_i + (b_1 + .. + b_i), whatever the round: the largest of them is the peak.
class RunningSet {
 public:
  explicit RunningSet(int64_t capacity) : capacity_(capacity) {}

  // Starts a request at `now` if the peak allows it: 0. Otherwise the first later round in which it may,
  // should nothing complete before: what runs grows towards its end, so room comes without any event.
  int64_t TryStart(const UnitRequest& request, int64_t now) {
    const int64_t end = now + request.output_tokens, base = request.prompt_tokens - now;
    const auto at =
        std::find_if(running_.begin(), running_.end(), [end](const Entry& e) { return e.end < end; });
    int64_t sum = 0, rank = 0, wait = 0;
    for (auto it = running_.begin(); it != at; ++it) {
      ++rank;
      sum += it->base;  // these complete after the new one has left: their terms do not change
    }
    const auto see = [&](int64_t entry_end, int64_t entry_base) {
      sum += entry_base;
      return ++rank * entry_end + sum - capacity_;  // above the capacity by
    };
    // Its own peak falls only when one more of the running completes before it does.
    if (see(end, base) > 0) wait = std::prev(at)->end - request.output_tokens + 1;
    // A peak that it adds to falls by one token for each round it starts later.
    for (auto it = at; it != running_.end(); ++it)
      wait = std::max(wait, now + std::max<int64_t>(0, see(it->end, it->base)));
    if (wait > now) return wait;
    running_.insert(at, {end, base});
    return 0;
  }

  void Finish(int64_t now) {
    while (!running_.empty() && running_.back().end <= now) running_.pop_back();
  }
  bool empty() const { return running_.empty(); }
  int64_t next_end() const { return running_.back().end; }

 private:
  struct Entry {
    int64_t end, base;
  };
  const int64_t capacity_;
  std::vector<Entry> running_;
};

std::vector<size_t> ByArrival(const UnitInstance& instance) {
  std::vector<size_t> order(instance.requests.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return instance.requests[a].arrival < instance.requests[b].arrival;
  });
  return order;
}

absl::Status CheckRange(size_t index, std::string_view field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      Cat("requests[", index, "].", field, " must be in [", low, ", ", high, "], not ", value));
}

// Requests placed at their earliest feasible rounds, one after another.
class Placement {
 public:
  explicit Placement(const UnitInstance& instance) : instance_(instance) {}

  // Starts by request; sum of latencies in `total`, abandoned once it reaches `stop_at`.
  bool Place(const std::vector<size_t>& order, int64_t stop_at, std::vector<int64_t>* starts,
             int64_t* total) {
    std::fill(used_.begin(), used_.end(), int64_t{0});
    *total = 0;
    for (const size_t i : order) {
      const UnitRequest& r = instance_.requests[i];
      const int64_t start = Earliest(r);
      for (int64_t j = 1; j <= r.output_tokens; ++j) Used(start + j) += r.prompt_tokens + j;
      (*starts)[i] = start;
      *total += start + r.output_tokens - r.arrival;
      if (*total >= stop_at) return false;
    }
    return true;
  }

 private:
  int64_t& Used(int64_t round) {
    if (static_cast<size_t>(round) >= used_.size()) used_.resize(2 * static_cast<size_t>(round) + 1, 0);
    return used_[static_cast<size_t>(round)];
  }

  int64_t Earliest(const UnitRequest& r) {
    int64_t start = r.arrival;
    for (int64_t j = r.output_tokens; j >= 1;) {  // backwards: a late clash rules more starts out
      if (Used(start + j) + r.prompt_tokens + j <= instance_.kv_capacity_tokens) {
        --j;
      } else {
        ++start;
        j = r.output_tokens;
      }
    }
    return start;
  }

  const UnitInstance& instance_;
  std::vector<int64_t> used_;  // by round
};

}  // namespace

absl::Status ValidateUnitInstance(const UnitInstance& instance) {
  if (instance.kv_capacity_tokens < 1 || instance.kv_capacity_tokens > 1000 * kMaxUnitTokens) {
    return absl::InvalidArgumentError(Cat("kv_capacity_tokens must be in [1, ", 1000 * kMaxUnitTokens,
                                          "], not ", instance.kv_capacity_tokens));
  }
  if (instance.requests.size() > kMaxUnitRequests) {
    return absl::ResourceExhaustedError(
        Cat("requests: ", instance.requests.size(), " of them, at most ", kMaxUnitRequests));
  }
  for (size_t i = 0; i < instance.requests.size(); ++i) {
    const UnitRequest& r = instance.requests[i];
    for (const absl::Status& status : {CheckRange(i, "arrival", r.arrival, 0, kMaxUnitRound),
                                       CheckRange(i, "prompt_tokens", r.prompt_tokens, 0, kMaxUnitTokens),
                                       CheckRange(i, "output_tokens", r.output_tokens, 1, kMaxUnitTokens)}) {
      if (!status.ok()) return status;
    }
    if (r.peak() > instance.kv_capacity_tokens) {
      return absl::FailedPreconditionError(Cat("requests[", i, "] needs ", r.peak(),
                                               " tokens, kv_capacity_tokens is ",
                                               instance.kv_capacity_tokens));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> JudgeStarts(const UnitInstance& instance, const std::vector<int64_t>& starts) {
  if (starts.size() != instance.requests.size())
    return absl::InvalidArgumentError("starts: needs one for each request");
  int64_t total = 0;
  // Memory is piecewise linear in the round: a request adds prompt + (round - start) from start + 1 on.
  std::vector<std::tuple<int64_t, int64_t, int64_t>> changes;  // (round, change of level, change of slope)
  for (size_t i = 0; i < starts.size(); ++i) {
    const UnitRequest& r = instance.requests[i];
    if (starts[i] < r.arrival)
      return absl::FailedPreconditionError(
          Cat("request ", i, " starts at ", starts[i], ", before it arrives"));
    const int64_t base = r.prompt_tokens - starts[i], end = starts[i] + r.output_tokens;
    changes.emplace_back(starts[i] + 1, base, 1);
    changes.emplace_back(end + 1, -base, -1);
    total += end - r.arrival;
  }
  std::sort(changes.begin(), changes.end());
  int64_t level = 0, slope = 0;
  for (size_t c = 0; c < changes.size();) {
    const int64_t round = std::get<0>(changes[c]);
    // Until just before this round memory only grew: its last round was the fullest.
    if (level + slope * (round - 1) > instance.kv_capacity_tokens) {
      return absl::FailedPreconditionError(Cat("round ", round - 1, " holds ", level + slope * (round - 1),
                                               " tokens, kv_capacity_tokens is ",
                                               instance.kv_capacity_tokens));
    }
    for (; c < changes.size() && std::get<0>(changes[c]) == round; ++c) {
      level += std::get<1>(changes[c]);
      slope += std::get<2>(changes[c]);
    }
  }
  return total;
}

std::vector<int64_t> RunUnitStep(const UnitInstance& instance, UnitOrder order) {
  using Key = std::tuple<int64_t, int64_t, size_t>;
  const std::vector<size_t> arrivals = ByArrival(instance);
  std::vector<int64_t> starts(instance.requests.size(), 0);
  std::set<Key> waiting;
  RunningSet running(instance.kv_capacity_tokens);
  size_t next = 0;
  for (int64_t now = 0; next < arrivals.size() || !waiting.empty();) {
    for (; next < arrivals.size() && instance.requests[arrivals[next]].arrival <= now; ++next) {
      const UnitRequest& r = instance.requests[arrivals[next]];
      waiting.insert({order == UnitOrder::kShortestOutput ? r.output_tokens : 0, r.arrival, arrivals[next]});
    }
    running.Finish(now);
    int64_t then = std::numeric_limits<int64_t>::max();  // the next round in which anything can change
    while (!waiting.empty()) {
      const size_t head = std::get<2>(*waiting.begin());
      if (const int64_t wait = running.TryStart(instance.requests[head], now); wait > 0) {
        then = wait;
        break;
      }
      starts[head] = now;
      waiting.erase(waiting.begin());
    }
    if (!running.empty()) then = std::min(then, running.next_end());
    if (next < arrivals.size()) then = std::min(then, instance.requests[arrivals[next]].arrival);
    now = then;
  }
  return starts;
}

std::vector<int64_t> ImproveStarts(const UnitInstance& instance, const std::vector<int64_t>& starts,
                                   int trials, uint64_t seed) {
  const size_t n = instance.requests.size();
  auto judged = JudgeStarts(instance, starts);
  std::vector<int64_t> best = starts;
  int64_t horizon = 0;
  for (size_t i = 0; i < n && judged.ok(); ++i)
    horizon = std::max(horizon, starts[i] + instance.requests[i].output_tokens);
  if (!judged.ok() || n < 2 || horizon > kMaxSearchRounds) return best;
  int64_t best_total = *judged;

  std::vector<size_t> order = ByArrival(instance);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return starts[a] < starts[b]; });
  Placement placement(instance);
  RandomStream random(seed);
  std::vector<int64_t> trial(n);
  for (int k = 0; k < trials; ++k) {
    std::vector<size_t> changed = order;
    if (k > 0) {  // the order as it is first: starting at once may already be better
      const size_t from = random.Below(n), to = random.Below(n);
      if (random.Below(2) == 0) {
        std::swap(changed[from], changed[to]);
      } else {
        const size_t moved = changed[from];
        changed.erase(changed.begin() + static_cast<std::ptrdiff_t>(from));
        changed.insert(changed.begin() + static_cast<std::ptrdiff_t>(to), moved);
      }
    }
    int64_t total = 0;
    // Equal totals are taken too: they lead off plateaus.
    if (!placement.Place(changed, best_total + 1, &trial, &total)) continue;
    order = std::move(changed);
    best_total = total;
    best = trial;
  }
  return best;
}

int64_t AreaBound(const UnitInstance& instance) {
  // Time in units of 1 / M round, so that all is exact.
  const int64_t speed = instance.kv_capacity_tokens;
  const std::vector<size_t> arrivals = ByArrival(instance);
  std::priority_queue<int64_t, std::vector<int64_t>, std::greater<>> left;
  std::vector<__int128> squashed;  // completions on the one machine, ascending
  __int128 now = 0;
  for (size_t next = 0; next < arrivals.size() || !left.empty();) {
    if (left.empty())
      now = std::max(now, static_cast<__int128>(instance.requests[arrivals[next]].arrival) * speed);
    for (; next < arrivals.size() &&
           static_cast<__int128>(instance.requests[arrivals[next]].arrival) * speed <= now;
         ++next)
      left.push(instance.requests[arrivals[next]].volume());
    const int64_t work = left.top();
    left.pop();
    __int128 until = now + work;
    if (next < arrivals.size())
      until = std::min(until, static_cast<__int128>(instance.requests[arrivals[next]].arrival) * speed);
    const auto done = static_cast<int64_t>(until - now);
    now = until;
    if (done == work) {
      squashed.push_back(now);
    } else {
      left.push(work - done);
    }
  }
  std::vector<int64_t> alone;
  int64_t bound = 0;
  for (const UnitRequest& r : instance.requests) {
    alone.push_back(r.arrival + r.output_tokens);
    bound -= r.arrival;
  }
  std::sort(alone.begin(), alone.end());
  for (size_t k = 0; k < alone.size(); ++k)
    bound += std::max(alone[k], static_cast<int64_t>((squashed[k] + speed - 1) / speed));
  return bound;
}

}  // namespace orrery
