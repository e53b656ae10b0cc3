#include "server/text/char_pattern.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace orrery {
namespace {

// --- Scanners of the long patterns. Each gives the end of the match at `pos`, or `pos` if there is none. ---

struct ClassedText {
  const CharClasses& classes;
  std::string_view text;

  ClassedChar At(size_t pos) const { return ReadChar(classes, text, pos); }
  size_t Skip(size_t pos, ClassMask any_of) const { return SkipRun(classes, text, pos, any_of); }
  // Skips characters that have none of the classes.
  size_t SkipOthers(size_t pos, ClassMask none_of) const {
    for (ClassedChar c; !(c = At(pos)).at_end() && !c.Is(none_of);) pos += c.length;
    return pos;
  }
};

// 's 't 're 've 'm 'll 'd; an apostrophe is at `pos`.
size_t MatchContraction(const ClassedText& t, size_t pos, bool ignore_case) {
  const auto letter = [&](size_t at) {
    ClassedChar c = t.At(at);
    if (ignore_case && c.value >= 'A' && c.value <= 'Z') c.value += 'a' - 'A';
    if (ignore_case && c.value == 0x17F) c.value = 's';  // the long s folds to s
    return c;
  };
  const ClassedChar first = letter(pos + 1);
  const size_t after = pos + 1 + first.length;
  switch (first.value) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return after;
    case 'r':
    case 'v':
      return letter(after).value == 'e' ? after + 1 : pos;
    case 'l':
      return letter(after).value == 'l' ? after + 1 : pos;
    default:
      return pos;
  }
}

// \s+(?!\S)|\s+ ; with newlines_first preceded by \s*[\r\n]+| .
size_t MatchSpaces(const ClassedText& t, size_t pos, bool newlines_first) {
  size_t last = pos, end = pos, after_newline = pos;
  for (ClassedChar c; (c = t.At(end)).Is(kSpace);) {
    last = end;
    end += c.length;
    if (c.Is(kNewline)) after_newline = end;
  }
  // \s* is greedy, so that alternative ends behind the last newline of the run.
  if (newlines_first && after_newline != pos) return after_newline;
  // The look-ahead leaves the last space to the word that follows, if another one is left.
  return end == t.text.size() || last == pos ? end : last;
}

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
size_t MatchGpt2(const ClassedText& t, size_t pos) {
  ClassedChar c = t.At(pos);
  if (c.value == '\'') {
    if (const size_t end = MatchContraction(t, pos, false); end != pos) return end;
  }
  size_t begin = pos;
  if (c.value == ' ') {
    begin = pos + 1;
    c = t.At(begin);
  }
  if (c.Is(kLetter)) return t.Skip(begin, kLetter);
  if (c.Is(kNumber)) return t.Skip(begin, kNumber);
  if (!c.at_end() && !c.Is(kSpace)) return t.SkipOthers(begin, kSpace | kLetter | kNumber);
  return MatchSpaces(t, pos, false);
}

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,max}|
// ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ `letters` is kLetter, or kLetter | kMark in the variant
// whose words take marks in.
size_t MatchCl100k(const ClassedText& t, size_t pos, ClassMask letters, uint32_t max_digits) {
  const ClassedChar c = t.At(pos);
  if (c.value == '\'') {
    if (const size_t end = MatchContraction(t, pos, true); end != pos) return end;
  }
  if (c.Is(letters)) return t.Skip(pos, letters);
  if (c.Is(kNumber)) {
    size_t end = pos + c.length;
    ClassedChar next;
    for (uint32_t n = 1; n < max_digits && (next = t.At(end)).Is(kNumber); ++n) end += next.length;
    return end;
  }
  const size_t after = pos + c.length;
  if (!c.Is(kNewline) && t.At(after).Is(letters)) return t.Skip(after, letters);
  const size_t begin = c.value == ' ' ? after : pos;
  const ClassMask excluded = kSpace | kNumber | letters;
  if (const size_t end = t.SkipOthers(begin, excluded); end != begin) return t.Skip(end, kNewline);
  return MatchSpaces(t, pos, true);
}

bool IsAsciiLetter(uint32_t c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; }

// [!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*
// |\s*[\r\n]+|\s+(?!\S)|\s+ ; digits and control characters may match nothing.
size_t MatchDeepseek3(const ClassedText& t, size_t pos) {
  const ClassedChar c = t.At(pos);
  const size_t after = pos + c.length;
  if (c.value < 0x80 && c.Is(kPunctuation | kSymbol) && IsAsciiLetter(t.At(after).value)) {
    size_t end = after;
    while (IsAsciiLetter(t.At(end).value)) ++end;
    return end;
  }
  if (!c.Is(kNewline | kLetter | kPunctuation | kSymbol) && t.At(after).Is(kLetter | kMark)) {
    return t.Skip(after, kLetter | kMark);
  }
  if (c.Is(kLetter | kMark)) return t.Skip(pos, kLetter | kMark);
  const size_t begin = c.value == ' ' ? after : pos;
  if (const size_t end = t.Skip(begin, kPunctuation | kSymbol); end != begin) return t.Skip(end, kNewline);
  return c.Is(kSpace) ? MatchSpaces(t, pos, true) : pos;
}

