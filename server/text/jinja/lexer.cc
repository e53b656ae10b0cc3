#include "server/text/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "server/text/jinja/text.h"
#include "server/text/utf8.h"

namespace orrery::jinja {
namespace {

bool IsNameStart(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsOctal(char c) { return c >= '0' && c <= '7'; }

int HexValue(char c) {
  if (IsDigit(c)) return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

class Lexer {
 public:
  Lexer(std::string_view source, Context& context) : source_(source), context_(context) {}

  std::vector<Token> Run() {
    while (context_.ok() && at_ < source_.size()) Data();
    Push(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  char Peek(size_t offset = 0) const { return at_ + offset < source_.size() ? source_[at_ + offset] : '\0'; }
  bool Looking(std::string_view text) const { return source_.substr(at_, text.size()) == text; }

  void Advance(size_t count) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(at_),
                                         source_.begin() + static_cast<ptrdiff_t>(at_ + count), '\n'));
    at_ += count;
    context_.set_line(line_);
  }

  void Push(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  size_t SpacesAt(size_t at) const {
    size_t end = at;
    while (end < source_.size()) {
      const CodePoint c = DecodeValidUtf8(source_.data() + end);
      if (!IsSpace(c.value)) break;
      end += c.length;
    }
    return end - at;
  }

  // Text up to the next tag, then the tag.
  void Data() {
    size_t tag = at_;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == std::string_view::npos || tag + 1 >= source_.size()) return EmitData(source_.substr(at_));
      if (source_[tag + 1] == '{' || source_[tag + 1] == '%' || source_[tag + 1] == '#') break;
    }
    const char type = source_[tag + 1];
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    std::string_view data = source_.substr(at_, tag - at_);
    const size_t skipped = data.size() + 2 + (sign == '-' || sign == '+' ? 1 : 0);
    EmitData(TrimBefore(data, type, sign), data.size());
    Advance(skipped - data.size());
    if (type == '#') return Comment();
    if (type == '%' && RawBlock()) return;
    Push(type == '%' ? TokenKind::kBlockBegin : TokenKind::kVariableBegin, "");
    Inside(type == '%' ? '%' : '}');
  }

  void EmitData(std::string_view data, size_t consumed) {
    if (!data.empty()) Push(TokenKind::kData, std::string(data));
    Advance(consumed);
  }
  void EmitData(std::string_view data) { EmitData(data, data.size()); }

  std::string_view TrimBefore(std::string_view data, char type, char sign) const {
    if (sign == '-') return data.substr(0, data.size() - TrailingSpaces(data));
    if (type == '{' || sign == '+') return data;
    const size_t newline = data.rfind('\n');
    const size_t begin = newline == std::string_view::npos ? 0 : newline + 1;
    const bool starts_line = newline != std::string_view::npos || at_ == 0 || source_[at_ - 1] == '\n';
    return starts_line && TrailingSpaces(data) >= data.size() - begin ? data.substr(0, begin) : data;
  }

  static size_t TrailingSpaces(std::string_view data) {
    size_t end = data.size();
    while (end > 0) {
      size_t start = end - 1;
      while ((static_cast<unsigned char>(data[start]) & 0xC0) == 0x80) --start;
      if (!IsSpace(DecodeValidUtf8(data.data() + start).value)) break;
      end = start;
    }
    return data.size() - end;
  }

  // After a block or a comment: '-' takes all white space, '+' none, otherwise one newline goes.
  void TrimAfter(char sign) {
    if (sign == '-') {
      Advance(SpacesAt(at_));
    } else if (sign != '+' && Peek() == '\n') {
      Advance(1);
    }
  }

  void Comment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string_view::npos) return context_.Fail("a comment is not closed");
    const char sign = end > at_ ? source_[end - 1] : '\0';
    Advance(end + 2 - at_);
    TrimAfter(sign);
  }

  // Length of `[-+]? spaces word spaces [-+]? %}` at `at`, 0 without a match; `sign` is the one before "%}".
  size_t MatchTag(size_t at, std::string_view word, char* sign) const {
    const size_t begin = at;
    at += SpacesAt(at);
    if (source_.substr(at, word.size()) != word) return 0;
    at += word.size();
    at += SpacesAt(at);
    *sign = at < source_.size() ? source_[at] : '\0';
    if (*sign == '-' || *sign == '+') ++at;
    return source_.substr(at, 2) == "%}" ? at + 2 - begin : 0;
  }

  bool RawBlock() {
    char sign = '\0';
    const size_t length = MatchTag(at_, "raw", &sign);
    if (length == 0 || sign == '+') return false;
    Advance(length);
    if (sign == '-') Advance(SpacesAt(at_));
    for (size_t tag = source_.find("{%", at_); tag != std::string_view::npos;
         tag = source_.find("{%", tag + 2)) {
      const char before = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
      const size_t inner = tag + 2 + (before == '-' || before == '+' ? 1 : 0);
      const size_t end_length = MatchTag(inner, "endraw", &sign);
      if (end_length == 0) continue;
      const std::string_view data = source_.substr(at_, tag - at_);
      EmitData(TrimBefore(data, '%', before), data.size());
      Advance(inner + end_length - at_);
      TrimAfter(sign);
      return true;
    }
    context_.Fail("a raw block is not closed");
    return true;
  }

