#include "server/text/tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/text/detokenizer.h"
#include "server/text/utf8.h"

namespace orrery {

// The concatenated text of one call and which of its bytes a template wrote.
struct Tokenizer::Input {
  std::string_view text;
  std::vector<std::pair<size_t, size_t>> template_ranges;  // ascending, not touching

  bool IsTemplate(size_t begin, size_t end) const {
    auto it = std::upper_bound(template_ranges.begin(), template_ranges.end(), begin,
                               [](size_t value, const auto& range) { return value < range.first; });
    return it != template_ranges.begin() && (--it)->second >= end;
  }
  std::vector<uint8_t> Marks(size_t begin, size_t end) const {
    std::vector<uint8_t> marks(end - begin, 0);
    auto it = std::upper_bound(template_ranges.begin(), template_ranges.end(), begin,
                               [](size_t value, const auto& range) { return value < range.second; });
    for (; it != template_ranges.end() && it->first < end; ++it) {
      const size_t first = std::max(it->first, begin), last = std::min(it->second, end);
      std::fill(marks.begin() + static_cast<std::ptrdiff_t>(first - begin),
                marks.begin() + static_cast<std::ptrdiff_t>(last - begin), uint8_t{1});
    }
    return marks;
  }
};

Tokenizer::Tokenizer(Normalizer normalizer, PreTokenizer pre_tokenizer, Bpe bpe, PieceDecoder decoder)
    : normalizer_(std::move(normalizer)),
      pre_tokenizer_(std::move(pre_tokenizer)),
      bpe_(std::move(bpe)),
      decoder_(std::move(decoder)) {}

static absl::Status TooMany(size_t max_tokens) {
  return absl::OutOfRangeError(absl::StrCat("more than ", max_tokens, " tokens"));
}

absl::StatusOr<std::vector<TokenId>> Tokenizer::Encode(std::string_view text,
                                                       const EncodeOptions& options) const {
  const TextSegment segment{text, options.parse_special};
  return EncodeSegments({&segment, 1}, options);
}

absl::StatusOr<std::vector<TokenId>> Tokenizer::EncodeSegments(absl::Span<const TextSegment> segments,
                                                               const EncodeOptions& options) const {
  size_t total_bytes = 0;
  for (const TextSegment& segment : segments) {
    // Each segment is checked alone, so that no character is made of bytes of two of them.
    if (const size_t bad = FindInvalidUtf8(segment.text); bad != std::string_view::npos) {
      return absl::InvalidArgumentError(absl::StrCat("text: not valid UTF-8 at byte ", total_bytes + bad));
    }
    total_bytes += segment.text.size();
    if (total_bytes > options.max_bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("text: longer than the limit of ", options.max_bytes, " bytes"));
    }
  }
  Input input;
  std::string joined;
  if (segments.size() > 1) joined.reserve(total_bytes);
  size_t offset = 0;
  for (const TextSegment& segment : segments) {
    if (segments.size() > 1) joined.append(segment.text);
    const size_t end = offset + segment.text.size();
    if (segment.is_template && end > offset) {
      auto& ranges = input.template_ranges;
      if (!ranges.empty() && ranges.back().second == offset) {
        ranges.back().second = end;
      } else {
        ranges.emplace_back(offset, end);
      }
    }
    offset = end;
  }
  input.text = segments.size() == 1 ? segments[0].text : joined;

  std::vector<TokenId> ids;
  ids.reserve(total_bytes / 4 + 8);
  if (options.add_special) ids = prefix_;
  Bpe::Workspace work;
  absl::Status status = raw_finder_.Cut(
      input.text, [&](size_t begin, size_t end) { return input.IsTemplate(begin, end); },
      [&](size_t begin, size_t end) { return EncodeGap(input, begin, end, options.max_tokens, &work, &ids); },
      [&](TokenId id) { ids.push_back(id); });
  if (!status.ok()) return status;
  if (options.add_special) ids.insert(ids.end(), suffix_.begin(), suffix_.end());
  if (ids.size() > options.max_tokens) return TooMany(options.max_tokens);
  return ids;
}

absl::Status Tokenizer::EncodeGap(const Input& input, size_t begin, size_t end, size_t max_tokens,
                                  Bpe::Workspace* work, std::vector<TokenId>* ids) const {
  std::string_view text = input.text.substr(begin, end - begin);
  std::string normalized;
  std::vector<uint8_t> marks;
  const bool keeps_bytes = normalizer_.is_identity();
  if (!keeps_bytes) {
    const bool needs_marks = has_normalized_control_ && !input.template_ranges.empty();
    normalized.assign(text);
    if (needs_marks) marks = input.Marks(begin, end);
    normalizer_.Apply(&normalized, needs_marks ? &marks : nullptr);
    text = normalized;
  }
  const auto allowed = [&](size_t from, size_t to) {
    if (keeps_bytes) return input.IsTemplate(begin + from, begin + to);
    return !marks.empty() && std::all_of(marks.begin() + static_cast<std::ptrdiff_t>(from),
                                         marks.begin() + static_cast<std::ptrdiff_t>(to),
                                         [](uint8_t mark) { return mark != 0; });
  };
  const auto encode = [&](size_t from, size_t to) {
    return pre_tokenizer_.Split(text.substr(from, to - from), begin == 0 && from == 0,
                                [&](std::string_view piece) {
                                  if (ids->size() > max_tokens) return TooMany(max_tokens);
                                  return bpe_.Encode(piece, work, ids);
                                });
  };
  return normalized_finder_.Cut(text, allowed, encode, [&](TokenId id) { ids->push_back(id); });
}

std::string Tokenizer::Decode(absl::Span<const TokenId> ids, bool skip_special) const {
  Detokenizer detokenizer(this, skip_special);
  std::string text;
  for (const TokenId id : ids) detokenizer.Append(id, &text);
  detokenizer.Finish(&text);
  return text;
}

std::optional<TokenId> Tokenizer::IdOfAdded(std::string_view content) const {
  for (const AddedToken& token : added_tokens_) {
    if (token.content == content) return token.id;
  }
  return std::nullopt;
}

}  // namespace orrery
