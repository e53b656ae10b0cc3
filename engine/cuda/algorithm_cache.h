// Which algorithm a library's matrix products are computed with: found once on a machine by trying them,
// kept in a text file. A line per shape:
//
//   rows n k type out bias residual algorithm
//
// the type is bf16 or f16, numbers are decimal, but for the algorithm, which is the library's own 64 bytes in
// hexadecimal.
#ifndef ORRERY_ENGINE_CUDA_ALGORITHM_CACHE_H_
#define ORRERY_ENGINE_CUDA_ALGORITHM_CACHE_H_

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>

#include "absl/strings/string_view.h"
#include "kernels/dtype.h"

namespace orrery::cuda {

struct GemmShape {
  int64_t rows = 0;  // the most that share an algorithm; 0: any number
  int64_t n = 0, k = 0;
  DType dtype = DType::kBF16;  // of x and weight: bf16 or f16
  // narrow_out: out has that type, too, and not f32.
  bool narrow_out = false, bias = false, residual = false;

  auto Key() const { return std::tuple(rows, n, k, dtype, narrow_out, bias, residual); }
  bool operator<(const GemmShape& other) const { return Key() < other.Key(); }
};

using AlgorithmBits = std::array<uint64_t, 8>;

class AlgorithmCache {
 public:
  // `title` names everything that algorithms depend on (device, library, versions): it is the file's first
  // line, and a file with another is not used. No path: nothing is kept. A file that cannot be read, or has a
  // line that is none, counts as empty.
  AlgorithmCache(std::string path, std::string title);

  std::optional<AlgorithmBits> Find(const GemmShape& shape) const;
  // Also in the file, as far as it can be written.
  void Put(const GemmShape& shape, const AlgorithmBits& algorithm);

 private:
  void Read();
  void Write() const;

  const std::string path_, title_;
  std::map<GemmShape, AlgorithmBits> algorithms_;
};

}  // namespace orrery::cuda

#endif  // ORRERY_ENGINE_CUDA_ALGORITHM_CACHE_H_
