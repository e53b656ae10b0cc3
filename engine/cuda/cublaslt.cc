#include "engine/cuda/cublaslt.h"

#include <dlfcn.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace orrery::cuda {
namespace {

absl::StatusOr<CublasLt> Load() {
  const std::string name = absl::StrCat("libcublasLt.so.", CUBLAS_VER_MAJOR);
  void* const library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const why = dlerror();
    return absl::NotFoundError(absl::StrCat("cannot load ", name, " of the CUDA toolkit ", CUBLAS_VER_MAJOR,
                                            ": ", why == nullptr ? "" : why));
  }
  CublasLt functions{};
  const char* missing = nullptr;
  const auto find = [&](const char* symbol, auto* function) {
    *function = reinterpret_cast<std::remove_pointer_t<decltype(function)>>(dlsym(library, symbol));
    if (*function == nullptr) missing = symbol;
  };
  find("cublasLtCreate", &functions.Create);
  find("cublasLtDestroy", &functions.Destroy);
  find("cublasLtGetVersion", &functions.GetVersion);
  find("cublasLtGetStatusString", &functions.GetStatusString);
  find("cublasLtMatmul", &functions.Matmul);
  find("cublasLtMatmulAlgoCheck", &functions.MatmulAlgoCheck);
  find("cublasLtMatmulAlgoConfigGetAttribute", &functions.MatmulAlgoConfigGetAttribute);
  find("cublasLtMatmulAlgoGetHeuristic", &functions.MatmulAlgoGetHeuristic);
  find("cublasLtMatmulDescCreate", &functions.MatmulDescCreate);
  find("cublasLtMatmulDescDestroy", &functions.MatmulDescDestroy);
  find("cublasLtMatmulDescSetAttribute", &functions.MatmulDescSetAttribute);
  find("cublasLtMatmulPreferenceCreate", &functions.MatmulPreferenceCreate);
  find("cublasLtMatmulPreferenceDestroy", &functions.MatmulPreferenceDestroy);
  find("cublasLtMatmulPreferenceSetAttribute", &functions.MatmulPreferenceSetAttribute);
  find("cublasLtMatrixLayoutCreate", &functions.MatrixLayoutCreate);
  find("cublasLtMatrixLayoutDestroy", &functions.MatrixLayoutDestroy);
  find("cublasLtMatrixLayoutSetAttribute", &functions.MatrixLayoutSetAttribute);
  if (missing != nullptr) return absl::NotFoundError(absl::StrCat(name, " has no ", missing));
  return functions;
}

}  // namespace

absl::StatusOr<const CublasLt*> LoadCublasLt() {
  static const absl::StatusOr<CublasLt> functions = Load();
  if (!functions.ok()) return functions.status();
  return &*functions;
}

}  // namespace orrery::cuda
