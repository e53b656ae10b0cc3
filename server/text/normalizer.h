#ifndef ORRERY_SERVER_TEXT_NORMALIZER_H_
#define ORRERY_SERVER_TEXT_NORMALIZER_H_

// The `normalizer` of tokenizer.json: Sequence, Prepend, Replace (of a string), NFC, NFD, NFKC, NFKD, Strip,
// Lowercase. Every step takes time linear in the text (canonical ordering n log n), also on chains of
// combining marks; no text becomes more than a bounded factor longer. Each byte may carry a mark (1 = written
// by a chat template, 0 = by a user); a byte made from several bytes is marked only if all of them were.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"

namespace orrery {

class Normalizer {
 public:
  // `json` is the value of "normalizer"; null gives the identity. An unknown type is refused by name.
  static absl::StatusOr<Normalizer> FromJson(const nlohmann::json& json);

  bool is_identity() const { return steps_.empty(); }

  // Replaces `text` (valid UTF-8) by its normalised form. `marks` is null or has one entry per byte of the
  // text.
  void Apply(std::string* text, std::vector<uint8_t>* marks) const;

 private:
  enum class Kind { kPrepend, kReplace, kUnicode, kStrip, kLowercase };
  struct Step {
    Kind kind;
    std::string pattern;                       // kReplace
    std::string content;                       // kPrepend, kReplace
    bool compose = false, compatible = false;  // kUnicode
    bool left = false, right = false;          // kStrip
  };

  absl::Status AddSteps(const nlohmann::json& json, int depth);

  std::vector<Step> steps_;
  size_t growth_ = 1;  // of a text, by the Replace steps at most
};

}  // namespace orrery

#endif  // ORRERY_SERVER_TEXT_NORMALIZER_H_
