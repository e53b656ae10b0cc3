// Lines of a text file (plain, .xz or .gz), one at a time, with their numbers for error messages.
#ifndef ORRERY_SERVER_TRACES_LINE_READER_H_
#define ORRERY_SERVER_TRACES_LINE_READER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/traces/byte_source.h"

namespace orrery {

class LineReader {
 public:
  static absl::StatusOr<LineReader> Open(const std::string& path);

  // Moves to the next line; false at the end of the file. InvalidArgument when a line is longer than
  // kMaxLineBytes, DataLoss when the file is damaged. Line ends (LF or CRLF) and a leading byte order mark
  // are taken off.
  absl::StatusOr<bool> Next();
  // The current line; valid until the next call of Next().
  absl::string_view line() const { return line_; }
  // Its number, from 1.
  int64_t number() const { return number_; }
  // InvalidArgument "FILE:LINE: message".
  absl::Status Error(absl::string_view message) const;

  static constexpr size_t kMaxLineBytes = size_t{16} << 20;

 private:
  LineReader(std::unique_ptr<ByteSource> source, std::string path);

  std::unique_ptr<ByteSource> source_;
  std::string path_;
  std::vector<char> buffer_;
  size_t begin_ = 0;  // unread bytes of buffer_: [begin_, end_)
  size_t end_ = 0;
  std::string line_;
  int64_t number_ = 0;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_TRACES_LINE_READER_H_
