#include "server/daemon/model_digest.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <vector>

#include "absl/strings/str_format.h"
#include "scheduler/base/hash.h"

namespace orrery {
namespace {

constexpr size_t kSampleBytes = 64 << 10;
constexpr uint64_t kSamples = 64;

// Length first, so that the parts cannot shift into each other.
void AddBytes(const std::string& bytes, SipHash13* hash) {
  hash->Add(bytes.size());
  for (size_t i = 0; i < bytes.size(); i += 8) {
    uint64_t word = 0;
    for (size_t j = i; j < std::min(i + 8, bytes.size()); ++j) {
      word |= uint64_t{static_cast<unsigned char>(bytes[j])} << (8 * (j - i));
    }
    hash->Add(word);
  }
}

void AddFile(const std::filesystem::path& path, SipHash13* hash) {
  std::error_code error;
  const uint64_t size = std::filesystem::file_size(path, error);
  AddBytes(path.filename().string(), hash);
  hash->Add(error ? 0 : size);
  if (error) return;
  std::ifstream file(path, std::ios::binary);
  std::string sample(kSampleBytes, '\0');
  for (uint64_t i = 0; i < kSamples; ++i) {
    file.seekg(static_cast<std::streamoff>(size / kSamples * i));
    file.read(sample.data(), static_cast<std::streamsize>(kSampleBytes));
    AddBytes(sample.substr(0, static_cast<size_t>(file.gcount())), hash);
    file.clear();
  }
}

std::string DigestOf(const std::vector<std::filesystem::path>& files) {
  SipHash13 hash(0, 0);
  for (const auto& file : files) AddFile(file, &hash);
  const Hash128 digest = hash.Finish();
  return absl::StrFormat("%016x%016x", digest.high, digest.low);
}

}  // namespace

std::string ModelDigest(const std::string& model_dir) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(model_dir, error)) {
    if (entry.path().extension() == ".safetensors" || entry.path().filename() == "config.json") {
      files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  return DigestOf(files);
}

std::string ConfigDigest(const std::string& model_dir) {
  return DigestOf({std::filesystem::path(model_dir) / "config.json"});
}

}  // namespace orrery
