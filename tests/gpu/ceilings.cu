// What this device can do at most, measured in the same run as everything that is compared with it: bytes
// read, copied and combined per second, bf16 products, and what a kernel boundary costs. Prints one JSON
// object.
//
//   gpu_ceilings
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

namespace {

constexpr int kRounds = 7;
constexpr int kThreads = 512;

void Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}
void Check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  std::fprintf(stderr, "%s: cuBLASLt status %d\n", what, static_cast<int>(status));
  std::exit(1);
}

// Seconds of one call: the median of kRounds rounds of `repeats` calls between two events.
double Seconds(int repeats, const std::function<void()>& work) {
  cudaEvent_t begin, end;
  Check(cudaEventCreate(&begin), "event");
  Check(cudaEventCreate(&end), "event");
  work();
  std::vector<double> seconds;
  for (int round = 0; round < kRounds; ++round) {
    Check(cudaEventRecord(begin), "record");
    for (int i = 0; i < repeats; ++i) work();
    Check(cudaEventRecord(end), "record");
    Check(cudaEventSynchronize(end), "synchronize");
    float ms = 0;
    Check(cudaEventElapsedTime(&ms, begin, end), "elapsed");
    seconds.push_back(ms / 1e3 / repeats);
  }
  Check(cudaEventDestroy(begin), "event");
  Check(cudaEventDestroy(end), "event");
  std::nth_element(seconds.begin(), seconds.begin() + kRounds / 2, seconds.end());
  return seconds[kRounds / 2];
}

// The same where one call takes less than the host needs to launch it: `repeats` calls are one launch.
double RecordedSeconds(int repeats, const std::function<void(cudaStream_t)>& work) {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  Check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  work(stream);
  Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "capture");
  for (int i = 0; i < repeats; ++i) work(stream);
  Check(cudaStreamEndCapture(stream, &graph), "capture");
  Check(cudaGraphInstantiate(&replay, graph, 0), "instantiate");
  const double seconds = Seconds(1, [&] { Check(cudaGraphLaunch(replay, nullptr), "graph"); });
  Check(cudaGraphExecDestroy(replay), "graph");
  Check(cudaGraphDestroy(graph), "graph");
  Check(cudaStreamDestroy(stream), "stream");
  return seconds / repeats;
}

__device__ uint32_t Mixed(uint64_t i) {
  uint64_t x = (i + 1) * 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 31)) * 0xbf58476d1ce4e5b9ull;
  return static_cast<uint32_t>(x >> 32);
}

// Random values in [-1, 1): products of zeros run faster than products.
__global__ void FillBF16(__nv_bfloat16* out, size_t count) {
  for (size_t i = blockIdx.x * size_t{kThreads} + threadIdx.x; i < count; i += size_t{gridDim.x} * kThreads)
    out[i] = __float2bfloat16(static_cast<float>(Mixed(i)) * 0x1p-31f - 1.0f);
}

__global__ void Read(const uint4* in, size_t count, uint32_t* out) {
  uint32_t sum = 0;
  for (size_t i = blockIdx.x * size_t{kThreads} + threadIdx.x; i < count; i += size_t{gridDim.x} * kThreads) {
    const uint4 v = in[i];
    sum ^= v.x ^ v.y ^ v.z ^ v.w;
  }
  if (sum == 0x12345678u) *out = sum;  // never, as far as the compiler knows sometimes
}
__global__ void CopyAll(const uint4* in, uint4* out, size_t count) {
  for (size_t i = blockIdx.x * size_t{kThreads} + threadIdx.x; i < count; i += size_t{gridDim.x} * kThreads)
    out[i] = in[i];
}
__global__ void Triad(const float4* a, const float4* b, float4* out, size_t count) {
  for (size_t i = blockIdx.x * size_t{kThreads} + threadIdx.x; i < count; i += size_t{gridDim.x} * kThreads) {
    const float4 x = a[i], y = b[i];
    out[i] = make_float4(x.x + 3 * y.x, x.y + 3 * y.y, x.z + 3 * y.z, x.w + 3 * y.w);
  }
}
__global__ void Nothing() {}

void* Allocate(size_t bytes) {
  void* memory = nullptr;
  Check(cudaMalloc(&memory, bytes), "allocate");
  FillBF16<<<2048, kThreads>>>(static_cast<__nv_bfloat16*>(memory), bytes / 2);
  return memory;
}

