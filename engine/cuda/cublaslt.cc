#include "engine/cuda/cublaslt.h"

#include "absl/strings/str_cat.h"
#include "engine/cuda/shared_library.h"

namespace orrery::cuda {
namespace {

absl::StatusOr<CublasLt> Load() {
  absl::StatusOr<SharedLibrary> library = SharedLibrary::Load(
      absl::StrCat("libcublasLt.so.", CUBLAS_VER_MAJOR), absl::StrCat("the CUDA toolkit ", CUBLAS_VER_MAJOR));
  if (!library.ok()) return library.status();
  CublasLt functions{};
  library->Find("cublasLtCreate", &functions.Create);
  library->Find("cublasLtDestroy", &functions.Destroy);
  library->Find("cublasLtGetVersion", &functions.GetVersion);
  library->Find("cublasLtGetStatusString", &functions.GetStatusString);
  library->Find("cublasLtMatmul", &functions.Matmul);
  library->Find("cublasLtMatmulAlgoCheck", &functions.MatmulAlgoCheck);
  library->Find("cublasLtMatmulAlgoConfigGetAttribute", &functions.MatmulAlgoConfigGetAttribute);
  library->Find("cublasLtMatmulAlgoGetHeuristic", &functions.MatmulAlgoGetHeuristic);
  library->Find("cublasLtMatmulDescCreate", &functions.MatmulDescCreate);
  library->Find("cublasLtMatmulDescDestroy", &functions.MatmulDescDestroy);
  library->Find("cublasLtMatmulDescSetAttribute", &functions.MatmulDescSetAttribute);
  library->Find("cublasLtMatmulPreferenceCreate", &functions.MatmulPreferenceCreate);
  library->Find("cublasLtMatmulPreferenceDestroy", &functions.MatmulPreferenceDestroy);
  library->Find("cublasLtMatmulPreferenceSetAttribute", &functions.MatmulPreferenceSetAttribute);
  library->Find("cublasLtMatrixLayoutCreate", &functions.MatrixLayoutCreate);
  library->Find("cublasLtMatrixLayoutDestroy", &functions.MatrixLayoutDestroy);
  library->Find("cublasLtMatrixLayoutSetAttribute", &functions.MatrixLayoutSetAttribute);
  if (!library->status().ok()) return library->status();
  return functions;
}

}  // namespace

absl::StatusOr<const CublasLt*> LoadCublasLt() {
  static const absl::StatusOr<CublasLt> functions = Load();
  if (!functions.ok()) return functions.status();
  return &*functions;
}

}  // namespace orrery::cuda
