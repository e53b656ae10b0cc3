// The standard services beside ours: health, which follows readiness, and reflection.
#include <future>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/raw_call.h"
#include "tests/server/server_harness.h"

namespace orrery::testing {
namespace {

using ::testing::HasSubstr;

// grpc.health.v1: HealthCheckRequest {string service = 1}, HealthCheckResponse {enum status = 1}.
const char kServing[] = "\x08\x01", kNotServing[] = "\x08\x02";
const std::string kWhole, kInference = "\x0a\x13orrery.v1.Inference";

std::string Check(Harness& harness, const std::string& request) {
  std::string answer;
  const grpc::Status status =
      RawCall::Unary(harness.server().grpc_port(), "/grpc.health.v1.Health/Check", request, &answer);
  return status.ok() ? answer : status.error_message();
}

TEST(Health, CheckAndWatchFollowReadiness) {
  Harness::Setup setup;
  setup.config.step_timeout = Duration::Milliseconds(50);
  setup.wait_until_ready = false;
  setup.hold_at_start = true;
  Harness harness(setup);
  EXPECT_EQ(Check(harness, kWhole), kNotServing);
  EXPECT_EQ(Check(harness, kInference), kNotServing);
  RawCall watch(harness.server().grpc_port(), "/grpc.health.v1.Health/Watch");
  ASSERT_TRUE(watch.Write(kInference));
  watch.WritesDone();
  EXPECT_EQ(watch.Read(), kNotServing);

  harness.engine().Release();
  EXPECT_EQ(watch.Read(), kServing);
  EXPECT_EQ(Check(harness, kWhole), kServing);
  EXPECT_EQ(Check(harness, kInference), kServing);

  harness.engine().Hold();  // the watchdog
  auto call = std::async(std::launch::async, [&] { return harness.Generate(Harness::Request("x", 1)); });
  EXPECT_EQ(watch.Read(), kNotServing);
  EXPECT_EQ(Check(harness, kInference), kNotServing);
  harness.engine().Release();
  EXPECT_EQ(watch.Read(), kServing);
  EXPECT_TRUE(call.get().status.ok());

  auto drained =
      std::async(std::launch::async, [&] { return harness.server().Drain(Duration::Seconds(60)); });
  EXPECT_EQ(watch.Read(), kNotServing);
  EXPECT_TRUE(drained.get());
}

TEST(Health, UnknownServiceIsNotFound) {
  Harness harness;
  const grpc::Status status =
      RawCall::Unary(harness.server().grpc_port(), "/grpc.health.v1.Health/Check", "\x0a\x07nothing");
  EXPECT_EQ(status.error_code(), grpc::NOT_FOUND);
}

// grpc.reflection.v1alpha.ServerReflectionRequest {string file_containing_symbol = 4; string list_services =
// 7}.
TEST(Reflection, ListsTheServiceAndGivesItsFile) {
  Harness harness;
  RawCall call(harness.server().grpc_port(),
               "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo");
  ASSERT_TRUE(call.Write(std::string("\x3a\x00", 2)));
  EXPECT_THAT(call.Read().value_or(""), HasSubstr("orrery.v1.Inference"));
  ASSERT_TRUE(call.Write("\x22\x13orrery.v1.Inference"));
  EXPECT_THAT(call.Read().value_or(""), HasSubstr("GenerateRequest"));
}

}  // namespace
}  // namespace orrery::testing
