#include "server/text/added_tokens.h"

#include <algorithm>

#include "server/text/char_class.h"

namespace orrery {
namespace {

// Start of the character before `pos`, which is not 0.
size_t PreviousChar(std::string_view text, size_t pos) {
  do {
    --pos;
  } while (pos > 0 && (static_cast<unsigned char>(text[pos]) & 0xC0) == 0x80);
  return pos;
}

bool StandsAlone(std::string_view text, size_t begin, size_t end) {
  const CharClasses& classes = CharClasses::Get();
  const bool word_before = begin > 0 && ReadChar(classes, text, PreviousChar(text, begin)).Is(kWord);
  return !word_before && !ReadChar(classes, text, end).Is(kWord);
}

}  // namespace

void AddedTokenFinder::Add(std::string_view spelling, const AddedToken& token) {
  if (spelling.empty()) return;
  int32_t node = 0;
  for (size_t i = 0; i < spelling.size(); ++i) {
    const auto byte = static_cast<unsigned char>(spelling[i]);
    int32_t& child = i == 0 ? roots_[byte] : children_[static_cast<uint64_t>(node) << 8 | byte];
    if (child == 0) {
      child = static_cast<int32_t>(token_at_.size());
      token_at_.push_back(-1);
    }
    node = child;
  }
  token_at_[static_cast<size_t>(node)] = static_cast<int32_t>(tokens_.size());
  tokens_.push_back({token.id, token.single_word, token.lstrip, token.rstrip, token.control});
}

const AddedTokenFinder::Token* AddedTokenFinder::Match(std::string_view text, size_t pos,
                                                       absl::FunctionRef<bool(size_t, size_t)> allowed,
                                                       size_t* end) const {
  int32_t node = roots_[static_cast<unsigned char>(text[pos])];
  const Token* best = nullptr;
  for (size_t i = pos + 1; node != 0; ++i) {
    if (const int32_t index = token_at_[static_cast<size_t>(node)]; index >= 0) {
      const Token& token = tokens_[static_cast<size_t>(index)];
      if ((!token.control || allowed(pos, i)) && (!token.single_word || StandsAlone(text, pos, i))) {
        best = &token;
        *end = i;
      }
    }
    if (i == text.size()) break;
    const auto it = children_.find(static_cast<uint64_t>(node) << 8 | static_cast<unsigned char>(text[i]));
    node = it == children_.end() ? 0 : it->second;
  }
  return best;
}

absl::Status AddedTokenFinder::Cut(std::string_view text, absl::FunctionRef<bool(size_t, size_t)> allowed,
                                   absl::FunctionRef<absl::Status(size_t, size_t)> gap,
                                   absl::FunctionRef<void(TokenId)> token) const {
  const CharClasses& classes = CharClasses::Get();
  size_t done = 0;
  for (size_t pos = 0; pos < text.size() && !empty();) {
    size_t end = 0;
    const Token* found = Match(text, pos, allowed, &end);
    if (found == nullptr) {
      ++pos;
      continue;
    }
    size_t begin = pos;
    while (found->lstrip && begin > done) {
      const size_t previous = PreviousChar(text, begin);
      if (!ReadChar(classes, text, previous).Is(kSpace)) break;
      begin = previous;
    }
    if (found->rstrip) end = SkipRun(classes, text, end, kSpace);
    if (begin > done) {
      if (absl::Status status = gap(done, begin); !status.ok()) return status;
    }
    token(found->id);
    pos = done = end;
  }
  return done < text.size() ? gap(done, text.size()) : absl::OkStatus();
}

}  // namespace orrery
