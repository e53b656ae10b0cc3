#ifndef ORRERY_TESTS_SERVER_TEXT_TEST_DATA_H_
#define ORRERY_TESTS_SERVER_TEXT_TEST_DATA_H_

// Where the shared public data lies, and reading of its compressed files.

#include <filesystem>
#include <optional>
#include <string>

namespace orrery {

// $ORRERY_SHARED, or ../shared beside the source folder; nullopt if it has no data/ folder.
std::optional<std::filesystem::path> SharedData();

// The whole file, decompressed if its name ends in .xz; nullopt if it cannot be read.
std::optional<std::string> ReadMaybeXz(const std::filesystem::path& path);

}  // namespace orrery

#endif  // ORRERY_TESTS_SERVER_TEXT_TEST_DATA_H_
