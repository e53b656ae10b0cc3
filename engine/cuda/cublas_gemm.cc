#include "engine/cuda/cublas_gemm.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/cuda/algorithm_cache.h"
#include "engine/cuda/cublaslt.h"

namespace orrery::cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;
constexpr int kCandidates = 16;
constexpr int kTimedRuns = 3;
// Written between timed runs: more than any device's second-level cache.
constexpr size_t kFlushBytes = size_t{128} << 20;
constexpr int64_t kSmallestBucket = 16;
constexpr uint32_t kAlignment = 16;  // of a matrix, in bytes: GemmArgs
// An algorithm for any number of rows must be one for these.
constexpr int64_t kInvariantRows[] = {1, 7, 64, 300, 2048, 8192};

// Rows up to the next power of two share an algorithm.
int64_t BucketOf(int64_t rows) {
  return std::max(kSmallestBucket, static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(rows))));
}

absl::Status GemmStatus(const CublasLt& library, cublasStatus_t status, const GemmShape& shape) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("cuBLASLt: product with a weight of ",
                                          std::string(NameOf(shape.dtype)), " [", shape.n, ", ", shape.k,
                                          "]: ", library.GetStatusString(status)));
}

AlgorithmBits BitsOf(const cublasLtMatmulAlgo_t& algorithm) {
  static_assert(sizeof(AlgorithmBits) == sizeof(algorithm.data));
  AlgorithmBits bits;
  std::memcpy(bits.data(), algorithm.data, sizeof(bits));
  return bits;
}

cublasLtMatmulAlgo_t AlgorithmOf(const AlgorithmBits& bits) {
  cublasLtMatmulAlgo_t algorithm;
  std::memcpy(algorithm.data, bits.data(), sizeof(bits));
  return algorithm;
}

// The library's description of a shape. Its matrices are by columns, so it computes out^T = W x^T:
// [n, rows] = [n, k] [k, rows], where W, by rows, is [k, n] transposed.
class Product {
 public:
  static absl::StatusOr<std::unique_ptr<Product>> Create(const CublasLt& library, const GemmShape& shape) {
    std::unique_ptr<Product> product(new Product(library, shape));
    if (absl::Status status = GemmStatus(library, product->Describe(), shape); !status.ok()) return status;
    return product;
  }
  ~Product() {
    if (description_ != nullptr) library_.MatmulDescDestroy(description_);
    for (cublasLtMatrixLayout_t layout : {weight_, x_, out_}) {
      if (layout != nullptr) library_.MatrixLayoutDestroy(layout);
    }
  }
  Product(const Product&) = delete;
  Product& operator=(const Product&) = delete;