void Bandwidths(int multiprocessors) {
  const double sizes[] = {0.25, 1, 8};
  const size_t most = size_t{8} << 30;
  void *a = Allocate(most), *b = Allocate(most), *c = Allocate(most);
  const int grid = multiprocessors * 4;
  std::printf("  \"bandwidth_tb_s\": {");
  for (double size : sizes) {
    const auto bytes = static_cast<size_t>(size * (1 << 30));
    const size_t count = bytes / 16;
    const int repeats = size < 1 ? 40 : size < 8 ? 10 : 3;
    const double read = Seconds(
        repeats, [&] { Read<<<grid, kThreads>>>(static_cast<uint4*>(a), count, static_cast<uint32_t*>(c)); });
    const double copy = Seconds(
        repeats, [&] { CopyAll<<<grid, kThreads>>>(static_cast<uint4*>(a), static_cast<uint4*>(b), count); });
    const double triad = Seconds(repeats, [&] {
      Triad<<<grid, kThreads>>>(static_cast<float4*>(a), static_cast<float4*>(b), static_cast<float4*>(c),
                                count);
    });
    std::printf("%s\"%g GiB\": {\"read\": %.3f, \"copy\": %.3f, \"triad\": %.3f}",
                size == sizes[0] ? "" : ", ", size, bytes / read / 1e12, 2 * bytes / copy / 1e12,
                3 * bytes / triad / 1e12);
  }
  std::printf("},\n");
  for (void* memory : {a, b, c}) Check(cudaFree(memory), "free");
}

// out [m, n] = x [m, k] weight [n, k]^T, bf16 in and out, f32 sums: the first algorithm that cuBLASLt
// suggests and the best of 32, over weights that rotate so that none is in the cache. What it suggests and
// then refuses is left out.
class Product {
 public:
  Product(cublasLtHandle_t handle, int64_t m, int64_t n, int64_t k) : handle_(handle), m_(m), n_(n), k_(k) {
    copies_ = std::max<int64_t>(1, (int64_t{192} << 20) / (n * k * 2));
    weight_ = Allocate(static_cast<size_t>(copies_ * n * k * 2));
    x_ = Allocate(static_cast<size_t>(m * k * 2));
    out_ = Allocate(static_cast<size_t>(m * n * 2));
    workspace_ = Allocate(kWorkspace);
    Check(cublasLtMatmulDescCreate(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "product");
    const cublasOperation_t transposed = CUBLAS_OP_T;
    Check(cublasLtMatmulDescSetAttribute(product_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                         sizeof(transposed)),
          "product");
    // Columns first, as cuBLAS sees it: out^T [n, m] = weight [n, k] x^T.
    Check(cublasLtMatrixLayoutCreate(&weight_layout_, CUDA_R_16BF, k, n, k), "layout");
    Check(cublasLtMatrixLayoutCreate(&x_layout_, CUDA_R_16BF, k, m, k), "layout");
    Check(cublasLtMatrixLayoutCreate(&out_layout_, CUDA_R_16BF, n, m, n), "layout");
  }
  ~Product() {
    cublasLtMatrixLayoutDestroy(weight_layout_);
    cublasLtMatrixLayoutDestroy(x_layout_);
    cublasLtMatrixLayoutDestroy(out_layout_);
    cublasLtMatmulDescDestroy(product_);
    for (void* memory : {weight_, x_, out_, workspace_}) cudaFree(memory);
  }
  // `first`: nothing is printed before it; false behind it.
  void Print(bool& first) {
    cublasLtMatmulPreference_t preference;
    Check(cublasLtMatmulPreferenceCreate(&preference), "preference");
    const size_t workspace = kWorkspace;
    Check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                               &workspace, sizeof(workspace)),
          "preference");
    std::vector<cublasLtMatmulHeuristicResult_t> found(32);
    int count = 0;
    Check(
        cublasLtMatmulAlgoGetHeuristic(handle_, product_, weight_layout_, x_layout_, out_layout_, out_layout_,
                                       preference, static_cast<int>(found.size()), found.data(), &count),
        "heuristic");
    cublasLtMatmulPreferenceDestroy(preference);
    const int repeats = std::clamp(static_cast<int>(2e12 / (2.0 * m_ * n_ * k_)), 5, 50);
    double first_s = 0, best_s = 1e9;
    int candidates = 0;
    for (int i = 0; i < count; ++i) {
      if (found[i].state != CUBLAS_STATUS_SUCCESS ||
          Multiply(found[i].algo, nullptr) != CUBLAS_STATUS_SUCCESS ||
          cudaDeviceSynchronize() != cudaSuccess) {
        cudaGetLastError();  // a failed launch is not remembered
        continue;
      }
      const double seconds = RecordedSeconds(
          repeats, [&](cudaStream_t stream) { Check(Multiply(found[i].algo, stream), "matmul"); });
      if (candidates++ == 0) first_s = seconds;
      best_s = std::min(best_s, seconds);
    }
    if (candidates == 0) {
      std::fprintf(stderr, "m%ld %ldx%ld: cuBLASLt has no algorithm that runs\n", m_, n_, k_);
      return;
    }
    const double flop = 2.0 * m_ * n_ * k_, bytes = 2.0 * n_ * k_ + 2.0 * m_ * (n_ + k_);
    std::printf(
        "%s\n    {\"m\": %ld, \"n\": %ld, \"k\": %ld, \"first_us\": %.2f, \"best_us\": %.2f, \"candidates\": "
        "%d, "
        "\"tflop_s\": %.1f, \"tb_s\": %.2f}",
        first ? "" : ",", m_, n_, k_, first_s * 1e6, best_s * 1e6, candidates, flop / best_s / 1e12,
        bytes / best_s / 1e12);
    std::fflush(stdout);
    first = false;
  }

 private:
  static constexpr size_t kWorkspace = 32 << 20;
  cublasStatus_t Multiply(const cublasLtMatmulAlgo_t& algorithm, cudaStream_t stream) {
    const float one = 1, zero = 0;
    const char* weight = static_cast<const char*>(weight_) + next_ * n_ * k_ * 2;
    next_ = (next_ + 1) % copies_;
    return cublasLtMatmul(handle_, product_, &one, weight, weight_layout_, x_, x_layout_, &zero, out_,
                          out_layout_, out_, out_layout_, &algorithm, workspace_, kWorkspace, stream);
  }

  cublasLtHandle_t handle_;
  int64_t m_, n_, k_, copies_ = 1, next_ = 0;
  void *weight_, *x_, *out_, *workspace_;
  cublasLtMatmulDesc_t product_;
  cublasLtMatrixLayout_t weight_layout_, x_layout_, out_layout_;
};

