// ORRERY_CHECK: stops the process when an invariant of ours is broken. Never for input, load or I/O: those
// are absl::Status.
#ifndef ORRERY_SCHEDULER_BASE_CHECK_H_
#define ORRERY_SCHEDULER_BASE_CHECK_H_

#include <cstdio>
#include <cstdlib>

namespace orrery::internal {
[[noreturn]] inline void CheckFailed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: broken invariant: %s\n", file, line, condition);
  std::abort();
}
}  // namespace orrery::internal

#define ORRERY_CHECK(condition)                        \
  (static_cast<bool>(condition) ? static_cast<void>(0) \
                                : ::orrery::internal::CheckFailed(#condition, __FILE__, __LINE__))

#ifdef NDEBUG
#define ORRERY_DCHECK(condition) static_cast<void>(sizeof(static_cast<bool>(condition)))
#else
#define ORRERY_DCHECK(condition) ORRERY_CHECK(condition)
#endif

#endif  // ORRERY_SCHEDULER_BASE_CHECK_H_
