#ifndef ORRERY_SERVER_TEXT_CHAR_PATTERN_H_
#define ORRERY_SERVER_TEXT_CHAR_PATTERN_H_

// The regular expressions that published tokenizers split text with. The long ones are recognised by their
// text and run by hand-written scanners; short ones of the form `lead? body`, where both are classes of
// characters and the body may be repeated (+, {1,n}), are read. Whatever the text is, finding all matches
// takes linear time.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/text/char_class.h"

namespace orrery {

// A set of characters: \s, \d, \p{L} and its kin, a literal, or [...] of those with ranges and negation.
struct CharSet {
  ClassMask any_of = 0;
  std::vector<std::pair<uint32_t, uint32_t>> ranges;  // inclusive
  bool negated = false;

  bool Has(const ClassedChar& c) const;
};

class CharPattern {
 public:
  // Unknown expressions are refused with their text.
  static absl::StatusOr<CharPattern> FromRegex(std::string_view regex);
  // The pattern of ByteLevel's use_regex.
  static CharPattern Gpt2();
  static CharPattern Literal(std::string text);
  static CharPattern Numbers(bool individually);  // \p{N} or \p{N}+

  // Finds the first match at or after `pos` in the valid text; false if there is none. *end > *begin.
  bool Find(std::string_view text, size_t pos, size_t* begin, size_t* end) const;

 private:
  enum class Kind { kGpt2, kCl100k, kDeepseek3, kLiteral, kRun, kTrailingSpace };

  // End of the match at `pos` exactly, or `pos` if there is none.
  size_t MatchAt(const CharClasses& classes, std::string_view text, size_t pos) const;
  size_t MatchRun(const CharClasses& classes, std::string_view text, size_t pos) const;

  Kind kind_ = Kind::kGpt2;
  // kCl100k: the variants differ in how many digits go together and whether marks count as letters.
  uint32_t max_digits_ = 1;
  bool marks_are_letters_ = false;
  std::string literal_;
  // kRun
  bool has_lead_ = false;
  CharSet lead_, body_;
  uint32_t max_repeats_ = 1;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_TEXT_CHAR_PATTERN_H_