void Products() {
  cublasLtHandle_t handle;
  Check(cublasLtCreate(&handle), "cuBLASLt");
  // Llama-3-8B's and Qwen3-0.6B's matrices, QKV and gate+up fused, and a square one for the peak.
  const int64_t shapes[][2] = {{6144, 4096},  {4096, 4096}, {28672, 4096},
                               {4096, 14336}, {4096, 1024}, {6144, 1024}};
  std::printf("  \"products\": [");
  bool first = true;
  Product(handle, 8192, 8192, 8192).Print(first);
  for (int64_t m : {1, 8, 64, 256, 2048})
    for (const auto& [n, k] : shapes) Product(handle, m, n, k).Print(first);
  std::printf("],\n");
  cublasLtDestroy(handle);
}

// Microseconds for each of 330 kernels that do nothing, about as many as a decode step of 32 layers has.
void Launches() {
  constexpr int kKernels = 330;
  const auto launch = [](cudaStream_t stream, bool overlap) {
    for (int i = 0; i < kKernels; ++i) {
      cudaLaunchConfig_t config{};
      config.gridDim = 132, config.blockDim = 128, config.stream = stream;
      cudaLaunchAttribute attribute{};
      attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
      attribute.val.programmaticStreamSerializationAllowed = 1;
      config.attrs = &attribute;
      config.numAttrs = overlap ? 1 : 0;
      Check(cudaLaunchKernelEx(&config, Nothing), "launch");
    }
  };
  cudaStream_t stream;
  Check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  std::printf("  \"launch_us\": {\"eager\": %.3f",
              Seconds(5, [&] { launch(nullptr, false); }) / kKernels * 1e6);
  for (const bool overlap : {false, true}) {
    cudaGraph_t graph;
    cudaGraphExec_t replay;
    Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
    launch(stream, overlap);
    Check(cudaStreamEndCapture(stream, &graph), "capture");
    Check(cudaGraphInstantiate(&replay, graph, 0), "instantiate");
    std::printf(", \"%s\": %.3f", overlap ? "graph, overlapping starts" : "graph",
                Seconds(5, [&] { Check(cudaGraphLaunch(replay, nullptr), "graph"); }) / kKernels * 1e6);
    Check(cudaGraphExecDestroy(replay), "graph");
    Check(cudaGraphDestroy(graph), "graph");
  }
  std::printf("}\n");
}

}  // namespace

int main() {
  cudaDeviceProp device{};
  Check(cudaGetDeviceProperties(&device, 0), "device");
  int driver = 0, runtime = 0;
  Check(cudaDriverGetVersion(&driver), "driver");
  Check(cudaRuntimeGetVersion(&runtime), "runtime");
  std::printf(
      "{\n  \"device\": \"%s\", \"capability\": \"%d.%d\", \"multiprocessors\": %d, \"memory_gb\": %.1f, "
      "\"driver\": %d, \"runtime\": %d, \"cublaslt\": %zu,\n",
      device.name, device.major, device.minor, device.multiProcessorCount, device.totalGlobalMem / 1e9,
      driver, runtime, cublasLtGetVersion());
  Bandwidths(device.multiProcessorCount);
  Products();
  Launches();
  std::printf("}\n");
}