  cublasStatus_t SetRows(int64_t rows) {
    if (rows == rows_) return CUBLAS_STATUS_SUCCESS;
    rows_ = rows;
    const auto columns = static_cast<uint64_t>(rows);
    for (cublasLtMatrixLayout_t layout : {x_, out_}) {
      const cublasStatus_t status =
          library_.MatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_COLS, &columns, sizeof(columns));
      if (status != CUBLAS_STATUS_SUCCESS) return status;
    }
    return CUBLAS_STATUS_SUCCESS;
  }

  // Candidates depend on how it is aligned.
  cublasStatus_t SetBias(const float* bias) {
    return bias == nullptr ? CUBLAS_STATUS_SUCCESS
                           : library_.MatmulDescSetAttribute(description_, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                                             &bias, sizeof(bias));
  }

  // Of the rows and the bias that are set.
  cublasStatus_t Run(cublasLtHandle_t handle, const GemmArgs& args, void* out,
                     const cublasLtMatmulAlgo_t& algorithm, void* workspace, Stream stream) {
    const float one = 1.0f, beta = args.residual != nullptr ? 1.0f : 0.0f;
    const void* const added = args.residual != nullptr ? static_cast<const void*>(args.residual) : out;
    return library_.Matmul(handle, description_, &one, args.weight, weight_, args.x, x_, &beta, added, out_,
                           out, out_, &algorithm, workspace, kWorkspaceBytes, stream);
  }

  // The library's candidates for the rows that are set, best guess first.
  std::vector<cublasLtMatmulAlgo_t> Candidates(cublasLtHandle_t handle, bool split_k) {
    cublasLtMatmulPreference_t preference = nullptr;
    if (library_.MatmulPreferenceCreate(&preference) != CUBLAS_STATUS_SUCCESS) return {};
    const uint32_t reductions = split_k ? CUBLASLT_REDUCTION_SCHEME_MASK : CUBLASLT_REDUCTION_SCHEME_NONE;
    const uint64_t workspace = kWorkspaceBytes;
    // Less than the library would assume: parts of activations lie behind one another.
    const uint32_t alignment = kAlignment;
    library_.MatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                          sizeof(workspace));
    library_.MatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions,
                                          sizeof(reductions));
    for (const auto operand :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      library_.MatmulPreferenceSetAttribute(preference, operand, &alignment, sizeof(alignment));
    }
    std::array<cublasLtMatmulHeuristicResult_t, kCandidates> found{};
    int count = 0;
    const cublasStatus_t status = library_.MatmulAlgoGetHeuristic(
        handle, description_, weight_, x_, out_, out_, preference, kCandidates, found.data(), &count);
    library_.MatmulPreferenceDestroy(preference);
    std::vector<cublasLtMatmulAlgo_t> algorithms;
    for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < count; ++i) {
      const cublasLtMatmulHeuristicResult_t& candidate = found[static_cast<size_t>(i)];
      if (candidate.state != CUBLAS_STATUS_SUCCESS) continue;
      if (!split_k && SplitsOf(candidate.algo) > 1) continue;
      algorithms.push_back(candidate.algo);
    }
    return algorithms;
  }

  bool Supports(cublasLtHandle_t handle, const cublasLtMatmulAlgo_t& algorithm) {
    cublasLtMatmulHeuristicResult_t result{};
    return library_.MatmulAlgoCheck(handle, description_, weight_, x_, out_, out_, &algorithm, &result) ==
               CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= kWorkspaceBytes;
  }

 private:
  Product(const CublasLt& library, const GemmShape& shape) : library_(library), shape_(shape) {}

  cublasStatus_t Describe() {
    cublasStatus_t status = library_.MatmulDescCreate(&description_, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    const auto set = [&](cublasLtMatmulDescAttributes_t attribute, auto value) {
      if (status != CUBLAS_STATUS_SUCCESS) return;
      status = library_.MatmulDescSetAttribute(description_, attribute, &value, sizeof(value));
    };
    const auto layout = [&](cublasLtMatrixLayout_t* to, cudaDataType type, int64_t rows, int64_t columns) {
      if (status != CUBLAS_STATUS_SUCCESS) return;
      status = library_.MatrixLayoutCreate(to, type, static_cast<uint64_t>(rows),
                                           static_cast<uint64_t>(columns), rows);
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, static_cast<int32_t>(CUBLAS_OP_T));
    if (shape_.bias) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, static_cast<uint32_t>(CUBLASLT_EPILOGUE_BIAS));
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<int32_t>(CUDA_R_32F));
    }
    const cudaDataType type = shape_.dtype == DType::kF16 ? CUDA_R_16F : CUDA_R_16BF;
    layout(&weight_, type, shape_.k, shape_.n);
    layout(&x_, type, shape_.k, rows_);
    layout(&out_, shape_.narrow_out ? type : CUDA_R_32F, shape_.n, rows_);
    return status;
  }

  uint32_t SplitsOf(const cublasLtMatmulAlgo_t& algorithm) const {
    int32_t splits = 1;
    size_t written = 0;
    library_.MatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits,
                                          sizeof(splits), &written);
    // Negative: the library chooses by the number of rows.
    return splits < 0 ? std::numeric_limits<uint32_t>::max() : static_cast<uint32_t>(splits);
  }

  const CublasLt& library_;
  const GemmShape shape_;
  int64_t rows_ = 1;  // that the layouts have
  cublasLtMatmulDesc_t description_ = nullptr;
  cublasLtMatrixLayout_t weight_ = nullptr, x_ = nullptr, out_ = nullptr;
};

