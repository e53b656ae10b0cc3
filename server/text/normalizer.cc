#include "server/text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/text/char_class.h"
#include "server/text/json_object.h"
#include "server/text/tokenizer_limits.h"
#include "server/text/utf8.h"

namespace orrery {
namespace {

constexpr size_t kMaxContentBytes = 64;  // that one step inserts

// The text being written and, where marks are kept, the mark of each of its bytes.
class MarkedOutput {
 public:
  explicit MarkedOutput(bool keep_marks) : keep_marks_(keep_marks) {}

  void Append(std::string_view text, uint8_t mark) {
    text_.append(text);
    if (keep_marks_) marks_.resize(text_.size(), mark);
  }
  void Copy(std::string_view text, size_t begin, size_t end, const std::vector<uint8_t>* marks) {
    text_.append(text.substr(begin, end - begin));
    if (keep_marks_) {
      marks_.insert(marks_.end(), marks->begin() + static_cast<std::ptrdiff_t>(begin),
                    marks->begin() + static_cast<std::ptrdiff_t>(end));
    }
  }
  void MoveTo(std::string* text, std::vector<uint8_t>* marks) {
    *text = std::move(text_);
    if (keep_marks_) *marks = std::move(marks_);
  }
  void Reserve(size_t bytes) { text_.reserve(bytes); }

