// Admission by predicted memory, shared by mc-sf, past-future, a-min and sorted-f, which differ in ordering,
// prediction and repair: a candidate may start when the future peak (future_peak.h) of all running sequences
// and itself stays inside the pool.
//
// Prompts are charged in full at once. A prompt that needs k steps to be computed under the token budget,
// behind those before it, starts to generate k - 1 steps late and is charged as if it grew meanwhile, which
// is never too little. Blocks that several hold are counted once and for as long as anybody runs. A
// prediction that proved too low is asked for again and is at least `stretch` above what was generated; how
// much memory is really there is RunningStep's business, so a wrong prediction costs a preemption, never the
// promise.
//
// Follow keeps the peak from step to step: O(running), and O(running) more per arrival, end or new
// prediction.
#ifndef ORRERY_SCHEDULER_POLICY_PEAK_ADMISSION_H_
#define ORRERY_SCHEDULER_POLICY_PEAK_ADMISSION_H_

#include <cstdint>
#include <vector>

#include "scheduler/policy/batch_policy.h"
#include "scheduler/policy/future_peak.h"

namespace orrery {

// Output tokens in all that `sequence` is expected to have made in the end: the predictor's quantile (without
// a predictor, its bound), at least `stretch` more than there are and at most its bound.
int32_t PredictedOutput(const WorkerView& worker, const SequenceView& sequence, double quantile,
                        int32_t stretch);

// The order in which prompts take turns in the token budget, as a delay of each in steps.
class PrefillQueue {
 public:
  PrefillQueue() = default;
  PrefillQueue(const WorkerView& worker, int32_t token_budget);
  // Steps before its first decode beyond the usual one, when it is the next in line; 0 for a decode.
  int64_t Delay(const SequenceView& sequence) const;
  void Join(const SequenceView& sequence);

 private:
  int64_t room_ = 1, backlog_ = 0;
};

// Private tokens of a sequence for FuturePeak: without the blocks that others hold too, and without its
// newest token, whose KV the next step makes.
int64_t PrivateTokens(const SequenceView& sequence, int32_t block_tokens);
// Blocks in use that are private to no running sequence, each once.
int64_t SharedBlocks(const WorkerView& worker);

struct PeakRule {
  double quantile = 1;
  double protection = 0;  // share of the pool that predictions may not fill
  int32_t stretch = 1;    // tokens
};

class PeakAdmission {
 public:
  // Brings the peak up to date with the running sequences. Once per Plan, first.
  void Follow(const WorkerView& worker, const PeakRule& rule, int32_t token_budget);
  // Would the peak stay inside the pool? Alone, everything that was accepted may run.
  bool Fits(const SequenceView& candidate, int32_t predicted_output) const;
  void Admit(const SequenceView& candidate, int32_t predicted_output);

 private:
  struct Followed {
    SequenceId id{};
    int32_t generated = 0, predicted = 0;
    int64_t held = 0, end = 0;  // as in the peak: held at step now_ of the time it was added
    int64_t added = 0;
    bool changed = true;
  };
  bool ForgetGone(const WorkerView& worker);
  // Brings `followed` up to date; the peak has to be told where it is left `changed`.
  void Look(const SequenceView& sequence, Followed* followed);
  void TellPeak();
  int64_t Remaining(const SequenceView& sequence, int32_t predicted) const;

  FuturePeak peak_;
  PrefillQueue prefills_;
  std::vector<Followed> followed_;  // of worker.running, in its order; then those admitted in this step
  std::vector<FuturePeak::Entry> entries_;  // scratch of TellPeak
  int64_t now_ = 0;                         // steps
  int64_t limit_ = 0;                       // blocks
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_PEAK_ADMISSION_H_
