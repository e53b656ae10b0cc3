#include "engine/backend_cpu.h"

#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/embedding.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/rope.h"
#include "kernels/cpu/sample.h"
#include "kernels/cpu/thread_pool.h"
#include "scheduler/base/check.h"

namespace orrery {
namespace {

// Anonymous pages: zero at first, resident once touched, in huge pages where the system has them.
class CpuBuffer final : public Buffer {
 public:
  static absl::StatusOr<std::unique_ptr<Buffer>> Make(size_t bytes) {
    const size_t mapped = std::max<size_t>(bytes, 1);
    void* data =
        mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) {
      return absl::ResourceExhaustedError(absl::StrCat("no memory for ", bytes, " bytes"));
    }
    madvise(data, mapped, MADV_HUGEPAGE);
    return std::unique_ptr<Buffer>(new CpuBuffer(data, mapped));
  }
  ~CpuBuffer() override { munmap(data_, bytes_); }
  void* data() const override { return data_; }
  size_t bytes() const override { return bytes_; }

 private:
  CpuBuffer(void* data, size_t bytes) : data_(data), bytes_(bytes) {}
  void* data_;
  size_t bytes_;
};

class CpuMatrix final : public Matrix {
 public:
  explicit CpuMatrix(PackedMatrix packed) : packed_(std::move(packed)) {}
  int64_t n() const override { return packed_.n(); }
  int64_t k() const override { return packed_.k(); }
  size_t bytes() const override { return packed_.bytes(); }
  const PackedMatrix& packed() const { return packed_; }

 private:
  PackedMatrix packed_;
};

const PackedMatrix& Packed(const Matrix& matrix) { return static_cast<const CpuMatrix&>(matrix).packed(); }
RowsOut Rows(const Tensor& tensor) { return {.data = tensor.data, .dtype = tensor.dtype}; }
float* F32(const Tensor& tensor) {
  ORRERY_DCHECK(tensor.dtype == DType::kF32);
  return static_cast<float*>(tensor.data);
}

AttentionShape ShapeOf(const AttentionSpec& spec) {
  return {.num_q_heads = spec.num_heads,
          .num_kv_heads = spec.num_kv_heads,
          .head_dim = spec.head_dim,
          .kv_dtype = spec.kv_dtype};
}

class CpuBackend final : public Backend {
 public:
  CpuBackend(int num_threads, KernelTrace* trace) : threads_(num_threads), stream_(threads_, trace) {}

