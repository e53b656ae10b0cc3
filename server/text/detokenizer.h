#ifndef ORRERY_SERVER_TEXT_DETOKENIZER_H_
#define ORRERY_SERVER_TEXT_DETOKENIZER_H_

// Token ids to text as they come. What is given out is always whole characters; the concatenation of all
// deltas is the text of Tokenizer::Decode. A character whose bytes never complete becomes U+FFFD.

#include <string>

#include "absl/types/span.h"
#include "scheduler/base/ids.h"
#include "server/text/tokenizer.h"
#include "server/text/utf8.h"

namespace orrery {

class Detokenizer {
 public:
  // The tokenizer must outlive this. `prompt` is what the ids continue: only after a prompt without text
  // (empty, or special tokens alone) does the first piece lose its leading space, and a character that the
  // prompt began is completed by the first delta.
  explicit Detokenizer(const Tokenizer* tokenizer, bool skip_special = true,
                       absl::Span<const TokenId> prompt = {});

  // Appends to `delta` the text that `id` completes; often nothing.
  void Append(TokenId id, std::string* delta);
  // The ids are over: appends U+FFFD if bytes of an unfinished character are held.
  void Finish(std::string* delta);
  // True if bytes of an unfinished character are held back.
  bool holds_bytes() const { return stream_.holds_bytes(); }

 private:
  void StripStart(size_t begin, std::string* delta);

  const Tokenizer* tokenizer_;
  bool skip_special_;
  bool at_first_piece_ = true;
  int strips_left_ = 0;
  Utf8Stream stream_;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_TEXT_DETOKENIZER_H_
