// A whole file as text, bounded; .xz and .gz are unpacked.
#ifndef ORRERY_SERVER_TRACES_READ_FILE_H_
#define ORRERY_SERVER_TRACES_READ_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "server/traces/byte_source.h"

namespace orrery {

inline absl::StatusOr<std::string> ReadWholeFile(const std::string& path, size_t limit) {
  auto source = OpenByteSource(path);
  if (!source.ok()) return source.status();
  std::string text;
  char chunk[1 << 16];
  for (;;) {
    auto got = (*source)->Read(absl::MakeSpan(chunk));
    if (!got.ok()) return got.status();
    if (*got == 0) return text;
    if (text.size() + *got > limit) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": larger than ", limit, " bytes"));
    }
    text.append(chunk, *got);
  }
}

}  // namespace orrery

#endif  // ORRERY_SERVER_TRACES_READ_FILE_H_
