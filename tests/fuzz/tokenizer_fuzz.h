#ifndef ORRERY_TESTS_FUZZ_TOKENIZER_FUZZ_H_
#define ORRERY_TESTS_FUZZ_TOKENIZER_FUZZ_H_

// What must hold for any bytes given to the tokenizer's file reader, encoder, detokenizer and stop matcher.
// Stops the process when something does not.

#include <cstddef>
#include <cstdint>

namespace orrery {

// The first byte chooses what the rest is: a tokenizer.json, a text, ids, or stop strings and a text.
void FuzzTokenizer(const uint8_t* data, size_t size);

}  // namespace orrery

#endif  // ORRERY_TESTS_FUZZ_TOKENIZER_FUZZ_H_
