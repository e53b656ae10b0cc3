// The table of one instruction set: everything that vector_kernels.h declares, in the namespace of the set
// this is compiled for.
#include "kernels/cpu/attention_tile-inl.h"
#include "kernels/cpu/row_kernels-inl.h"
#include "kernels/cpu/sample_kernels-inl.h"
#include "kernels/cpu/vector_kernels.h"

namespace orrery::ORRERY_ISA {

extern const VectorKernels kVectorKernels;
const VectorKernels kVectorKernels = {
    .rms_norm = RmsNormRow,
    .widen_bf16 = WidenRow<DType::kBF16>,
    .widen_f16 = WidenRow<DType::kF16>,
    .narrow_bf16 = NarrowBF16,
    .narrow_f16 = NarrowF16,
    .pair_bf16 = PairBF16,
    .rope_angles = RopeAnglesRow,
    .norm_and_rotate = NormAndRotate,
    .key_block_bf16 = KeyBlockBF16,
    .attention_f32 = AttentionTile<DType::kF32>,
    .attention_bf16 = AttentionTile<DType::kBF16>,
    .attention_f16 = AttentionTile<DType::kF16>,
    .max_logit = MaxLogit,
    .sum_exp = SumExp,
    .exp_weights = ExpWeights,
    .count_at_least = CountAtLeast,
    .keep_between = KeepBetween,
    .ids_at_least = IdsAtLeast,
};

}  // namespace orrery::ORRERY_ISA