  DType ActivationDtype(DType weights) const override {
    // Products with bf16 weights round their input to bf16 on AMX: storing it so loses nothing there. Those
    // with i8 weights would take more of it (15 bits beside the row's largest value on AMX, f32 below): half
    // of the traffic costs them 2^-9 of each value. On the models of the engine's tests bf16 everywhere moves
    // logits by 0.4 to 0.9 %, i8 weights by 1.7 to 3.2 %.
    return weights == DType::kBF16 || weights == DType::kI8 ? DType::kBF16 : DType::kF32;
  }
  bool Packs(DType dtype) const override { return dtype != DType::kI32 && dtype != DType::kE4M3; }
  bool KeepsKv(DType dtype) const override {
    return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16;
  }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes) override { return CpuBuffer::Make(bytes); }
  absl::Status Upload(const void* host, size_t bytes, void* device) override {
    std::memcpy(device, host, bytes);
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<Matrix>> Pack(absl::Span<const WeightView> parts, DType dtype,
                                               MatrixKind kind) override;
  int64_t KvBlockBytes(const AttentionSpec& spec) const override {
    return orrery::KvBlockBytes(ShapeOf(spec));
  }
  int64_t WorkspaceBytes(const BackendLimits& limits) const override;
  absl::Status Prepare(const BackendLimits& limits) override;

  int64_t max_logit_rows() const override { return 64; }
  int max_in_flight() const override { return 1; }
  void BeginStep(const StepInput& input) override;
  void Copy(void* to, const void* from, size_t bytes) override {
    stream_.Enqueue("copy", [=] { std::memcpy(to, from, bytes); });
  }
  void Embed(const Tensor& out, const Matrix& table) override;
  void Embed(const Tensor& out, const Tensor& table) override;
  void RmsNorm(const Tensor& out, const Tensor& in, const float* gain, float eps) override;
  void MatMul(const Tensor& out, const Tensor& in, const Matrix& weight, const float* bias,
              const float* residual) override;
  void RopeAndWriteKv(const Tensor& qkv, const float* q_gain, const float* k_gain, float eps,
                      const KvLayer& layer) override;
  void PagedAttention(const Tensor& out, const Tensor& qkv, const KvLayer& layer) override;
  void GatherRows(const Tensor& out, const Tensor& in, absl::Span<const int32_t> rows) override;
  void Sample(const Tensor& logits, absl::Span<const SampleArgs> args, SampleResult* results) override;
  void Score(const Tensor& logits, absl::Span<const ScoreArgs> args, SampleResult* results) override;
  void EndStep() override {}
  absl::Status Wait() override {
    stream_.Run();
    return absl::OkStatus();
  }
  void Synchronize() override { stream_.Run(); }

 private:
  ThreadPool threads_;
  CpuStream stream_;
  BackendLimits limits_;
  float scale_ = 1.0f;
  std::optional<AttentionPlan> attention_;
  std::vector<KvSlice> slices_;
  absl::Span<const TokenId> ids_;
  std::unique_ptr<Buffer> scratch_, cos_sin_;
};

// Scratch that operations take turns with: no two run at a time.
size_t OperationScratchBytes(const BackendLimits& limits, int num_threads) {
  const size_t sample_bytes =
      static_cast<size_t>(SampleScratchBytes(limits.vocab_size)) * static_cast<size_t>(num_threads);
  return std::max(sample_bytes, MatMulScratchBytes(limits.max_rows, limits.max_inner, num_threads));
}

size_t CosSinBytes(const BackendLimits& limits) {
  return static_cast<size_t>(limits.max_rows * limits.attention.head_dim) * sizeof(float);
}

absl::Status CannotPack(const WeightView& part, DType dtype, PackError error) {
  const auto name = [](DType type) { return absl::string_view(NameOf(type).data(), NameOf(type).size()); };
  const std::string what =
      absl::StrCat("cannot be packed from ", name(part.dtype), " as ", name(dtype), ": ");
  switch (error) {
    case PackError::kNotFinite:
      return absl::InvalidArgumentError(absl::StrCat(what, "it has a value that is infinite or NaN"));
    case PackError::kTooDeep:
      return absl::InvalidArgumentError(absl::StrCat(what, "rows of ", part.cols, " values, at most ",
                                                     PackedMatrix::kMaxInt8Depth, " are supported"));
    case PackError::kUnsupported:
      return absl::InvalidArgumentError(absl::StrCat(what, "not supported"));
    default:
      return absl::ResourceExhaustedError(absl::StrCat(what, "no memory"));
  }
}

absl::StatusOr<std::unique_ptr<Matrix>> CpuBackend::Pack(absl::Span<const WeightView> parts, DType dtype,
                                                         MatrixKind kind) {
  std::vector<MatrixSource> sources;
  for (const WeightView& part : parts) {
    sources.push_back({.data = part.data, .dtype = part.dtype, .rows = part.rows});
  }
  const ColumnOrder order = kind == MatrixKind::kGated ? ColumnOrder::kGated : ColumnOrder::kStacked;
  PackError error = PackError::kNone;
  std::optional<PackedMatrix> packed = PackedMatrix::Pack(threads_, {sources.data(), sources.size()},
                                                          parts.front().cols, dtype, order, &error);
  if (!packed.has_value()) return CannotPack(parts.front(), dtype, error);
  return std::make_unique<CpuMatrix>(*std::move(packed));
}

int64_t CpuBackend::WorkspaceBytes(const BackendLimits& limits) const {
  const int num_threads = threads_.num_threads();
  // The plan of attention has the position and the slot of every row.
  const int64_t plan = limits.max_rows * static_cast<int64_t>(sizeof(int32_t) + sizeof(int64_t));
  return static_cast<int64_t>(OperationScratchBytes(limits, num_threads) + CosSinBytes(limits)) + plan +
         num_threads * AttentionPlan::ThreadBytes(ShapeOf(limits.attention));
}

absl::Status CpuBackend::Prepare(const BackendLimits& limits) {
  const AttentionShape shape = ShapeOf(limits.attention);
  if (!IsValid(shape)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "attention with ", shape.num_q_heads, " heads, ", shape.num_kv_heads, " KV heads of size ",
        shape.head_dim, " is not supported on the CPU (head size at most ", kMaxHeadDim, ")"));
  }
  limits_ = limits;
  scale_ = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  const int num_threads = threads_.num_threads();
  attention_.emplace(shape, limits.max_rows, limits.max_slices, num_threads);
  slices_.reserve(static_cast<size_t>(limits.max_slices));
  absl::StatusOr<std::unique_ptr<Buffer>> scratch = Allocate(OperationScratchBytes(limits, num_threads));
  if (!scratch.ok()) return scratch.status();
  scratch_ = *std::move(scratch);
  absl::StatusOr<std::unique_ptr<Buffer>> cos_sin = Allocate(CosSinBytes(limits));
  if (!cos_sin.ok()) return cos_sin.status();
  cos_sin_ = *std::move(cos_sin);
  return absl::OkStatus();
}

