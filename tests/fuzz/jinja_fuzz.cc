#include "tests/fuzz/jinja_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  orrery::FuzzChatTemplate(std::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
