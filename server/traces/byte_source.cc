#include "server/traces/byte_source.h"

#include <lzma.h>
#include <sys/stat.h>
#include <zlib.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace orrery {
namespace {

constexpr size_t kInputBytes = 64 << 10;
// What a .xz may ask for to be unpacked: the largest preset's dictionary (64 MiB) and its tables.
constexpr uint64_t kXzMemoryLimit = uint64_t{96} << 20;

class FileHandle {
 public:
  FileHandle(std::FILE* file, std::string path) : file_(file), path_(std::move(path)) {}
  FileHandle(FileHandle&& other) noexcept
      : file_(std::exchange(other.file_, nullptr)), path_(std::move(other.path_)) {}
  FileHandle& operator=(FileHandle&&) = delete;
  ~FileHandle() {
    if (file_ != nullptr) std::fclose(file_);
  }
  absl::StatusOr<size_t> Read(void* out, size_t bytes) {
    const size_t got = std::fread(out, 1, bytes, file_);
    if (got == 0 && std::ferror(file_) != 0) return absl::DataLossError(absl::StrCat(path_, ": read failed"));
    return got;
  }
  const std::string& path() const { return path_; }
  std::FILE* get() const { return file_; }

 private:
  std::FILE* file_;
  std::string path_;
};

class PlainSource : public ByteSource {
 public:
  explicit PlainSource(FileHandle file) : file_(std::move(file)) {}
  absl::StatusOr<size_t> Read(absl::Span<char> out) override { return file_.Read(out.data(), out.size()); }

 private:
  FileHandle file_;
};

class XzSource : public ByteSource {
 public:
  explicit XzSource(FileHandle file) : file_(std::move(file)) {}
  ~XzSource() override { lzma_end(&stream_); }

  absl::Status Init() {
    if (lzma_stream_decoder(&stream_, kXzMemoryLimit, LZMA_CONCATENATED) != LZMA_OK) {
      return absl::ResourceExhaustedError("xz: no memory for a decoder");
    }
    return absl::OkStatus();
  }

  absl::StatusOr<size_t> Read(absl::Span<char> out) override {
    stream_.next_out = reinterpret_cast<uint8_t*>(out.data());
    stream_.avail_out = out.size();
    while (stream_.avail_out == out.size() && !out.empty() && !done_) {
      if (stream_.avail_in == 0 && !input_ended_) {
        auto got = file_.Read(input_.data(), input_.size());
        if (!got.ok()) return got.status();
        input_ended_ = *got == 0;
        stream_.next_in = input_.data();
        stream_.avail_in = *got;
      }
      const lzma_ret ret = lzma_code(&stream_, input_ended_ ? LZMA_FINISH : LZMA_RUN);
      if (ret == LZMA_STREAM_END) {
        done_ = true;
      } else if (ret == LZMA_MEMLIMIT_ERROR) {
        return absl::ResourceExhaustedError(
            absl::StrCat(file_.path(), ": unpacking needs more than ", kXzMemoryLimit >> 20, " MiB"));
      } else if (ret != LZMA_OK) {
        return absl::DataLossError(absl::StrCat(file_.path(), ": damaged or truncated .xz"));
      }
    }
    return out.size() - stream_.avail_out;
  }

 private:
  FileHandle file_;
  lzma_stream stream_ = LZMA_STREAM_INIT;
  std::array<uint8_t, kInputBytes> input_;
  bool input_ended_ = false;
  bool done_ = false;
};

class GzSource : public ByteSource {
 public:
  explicit GzSource(FileHandle file) : file_(std::move(file)) {}
  ~GzSource() override { inflateEnd(&stream_); }

  absl::Status Init() {
    // 15 + 16: the largest window, gzip framing only.
    if (inflateInit2(&stream_, 15 + 16) != Z_OK) return absl::ResourceExhaustedError("gz: no memory");
    return absl::OkStatus();
  }

  absl::StatusOr<size_t> Read(absl::Span<char> out) override {
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = static_cast<uInt>(out.size());
    while (stream_.avail_out == out.size() && !out.empty()) {
      if (stream_.avail_in == 0) {
        auto got = file_.Read(input_.data(), input_.size());
        if (!got.ok()) return got.status();
        if (*got == 0) {
          if (between_members_) return 0;
          return absl::DataLossError(absl::StrCat(file_.path(), ": truncated .gz"));
        }
        stream_.next_in = input_.data();
        stream_.avail_in = static_cast<uInt>(*got);
      }
      if (between_members_) {  // a .gz may be several members in a row
        inflateReset(&stream_);
        between_members_ = false;
      }
      const int ret = inflate(&stream_, Z_NO_FLUSH);
      if (ret == Z_STREAM_END) {
        between_members_ = true;
      } else if (ret != Z_OK) {
        return absl::DataLossError(absl::StrCat(file_.path(), ": damaged .gz"));
      }
    }
    return out.size() - stream_.avail_out;
  }

 private:
  FileHandle file_;
  z_stream stream_ = {};
  std::array<uint8_t, kInputBytes> input_;
  bool between_members_ = false;
};

template <typename Source>
absl::StatusOr<std::unique_ptr<ByteSource>> MakeDecoder(FileHandle file) {
  auto source = std::make_unique<Source>(std::move(file));
  if (auto status = source->Init(); !status.ok()) return status;
  return source;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ByteSource>> OpenByteSource(const std::string& path) {
  std::FILE* raw = std::fopen(path.c_str(), "rb");
  if (raw == nullptr) return absl::NotFoundError(absl::StrCat(path, ": ", std::strerror(errno)));
  FileHandle file(raw, path);
  struct stat info;
  if (fstat(fileno(raw), &info) != 0 || S_ISDIR(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a file"));
  }
  unsigned char magic[6] = {};
  const size_t got = std::fread(magic, 1, sizeof(magic), raw);
  if (std::fseek(raw, 0, SEEK_SET) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a file that can be read twice"));
  }
  if (got == 6 && std::memcmp(magic,
                              "\xFD"
                              "7zXZ\0",
                              6) == 0) {
    return MakeDecoder<XzSource>(std::move(file));
  }
  if (got >= 2 && magic[0] == 0x1F && magic[1] == 0x8B) return MakeDecoder<GzSource>(std::move(file));
  return std::make_unique<PlainSource>(std::move(file));
}

}  // namespace orrery
