#include "server/text/detokenizer.h"

#include <algorithm>

namespace orrery {
namespace {

// A character has four bytes at the most, so no more pieces than this can hold an unfinished one.
constexpr size_t kPromptTail = 4;

}  // namespace

Detokenizer::Detokenizer(const Tokenizer* tokenizer, bool skip_special, absl::Span<const TokenId> prompt)
    : tokenizer_(tokenizer), skip_special_(skip_special), strips_left_(tokenizer->decoder().strip_count()) {
  const auto has_text = [this](TokenId id) {
    return !tokenizer_->IsSpecial(id) && !tokenizer_->TokenBytes(id).empty();
  };
  if (std::none_of(prompt.begin(), prompt.end(), has_text)) return;
  at_first_piece_ = false;
  strips_left_ = 0;
  std::string shown_before;
  for (const TokenId id : prompt.subspan(prompt.size() - std::min(prompt.size(), kPromptTail))) {
    if (has_text(id)) stream_.Append(tokenizer_->TokenBytes(id), &shown_before);
  }
}

void Detokenizer::Append(TokenId id, std::string* delta) {
  if (skip_special_ && tokenizer_->IsSpecial(id)) return;
  const std::string_view bytes = tokenizer_->TokenBytes(id);
  if (bytes.empty()) return;
  const size_t begin = delta->size();
  if (at_first_piece_ && tokenizer_->decoder().first_piece_drops_spaces()) {
    std::string rest(bytes);
    rest.erase(std::remove(rest.begin(), rest.end(), ' '), rest.end());
    stream_.Append(rest, delta);
  } else {
    stream_.Append(bytes, delta);
  }
  at_first_piece_ = false;
  if (strips_left_ > 0) StripStart(begin, delta);
}

void Detokenizer::Finish(std::string* delta) { stream_.Finish(delta); }

void Detokenizer::StripStart(size_t begin, std::string* delta) {
  const std::string& content = tokenizer_->decoder().strip_content();
  while (strips_left_ > 0 && delta->size() > begin) {
    if (delta->compare(begin, content.size(), content) != 0) {
      strips_left_ = 0;
    } else {
      delta->erase(begin, content.size());
      --strips_left_;
    }
  }
}

}  // namespace orrery