constexpr std::string_view kGpt2Regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDeepseek3Regex =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
    R"(| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct Cl100kVariant {
  std::string_view regex;
  uint32_t max_digits;
  bool marks_are_letters;
};
constexpr Cl100kVariant kCl100kVariants[] = {
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     1, false},  // Qwen2, Qwen3
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     3, false},  // Llama 3
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     1, true},  // Qwen3.5
};

// --- Reading of short patterns ---

// Consumes the front of a regular expression; nullopt-like false means "not of the supported form".
class RegexReader {
 public:
  explicit RegexReader(std::string_view rest) : rest_(rest) {}

  bool done() const { return rest_.empty(); }
  bool Accept(std::string_view token) {
    if (rest_.substr(0, token.size()) != token) return false;
    rest_.remove_prefix(token.size());
    return true;
  }

  // One class of characters: a literal, an escape or [...].
  bool ReadSet(CharSet* set) {
    if (!Accept("[")) return ReadItem(set, "()[]{}|*+?^$.");
    set->negated = Accept("^");
    if (rest_.starts_with("]")) return false;
    while (!Accept("]")) {
      if (!ReadItem(set, "[]&^")) return false;
      if (rest_.size() > 1 && rest_.front() == '-' && rest_[1] != ']' && !ReadRangeEnd(set)) return false;
    }
    return true;
  }

  bool ReadCount(uint32_t* count) {
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), *count);
    if (error != std::errc() || *count == 0) return false;
    rest_.remove_prefix(static_cast<size_t>(end - rest_.data()));
    return true;
  }

 private:
  // A character or a class; `special` are those that must be escaped to stand for themselves.
  bool ReadItem(CharSet* set, std::string_view special) {
    if (rest_.empty()) return false;
    if (rest_.front() == '\\') return ReadEscape(set);
    if (special.find(rest_.front()) != std::string_view::npos) return false;
    const CodePoint c = DecodeValidUtf8(rest_.data());
    rest_.remove_prefix(c.length);
    set->ranges.emplace_back(c.value, c.value);
    return true;
  }

  bool ReadEscape(CharSet* set) {
    static constexpr std::pair<std::string_view, ClassMask> kClasses[] = {
        {"\\s", kSpace},   {"\\p{L}", kLetter},      {"\\p{N}", kNumber},
        {"\\p{M}", kMark}, {"\\p{P}", kPunctuation}, {"\\p{S}", kSymbol}};
    for (const auto& [name, mask] : kClasses) {
      if (Accept(name)) return set->any_of = static_cast<ClassMask>(set->any_of | mask), true;
    }
    static constexpr std::pair<std::string_view, char> kControls[] = {
        {"\\r", '\r'}, {"\\n", '\n'}, {"\\t", '\t'}};
    for (const auto& [name, value] : kControls) {
      if (Accept(name)) return set->ranges.emplace_back(value, value), true;
    }
    rest_.remove_prefix(1);
    const auto is_punctuation = [](char c) {
      return c > ' ' && c < 0x7F && !IsAsciiLetter(static_cast<uint32_t>(c)) && !(c >= '0' && c <= '9');
    };
    if (rest_.empty() || !is_punctuation(rest_.front())) return false;
    set->ranges.emplace_back(rest_.front(), rest_.front());
    rest_.remove_prefix(1);
    return true;
  }

  bool ReadRangeEnd(CharSet* set) {
    CharSet end;
    rest_.remove_prefix(1);
    if (!ReadItem(&end, "[]&^") || end.ranges.empty() || set->ranges.empty()) return false;
    set->ranges.back().second = end.ranges.back().second;
    return set->ranges.back().first <= set->ranges.back().second;
  }

  std::string_view rest_;
};

}  // namespace

bool CharSet::Has(const ClassedChar& c) const {
  if (c.at_end()) return false;
  const bool found = c.Is(any_of) || std::any_of(ranges.begin(), ranges.end(), [&](const auto& range) {
                       return c.value >= range.first && c.value <= range.second;
                     });
  return found != negated;
}

CharPattern CharPattern::Gpt2() { return CharPattern(); }

CharPattern CharPattern::Literal(std::string text) {
  CharPattern pattern;
  pattern.kind_ = Kind::kLiteral;
  pattern.literal_ = std::move(text);
  return pattern;
}

