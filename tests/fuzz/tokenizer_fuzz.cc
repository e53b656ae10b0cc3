// Fuzz target of the tokenizer: tokenizer_fuzz [corpus folder] [-max_total_time=60]

#include "tests/fuzz/tokenizer_fuzz.h"

#include <string>
#include <vector>

#include "scheduler/base/check.h"
#include "server/text/detokenizer.h"
#include "server/text/stop_matcher.h"
#include "server/text/tokenizer.h"
#include "server/text/utf8.h"
#include "tests/server/text/small_tokenizers.h"

namespace orrery {
namespace {

const std::vector<std::unique_ptr<const Tokenizer>>& Tokenizers() {
  static const auto* tokenizers = [] {
    RandomStream random(1);
    const std::vector<std::string> letters = {"\u2581", "a", "b", "<", "s", ">", "/", "\u00e9"};
    nlohmann::json nfkc = SentencePieceJson(letters, RandomMerges(letters, 50, &random));
    nfkc["normalizer"] = {{"type", "NFKC"}};
    nfkc["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", "first"}};
    auto* made = new std::vector<std::unique_ptr<const Tokenizer>>;
    made->push_back(MustParse(SentencePieceJson(letters, RandomMerges(letters, 50, &random))));
    made->push_back(
        MustParse(ByteLevelJson(RandomMerges({"\u0120", "a", "<", "|", "\u00c3", "\u00a9"}, 50, &random))));
    made->push_back(MustParse(nfkc));
    return made;
  }();
  return *tokenizers;
}

void CheckText(const Tokenizer& tokenizer, std::string_view text) {
  const auto ids = tokenizer.Encode(text);
  const bool is_valid = FindInvalidUtf8(text) == std::string_view::npos;
  ORRERY_CHECK(ids.ok() == is_valid);
  if (!ids.ok()) return;
  for (const TokenId id : *ids) ORRERY_CHECK(id >= 0 && id < tokenizer.vocab_size());
  // Cutting the text into segments that nobody's template wrote changes nothing.
  size_t middle = text.size() / 2;
  while (middle < text.size() && (static_cast<unsigned char>(text[middle]) & 0xC0) == 0x80) ++middle;
  const TextSegment segments[] = {{text.substr(0, middle), false}, {text.substr(middle), false}};
  ORRERY_CHECK(*tokenizer.EncodeSegments(segments) == *ids);
  ORRERY_CHECK(FindInvalidUtf8(tokenizer.Decode(*ids)) == std::string_view::npos);
}

void CheckFile(std::string_view json) {
  const auto tokenizer = Tokenizer::Parse({std::string(json), "", ""});
  if (!tokenizer.ok()) return;
  // A strange file may load; then it must not break on texts either.
  for (const char* text : {"", "a", "ab <s> a\u00e9\u4e2d\n  1234's", "<|end|>"}) {
    for (const bool parse_special : {false, true}) {
      const auto ids = (*tokenizer)->Encode(text, {.parse_special = parse_special});
      if (ids.ok()) (*tokenizer)->Decode(*ids);
    }
  }
}

void CheckIds(const Tokenizer& tokenizer, const uint8_t* data, size_t size) {
  std::vector<TokenId> ids;
  for (size_t i = 0; i + 1 < size; i += 2) ids.push_back(data[i] << 8 | data[i + 1]);
  Detokenizer detokenizer(&tokenizer, true);
  std::string all;
  for (const TokenId id : ids) {
    std::string delta;
    detokenizer.Append(id, &delta);
    ORRERY_CHECK(FindInvalidUtf8(delta) == std::string_view::npos);
    all += delta;
  }
  detokenizer.Finish(&all);
  ORRERY_CHECK(all == tokenizer.Decode(ids));
}

// The text is what follows the last zero byte; what stands between zero bytes before it are the stop strings.
void CheckStops(std::string_view input) {
  std::vector<std::string> stops;
  for (size_t zero; (zero = input.find('\0')) != std::string_view::npos; input.remove_prefix(zero + 1)) {
    stops.emplace_back(input.substr(0, zero));
  }
  const auto compiled = StopStrings::Create(stops);
  if (!compiled.ok()) return;
  StopMatcher at_once(*compiled), byte_by_byte(*compiled);
  std::string whole, parts;
  const int found = at_once.Push(input, &whole);
  at_once.Finish(&whole);
  int found_in_parts = -1;
  for (size_t i = 0; i < input.size() && found_in_parts < 0; ++i)
    found_in_parts = byte_by_byte.Push(input.substr(i, 1), &parts);
  byte_by_byte.Finish(&parts);
  ORRERY_CHECK(found == found_in_parts && whole == parts);
  ORRERY_CHECK(input.substr(0, whole.size()) == whole);
}

}  // namespace

void FuzzTokenizer(const uint8_t* data, size_t size) {
  if (size == 0) return;
  const uint8_t choice = *data++;
  --size;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const Tokenizer& tokenizer = *Tokenizers()[choice / 4 % Tokenizers().size()];
  switch (choice % 4) {
    case 0:
      return CheckFile(bytes);
    case 1:
      return CheckText(tokenizer, bytes);
    case 2:
      return CheckIds(tokenizer, data, size);
    default:
      return CheckStops(bytes);
  }
}

}  // namespace orrery

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  orrery::FuzzTokenizer(data, size);
  return 0;
}
