#include "server/bench/model_tokens.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/traces/byte_source.h"

namespace orrery::bench {
namespace {

using nlohmann::json;

// The largest tokenizer.json in use is a few tens of megabytes.
constexpr size_t kMaxFileBytes = size_t{256} << 20;
constexpr int64_t kMaxVocabulary = int64_t{1} << 24;

absl::StatusOr<json> ReadJson(const std::string& path) {
  auto source = OpenByteSource(path);
  if (!source.ok()) return source.status();
  std::string text;
  std::vector<char> buffer(1 << 20);
  for (;;) {
    auto got = (*source)->Read(absl::MakeSpan(buffer));
    if (!got.ok()) return got.status();
    if (*got == 0) break;
    text.append(buffer.data(), *got);
    if (text.size() > kMaxFileBytes) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": larger than ", kMaxFileBytes, " bytes"));
    }
  }
  json document = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object()) return absl::InvalidArgumentError(absl::StrCat(path, ": not a JSON object"));
  return document;
}

}  // namespace

absl::StatusOr<TokenSpace> LoadTokenSpace(const std::string& model_folder) {
  const std::string config_path = absl::StrCat(model_folder, "/config.json");
  auto config = ReadJson(config_path);
  if (!config.ok()) return config.status();
  const auto size = config->find("vocab_size");
  if (size == config->end() || !size->is_number_integer() || size->get<int64_t>() < 1 ||
      size->get<int64_t>() > kMaxVocabulary) {
    return absl::InvalidArgumentError(
        absl::StrCat(config_path, ": vocab_size is not a number in [1, ", kMaxVocabulary, "]"));
  }
  const std::string tokenizer_path = absl::StrCat(model_folder, "/tokenizer.json");
  auto tokenizer = ReadJson(tokenizer_path);
  if (!tokenizer.ok()) return tokenizer.status();
  std::vector<int32_t> special;
  const json added = tokenizer->value("added_tokens", json::array());
  int32_t named = 0;  // ids that have a token: [0, named)
  for (const json& token : added) {
    if (!token.is_object() || !token.contains("id") || !token["id"].is_number_integer()) {
      return absl::InvalidArgumentError(
          absl::StrCat(tokenizer_path, ": added_tokens holds one without an id"));
    }
    const int64_t id = token["id"].get<int64_t>();
    if (id < 0 || id >= kMaxVocabulary) continue;
    special.push_back(static_cast<int32_t>(id));
    named = std::max(named, static_cast<int32_t>(id) + 1);
  }
  // Some checkpoints pad the vocabulary with rows that stand for no token.
  const auto model = tokenizer->find("model");
  if (model != tokenizer->end() && model->is_object() && model->contains("vocab")) {
    named = std::max(named, static_cast<int32_t>(std::min<size_t>((*model)["vocab"].size(), kMaxVocabulary)));
  }
  const int32_t vocab_size = size->get<int32_t>();
  return TokenSpace::Create(named > 0 ? std::min(vocab_size, named) : vocab_size, std::move(special));
}

}  // namespace orrery::bench
