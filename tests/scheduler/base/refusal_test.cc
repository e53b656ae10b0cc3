#include "scheduler/types/refusal.h"

#include <gtest/gtest.h>

namespace orrery {
namespace {

TEST(Refusal, TravelsInsideAStatus) {
  const absl::Status status = ToStatus({.reason = RefusalReason::kQueueFull,
                                        .field = "max_queue_tokens",
                                        .limit = 1'000'000'000'000,
                                        .actual = -3,
                                        .predicted_wait = Duration::Milliseconds(250),
                                        .message = "queue is full"});
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  const auto refusal = RefusalOf(status);
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->reason, RefusalReason::kQueueFull);
  EXPECT_EQ(refusal->field, "max_queue_tokens");
  EXPECT_EQ(refusal->limit, 1'000'000'000'000);
  EXPECT_EQ(refusal->actual, -3);
  EXPECT_EQ(refusal->predicted_wait, Duration::Milliseconds(250));
  EXPECT_EQ(refusal->message, "queue is full");
}

TEST(Refusal, IsAbsentFromOtherStatuses) {
  EXPECT_FALSE(RefusalOf(absl::OkStatus()).has_value());
  EXPECT_FALSE(RefusalOf(absl::InternalError("x")).has_value());
}

TEST(Refusal, ReasonsHaveTheNamesOfTheInterface) {
  EXPECT_EQ(ReasonName(RefusalReason::kQueueFull), "queue_full");
  EXPECT_EQ(ReasonName(RefusalReason::kPredictedWait), "predicted_wait");
  EXPECT_EQ(ReasonName(RefusalReason::kShed), "shed");
  EXPECT_EQ(ReasonName(RefusalReason::kKvTooSmall), "kv_too_small");
  EXPECT_EQ(ReasonName(RefusalReason::kDraining), "draining");
  EXPECT_EQ(ReasonName(RefusalReason::kNoWorker), "no_worker");
  EXPECT_EQ(ReasonName(RefusalReason::kTenantLimit), "tenant_limit");
}

}  // namespace
}  // namespace orrery
