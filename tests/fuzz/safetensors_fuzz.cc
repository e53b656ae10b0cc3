#include "tests/fuzz/safetensors_entry.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return orrery::SafetensorsFuzzEntry(data, size);
}