void CpuBackend::BeginStep(const StepInput& input) {
  ORRERY_DCHECK(input.sources.empty());
  ids_ = input.ids;
  slices_.clear();
  for (const StepSlice& slice : input.slices) {
    slices_.push_back({.row_begin = slice.row_begin,
                       .count = slice.count,
                       .position = slice.position,
                       .block_table = slice.block_table});
  }
  attention_->Build(slices_.data(), static_cast<int64_t>(slices_.size()));
  stream_.Enqueue("angles", [this] {
    RopeAngles(threads_, attention_->positions(), static_cast<int64_t>(ids_.size()),
               limits_.inverse_frequencies.data(), static_cast<int32_t>(limits_.inverse_frequencies.size()),
               static_cast<float*>(cos_sin_->data()));
  });
}

void CpuBackend::Embed(const Tensor& out, const Matrix& table) {
  stream_.Enqueue("embed", [this, out, packed = &Packed(table)] {
    threads_.ParallelFor(out.rows, 8, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i)
        packed->ReadRow(ids_[static_cast<size_t>(i)], F32(out) + i * out.cols);
    });
  });
}

void CpuBackend::Embed(const Tensor& out, const Tensor& table) {
  stream_.Enqueue("embed", [this, out, table] {
    orrery::GatherRows(threads_, table.data, table.dtype, table.cols, ids_.data(), out.rows, F32(out));
  });
}

void CpuBackend::RmsNorm(const Tensor& out, const Tensor& in, const float* gain, float eps) {
  stream_.Enqueue("norm", [this, out, in, gain, eps] {
    orrery::RmsNorm(threads_, F32(in), in.rows, in.cols, {.gain = gain, .eps = eps}, Rows(out));
  });
}

void CpuBackend::MatMul(const Tensor& out, const Tensor& in, const Matrix& weight, const float* bias,
                        const float* residual) {
  const PackedMatrix* const packed = &Packed(weight);
  ORRERY_DCHECK(in.cols == packed->k() && out.cols == packed->out_columns() && in.rows == out.rows);
  stream_.Enqueue("matmul", [this, out, in, packed, bias, residual] {
    orrery::MatMul(threads_, {.data = in.data, .dtype = in.dtype, .rows = in.rows, .stride = in.cols},
                   *packed, {.data = out.data, .dtype = out.dtype, .stride = out.cols},
                   {.bias = bias, .residual = residual, .residual_stride = out.cols}, scratch_->data());
  });
}

void CpuBackend::RopeAndWriteKv(const Tensor& qkv, const float* q_gain, const float* k_gain, float eps,
                                const KvLayer& layer) {
  stream_.Enqueue("rope", [this, qkv, q_gain, k_gain, eps, layer] {
    orrery::RopeAndWriteKv(threads_, {.shape = attention_->shape(),
                                      .qkv = F32(qkv),
                                      .rows = qkv.rows,
                                      .cos_sin = static_cast<const float*>(cos_sin_->data()),
                                      .rotary_dim = limits_.attention.head_dim,
                                      .q_gain = q_gain,
                                      .k_gain = k_gain,
                                      .eps = eps,
                                      .kv_slots = attention_->kv_slots(),
                                      .pool = {.base = layer.base, .block_stride = layer.block_stride}});
  });
}

void CpuBackend::PagedAttention(const Tensor& out, const Tensor& qkv, const KvLayer& layer) {
  stream_.Enqueue("attention", [this, out, qkv, layer] {
    orrery::PagedAttention(threads_, *attention_, F32(qkv),
                           {.base = layer.base, .block_stride = layer.block_stride}, scale_, Rows(out));
  });
}

void CpuBackend::GatherRows(const Tensor& out, const Tensor& in, absl::Span<const int32_t> rows) {
  stream_.Enqueue("gather", [this, out, in, rows = rows.data()] {
    orrery::GatherRows(threads_, in.data, in.dtype, in.cols, rows, out.rows, F32(out));
  });
}

void CpuBackend::Sample(const Tensor& logits, absl::Span<const SampleArgs> args, SampleResult* results) {
  stream_.Enqueue("sample", [this, logits, args, results] {
    SampleRows(threads_, F32(logits), logits.cols, limits_.vocab_size, args.data(),
               static_cast<int64_t>(args.size()), scratch_->data(), results);
  });
}

void CpuBackend::Score(const Tensor& logits, absl::Span<const ScoreArgs> args, SampleResult* results) {
  stream_.Enqueue("score", [this, logits, args, results] {
    ScoreRows(threads_, F32(logits), logits.cols, limits_.vocab_size, args.data(),
              static_cast<int64_t>(args.size()), scratch_->data(), results);
  });
}

}  // namespace

std::unique_ptr<Backend> NewCpuBackend(int num_threads, KernelTrace* trace) {
  return std::make_unique<CpuBackend>(num_threads, trace);
}

int DefaultCpuThreads() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::clamp(CPU_COUNT(&set), 1, ThreadPool::kMaxThreads);
}

}  // namespace orrery
