// Backend: the fused operations a model is written in, once, for every device. A backend owns its memory, its
// packed weights and one stream: the operations of a step are enqueued in order and run at any time until
// Wait for that step returns; tensors are copied, what else they point to must stay until then. After Prepare
// nothing allocates.
//
// Numerics that a model may rely on: products accumulate in f32, norms, rotations, softmax and the residual
// stream are f32, activations between operations are stored as activation_dtype().
#ifndef ORRERY_ENGINE_BACKEND_H_
#define ORRERY_ENGINE_BACKEND_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/checkpoint/checkpoint.h"
#include "kernels/cpu/sample.h"
#include "kernels/dtype.h"
#include "scheduler/base/ids.h"

namespace orrery {

enum class Device : uint8_t { kCpu, kCuda };

// A view of device memory: row r of [rows, cols] begins at data + r * cols elements. Does not own.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kF32;
  Device device = Device::kCpu;
  int64_t rows = 0;
  int64_t cols = 0;

  // The first `count` rows.
  Tensor First(int64_t count) const {
    Tensor view = *this;
    view.rows = count;
    return view;
  }
  Tensor Slice(int64_t begin, int64_t count) const {
    Tensor view = First(count);
    view.data = static_cast<std::byte*>(data) + static_cast<size_t>(begin * cols) * SizeOf(dtype);
    return view;
  }
  size_t bytes() const { return static_cast<size_t>(rows * cols) * SizeOf(dtype); }
};

// Device memory with an owner; the bytes are zero at first. `data` is aligned to 64.
class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual void* data() const = 0;
  virtual size_t bytes() const = 0;
};

// A weight matrix W [n, k] in the backend's own layout.
class Matrix {
 public:
  virtual ~Matrix() = default;
  virtual int64_t n() const = 0;
  virtual int64_t k() const = 0;
  virtual size_t bytes() const = 0;
};

enum class MatrixKind : uint8_t {
  kPlain,
  kGated,  // the parts are gate and up, [n/2, k] each; a product gives silu(gate) * up, n/2 columns
};

struct AttentionSpec {
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  DType kv_dtype = DType::kF32;
};

// Most that a step will ever ask for; what Prepare allocates for.
struct BackendLimits {
  AttentionSpec attention;
  std::vector<float> inverse_frequencies;  // [head_dim / 2]
  int64_t max_rows = 0;                    // tokens of a step
  int64_t max_slices = 0;                  // sequences of a step
  int64_t max_context = 0;                 // tokens of a sequence
  int64_t hidden = 0;                      // columns of the residual stream
  int64_t max_inner = 0;                   // largest k of any matrix
  int32_t vocab_size = 0;
};

// One layer of the paged KV pool. Blocks are laid out by the backend (KvBlockBytes).
struct KvLayer {
  void* base = nullptr;      // block 0
  int64_t block_stride = 0;  // bytes
};

// Tokens [position, position + count) of a sequence are rows [row_begin, row_begin + count) of the step.
struct StepSlice {
  int32_t row_begin = 0;
  int32_t count = 0;
  int32_t position = 0;
  int32_t slot = 0;  // [0, max_slices), unique in the step; a backend may keep the slot's block table
  const int32_t* block_table = nullptr;  // covers tokens [0, position + count)
};

// What all layers of a step share. The arrays stay unchanged until Wait.
struct StepInput {
  absl::Span<const TokenId> ids;  // [rows]
  // [rows], or empty. A row with a source (-1: it has none) goes on from the step before, which need not be
  // done: its id is that step's sample of this number. Only where max_in_flight() > 1.
  absl::Span<const int32_t> sources;
  absl::Span<const StepSlice> slices;
  // Each slice is one token and the logits of all, in this order, are what is asked for behind the last
  // layer: operations depend on the number of slices alone. A backend may compute rows up to the next
  // multiple of eight, for which the tensors have room.
  bool decode_only = false;
};

class Backend {
 public:
  virtual ~Backend() = default;

  // At load. ResourceExhausted where memory is short.
  virtual DType ActivationDtype(DType weights) const = 0;
  virtual bool Packs(DType dtype) const = 0;
  // Whether the pool can be of this type.
  virtual bool KeepsKv(DType dtype) const = 0;
  virtual absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes) = 0;
  virtual absl::Status Upload(const void* host, size_t bytes, void* device) = 0;
  // Packs the parts, stacked along n, as `dtype` (kF32, kBF16, kF16 or kI8 with a scale per row of W).
  virtual absl::StatusOr<std::unique_ptr<Matrix>> Pack(absl::Span<const WeightView> parts, DType dtype,
                                                       MatrixKind kind) = 0;
  virtual int64_t KvBlockBytes(const AttentionSpec& spec) const = 0;
  // What Prepare allocates, but for a few kilobytes.
  virtual int64_t WorkspaceBytes(const BackendLimits& limits) const = 0;
  virtual absl::Status Prepare(const BackendLimits& limits) = 0;

  // Most rows whose logits exist at a time, and of a decode_only step.
  virtual int64_t max_logit_rows() const = 0;
  // Most steps that are begun and not waited for.
  virtual int max_in_flight() const = 0;

  // A step: BeginStep, operations, EndStep; then Wait.
  virtual void BeginStep(const StepInput& input) = 0;
  // For whole blocks of the pool and so on: device to device, not overlapping.
  virtual void Copy(void* to, const void* from, size_t bytes) = 0;
  // Row i is row ids[i] of the table: a matrix that was packed, or rows as they lie in memory.
  virtual void Embed(const Tensor& out, const Matrix& table) = 0;
  virtual void Embed(const Tensor& out, const Tensor& table) = 0;
  virtual void RmsNorm(const Tensor& out, const Tensor& in, const float* gain, float eps) = 0;
  // out = in W^T + bias (then gated, where W is) + residual; bias [n] and residual (f32, shape of out) may be
  // null, residual may be out.
  virtual void MatMul(const Tensor& out, const Tensor& in, const Matrix& weight, const float* bias,
                      const float* residual) = 0;
  // qkv f32 [rows, (heads + 2 kv_heads) * head_dim]: queries and keys are normalised per head (gains null:
  // not) and rotated, keys and values written to the layer's blocks.
  virtual void RopeAndWriteKv(const Tensor& qkv, const float* q_gain, const float* k_gain, float eps,
                              const KvLayer& layer) = 0;
  // Causal attention of the step's queries over the layer's blocks.
  virtual void PagedAttention(const Tensor& out, const Tensor& qkv, const KvLayer& layer) = 0;
  // Row i of out (f32) is row `rows[i]` of in.
  virtual void GatherRows(const Tensor& out, const Tensor& in, absl::Span<const int32_t> rows) = 0;
  // logits f32 [args.size(), vocab], overwritten. Results are there after Wait.
  virtual void Sample(const Tensor& logits, absl::Span<const SampleArgs> args, SampleResult* results) = 0;
  // The same for rows whose next token is known: its log-probability and the best ones.
  virtual void Score(const Tensor& logits, absl::Span<const ScoreArgs> args, SampleResult* results) = 0;
  virtual void EndStep() = 0;
  // Returns when the oldest step that was not waited for is done, and says whether it went well.
  virtual absl::Status Wait() = 0;
  // Returns when all that was enqueued is done, for what looks at tensors inside a step; Wait says how it
  // went.
  virtual void Synchronize() = 0;
};

}  // namespace orrery

#endif  // ORRERY_ENGINE_BACKEND_H_
