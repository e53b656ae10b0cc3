// The safetensors container: 8 bytes little-endian header length, a JSON header {name: {dtype, shape,
// data_offsets: [begin, end)}}, then raw little-endian data. Everything is checked before a tensor is handed
// out: header length, every name, dtype, shape (product without overflow), offsets, overlap and holes. A file
// that lies is an InvalidArgument that names file and tensor.
#ifndef ORRERY_ENGINE_CHECKPOINT_SAFETENSORS_H_
#define ORRERY_ENGINE_CHECKPOINT_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace orrery {

// A tensor as it lies in a file; `data` may be unaligned and lives as long as the file's mapping.
struct StoredTensor {
  std::string name;
  std::string dtype;           // the container's name: "F32", "F16", "BF16", "I64"...
  std::vector<int64_t> shape;  // row-major, each >= 0
  std::span<const std::byte> data;
};

// Bytes of one element, 0 for a name the format does not know.
int64_t StoredElementBytes(absl::string_view dtype);

// All tensors of one file image, in order of their data. `what` names the file in errors.
absl::StatusOr<std::vector<StoredTensor>> ParseSafetensors(std::span<const std::byte> file,
                                                           absl::string_view what);

}  // namespace orrery

#endif  // ORRERY_ENGINE_CHECKPOINT_SAFETENSORS_H_
