#ifndef ORRERY_SERVER_TEXT_TOKENIZER_DOCUMENT_H_
#define ORRERY_SERVER_TEXT_TOKENIZER_DOCUMENT_H_

// tokenizer.json as parsed: the vocabulary and the merges as plain lists, everything else as JSON. The lists
// are taken out while the file is read: as JSON values they would cost several times the memory and the time.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace orrery {

struct TokenizerDocument {
  nlohmann::json root;                                      // with an empty model.vocab and model.merges
  std::vector<std::pair<std::string, int64_t>> vocabulary;  // id -1: not an integer
  std::vector<std::pair<std::string, std::string>> merges;  // empty strings: not a pair
};

absl::StatusOr<TokenizerDocument> ParseTokenizerDocument(const std::string& text);

// `file` names the text in errors.
absl::StatusOr<nlohmann::json> ParseJson(const std::string& text, const char* file);

}  // namespace orrery

#endif  // ORRERY_SERVER_TEXT_TOKENIZER_DOCUMENT_H_
