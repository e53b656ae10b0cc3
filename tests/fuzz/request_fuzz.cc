// Fuzz target of the public API's input: request_fuzz [corpus folder] [-max_total_time=60]
#include "tests/fuzz/request_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  orrery::FuzzRequest(data, size);
  return 0;
}
