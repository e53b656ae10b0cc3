// The two synthetic models on which arXiv:2502.07115 measures MC-SF: M ~ U[30, 50], prompts ~ U[1, 5],
// outputs ~ U[1, M - prompt]. Model 1: n ~ U[40, 60], all there at round 0. Model 2: T ~ U[40, 60] rounds,
// arrivals a Poisson process with a rate ~ U[0.5, 1.5] a round.
#ifndef ORRERY_TESTS_SCHEDULER_PLANNING_SYNTHETIC_H_
#define ORRERY_TESTS_SCHEDULER_PLANNING_SYNTHETIC_H_

#include <cmath>
#include <cstdint>

#include "scheduler/base/random.h"
#include "scheduler/planning/unit_step.h"

namespace orrery {

inline int64_t Between(RandomStream& random, int64_t low, int64_t high) {
  return low + static_cast<int64_t>(random.Below(static_cast<uint64_t>(high - low + 1)));
}

inline UnitRequest SyntheticRequest(RandomStream& random, int64_t arrival, int64_t capacity) {
  UnitRequest r;
  r.arrival = arrival;
  r.prompt_tokens = Between(random, 1, 5);
  r.output_tokens = Between(random, 1, capacity - r.prompt_tokens);
  return r;
}

// `low`, `high`: the range of n; the paper's are 40 and 60.
inline UnitInstance SyntheticModel1(uint64_t seed, int64_t low = 40, int64_t high = 60) {
  RandomStream random(seed, 1);
  UnitInstance instance;
  instance.kv_capacity_tokens = Between(random, 30, 50);
  const int64_t n = Between(random, low, high);
  for (int64_t i = 0; i < n; ++i)
    instance.requests.push_back(SyntheticRequest(random, 0, instance.kv_capacity_tokens));
  return instance;
}

// `low`, `high`: the range of T. An arrival in (t - 1, t] is there at round t.
inline UnitInstance SyntheticModel2(uint64_t seed, int64_t low = 40, int64_t high = 60) {
  RandomStream random(seed, 2);
  UnitInstance instance;
  instance.kv_capacity_tokens = Between(random, 30, 50);
  const auto rounds = static_cast<double>(Between(random, low, high));
  const double rate = 0.5 + random.Uniform();
  for (double time = 0;;) {
    time -= std::log(1.0 - random.Uniform()) / rate;
    if (time > rounds) return instance;
    const auto arrival = static_cast<int64_t>(std::ceil(time));
    instance.requests.push_back(SyntheticRequest(random, arrival, instance.kv_capacity_tokens));
  }
}

}  // namespace orrery

#endif  // ORRERY_TESTS_SCHEDULER_PLANNING_SYNTHETIC_H_
