// What a step is made of, in sums; every slice adds to it once.
#ifndef ORRERY_SCHEDULER_TYPES_STEP_SHAPE_H_
#define ORRERY_SCHEDULER_TYPES_STEP_SHAPE_H_

#include <cstdint>

namespace orrery {

struct StepShape {
  int32_t decodes = 0;         // slices of one token that sample
  int64_t decode_context = 0;  // tokens their attention reads, the new one included
  int32_t chunks = 0;          // all other slices
  int32_t prefill_tokens = 0;  // of the chunks
  double prefill_squares = 0;  // sum over chunks of (begin + count)^2 - begin^2

  void AddDecode(int32_t context) {
    ++decodes;
    decode_context += context;
  }
  void AddChunk(int32_t begin, int32_t count) {
    ++chunks;
    prefill_tokens += count;
    const double end = static_cast<double>(begin) + count;
    prefill_squares += end * end - static_cast<double>(begin) * begin;
  }
  int32_t tokens() const { return decodes + prefill_tokens; }
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_TYPES_STEP_SHAPE_H_
