// Time inside the cores: integer nanoseconds since the start of the run, always passed in as an argument.
// No core ever reads a clock; the live drivers and the simulator both construct these values.
#ifndef ORRERY_SCHEDULER_BASE_TIME_H_
#define ORRERY_SCHEDULER_BASE_TIME_H_

#include <compare>
#include <cstdint>
#include <limits>

namespace orrery {

// A span of time, in nanoseconds.
struct Duration {
  int64_t ns = 0;

  static constexpr Duration Nanoseconds(int64_t v) { return {v}; }
  static constexpr Duration Microseconds(int64_t v) { return {v * 1'000}; }
  static constexpr Duration Milliseconds(int64_t v) { return {v * 1'000'000}; }
  static constexpr Duration Seconds(double v) { return {static_cast<int64_t>(v * 1e9)}; }
  static constexpr Duration Infinite() { return {std::numeric_limits<int64_t>::max()}; }

  constexpr double seconds() const { return static_cast<double>(ns) * 1e-9; }
  constexpr double milliseconds() const { return static_cast<double>(ns) * 1e-6; }
  constexpr bool is_infinite() const { return ns == std::numeric_limits<int64_t>::max(); }

  friend constexpr auto operator<=>(Duration, Duration) = default;
  friend constexpr Duration operator+(Duration a, Duration b) { return {a.ns + b.ns}; }
  friend constexpr Duration operator-(Duration a, Duration b) { return {a.ns - b.ns}; }
};

// A point in time, in nanoseconds since the start of the run.
struct Time {
  int64_t ns = 0;

  static constexpr Time Never() { return {std::numeric_limits<int64_t>::max()}; }
  constexpr bool is_never() const { return ns == std::numeric_limits<int64_t>::max(); }
  constexpr double seconds() const { return static_cast<double>(ns) * 1e-9; }

  friend constexpr auto operator<=>(Time, Time) = default;
  friend constexpr Duration operator-(Time a, Time b) { return {a.ns - b.ns}; }
  // Saturates: an infinite span after any time is Never().
  friend constexpr Time operator+(Time t, Duration d) {
    if (d.ns > 0 && t.ns > std::numeric_limits<int64_t>::max() - d.ns) return Never();
    return {t.ns + d.ns};
  }
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_BASE_TIME_H_
