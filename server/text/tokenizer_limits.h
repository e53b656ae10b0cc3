// Bounds on what a tokenizer.json may declare, so that no file makes work or text grow without bound.
#ifndef ORRERY_SERVER_TEXT_TOKENIZER_LIMITS_H_
#define ORRERY_SERVER_TEXT_TOKENIZER_LIMITS_H_

#include <cstddef>

namespace orrery {

inline constexpr int kMaxSequenceDepth = 8;       // Sequences inside Sequences
inline constexpr size_t kMaxTokenizerSteps = 32;  // of a normalizer, a pre-tokenizer, a decoder
// Factor by which all Replace steps together may lengthen a text: each may find what the one before it wrote.
inline constexpr size_t kMaxTextGrowth = 64;

}  // namespace orrery

#endif  // ORRERY_SERVER_TEXT_TOKENIZER_LIMITS_H_
