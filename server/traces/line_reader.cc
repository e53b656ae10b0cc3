#include "server/traces/line_reader.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"

namespace orrery {

absl::StatusOr<LineReader> LineReader::Open(const std::string& path) {
  auto source = OpenByteSource(path);
  if (!source.ok()) return source.status();
  return LineReader(*std::move(source), path);
}

LineReader::LineReader(std::unique_ptr<ByteSource> source, std::string path)
    : source_(std::move(source)), path_(std::move(path)), buffer_(64 << 10) {}

absl::StatusOr<bool> LineReader::Next() {
  line_.clear();
  ++number_;
  bool any = false;
  for (;;) {
    if (begin_ == end_) {
      auto got = source_->Read(absl::MakeSpan(buffer_));
      if (!got.ok()) return got.status();
      begin_ = 0;
      end_ = *got;
      if (*got == 0) break;
    }
    any = true;
    const char* start = buffer_.data() + begin_;
    const void* newline = std::memchr(start, '\n', end_ - begin_);
    const size_t bytes =
        newline == nullptr ? end_ - begin_ : static_cast<size_t>(static_cast<const char*>(newline) - start);
    if (line_.size() + bytes > kMaxLineBytes) {
      return Error(absl::StrCat("line longer than ", kMaxLineBytes, " bytes"));
    }
    line_.append(start, bytes);
    begin_ += bytes;
    if (newline != nullptr) {
      ++begin_;
      break;
    }
  }
  if (number_ == 1 && line_.compare(0, 3, "\xEF\xBB\xBF") == 0) line_.erase(0, 3);
  if (!line_.empty() && line_.back() == '\r') line_.pop_back();
  return any;
}

absl::Status LineReader::Error(absl::string_view message) const {
  return absl::InvalidArgumentError(absl::StrCat(path_, ":", number_, ": ", message));
}

}  // namespace orrery
