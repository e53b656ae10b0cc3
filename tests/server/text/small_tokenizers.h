#ifndef ORRERY_TESTS_SERVER_TEXT_SMALL_TOKENIZERS_H_
#define ORRERY_TESTS_SERVER_TEXT_SMALL_TOKENIZERS_H_

// Small tokenizers made in the tests, in the layout of tokenizer.json, and random texts for them.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"
#include "scheduler/base/random.h"
#include "server/text/tokenizer.h"

namespace orrery {

using Merges = std::vector<std::pair<std::string, std::string>>;

// Byte-level: ids 0..255 are the bytes in order, then one id per distinct merge result, then the special
// tokens
// <|start|> and <|end|>. Merges are written in the byte alphabet ("Ġ" is a space).
nlohmann::json ByteLevelJson(const Merges& merges);

// SentencePiece style: <unk> <s> </s>, the 256 byte tokens, `letters`, then the results of the merges.
nlohmann::json SentencePieceJson(const std::vector<std::string>& letters, const Merges& merges);

// `count` random merges over the letters and the results so far (some results arise in several ways).
Merges RandomMerges(const std::vector<std::string>& letters, int count, RandomStream* random);

// Valid UTF-8 of up to `max_chars` characters: letters of `favoured`, white space, and any code point.
std::string RandomText(const std::vector<std::string>& favoured, int max_chars, RandomStream* random);

// Parses and expects success.
std::unique_ptr<const Tokenizer> MustParse(const nlohmann::json& json, const std::string& config = "");

}  // namespace orrery

#endif  // ORRERY_TESTS_SERVER_TEXT_SMALL_TOKENIZERS_H_
