// The fuzz entry on mutated requests: whatever the bytes, a typed error or a specification within all limits.
#include <string>

#include "gtest/gtest.h"
#include "scheduler/base/random.h"
#include "tests/fuzz/request_fuzz.h"

namespace orrery {
namespace {

std::string Seed(uint64_t kind) {
  orrery::v1::GenerateRequest request;
  auto* sampling = request.mutable_sampling();
  if (kind % 3 == 0) request.set_text("Once upon a time");
  if (kind % 3 == 1) {
    for (const uint32_t id : {1u, 2u, 300u}) request.mutable_token_ids()->add_ids(id);
  }
  if (kind % 3 == 2) {
    auto* message = request.mutable_chat()->add_messages();
    message->set_role("user");
    message->set_content("Hello <|end|> \xC3\xA9");
  }
  sampling->set_temperature(0.5f);
  sampling->set_top_p(0.9f);
  sampling->set_top_k(40);
  sampling->set_max_tokens(20);
  sampling->add_stop("\n\n");
  sampling->add_stop_token_ids(5);
  (*sampling->mutable_logit_bias())[7] = -1.0f;
  sampling->set_n(2);
  request.mutable_slo()->set_deadline_ms(1000);
  request.set_request_id("r");
  request.set_tenant("t");
  return request.SerializeAsString();
}

TEST(RequestMutation, NothingCrashesAndEveryRefusalNamesAField) {
  RandomStream random(11);
  int served = 0;
  for (int round = 0; round < 30'000; ++round) {
    std::string bytes = Seed(random.Below(3));
    const uint64_t edits = random.Below(6);
    for (uint64_t i = 0; i < edits && !bytes.empty(); ++i) {
      const size_t at = random.Below(bytes.size());
      switch (random.Below(4)) {
        case 0:
          bytes[at] = static_cast<char>(random.Below(256));
          break;
        case 1:
          bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.Below(8)));
          break;
        case 2:
          bytes.erase(at, 1 + random.Below(8));
          break;
        default:
          bytes.insert(at, bytes.substr(random.Below(bytes.size()), random.Below(16)));
      }
    }
    served += FuzzRequest(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  }
  EXPECT_GT(served, 1000);
}

TEST(RequestMutation, RandomBytes) {
  RandomStream random(12);
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes(random.Below(64), '\0');
    for (char& c : bytes) c = static_cast<char>(random.Below(256));
    FuzzRequest(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  }
}

}  // namespace
}  // namespace orrery
