// Backend on kernels/cuda: weights and what goes into their products in bf16 or f16, the KV pool in bf16 or
// e4m3, the residual stream, attention's input and the logits in f32.
//
// Draws are Gumbel-max with random numbers of SampleArgs::uniform's bits: as repeatable as on the CPU, but
// not the same tokens. Greedy tokens differ from the CPU's where two logits are closer than rounding.
#ifndef ORRERY_ENGINE_BACKEND_CUDA_H_
#define ORRERY_ENGINE_BACKEND_CUDA_H_

#include <cstdint>
#include <memory>

#include "engine/backend.h"
#include "engine/cuda/device.h"
#include "engine/cuda/gemm.h"

namespace orrery {

struct CudaBackendOptions {
  // A row's bits depend on the tokens of its sequence alone. Off, products of few rows and attention of
  // single tokens have kernels of their own, and long sequences are cut by how full the batch is: faster, and
  // a sequence's logits depend on its batch within rounding.
  bool batch_invariant = false;
  // Steps that decode few sequences are recorded by their shape and launched as a whole (step_graphs.h). Not
  // where batch-invariant.
  bool graphs = true;
  // Rows of a product that needs scratch are computed so many at a time: enough for the device to be busy
  // with.
  int64_t scratch_rows = 2048;
};

// InvalidArgument: what the kernels have no code for, by the name of the option or of config.json's field.
absl::Status CheckCudaLimits(const BackendLimits& limits);

// KV blocks hold 16 tokens. Pack takes bf16 and f16, of parts in any float type; Prepare checks the limits.
std::unique_ptr<Backend> NewCudaBackend(std::unique_ptr<cuda::Device> device,
                                        std::unique_ptr<cuda::Gemm> gemm,
                                        const CudaBackendOptions& options = {});

}  // namespace orrery

#endif  // ORRERY_ENGINE_BACKEND_CUDA_H_
