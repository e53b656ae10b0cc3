// One input of the safetensors fuzzer; also run on mutations by an ordinary test.
#ifndef ORRERY_TESTS_FUZZ_SAFETENSORS_ENTRY_H_
#define ORRERY_TESTS_FUZZ_SAFETENSORS_ENTRY_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/checkpoint/safetensors.h"
#include "scheduler/base/check.h"

namespace orrery {

// Whatever the bytes are: an error, or tensors whose data lies inside the file and has the size of their
// shape.
inline int SafetensorsFuzzEntry(const uint8_t* data, size_t size) {
  const std::span<const std::byte> file{reinterpret_cast<const std::byte*>(data), size};
  const auto tensors = ParseSafetensors(file, "input");
  if (!tensors.ok()) return 0;
  for (const StoredTensor& tensor : *tensors) {
    int64_t bytes = StoredElementBytes(tensor.dtype);
    for (const int64_t dim : tensor.shape) bytes *= dim;
    ORRERY_CHECK(static_cast<size_t>(bytes) == tensor.data.size());
    ORRERY_CHECK(tensor.data.data() >= file.data() &&
                 tensor.data.data() + tensor.data.size() <= file.data() + file.size());
  }
  return 0;
}

}  // namespace orrery

#endif  // ORRERY_TESTS_FUZZ_SAFETENSORS_ENTRY_H_
