// Tokenizer::Load: the files of a checkpoint's folder, read with a bound on their size.

#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/text/tokenizer.h"

namespace orrery {
namespace {

absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path) {
  std::error_code error;  // to open a pipe would be to wait for its other end
  if (std::filesystem::exists(path, error) && !std::filesystem::is_regular_file(path, error)) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": not a regular file"));
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat(path.string(), ": cannot be opened"));
  std::string text;
  char buffer[1 << 16];
  while (file.read(buffer, sizeof(buffer)) || file.gcount() > 0) {
    text.append(buffer, static_cast<size_t>(file.gcount()));
    if (text.size() > kMaxTokenizerFileBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(path.string(), ": larger than ", kMaxTokenizerFileBytes, " bytes"));
    }
  }
  if (file.bad()) return absl::DataLossError(absl::StrCat(path.string(), ": reading failed"));
  return text;
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::Load(const std::filesystem::path& folder) {
  TokenizerFiles files;
  auto text = ReadFile(folder / "tokenizer.json");
  if (!text.ok()) return text.status();
  files.tokenizer_json = *std::move(text);
  const std::pair<const char*, std::string*> optional[] = {
      {"tokenizer_config.json", &files.tokenizer_config_json},
      {"special_tokens_map.json", &files.special_tokens_map_json}};
  for (const auto& [name, content] : optional) {
    std::error_code error;
    if (!std::filesystem::exists(folder / name, error)) continue;
    text = ReadFile(folder / name);
    if (!text.ok()) return text.status();
    *content = *std::move(text);
  }
  auto tokenizer = Parse(files);
  if (tokenizer.ok()) return tokenizer;
  return absl::Status(tokenizer.status().code(),
                      absl::StrCat(folder.string(), ": ", tokenizer.status().message()));
}

}  // namespace orrery
