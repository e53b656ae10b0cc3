// A file of given bytes that goes away with the test.
#ifndef ORRERY_TESTS_SERVER_TRACES_TEMP_FILE_H_
#define ORRERY_TESTS_SERVER_TRACES_TEMP_FILE_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

namespace orrery {

class TempFile {
 public:
  explicit TempFile(const std::string& bytes = "", const std::string& suffix = "") {
    static std::atomic<int> count{0};
    path_ = ::testing::TempDir() + "orrery_" + std::to_string(::getpid()) + "_" + std::to_string(count++) +
            suffix;
    std::ofstream(path_, std::ios::binary) << bytes;
  }
  ~TempFile() { std::remove(path_.c_str()); }
  TempFile(const TempFile&) = delete;
  TempFile& operator=(const TempFile&) = delete;
  const std::string& path() const { return path_; }
  std::string Read() const {
    std::ifstream in(path_, std::ios::binary);
    std::stringstream out;
    out << in.rdbuf();
    return out.str();
  }

 private:
  std::string path_;
};

// Folder of the shared public data, "" when it is not there.
inline std::string SharedData() {
  const char* shared = std::getenv("ORRERY_SHARED");
  const char* source = std::getenv("ORRERY_SOURCE_DIR");
  std::string folder = shared != nullptr   ? std::string(shared) + "/data"
                       : source != nullptr ? std::string(source) + "/../shared/data"
                                           : "";
  return !folder.empty() && ::access(folder.c_str(), R_OK) == 0 ? folder : "";
}

}  // namespace orrery

#endif  // ORRERY_TESTS_SERVER_TRACES_TEMP_FILE_H_
