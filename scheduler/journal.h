// The journal of one worker: everything that went into its WorkerCore, and a digest of everything that came
// out. Replaying it must give equal digests; that is the proof that live and simulated runs share one policy.
//
// Format, version 3. Bytes "ORRYJRNL", then records: type (1 byte), payload length (varint), payload, and 8
// bytes of a hash over the record and the hash of the record before, so that a flipped, lost or moved byte is
// seen. The first record is the header (WorkerSpec: options, policies, seeds); then inputs in the order in
// which they were applied. Integers are varints (zigzag where negative), times are deltas. Prompts are
// inside: a journal is as secret as the traffic.
#ifndef ORRERY_SCHEDULER_JOURNAL_H_
#define ORRERY_SCHEDULER_JOURNAL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "scheduler/base/hash.h"
#include "scheduler/base/time.h"
#include "scheduler/types/request.h"
#include "scheduler/types/step_plan.h"
#include "scheduler/worker_factory.h"

namespace orrery {

// A hash of all fields of a plan (of an admitted sequence: its id, slot and key).
uint64_t PlanDigest(const StepPlan& plan);

// Encodes; the bytes are the caller's to write somewhere. WorkerCore calls it (set_journal).
class JournalWriter {
 public:
  explicit JournalWriter(const WorkerSpec& spec);

  void Arrival(const Submit& submit, Time now, bool accepted);
  void Cancel(const SampleKey& key, Time now);
  void CancelRequest(RequestId request, Time now);
  void Timer(Time now);
  void Drain(Time now);
  void Plan(const StepPlan& plan, Time now);
  void StepDone(const StepResult& result, Time now);
  void StepFailed(StepId step, std::string_view error, Time now);

  // What was encoded since the last call, moved out. Call often: nothing else bounds the buffer.
  std::string TakeBytes();
  size_t buffered_bytes() const { return bytes_.size(); }

 private:
  void Begin(uint8_t type, Time now);
  void Finish();

  std::string bytes_, payload_;
  uint8_t type_ = 0;
  uint64_t chain_ = 0;  // hash of the last record
  Time last_;
};

struct JournalSummary {
  uint64_t records = 0, arrivals = 0, plans = 0, steps = 0;
  uint64_t warm_ups = 0;  // of the arrivals, those of kWarmUpRequest
  // The journal stops inside a record, as that of a killed process does; all before it was replayed.
  bool truncated = false;
};

// What a replay found. Equal when `difference` is empty.
struct ReplayResult {
  JournalSummary summary;
  uint64_t record = 0;     // of the first difference
  std::string difference;  // "plan of step 17 differs", ...
};

// Replays with other names than the recorded ones where given.
struct ReplayOverrides {
  std::optional<std::string> scheduler, eviction, predictor;
};

// Builds the recorded worker and feeds it the recorded inputs. Stops at the first difference. A journal that
// is not one, is of another version, or was changed: DATA_LOSS or INVALID_ARGUMENT with the record. Never
// crashes, and allocates in proportion to the journal and the limits in its header.
absl::StatusOr<ReplayResult> Replay(std::string_view journal, const ReplayOverrides& overrides = {});

// The header alone.
absl::StatusOr<WorkerSpec> ReadJournalSpec(std::string_view journal);

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_JOURNAL_H_
