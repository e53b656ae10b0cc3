#include "engine/cuda/shared_library.h"

#include <dlfcn.h>

#include "absl/strings/str_cat.h"

namespace orrery::cuda {

absl::StatusOr<SharedLibrary> SharedLibrary::Load(const std::string& soname, absl::string_view package) {
  void* const handle = dlopen(soname.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* const why = dlerror();
    return absl::NotFoundError(
        absl::StrCat("cannot load ", soname, " of ", package, ": ", why == nullptr ? "" : why));
  }
  return SharedLibrary(soname, handle);
}

void* SharedLibrary::Symbol(const char* symbol) {
  void* const found = dlsym(handle_, symbol);
  if (found == nullptr) status_.Update(absl::NotFoundError(absl::StrCat(soname_, " has no ", symbol)));
  return found;
}

}  // namespace orrery::cuda
