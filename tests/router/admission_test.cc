#include "router/admission.h"

#include <gtest/gtest.h>

#include "router/service_rate.h"
#include "scheduler/types/refusal.h"

namespace orrery {
namespace {

constexpr AdmissionCapacity kCapacity = {.max_context = 1000, .kv_tokens = 600, .num_workers = 1};

Submit Request(int32_t prompt, int32_t max_tokens) {
  Submit submit;
  submit.num_prompt = prompt;
  submit.stop.max_tokens = max_tokens;
  return submit;
}

Refusal Refused(const AdmissionLimits& limits, const AdmissionCapacity& capacity, const QueueState& queue,
                const Submit& submit, int32_t num_samples = 1, Time now = {}) {
  const absl::Status status = CheckAdmission(limits, capacity, queue, submit, num_samples, now);
  EXPECT_FALSE(status.ok());
  return RefusalOf(status).value_or(Refusal{});
}

TEST(Admission, TakesWhatFits) {
  EXPECT_TRUE(CheckAdmission({}, kCapacity, {}, Request(100, 501), 1, {}).ok()) << "600 KV tokens needed";
  EXPECT_TRUE(CheckAdmission({}, kCapacity, {}, Request(600, 1), 1, {}).ok()) << "the last token needs no KV";
}

TEST(Admission, NamesFieldAndLimit) {
  Refusal refusal = Refused({}, kCapacity, {}, Request(1000, 1));
  EXPECT_EQ(refusal.reason, RefusalReason::kContext);
  EXPECT_EQ(refusal.field, "prompt");
  EXPECT_EQ(refusal.limit, 999);
  EXPECT_EQ(refusal.actual, 1000);

  refusal = Refused({}, kCapacity, {}, Request(900, 101));
  EXPECT_EQ(refusal.reason, RefusalReason::kContext);
  EXPECT_EQ(refusal.field, "max_tokens");
  EXPECT_EQ(refusal.limit, 100);

  refusal = Refused({}, kCapacity, {}, Request(100, 502));
  EXPECT_EQ(refusal.reason, RefusalReason::kKvTooSmall);
  EXPECT_EQ(refusal.limit, 501);

  EXPECT_EQ(Refused({}, kCapacity, {}, Request(0, 5)).reason, RefusalReason::kInvalid);
  EXPECT_EQ(Refused({}, kCapacity, {}, Request(5, 0)).field, "max_tokens");
  EXPECT_EQ(Refused({}, kCapacity, {}, Request(5, 5), 0).field, "n");
  EXPECT_EQ(Refused({}, kCapacity, {}, Request(5, 5), 129).limit, 128);
  EXPECT_EQ(Refused({}, AdmissionCapacity{}, {}, Request(5, 5)).reason, RefusalReason::kNoWorker);

  Submit late = Request(5, 5);
  late.deadline = Time{10};
  EXPECT_EQ(Refused({}, kCapacity, {}, late, 1, Time{10}).reason, RefusalReason::kDeadline);
}

TEST(Admission, QueueIsBoundedInTokens) {
  const AdmissionLimits limits = {.max_queue_tokens = 100};
  EXPECT_TRUE(CheckAdmission(limits, kCapacity, {}, Request(500, 1), 1, {}).ok())
      << "an empty queue takes anything";
  EXPECT_TRUE(CheckAdmission(limits, kCapacity, {.queued_tokens = 60}, Request(40, 1), 1, {}).ok());
  const Refusal refusal =
      Refused(limits, kCapacity, {.queued_tokens = 60, .tokens_per_s = 30}, Request(41, 1));
  EXPECT_EQ(refusal.reason, RefusalReason::kQueueFull);
  EXPECT_EQ(refusal.limit, 100);
  EXPECT_EQ(refusal.actual, 101);
  EXPECT_EQ(refusal.predicted_wait, Duration::Milliseconds(2000)) << "60 tokens at 30 per second";
}

TEST(Admission, PredictedWaitIsBounded) {
  const AdmissionLimits limits = {.max_predicted_wait = Duration::Milliseconds(1500)};
  EXPECT_TRUE(
      CheckAdmission(limits, kCapacity, {.queued_tokens = 45, .tokens_per_s = 30}, Request(5, 1), 1, {})
          .ok());
  EXPECT_EQ(Refused(limits, kCapacity, {.queued_tokens = 46, .tokens_per_s = 30}, Request(5, 1)).reason,
            RefusalReason::kPredictedWait);
  EXPECT_TRUE(CheckAdmission(limits, kCapacity, {.queued_tokens = 900000}, Request(5, 1), 1, {}).ok())
      << "no prediction without a rate";
}

TEST(ServiceRate, CountsBusyTimeOnly) {
  ServiceRate rate(Duration::Seconds(10));
  EXPECT_EQ(rate.tokens_per_s(), 0);
  Time now;
  for (int i = 0; i < 1000; ++i) {
    now = now + Duration::Milliseconds(100);
    rate.Add(50, true, now);
    now = now + Duration::Milliseconds(900);
    rate.Add(0, false, now);
  }
  EXPECT_NEAR(rate.tokens_per_s(), 500, 10);
}

}  // namespace
}  // namespace orrery