CharPattern CharPattern::Numbers(bool individually) {
  CharPattern pattern;
  pattern.kind_ = Kind::kRun;
  pattern.body_.any_of = kNumber;
  if (!individually) pattern.max_repeats_ = std::numeric_limits<uint32_t>::max();
  return pattern;
}

absl::StatusOr<CharPattern> CharPattern::FromRegex(std::string_view regex) {
  CharPattern pattern;
  if (regex == kGpt2Regex) return pattern;
  for (const Cl100kVariant& variant : kCl100kVariants) {
    if (regex != variant.regex) continue;
    pattern.kind_ = Kind::kCl100k;
    pattern.max_digits_ = variant.max_digits;
    pattern.marks_are_letters_ = variant.marks_are_letters;
    return pattern;
  }
  if (regex == kDeepseek3Regex) {
    pattern.kind_ = Kind::kDeepseek3;
    return pattern;
  }
  if (regex == R"(\s+$)") {
    pattern.kind_ = Kind::kTrailingSpace;
    return pattern;
  }
  pattern.kind_ = Kind::kRun;
  RegexReader reader(regex);
  bool ok = FindInvalidUtf8(regex) == std::string_view::npos && reader.ReadSet(&pattern.body_);
  if (ok && reader.Accept("?")) {
    pattern.has_lead_ = true;
    pattern.lead_ = std::move(pattern.body_);
    pattern.body_ = CharSet();
    ok = reader.ReadSet(&pattern.body_);
  }
  if (ok && reader.Accept("+")) {
    pattern.max_repeats_ = std::numeric_limits<uint32_t>::max();
  } else if (ok && reader.Accept("{1,")) {
    ok = reader.ReadCount(&pattern.max_repeats_) && reader.Accept("}");
  }
  if (ok && reader.done()) return pattern;
  return absl::UnimplementedError(
      absl::StrCat("the pattern ", std::string(regex.substr(0, 500)), " is not supported"));
}

size_t CharPattern::MatchRun(const CharClasses& classes, std::string_view text, size_t pos) const {
  size_t begin = pos;
  ClassedChar c = ReadChar(classes, text, pos);
  if (has_lead_ && lead_.Has(c) && body_.Has(ReadChar(classes, text, pos + c.length))) {
    begin = pos + c.length;
    c = ReadChar(classes, text, begin);
  }
  size_t end = begin;
  for (uint32_t n = 0; n < max_repeats_ && body_.Has(c); ++n) {
    end += c.length;
    c = ReadChar(classes, text, end);
  }
  return end == begin ? pos : end;
}

size_t CharPattern::MatchAt(const CharClasses& classes, std::string_view text, size_t pos) const {
  const ClassedText t{classes, text};
  switch (kind_) {
    case Kind::kGpt2:
      return MatchGpt2(t, pos);
    case Kind::kCl100k:
      return MatchCl100k(t, pos, marks_are_letters_ ? kLetter | kMark : kLetter, max_digits_);
    case Kind::kDeepseek3:
      return MatchDeepseek3(t, pos);
    default:
      return MatchRun(classes, text, pos);
  }
}

namespace {

// \s+$ where $ is the end of a line: a run of white space up to the end of the text, else up to its last
// newline.
bool FindTrailingSpace(const CharClasses& classes, std::string_view text, size_t pos, size_t* begin,
                       size_t* end) {
  while (pos < text.size()) {
    const ClassedChar c = ReadChar(classes, text, pos);
    if (!c.Is(kSpace)) {
      pos += c.length;
      continue;
    }
    const size_t run_end = SkipRun(classes, text, pos, kSpace);
    *begin = pos;
    *end = run_end;
    if (run_end == text.size()) return true;
    // Looked for in the run alone: a search back to the start of the text would take quadratic time.
    const size_t newline = text.substr(pos, run_end - pos).rfind('\n');
    if (newline != std::string_view::npos && newline > 0) {
      *end = pos + newline;
      return true;
    }
    pos = run_end;
  }
  return false;
}

}  // namespace

bool CharPattern::Find(std::string_view text, size_t pos, size_t* begin, size_t* end) const {
  const CharClasses& classes = CharClasses::Get();
  if (kind_ == Kind::kTrailingSpace) return FindTrailingSpace(classes, text, pos, begin, end);
  if (kind_ == Kind::kLiteral) {
    *begin = text.find(literal_, pos);
    *end = *begin + literal_.size();
    return *begin != std::string_view::npos;
  }
  while (pos < text.size()) {
    *begin = pos;
    *end = MatchAt(classes, text, pos);
    if (*end != pos) return true;
    pos += DecodeValidUtf8(text.data() + pos).length;
  }
  return false;
}

}  // namespace orrery
