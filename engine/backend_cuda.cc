#include "engine/backend_cuda.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/cuda/matrix.h"
#include "engine/cuda/sampler.h"
#include "engine/cuda/step_arrays.h"
#include "engine/cuda/step_graphs.h"
#include "kernels/cuda/decode_attention.h"
#include "kernels/cuda/feed_tokens.h"
#include "kernels/cuda/gather_rows.h"
#include "kernels/cuda/kv_pages.h"
#include "kernels/cuda/narrow.h"
#include "kernels/cuda/prefill_attention.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/rope_kv.h"
#include "kernels/cuda/silu_mul.h"
#include "kernels/cuda/skinny_matmul.h"
#include "scheduler/base/check.h"

namespace orrery {
namespace {

using cuda::DeviceMatrix;

// Logits that are computed at once, and most rows of a step that is recorded: with more the device has enough
// to do while the host launches.
constexpr int64_t kMostLogitRows = 256;

float* F32Of(const Tensor& tensor) {
  ORRERY_DCHECK(tensor.dtype == DType::kF32);
  return static_cast<float*>(tensor.data);
}

class CudaBackend final : public Backend {
 public:
  CudaBackend(std::unique_ptr<cuda::Device> device, std::unique_ptr<cuda::Gemm> gemm,
              const CudaBackendOptions& options)
      : device_(std::move(device)), gemm_(std::move(gemm)), options_(options), graphs_(*device_) {}
  // What is under way must not outlive the memory it uses.
  ~CudaBackend() override { device_->Synchronize().IgnoreError(); }

  // What goes into a product has the type of its weights.
  DType ActivationDtype(DType weights) const override {
    return weights == DType::kF16 ? DType::kF16 : DType::kBF16;
  }
  bool Packs(DType dtype) const override { return dtype == DType::kBF16 || dtype == DType::kF16; }
  bool KeepsKv(DType dtype) const override { return dtype == DType::kBF16 || dtype == DType::kE4M3; }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes) override { return device_->Allocate(bytes); }
  absl::Status Upload(const void* host, size_t bytes, void* device) override {
    device_->Upload(device, host, bytes);
    return device_->Synchronize();
  }
  absl::StatusOr<std::unique_ptr<Matrix>> Pack(absl::Span<const WeightView> parts, DType dtype,
                                               MatrixKind kind) override {
    return DeviceMatrix::Pack(*device_, parts, dtype, kind);
  }
  int64_t KvBlockBytes(const AttentionSpec& spec) const override {
    return cuda::PageBytes(spec.num_kv_heads, spec.head_dim, spec.kv_dtype);
  }
  int64_t WorkspaceBytes(const BackendLimits& limits) const override;
  absl::Status Prepare(const BackendLimits& limits) override;

  int64_t max_logit_rows() const override { return kMostLogitRows; }
  int max_in_flight() const override { return cuda::kStepsInFlight; }
  void BeginStep(const StepInput& input) override;
  void Copy(void* to, const void* from, size_t bytes) override { device_->Copy(to, from, bytes); }
  void Embed(const Tensor& out, const Matrix& table) override {
    const DeviceMatrix& matrix = DeviceMatrix::Of(table);
    Gather(out, matrix.data(), matrix.dtype(), step_->ids());
  }
  void Embed(const Tensor& out, const Tensor& table) override {
    Gather(out, table.data, table.dtype, step_->ids());
  }
  void RmsNorm(const Tensor& out, const Tensor& in, const float* gain, float eps) override;
  void MatMul(const Tensor& out, const Tensor& in, const Matrix& weight, const float* bias,
              const float* residual) override;
  void RopeAndWriteKv(const Tensor& qkv, const float* q_gain, const float* k_gain, float eps,
                      const KvLayer& layer) override;
  void PagedAttention(const Tensor& out, const Tensor& qkv, const KvLayer& layer) override;
  void GatherRows(const Tensor& out, const Tensor& in, absl::Span<const int32_t> rows) override {
    Gather(out, in.data, in.dtype, padded_rows_ > 0 ? step_->row_numbers() : sampler_->PutRows(rows));
  }
  void Sample(const Tensor& logits, absl::Span<const SampleArgs> args, SampleResult* results) override {
    EndGraph();
    sampler_->Sample(logits, args, results);
  }
  void Score(const Tensor& logits, absl::Span<const ScoreArgs> args, SampleResult* results) override {
    EndGraph();
    sampler_->Score(logits, args, results);
  }
  void EndStep() override;
  absl::Status Wait() override;
  void Synchronize() override {
    EndGraph();
    status_.Update(device_->Synchronize());
  }

