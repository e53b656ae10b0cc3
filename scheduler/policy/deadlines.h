// When tokens of a sequence are due, with defaults for what its request leaves open. Seconds since the start
// of the run.
#ifndef ORRERY_SCHEDULER_POLICY_DEADLINES_H_
#define ORRERY_SCHEDULER_POLICY_DEADLINES_H_

#include <algorithm>

#include "scheduler/types/sequence_view.h"

namespace orrery {

struct DefaultSlo {
  double ttft_s = 0;        // of a request that states no TTFT
  double tpot_s = 0;        // of a request that states no TPOT
  double batch_tpot_s = 0;  // of one that states nothing but a deadline

  static bool batch(const SequenceView& sequence) {
    return !sequence.deadline.is_never() && sequence.first_token_deadline.is_never();
  }
  // `output`: tokens it is expected to make in all, for those with a deadline.
  double FirstToken(const SequenceView& sequence, double output) const {
    double due = sequence.first_token_deadline.is_never() ? sequence.arrival.seconds() + ttft_s
                                                          : sequence.first_token_deadline.seconds();
    if (sequence.deadline.is_never()) return due;
    const double latest = sequence.deadline.seconds() - output * Tpot(sequence);
    return batch(sequence) ? latest : std::min(due, latest);
  }
  double Tpot(const SequenceView& sequence) const {
    if (!sequence.last_token.is_never() && !sequence.next_token_deadline.is_never()) {
      return (sequence.next_token_deadline - sequence.last_token).seconds();
    }
    return batch(sequence) ? batch_tpot_s : tpot_s;
  }
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_DEADLINES_H_
