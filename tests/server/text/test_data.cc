#include "tests/server/text/test_data.h"

#include <lzma.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace orrery {

std::optional<std::filesystem::path> SharedData() {
  std::filesystem::path shared;
  if (const char* given = std::getenv("ORRERY_SHARED"); given != nullptr) {
    shared = given;
  } else if (const char* source = std::getenv("ORRERY_SOURCE_DIR"); source != nullptr) {
    shared = std::filesystem::path(source) / ".." / "shared";
  }
  if (shared.empty() || !std::filesystem::is_directory(shared / "data")) return std::nullopt;
  return shared / "data";
}

std::optional<std::string> ReadMaybeXz(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  std::stringstream buffer;
  buffer << file.rdbuf();
  std::string packed = buffer.str();
  if (path.extension() != ".xz") return packed;

  lzma_stream stream = LZMA_STREAM_INIT;
  if (lzma_stream_decoder(&stream, UINT64_MAX, 0) != LZMA_OK) return std::nullopt;
  stream.next_in = reinterpret_cast<const uint8_t*>(packed.data());
  stream.avail_in = packed.size();
  std::string out, chunk(1 << 16, '\0');
  lzma_ret result = LZMA_OK;
  while (result == LZMA_OK) {
    stream.next_out = reinterpret_cast<uint8_t*>(chunk.data());
    stream.avail_out = chunk.size();
    result = lzma_code(&stream, LZMA_FINISH);
    out.append(chunk, 0, chunk.size() - stream.avail_out);
  }
  lzma_end(&stream);
  if (result != LZMA_STREAM_END) return std::nullopt;
  return out;
}

}  // namespace orrery