 private:
  // A step that is begun and not waited for.
  struct Flight {
    std::unique_ptr<cuda::Event> done;
    absl::Status status;  // the first error of what was enqueued
  };
  // Device memory that Prepare allocates beside that of its parts, in bytes.
  struct Scratch {
    int64_t cos_sin, narrowed, product, gemm;
  };
  Scratch ScratchOf(const BackendLimits& limits) const;
  absl::Status UploadAngles();
  void Gather(const Tensor& out, const void* table, DType dtype, const int32_t* ids);
  const void* Narrowed(const Tensor& in, DType dtype);
  void MultiplyFew(const Tensor& out, const Tensor& in, const DeviceMatrix& weight, const float* bias,
                   const float* residual);
  void MultiplyMany(const Tensor& out, const Tensor& in, const DeviceMatrix& weight, const float* bias,
                    const float* residual);
  void Multiply(const cuda::GemmArgs& args) {
    graphs_.Run([&](cuda::Stream stream) {
      if (stream != device_->stream()) {
        // In the record alone: the step is right without it.
        if (!gemm_->Multiply(stream, args).ok()) graphs_.Spoil();
      } else if (status_.ok()) {
        status_ = gemm_->Multiply(stream, args);
      }
    });
  }
  // Rows of an operation: those that fill up the step are computed, too.
  int64_t RowsOf(const Tensor& tensor) const { return padded_rows_ > 0 ? padded_rows_ : tensor.rows; }
  // Behind the operations that a step's record has.
  void EndGraph() {
    status_.Update(graphs_.End(status_.ok()));
    padded_rows_ = 0;
  }
  cuda::KvPages Pages(const KvLayer& layer) const {
    return {.base = layer.base,
            .page_stride = layer.block_stride,
            .kv_heads = limits_.attention.num_kv_heads,
            .head_dim = limits_.attention.head_dim,
            .dtype = limits_.attention.kv_dtype};
  }

  const std::unique_ptr<cuda::Device> device_;
  const std::unique_ptr<cuda::Gemm> gemm_;
  const CudaBackendOptions options_;
  cuda::StepGraphs graphs_;
  int64_t padded_rows_ = 0;  // of a step that is recorded or replayed, to EndGraph
  absl::Status status_;      // the first error of a product or a record of the step
  std::array<Flight, cuda::kStepsInFlight> flights_;
  uint64_t ended_ = 0, waited_ = 0;  // steps
  BackendLimits limits_;

