// Where a test finds files: beside the sources, and the data that is shared between projects and may be
// absent.
#ifndef ORRERY_TESTS_PLACES_H_
#define ORRERY_TESTS_PLACES_H_

#include <cstdlib>
#include <filesystem>

namespace orrery::testing {

// $ORRERY_SOURCE_DIR, which ctest sets; the working folder without it.
inline std::filesystem::path SourceFolder() {
  const char* source = std::getenv("ORRERY_SOURCE_DIR");
  return source == nullptr ? std::filesystem::current_path() : std::filesystem::path(source);
}

inline std::filesystem::path DemoModel() { return SourceFolder() / "deploy/models/demo"; }

// $ORRERY_SHARED, or `shared` beside the source folder, whether it is there or not.
inline std::filesystem::path SharedFolder() {
  const char* shared = std::getenv("ORRERY_SHARED");
  return shared == nullptr ? SourceFolder() / "../shared" : std::filesystem::path(shared);
}

}  // namespace orrery::testing

#endif  // ORRERY_TESTS_PLACES_H_
