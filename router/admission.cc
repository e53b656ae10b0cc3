#include "router/admission.h"

#include <algorithm>
#include <string>

#include "scheduler/base/text.h"
#include "scheduler/types/refusal.h"

namespace orrery {
namespace {

constexpr double kMaxWaitSeconds = 86400;

absl::Status Refused(RefusalReason reason, std::string_view field, int64_t limit, int64_t actual,
                     std::string_view what, Duration wait = {}) {
  return ToStatus({.reason = reason,
                   .field = std::string(field),
                   .limit = limit,
                   .actual = actual,
                   .predicted_wait = wait,
                   .message = Cat(field, ": ", what, " (", actual, ", limit ", limit, ")")});
}

absl::Status CheckSize(const AdmissionCapacity& capacity, const Submit& submit) {
  const int64_t prompt = submit.num_prompt, total = prompt + submit.stop.max_tokens;
  if (prompt < 1) return Refused(RefusalReason::kInvalid, "prompt", 1, prompt, "is empty");
  if (submit.stop.max_tokens < 1) {
    return Refused(RefusalReason::kInvalid, "max_tokens", 1, submit.stop.max_tokens, "leaves nothing to do");
  }
  if (prompt >= capacity.max_context) {
    return Refused(RefusalReason::kContext, "prompt", capacity.max_context - 1, prompt,
                   "is longer than the context");
  }
  if (total > capacity.max_context) {
    return Refused(RefusalReason::kContext, "max_tokens", capacity.max_context - prompt,
                   submit.stop.max_tokens, "prompt and output exceed the context");
  }
  if (total - 1 > capacity.kv_tokens) {
    return Refused(RefusalReason::kKvTooSmall, "max_tokens",
                   std::max<int64_t>(0, capacity.kv_tokens + 1 - prompt), submit.stop.max_tokens,
                   "prompt and output can never fit the KV cache");
  }
  return absl::OkStatus();
}

}  // namespace

Duration PredictedWait(const QueueState& queue) {
  if (queue.tokens_per_s <= 0) return {};
  const double seconds = static_cast<double>(queue.queued_tokens) / queue.tokens_per_s;
  return Duration::Seconds(std::min(seconds, kMaxWaitSeconds));
}

absl::Status CheckAdmission(const AdmissionLimits& limits, const AdmissionCapacity& capacity,
                            const QueueState& queue, const Submit& submit, int32_t num_samples, Time now) {
  if (num_samples < 1 || num_samples > limits.max_samples) {
    return Refused(RefusalReason::kInvalid, "n", limits.max_samples, num_samples, "is out of range");
  }
  if (capacity.num_workers == 0) {
    return ToStatus(
        {.reason = RefusalReason::kNoWorker, .field = "worker", .message = "no worker accepts requests"});
  }
  if (absl::Status status = CheckSize(capacity, submit); !status.ok()) return status;
  if (submit.deadline <= now) {
    return ToStatus(
        {.reason = RefusalReason::kDeadline, .field = "deadline", .message = "deadline has passed"});
  }
  const Duration wait = PredictedWait(queue);
  if (queue.queued_tokens > 0 && queue.queued_tokens + submit.num_prompt > limits.max_queue_tokens) {
    return Refused(RefusalReason::kQueueFull, "max_queue_tokens", limits.max_queue_tokens,
                   queue.queued_tokens + submit.num_prompt, "queue is full", wait);
  }
  if (wait > limits.max_predicted_wait) {
    return Refused(RefusalReason::kPredictedWait, "predicted_wait_ms",
                   limits.max_predicted_wait.ns / 1'000'000, wait.ns / 1'000'000, "wait is too long", wait);
  }
  return absl::OkStatus();
}

}  // namespace orrery
