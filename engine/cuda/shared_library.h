// A library of CUDA's that is loaded when it is first asked for: a program that has no use for it needs
// neither the library nor a driver to start.
#ifndef ORRERY_ENGINE_CUDA_SHARED_LIBRARY_H_
#define ORRERY_ENGINE_CUDA_SHARED_LIBRARY_H_

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace orrery::cuda {

// Never unloaded: its functions stay valid for the life of the process.
class SharedLibrary {
 public:
  // NotFound, in one line, names the library, `package` that has it, and the loader's reason.
  static absl::StatusOr<SharedLibrary> Load(const std::string& soname, absl::string_view package);

  template <typename Function>
  void Find(const char* symbol, Function** function) {
    *function = reinterpret_cast<Function*>(Symbol(symbol));
  }
  // NotFound names the first symbol that Find did not find.
  const absl::Status& status() const { return status_; }

 private:
  SharedLibrary(std::string soname, void* handle) : soname_(std::move(soname)), handle_(handle) {}
  void* Symbol(const char* symbol);

  std::string soname_;
  void* handle_;
  absl::Status status_;
};

}  // namespace orrery::cuda

#endif  // ORRERY_ENGINE_CUDA_SHARED_LIBRARY_H_
