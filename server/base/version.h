// The version of this source tree, as the project() line of the top-level CMakeLists.txt has it.
#ifndef ORRERY_SERVER_BASE_VERSION_H_
#define ORRERY_SERVER_BASE_VERSION_H_

namespace orrery {
inline constexpr char kVersion[] = "0.1.0";
}  // namespace orrery

#endif  // ORRERY_SERVER_BASE_VERSION_H_
