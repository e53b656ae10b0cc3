// What a configuration asks for, within what there is.
#ifndef ORRERY_SERVER_DAEMON_LIMITS_H_
#define ORRERY_SERVER_DAEMON_LIMITS_H_

#include <algorithm>
#include <cstdint>

namespace orrery {

// 0 asks for all.
inline int32_t SmallerOf(int64_t wish, int32_t engine) {
  return wish <= 0 ? engine : static_cast<int32_t>(std::min<int64_t>(wish, engine));
}

}  // namespace orrery

#endif  // ORRERY_SERVER_DAEMON_LIMITS_H_
