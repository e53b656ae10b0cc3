#include "engine/cuda/algorithm_cache.h"

#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace orrery::cuda {
namespace {

bool ParseLine(const std::string& line, GemmShape* shape, AlgorithmBits* algorithm) {
  std::istringstream fields(line);
  std::string type;
  if (!(fields >> shape->rows >> shape->n >> shape->k >> type >> shape->narrow_out >> shape->bias >>
        shape->residual)) {
    return false;
  }
  if (type != NameOf(DType::kBF16) && type != NameOf(DType::kF16)) return false;
  shape->dtype = type == NameOf(DType::kF16) ? DType::kF16 : DType::kBF16;
  std::string digits;
  for (uint64_t& word : *algorithm) {
    if (!(fields >> digits) || digits.size() != 16 || !absl::SimpleHexAtoi(digits, &word)) return false;
  }
  return !(fields >> digits);
}

}  // namespace

AlgorithmCache::AlgorithmCache(std::string path, std::string title)
    : path_(std::move(path)), title_(std::move(title)) {
  if (!path_.empty()) Read();
}

void AlgorithmCache::Read() {
  std::ifstream file(path_);
  std::string line;
  if (!std::getline(file, line) || line != title_) return;
  std::map<GemmShape, AlgorithmBits> read;
  while (std::getline(file, line)) {
    GemmShape shape;
    AlgorithmBits algorithm;
    if (!ParseLine(line, &shape, &algorithm)) return;
    read[shape] = algorithm;
  }
  algorithms_ = std::move(read);
}

std::optional<AlgorithmBits> AlgorithmCache::Find(const GemmShape& shape) const {
  const auto it = algorithms_.find(shape);
  if (it == algorithms_.end()) return std::nullopt;
  return it->second;
}

void AlgorithmCache::Put(const GemmShape& shape, const AlgorithmBits& algorithm) {
  algorithms_[shape] = algorithm;
  if (!path_.empty()) Write();
}

// Under another name first: another process never reads half a file. The last of several that write wins, and
// what it did not know is found again.
void AlgorithmCache::Write() const {
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), ignored);
  const std::string draft = absl::StrCat(path_, ".", absl::Hex(reinterpret_cast<uintptr_t>(this)), ".part");
  std::ofstream file(draft, std::ios::trunc);
  file << title_ << '\n';
  for (const auto& [shape, algorithm] : algorithms_) {
    file << absl::StrCat(shape.rows, " ", shape.n, " ", shape.k, " ", std::string(NameOf(shape.dtype)), " ",
                         int{shape.narrow_out}, " ", int{shape.bias}, " ", int{shape.residual});
    for (const uint64_t word : algorithm) file << absl::StrFormat(" %016x", word);
    file << '\n';
  }
  file.close();
  if (file) std::filesystem::rename(draft, path_, ignored);
  if (!file || ignored) std::filesystem::remove(draft, ignored);
}

}  // namespace orrery::cuda