  std::unique_ptr<Buffer> cos_sin_;   // f32 [max_context, 2, head_dim / 2]
  std::unique_ptr<Buffer> narrowed_;  // [scratch_rows, max_inner]: a product's input that came in f32
  std::unique_ptr<Buffer> product_;   // f32 [scratch_rows, 2 * max_inner]: gate and up
  std::unique_ptr<Buffer> gemm_workspace_;
  std::optional<cuda::StepArrays> step_;
  std::optional<cuda::Sampler> sampler_;
};

CudaBackend::Scratch CudaBackend::ScratchOf(const BackendLimits& limits) const {
  const int64_t rows = std::min(limits.max_rows, options_.scratch_rows);
  return {.cos_sin = limits.max_context * limits.attention.head_dim * int64_t{sizeof(float)},
          .narrowed = rows * limits.max_inner * 2,
          .product = rows * 2 * limits.max_inner * int64_t{sizeof(float)},
          .gemm = static_cast<int64_t>(gemm_->WorkspaceBytes())};
}

int64_t CudaBackend::WorkspaceBytes(const BackendLimits& limits) const {
  const Scratch scratch = ScratchOf(limits);
  const cuda::StepArrays step(limits, device_->multiprocessors(), options_.batch_invariant);
  const cuda::Sampler sampler(*device_, limits.vocab_size, limits.max_rows, limits.max_slices);
  return scratch.cos_sin + scratch.narrowed + scratch.product + scratch.gemm +
         static_cast<int64_t>(step.bytes() + sampler.bytes());
}

absl::Status CudaBackend::Prepare(const BackendLimits& limits) {
  if (absl::Status status = CheckCudaLimits(limits); !status.ok()) return status;
  limits_ = limits;
  const Scratch scratch = ScratchOf(limits);
  const std::pair<std::unique_ptr<Buffer>*, int64_t> buffers[] = {{&cos_sin_, scratch.cos_sin},
                                                                  {&narrowed_, scratch.narrowed},
                                                                  {&product_, scratch.product},
                                                                  {&gemm_workspace_, scratch.gemm}};
  for (const auto& [buffer, bytes] : buffers) {
    absl::StatusOr<std::unique_ptr<Buffer>> allocated = device_->Allocate(static_cast<size_t>(bytes));
    if (!allocated.ok()) return allocated.status();
    *buffer = *std::move(allocated);
  }
  gemm_->set_workspace(gemm_workspace_->data());
  step_.emplace(limits, device_->multiprocessors(), options_.batch_invariant);
  if (absl::Status status = step_->Allocate(*device_); !status.ok()) return status;
  for (Flight& flight : flights_) {
    absl::StatusOr<std::unique_ptr<cuda::Event>> event = device_->NewEvent();
    if (!event.ok()) return event.status();
    flight.done = *std::move(event);
  }
  sampler_.emplace(*device_, limits.vocab_size, limits.max_rows, limits.max_slices);
  if (absl::Status status = sampler_->Allocate(); !status.ok()) return status;
  return UploadAngles();
}

absl::Status CudaBackend::UploadAngles() {
  const size_t pairs = limits_.inverse_frequencies.size();
  std::vector<float> cos_sin(static_cast<size_t>(limits_.max_context) * 2 * pairs);
  for (size_t position = 0; position < static_cast<size_t>(limits_.max_context); ++position) {
    float* const row = cos_sin.data() + position * 2 * pairs;
    for (size_t j = 0; j < pairs; ++j) {
      const double angle = static_cast<double>(position) * double{limits_.inverse_frequencies[j]};
      row[j] = static_cast<float>(std::cos(angle));
      row[pairs + j] = static_cast<float>(std::sin(angle));
    }
  }
  return Upload(cos_sin.data(), cos_sin.size() * sizeof(float), cos_sin_->data());
}

void CudaBackend::BeginStep(const StepInput& input) {
  const int64_t padded = cuda::StepGraphs::PaddedRows(static_cast<int64_t>(input.slices.size()));
  // Buffers have so many rows, and rows that fill up a step are decoded, which is not batch-invariant.
  const bool fits = padded <= std::min(limits_.max_rows, kMostLogitRows);
  padded_rows_ = options_.graphs && !options_.batch_invariant && input.decode_only && fits ? padded : 0;
  sampler_->BeginStep();
  step_->Begin(input, padded_rows_);
  if (padded_rows_ > 0) graphs_.Begin(padded_rows_);
  if (step_->sources() == nullptr) return;
  graphs_.Run([&](cuda::Stream stream) {
    cuda::FeedTokens(stream, {.sources = step_->sources(),
                              .sampled = sampler_->sampled(),
                              .ids = step_->ids(),
                              .rows = step_->rows()});
  });
}

void CudaBackend::Gather(const Tensor& out, const void* table, DType dtype, const int32_t* ids) {
  graphs_.Run([&](cuda::Stream stream) {
    cuda::GatherRows(stream, {.table = table,
                              .dtype = dtype,
                              .hidden = static_cast<int32_t>(out.cols),
                              .ids = ids,
                              .rows = RowsOf(out),
                              .out = F32Of(out)});
  });
}

void CudaBackend::RmsNorm(const Tensor& out, const Tensor& in, const float* gain, float eps) {
  graphs_.Run([&](cuda::Stream stream) {
    cuda::AddRmsNorm(stream, {.residual = F32Of(in),
                              .gain = gain,
                              .eps = eps,
                              .rows = RowsOf(in),
                              .hidden = static_cast<int32_t>(in.cols),
                              .out = out.data,
                              .out_dtype = out.dtype});
  });
}

void CudaBackend::MatMul(const Tensor& out, const Tensor& in, const Matrix& weight, const float* bias,
                         const float* residual) {
  const DeviceMatrix& matrix = DeviceMatrix::Of(weight);
  ORRERY_DCHECK(in.cols == matrix.k() && out.cols == matrix.out_columns() && in.rows == out.rows);
  const int64_t all = RowsOf(in);
  if (all <= cuda::kMaxSkinnyRows && !options_.batch_invariant) {
    return MultiplyFew(out.First(all), in.First(all), matrix, bias, residual);
  }
  const int64_t step = matrix.gated() || in.dtype != matrix.dtype() ? options_.scratch_rows : all;
  for (int64_t row = 0; row < all; row += step) {
    const int64_t rows = std::min(step, all - row);
    MultiplyMany(out.Slice(row, rows), in.Slice(row, rows), matrix, bias,
                 residual == nullptr ? nullptr : residual + row * out.cols);
  }
}

// As bf16 or f16 [rows, cols]; rows <= scratch_rows where there is something to convert.
const void* CudaBackend::Narrowed(const Tensor& in, DType dtype) {
  if (in.dtype == dtype) return in.data;
  const int64_t count = in.rows * in.cols;
  ORRERY_CHECK(static_cast<size_t>(count) * SizeOf(dtype) <= narrowed_->bytes());
  graphs_.Run([&](cuda::Stream stream) {
    cuda::Narrow(stream, {.in = F32Of(in), .out = narrowed_->data(), .out_dtype = dtype, .count = count});
  });
  return narrowed_->data();
}

void CudaBackend::MultiplyFew(const Tensor& out, const Tensor& in, const DeviceMatrix& weight,
                              const float* bias, const float* residual) {
  const void* const x = Narrowed(in, weight.dtype());
  graphs_.Run([&](cuda::Stream stream) {
    cuda::SkinnyMatMul(stream, {.x = x,
                                .dtype = weight.dtype(),
                                .rows = static_cast<int32_t>(in.rows),
                                .weight = weight.data(),
                                .n = weight.n(),
                                .k = weight.k(),
                                .gated = weight.gated(),
                                .bias = bias,
                                .residual = residual,
                                .out = out.data,
                                .out_dtype = out.dtype});
  });
}

void CudaBackend::MultiplyMany(const Tensor& out, const Tensor& in, const DeviceMatrix& weight,
                               const float* bias, const float* residual) {
  cuda::GemmArgs args{.x = Narrowed(in, weight.dtype()),
                      .rows = in.rows,
                      .weight = weight.data(),
                      .dtype = weight.dtype(),
                      .n = weight.n(),
                      .k = weight.k(),
                      .bias = bias,
                      .residual = residual,
                      .out = out.data,
                      .out_dtype = out.dtype};
  if (!weight.gated()) return Multiply(args);
  // What a model asks for: a gate without a residual.
  ORRERY_CHECK(residual == nullptr);
  ORRERY_CHECK(static_cast<size_t>(in.rows * weight.n()) * sizeof(float) <= product_->bytes());
  args.out = product_->data();
  // bf16: half the traffic, and the gated product is rounded to it again. Not f16: a gate below -65504, whose
  // product is zero, would be infinite, and that times its sigmoid of zero is NaN.
  args.out_dtype = bias == nullptr && weight.dtype() == DType::kBF16 ? DType::kBF16 : DType::kF32;
  Multiply(args);
  graphs_.Run([&](cuda::Stream stream) {
    cuda::SiluMul(stream, {.gate_up = args.out,
                           .dtype = args.out_dtype,
                           .rows = out.rows,
                           .inner = static_cast<int32_t>(out.cols),
                           .out = out.data,
                           .out_dtype = out.dtype});
  });
}

void CudaBackend::RopeAndWriteKv(const Tensor& qkv, const float* q_gain, const float* k_gain, float eps,
                                 const KvLayer& layer) {
  graphs_.Run([&](cuda::Stream stream) {
    cuda::RopeAndWriteKv(stream, {.qkv = qkv.data,
                                  .dtype = qkv.dtype,
                                  .rows = RowsOf(qkv),
                                  .q_heads = limits_.attention.num_heads,
                                  .pages = Pages(layer),
                                  .rotary_dim = limits_.attention.head_dim,
                                  .cos_sin = static_cast<const float*>(cos_sin_->data()),
                                  .positions = step_->positions(),
                                  .q_gain = q_gain,
                                  .k_gain = k_gain,
                                  .eps = eps,
                                  .slots = step_->kv_slots()});
  });
}

void CudaBackend::PagedAttention(const Tensor& out, const Tensor& qkv, const KvLayer& layer) {
  const auto launch = [&](auto args, auto attention) {
    args.q = qkv.data;
    args.q_dtype = qkv.dtype;
    args.q_stride = qkv.cols;
    args.pages = Pages(layer);
    args.out = out.data;
    args.out_dtype = out.dtype;
    graphs_.Run([&](cuda::Stream stream) { attention(stream, args); });
  };
  if (step_->decode().requests > 0) launch(step_->decode(), cuda::DecodeAttention);
  if (step_->prefill().num_tiles > 0) launch(step_->prefill(), cuda::PrefillAttention);
}

void CudaBackend::EndStep() {
  EndGraph();
  Flight& flight = flights_[ended_++ % flights_.size()];
  flight.status = std::exchange(status_, absl::OkStatus());
  device_->Record(*flight.done);
}

absl::Status CudaBackend::Wait() {
  Flight& flight = flights_[waited_++ % flights_.size()];
  // The device's first: one that is lost fails products, too, and only it says so.
  absl::Status status = device_->Wait(*flight.done);
  status.Update(std::exchange(flight.status, absl::OkStatus()));
  if (!status.ok()) step_->Forget();
  return sampler_->FinishStep(std::move(status));
}

}  // namespace

