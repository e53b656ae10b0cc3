// A CUDA stream, by name only: host code that passes one on needs no CUDA header. Kernels of a stream run in
// the order of their launches; a launch returns at once and reports its errors at the next synchronisation.
#ifndef ORRERY_KERNELS_CUDA_STREAM_H_
#define ORRERY_KERNELS_CUDA_STREAM_H_

struct CUstream_st;

namespace orrery::cuda {

using Stream = CUstream_st*;

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_STREAM_H_