// Memory and events of a search, given back behind it.
class Stopwatch {
 public:
  explicit Stopwatch(Stream stream) : stream_(stream) {}
  ~Stopwatch() {
    cudaStreamSynchronize(stream_);
    // What fails here is not the step's.
    for (void* memory : {out_, flush_}) {
      if (cudaFree(memory) != cudaSuccess) cudaGetLastError();
    }
    for (cudaEvent_t event : {begin_, end_}) {
      if (event != nullptr) cudaEventDestroy(event);
    }
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  bool Allocate(size_t out_bytes) {
    const bool ok = cudaMalloc(&out_, out_bytes) == cudaSuccess &&
                    cudaMalloc(&flush_, kFlushBytes) == cudaSuccess &&
                    cudaEventCreate(&begin_) == cudaSuccess && cudaEventCreate(&end_) == cudaSuccess;
    if (!ok) cudaGetLastError();  // it is answered with the heuristic's guess
    return ok;
  }
  void* out() const { return out_; }

  // Least of a few runs, in milliseconds; infinite for what fails.
  template <typename Function>
  float Time(const Function& run) {
    float least = std::numeric_limits<float>::infinity();
    for (int i = 0; i < kTimedRuns; ++i) {
      cudaMemsetAsync(flush_, i, kFlushBytes, stream_);
      cudaEventRecord(begin_, stream_);
      if (!run()) return std::numeric_limits<float>::infinity();
      cudaEventRecord(end_, stream_);
      float milliseconds = 0.0f;
      if (cudaEventSynchronize(end_) != cudaSuccess ||
          cudaEventElapsedTime(&milliseconds, begin_, end_) != cudaSuccess) {
        return std::numeric_limits<float>::infinity();
      }
      least = std::min(least, milliseconds);
    }
    return least;
  }

 private:
  const Stream stream_;
  void* out_ = nullptr;
  void* flush_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

class CublasGemm final : public Gemm {
 public:
  CublasGemm(const CublasLt& library, cublasLtHandle_t handle, AlgorithmCache cache, bool batch_invariant)
      : library_(library), handle_(handle), cache_(std::move(cache)), batch_invariant_(batch_invariant) {}
  ~CublasGemm() override {
    products_.clear();
    library_.Destroy(handle_);
  }

  size_t WorkspaceBytes() const override { return kWorkspaceBytes; }
  void set_workspace(void* workspace) override { workspace_ = workspace; }

  absl::Status Multiply(Stream stream, const GemmArgs& args) override {
    GemmShape shape{.rows = 0,
                    .n = args.n,
                    .k = args.k,
                    .dtype = args.dtype,
                    .narrow_out = args.out_dtype != DType::kF32,
                    .bias = args.bias != nullptr,
                    .residual = args.residual != nullptr};
    absl::StatusOr<Product*> product = ProductOf(shape);
    if (!product.ok()) return product.status();
    cublasStatus_t status = (*product)->SetRows(args.rows);
    if (status == CUBLAS_STATUS_SUCCESS) status = (*product)->SetBias(args.bias);
    if (status != CUBLAS_STATUS_SUCCESS) return GemmStatus(library_, status, shape);
    if (!batch_invariant_) shape.rows = BucketOf(args.rows);
    auto chosen = chosen_.find(shape);
    if (chosen == chosen_.end()) {
      const std::optional<cublasLtMatmulAlgo_t> algorithm = Choose(stream, args, shape, **product);
      if (!algorithm.has_value()) return GemmStatus(library_, CUBLAS_STATUS_NOT_SUPPORTED, shape);
      chosen = chosen_.emplace(shape, *algorithm).first;
    }
    status = (*product)->Run(handle_, args, args.out, chosen->second, workspace_, stream);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) {
      // Found for other rows of the bucket. Batch-invariant there is no other.
      shape.rows = args.rows;
      auto other = others_.find(shape);
      if (other == others_.end() && !batch_invariant_) {
        const std::vector<cublasLtMatmulAlgo_t> candidates = (*product)->Candidates(handle_, true);
        if (!candidates.empty()) other = others_.emplace(shape, candidates.front()).first;
      }
      if (other != others_.end()) {
        status = (*product)->Run(handle_, args, args.out, other->second, workspace_, stream);
      }
    }
    return GemmStatus(library_, status, shape);
  }

 private:
  absl::StatusOr<Product*> ProductOf(const GemmShape& shape) {
    std::unique_ptr<Product>& product = products_[shape];
    if (product == nullptr) {
      absl::StatusOr<std::unique_ptr<Product>> created = Product::Create(library_, shape);
      if (!created.ok()) return created.status();
      product = *std::move(created);
    }
    return product.get();
  }

  std::optional<cublasLtMatmulAlgo_t> Choose(Stream stream, const GemmArgs& args, const GemmShape& shape,
                                             Product& product) {
    if (batch_invariant_) return ChooseForAnyRows(args.rows, product);
    if (const std::optional<AlgorithmBits> known = cache_.Find(shape)) {
      const cublasLtMatmulAlgo_t algorithm = AlgorithmOf(*known);
      if (product.Supports(handle_, algorithm)) return algorithm;
    }
    const std::vector<cublasLtMatmulAlgo_t> candidates = product.Candidates(handle_, true);
    if (candidates.empty()) return std::nullopt;
    const size_t out_bytes = static_cast<size_t>(args.rows * args.n) * SizeOf(args.out_dtype);
    Stopwatch stopwatch(stream);
    if (!stopwatch.Allocate(out_bytes)) return candidates.front();
    cublasLtMatmulAlgo_t best = candidates.front();
    float least = std::numeric_limits<float>::infinity();
    for (const cublasLtMatmulAlgo_t& candidate : candidates) {
      const float time = stopwatch.Time([&] {
        return product.Run(handle_, args, stopwatch.out(), candidate, workspace_, stream) ==
               CUBLAS_STATUS_SUCCESS;
      });
      if (time < least) {
        least = time;
        best = candidate;
      }
    }
    if (least < std::numeric_limits<float>::infinity()) cache_.Put(shape, BitsOf(best));
    return best;
  }

  // The first guess that is one for every number of rows; `rows` are those of the product at hand. Guesses
  // are asked for at rows that do not depend on it.
  std::optional<cublasLtMatmulAlgo_t> ChooseForAnyRows(int64_t rows, Product& product) {
    std::optional<cublasLtMatmulAlgo_t> chosen;
    for (const int64_t guessed_for :
         {int64_t{64}, int64_t{512}, int64_t{16}, int64_t{4096}, int64_t{1}, int64_t{8192}}) {
      product.SetRows(guessed_for);
      for (const cublasLtMatmulAlgo_t& candidate : product.Candidates(handle_, false)) {
        if (chosen.has_value()) break;
        const bool all = std::all_of(std::begin(kInvariantRows), std::end(kInvariantRows), [&](int64_t any) {
          return product.SetRows(any) == CUBLAS_STATUS_SUCCESS && product.Supports(handle_, candidate);
        });
        if (all) chosen = candidate;
      }
      if (chosen.has_value()) break;
    }
    if (product.SetRows(rows) != CUBLAS_STATUS_SUCCESS) return std::nullopt;
    return chosen;
  }

  const CublasLt& library_;
  const cublasLtHandle_t handle_;
  AlgorithmCache cache_;
  const bool batch_invariant_;
  void* workspace_ = nullptr;
  std::map<GemmShape, std::unique_ptr<Product>> products_;  // rows 0
  std::map<GemmShape, cublasLtMatmulAlgo_t> chosen_;        // of buckets of rows
  std::map<GemmShape, cublasLtMatmulAlgo_t> others_;        // of rows that their bucket's is none for
};

// Letters and digits; what else a name has would be trouble in a path.
std::string FileNamePart(std::string name) {
  for (char& c : name) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!plain) c = '-';
  }
  return name;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Gemm>> NewCublasGemm(const DeviceInfo& device,
                                                    const CublasGemmOptions& options) {
  absl::StatusOr<const CublasLt*> library = LoadCublasLt();
  if (!library.ok()) return library.status();
  cublasLtHandle_t handle = nullptr;
  if (const cublasStatus_t status = (*library)->Create(&handle); status != CUBLAS_STATUS_SUCCESS) {
    return absl::NotFoundError(
        absl::StrCat("cuBLASLt does not start: ", (*library)->GetStatusString(status)));
  }
  const size_t version = (*library)->GetVersion();
  std::string path;
  if (!options.cache_dir.empty()) {
    path = absl::StrCat(options.cache_dir, "/gemm-", FileNamePart(device.name), "-", version, ".txt");
  }
  // The form of the lines has a number, too.
  std::string title =
      absl::StrCat("orrery gemm 2, cublasLt ", version, ", driver ", device.driver_version, ", ", device.name,
                   " ", device.compute_major, ".", device.compute_minor, " x", device.multiprocessors);
  return std::make_unique<CublasGemm>(**library, handle, AlgorithmCache(std::move(path), std::move(title)),
                                      options.batch_invariant);
}

}  // namespace orrery::cuda
