// What the writer and the reader of a journal agree on; see journal.h.
#ifndef ORRERY_SCHEDULER_JOURNAL_FORMAT_H_
#define ORRERY_SCHEDULER_JOURNAL_FORMAT_H_

#include <cstdint>
#include <string_view>

#include "scheduler/base/hash.h"

namespace orrery {

inline constexpr std::string_view kJournalMagic = "ORRYJRNL";
inline constexpr uint64_t kJournalVersion = 3;

enum class JournalRecord : uint8_t {
  kHeader = 1,
  kArrival,
  kCancel,
  kCancelRequest,
  kTimer,
  kDrain,
  kPlan,
  kStepDone,
  kStepFailed,
};

// Of a record, given that of the one before: a change anywhere changes all that follow.
inline uint64_t JournalChain(uint64_t before, uint8_t type, std::string_view payload) {
  SipHash13 hash(before, type);
  return hash.FinishWith(payload).low;
}

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_JOURNAL_FORMAT_H_
