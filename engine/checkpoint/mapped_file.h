// A read-only mapping of a whole file. The bytes stay valid until the object dies; moving it does not move
// them. A file that somebody truncates while it is mapped faults the reader: the engine therefore copies what
// it needs and unmaps before it serves.
#ifndef ORRERY_ENGINE_CHECKPOINT_MAPPED_FILE_H_
#define ORRERY_ENGINE_CHECKPOINT_MAPPED_FILE_H_

#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace orrery {

class MappedFile {
 public:
  // NotFound when the file does not exist, InvalidArgument when it is not a regular file, otherwise the
  // system's reason. An empty file maps to an empty span.
  static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  MappedFile(const std::byte* data, size_t size) : data_(data), size_(size) {}

  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace orrery

#endif  // ORRERY_ENGINE_CHECKPOINT_MAPPED_FILE_H_