 private:
  bool keep_marks_;
  std::string text_;
  std::vector<uint8_t> marks_;
};

// 1 if all bytes in [begin, end) are marked.
uint8_t MarkOf(const std::vector<uint8_t>* marks, size_t begin, size_t end) {
  if (marks == nullptr) return 0;
  return std::all_of(marks->begin() + static_cast<std::ptrdiff_t>(begin),
                     marks->begin() + static_cast<std::ptrdiff_t>(end), [](uint8_t m) { return m != 0; });
}

void ReplaceAll(std::string_view pattern, std::string_view content, std::string* text,
                std::vector<uint8_t>* marks) {
  size_t found = text->find(pattern);
  if (found == std::string::npos) return;
  MarkedOutput out(marks != nullptr);
  out.Reserve(text->size() + text->size() / 4);
  size_t done = 0;
  for (; found != std::string::npos; found = text->find(pattern, done)) {
    out.Copy(*text, done, found, marks);
    done = found + pattern.size();
    out.Append(content, MarkOf(marks, found, done));
  }
  out.Copy(*text, done, text->size(), marks);
  out.MoveTo(text, marks);
}

// Appends the normal form of `piece` to `out`. utf8proc's own ordering of marks is quadratic in their number,
// so the marks are ordered here; decomposition and composition are its own.
void AppendNormalForm(std::string_view piece, bool compose, bool compatible, std::string* out) {
  const int options = UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | (compatible ? UTF8PROC_COMPAT : 0);
  std::vector<int32_t> points;
  for (size_t i = 0; i < piece.size();) {
    const CodePoint c = DecodeValidUtf8(piece.data() + i);
    i += c.length;
    const size_t old_size = points.size();
    points.resize(old_size + 32);  // no decomposition is longer than 18
    int boundary = 0;
    const auto count = utf8proc_decompose_char(static_cast<int32_t>(c.value), points.data() + old_size, 32,
                                               static_cast<utf8proc_option_t>(options), &boundary);
    points.resize(old_size + static_cast<size_t>(std::clamp<utf8proc_ssize_t>(count, 0, 32)));
  }
  const auto order = [](int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (auto begin = points.begin(); begin != points.end();) {
    begin = std::find_if(begin, points.end(), [&](int32_t c) { return order(c) != 0; });
    const auto end = std::find_if(begin, points.end(), [&](int32_t c) { return order(c) == 0; });
    std::stable_sort(begin, end, [&](int32_t a, int32_t b) { return order(a) < order(b); });
    begin = end;
  }
  size_t size = points.size();
  if (compose) {
    points.push_back(0);  // utf8proc wants room for a terminator
    const auto composed =
        utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(size),
                                 static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
    size = static_cast<size_t>(std::max<utf8proc_ssize_t>(composed, 0));
  }
  for (size_t i = 0; i < size; ++i) AppendUtf8(static_cast<uint32_t>(points[i]), out);
}

// Copies stretches of stable characters; a run of unstable ones is normalised together with the stable
// character before it, which they may compose with.
void NormalizeUnicode(bool compose, bool compatible, std::string* text, std::vector<uint8_t>* marks) {
  const CharClasses& classes = CharClasses::Get();
  const ClassMask unstable =
      compose ? (compatible ? kUnstableNfkc : kUnstableNfc) : (compatible ? kUnstableNfkd : kUnstableNfd);
  MarkedOutput out(marks != nullptr);
  std::string form;
  size_t copied = 0, last_stable = 0;
  for (size_t pos = 0; pos < text->size();) {
    const ClassedChar c = ReadChar(classes, *text, pos);
    if (!c.Is(unstable)) {
      last_stable = pos;
      pos += c.length;
      continue;
    }
    const size_t begin = std::max(last_stable, copied);
    pos = SkipRun(classes, *text, pos, unstable);
    out.Copy(*text, copied, begin, marks);
    form.clear();
    AppendNormalForm(std::string_view(*text).substr(begin, pos - begin), compose, compatible, &form);
    out.Append(form, MarkOf(marks, begin, pos));
    copied = last_stable = pos;
  }
  if (copied == 0) return;
  out.Copy(*text, copied, text->size(), marks);
  out.MoveTo(text, marks);
}

void Lowercase(std::string* text, std::vector<uint8_t>* marks) {
  MarkedOutput out(marks != nullptr);
  std::string lower;
  for (size_t pos = 0; pos < text->size();) {
    const CodePoint c = DecodeValidUtf8(text->data() + pos);
    lower.clear();
    AppendUtf8(
        c.value == 0x130 ? 'i' : static_cast<uint32_t>(utf8proc_tolower(static_cast<int32_t>(c.value))),
        &lower);
    if (c.value == 0x130) AppendUtf8(0x307, &lower);  // the only lower case that is two characters
    out.Append(lower, MarkOf(marks, pos, pos + c.length));
    pos += c.length;
  }
  out.MoveTo(text, marks);
}

void Strip(bool left, bool right, std::string* text, std::vector<uint8_t>* marks) {
  const CharClasses& classes = CharClasses::Get();
  const size_t begin = left ? SkipRun(classes, *text, 0, kSpace) : 0;
  size_t end = begin;
  for (size_t pos = begin; pos < text->size();) {
    const ClassedChar c = ReadChar(classes, *text, pos);
    pos += c.length;
    if (!right || !c.Is(kSpace)) end = pos;
  }
  MarkedOutput out(marks != nullptr);
  out.Copy(*text, begin, end, marks);
  out.MoveTo(text, marks);
}

}  // namespace

absl::StatusOr<Normalizer> Normalizer::FromJson(const nlohmann::json& json) {
  Normalizer normalizer;
  if (json.is_null()) return normalizer;
  if (absl::Status status = normalizer.AddSteps(json, 0); !status.ok()) return status;
  return normalizer;
}

absl::Status Normalizer::AddSteps(const nlohmann::json& json, int depth) {
  JsonObject object(json, "normalizer");
  const std::string type = object.String("type");
  if (!object.status().ok()) return object.status();
  if (type == "Sequence") {
    const nlohmann::json& parts = object.Child("normalizers");
    if (!parts.is_array()) return absl::InvalidArgumentError("normalizer.normalizers: a list is expected");
    if (depth == kMaxSequenceDepth)
      return absl::InvalidArgumentError("normalizer: Sequences are nested too deep");
    for (const nlohmann::json& part : parts) {
      if (absl::Status status = AddSteps(part, depth + 1); !status.ok()) return status;
    }
    return absl::OkStatus();
  }
  Step step{};
  if (type == "Prepend") {
    step.kind = Kind::kPrepend;
    step.content = object.String("prepend");
  } else if (type == "Replace") {
    step.kind = Kind::kReplace;
    JsonObject pattern(object.Child("pattern"), "normalizer.pattern");
    step.pattern = pattern.String("String");
    step.content = object.String("content");
    if (!pattern.status().ok()) return pattern.status();
    if (step.pattern.empty())
      return absl::InvalidArgumentError("normalizer Replace: only a String pattern is supported");
  } else if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    step.kind = Kind::kUnicode;
    step.compose = type.back() == 'C';
    step.compatible = type.size() == 4;
  } else if (type == "Strip") {
    step.kind = Kind::kStrip;
    step.left = object.Bool("strip_left", true);
    step.right = object.Bool("strip_right", true);
  } else if (type == "Lowercase") {
    step.kind = Kind::kLowercase;
  } else {
    return absl::UnimplementedError(absl::StrCat("normalizer type '", type, "' is not supported"));
  }
  if (!object.status().ok()) return object.status();
  if (step.content.size() > kMaxContentBytes || steps_.size() == kMaxTokenizerSteps) {
    return absl::InvalidArgumentError(absl::StrCat("normalizer: at most ", kMaxTokenizerSteps,
                                                   " steps that insert at most ", kMaxContentBytes,
                                                   " bytes"));
  }
  if (step.kind == Kind::kReplace) {
    growth_ *= std::max<size_t>(1, (step.content.size() + step.pattern.size() - 1) / step.pattern.size());
    if (growth_ > kMaxTextGrowth) {
      return absl::InvalidArgumentError(absl::StrCat(
          "normalizer: its Replace steps may make a text more than ", kMaxTextGrowth, " times as long"));
    }
  }
  steps_.push_back(std::move(step));
  return absl::OkStatus();
}

void Normalizer::Apply(std::string* text, std::vector<uint8_t>* marks) const {
  for (const Step& step : steps_) {
    if (text->empty()) return;
    switch (step.kind) {
      case Kind::kPrepend:
        text->insert(0, step.content);
        if (marks != nullptr) marks->insert(marks->begin(), step.content.size(), marks->front());
        break;
      case Kind::kReplace:
        ReplaceAll(step.pattern, step.content, text, marks);
        break;
      case Kind::kUnicode:
        NormalizeUnicode(step.compose, step.compatible, text, marks);
        break;
      case Kind::kStrip:
        Strip(step.left, step.right, text, marks);
        break;
      case Kind::kLowercase:
        Lowercase(text, marks);
        break;
    }
  }
}

}  // namespace orrery