  // The tokens of an expression up to the tag's end: "%}" or "}}".
  void Inside(char closing) {
    std::string open;
    while (context_.ok()) {
      Advance(SpacesAt(at_));
      if (at_ >= source_.size()) return context_.Fail("a tag is not closed");
      if (open.empty() && Closes(closing)) return;
      const char c = Peek();
      if (c == '"' || c == '\'') {
        String(c);
      } else if (IsDigit(c)) {
        Number();
      } else if (IsNameStart(c)) {
        size_t end = at_;
        while (end < source_.size() && (IsNameStart(source_[end]) || IsDigit(source_[end]))) ++end;
        Push(TokenKind::kName, std::string(source_.substr(at_, end - at_)));
        Advance(end - at_);
      } else {
        Operator(open);
      }
    }
  }

  bool Closes(char closing) {
    const char sign = Peek();
    const size_t skip = sign == '-' || (sign == '+' && closing == '%') ? 1 : 0;
    if (Peek(skip) != closing || Peek(skip + 1) != '}') return false;
    Push(closing == '%' ? TokenKind::kBlockEnd : TokenKind::kVariableEnd, "");
    Advance(skip + 2);
    if (closing == '%') {
      TrimAfter(sign);
    } else if (sign == '-') {
      Advance(SpacesAt(at_));
    }
    return true;
  }

  void Operator(std::string& open) {
    static constexpr std::array<std::string_view, 7> kTwo = {"//", "**", "==", "!=", "<=", ">=", "~"};
    for (std::string_view two : kTwo) {
      if (!Looking(two)) continue;
      Push(TokenKind::kOperator, std::string(two));
      return Advance(two.size());
    }
    const char c = Peek();
    if (std::string_view("+-*/%<>=.,:|()[]{}").find(c) == std::string_view::npos) {
      return context_.Fail("unexpected character '", std::string(1, c), "'");
    }
    if (c == '(' || c == '[' || c == '{') open.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
    if (c == ')' || c == ']' || c == '}') {
      if (open.empty() || open.back() != c) return context_.Fail("unexpected '", std::string(1, c), "'");
      open.pop_back();
    }
    Push(TokenKind::kOperator, std::string(1, c));
    Advance(1);
  }

  void Number() {
    size_t end = at_;
    const auto digits = [&] {
      while (end < source_.size() && (IsDigit(source_[end]) || source_[end] == '_')) ++end;
    };
    digits();
    bool is_float = false;
    if (end + 1 < source_.size() && source_[end] == '.' && IsDigit(source_[end + 1])) {
      is_float = true;
      ++end;
      digits();
    }
    if (end < source_.size() && (source_[end] | 0x20) == 'e') {
      size_t exponent = end + 1;
      if (exponent < source_.size() && (source_[exponent] == '+' || source_[exponent] == '-')) ++exponent;
      if (exponent < source_.size() && IsDigit(source_[exponent])) {
        is_float = true;
        end = exponent;
        digits();
      }
    }
    std::string text(source_.substr(at_, end - at_));
    text.erase(std::remove(text.begin(), text.end(), '_'), text.end());
    if (end < source_.size() && IsNameStart(source_[end])) return context_.Fail("bad number '", text, "'");
    Push(is_float ? TokenKind::kFloat : TokenKind::kInt, std::move(text));
    Advance(end - at_);
  }

  void String(char quote) {
    std::string value;
    size_t at = at_ + 1;
    while (at < source_.size() && source_[at] != quote) {
      if (source_[at] == '\\' && at + 1 < source_.size()) {
        at = Escape(at + 1, &value);
      } else {
        value.push_back(source_[at++]);
      }
    }
    if (at >= source_.size()) return context_.Fail("a string is not closed");
    Push(TokenKind::kString, std::move(value));
    Advance(at + 1 - at_);
  }

  // Appends what the escape after a backslash stands for; the position after it.
  size_t Escape(size_t at, std::string* value) {
    const char c = source_[at];
    static constexpr std::string_view kNames = "abfnrtv\\'\"", kValues = "\a\b\f\n\r\t\v\\'\"";
    if (const size_t index = kNames.find(c); index != std::string_view::npos) {
      value->push_back(kValues[index]);
      return at + 1;
    }
    if (c == '\n') return at + 1;
    uint32_t code = 0;
    if (IsOctal(c)) {
      const size_t stop = std::min(at + 3, source_.size());
      while (at < stop && IsOctal(source_[at])) code = code * 8 + static_cast<uint32_t>(source_[at++] - '0');
      AppendUtf8(code, value);
      return at;
    }
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0) {
      value->push_back('\\');
      return at;
    }
    for (size_t i = 1; i <= digits; ++i) {
      const int digit = at + i < source_.size() ? HexValue(source_[at + i]) : -1;
      if (digit < 0) return context_.Fail("bad escape in a string"), source_.size();
      code = code << 4 | static_cast<uint32_t>(digit);
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
      return context_.Fail("an escape is no Unicode character"), source_.size();
    }
    AppendUtf8(code, value);
    return at + digits + 1;
  }

  std::string_view source_;
  Context& context_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int line_ = 1;
};

}  // namespace

std::vector<Token> Tokenize(std::string_view source, Context& context) {
  std::string normal;
  normal.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      normal.push_back('\n');
    } else {
      normal.push_back(source[i]);
    }
  }
  if (!normal.empty() && normal.back() == '\n') normal.pop_back();
  return Lexer(normal, context).Run();
}

}  // namespace orrery::jinja