absl::Status CheckCudaLimits(const BackendLimits& limits) {
  const AttentionSpec& spec = limits.attention;
  if (!cuda::DecodeAttentionSupports(spec.head_dim) || !cuda::PrefillAttentionSupports(spec.head_dim)) {
    return absl::InvalidArgumentError(
        absl::StrCat("head_dim ", spec.head_dim, " is not supported on CUDA: 64 or 128"));
  }
  if (spec.num_kv_heads < 1 || spec.num_heads < 1 || spec.num_heads % spec.num_kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat("num_attention_heads ", spec.num_heads,
                                                   " is no multiple of num_key_value_heads ",
                                                   spec.num_kv_heads));
  }
  if (spec.kv_dtype != DType::kBF16 && spec.kv_dtype != DType::kE4M3) {
    return absl::InvalidArgumentError(absl::StrCat("--kv-dtype ", std::string(NameOf(spec.kv_dtype)),
                                                   " is not supported on CUDA: bf16 or fp8"));
  }
  if (limits.hidden % cuda::kColumnStep != 0 || limits.hidden < 1 || limits.hidden > cuda::kMaxNormHidden) {
    return absl::InvalidArgumentError(absl::StrCat("hidden_size ", limits.hidden,
                                                   " is not supported on CUDA: a multiple of ",
                                                   cuda::kColumnStep, ", at most ", cuda::kMaxNormHidden));
  }
  return absl::OkStatus();
}

std::unique_ptr<Backend> NewCudaBackend(std::unique_ptr<cuda::Device> device,
                                        std::unique_ptr<cuda::Gemm> gemm, const CudaBackendOptions& options) {
  return std::make_unique<CudaBackend>(std::move(device), std::move(gemm), options);
}

}  // namespace orrery
