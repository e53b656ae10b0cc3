// A file as a stream of plain bytes: .xz and .gz are unpacked on the way, with bounded memory. Nothing of a
// file is ever held as a whole, so that a trace may be larger than memory.
#ifndef ORRERY_SERVER_TRACES_BYTE_SOURCE_H_
#define ORRERY_SERVER_TRACES_BYTE_SOURCE_H_

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace orrery {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Fills `out` from the front and returns how many bytes it wrote; 0 only at the end of the file.
  // DataLoss when the compressed stream is damaged or truncated.
  virtual absl::StatusOr<size_t> Read(absl::Span<char> out) = 0;
};

// Opens `path`; the compression follows from its first bytes, not from its name. NotFound or
// InvalidArgument (a folder) when it cannot be read.
absl::StatusOr<std::unique_ptr<ByteSource>> OpenByteSource(const std::string& path);

}  // namespace orrery

#endif  // ORRERY_SERVER_TRACES_BYTE_SOURCE_H_
