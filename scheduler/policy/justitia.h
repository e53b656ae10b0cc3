// Justitia, selective pampering (arXiv:2510.17015): applications in the order in which a fluid server that
// gave each the same share of the KV memory would finish them; the first gets all it can use. Mean completion
// times near shortest first, yet (up to a constant) nobody later than under equal shares.
//
//   cost of a request: c = p d + d^2 / 2          KV token-steps of p prompt and d predicted output tokens
//   virtual time:      dV/dt = M / N(t)           M = KV tokens * steps per second, N = applications not yet
//                                                 finished in the fluid system
//   arrival of a request of application j:        F_j = max(V, F_j) + c
//   admission by ascending F (ties: arrival) while the future KV peak fits; stops at the first that does not;
//   V = max(V, what F was with who is admitted as the last request)
//
// The order of fair queueing by finish tags; formulas from memory of the standard. Reconstructed: the paper
// knows an application's whole cost at its arrival, here requests that arrive between two plans do so
// together and share the F of the last of them, and those of before keep theirs; a request that names no
// application is one itself; steps per second are the measured ones; and V follows the engine (self-clocked
// fair queueing), which where lengths are predicted too long is far ahead of the fluid system. So every
// admission moves V, tags start from V, and nobody starves. Non-preemptive but for want of blocks (latest
// admitted). O(running + waiting + tried log waiting), arrivals O(log applications).
#ifndef ORRERY_SCHEDULER_POLICY_JUSTITIA_H_
#define ORRERY_SCHEDULER_POLICY_JUSTITIA_H_

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "scheduler/base/options.h"
#include "scheduler/policy/batch_policy.h"
#include "scheduler/policy/peak_admission.h"
#include "scheduler/policy/per_sequence.h"
#include "scheduler/policy/running_step.h"
#include "scheduler/policy/step_pace.h"
#include "scheduler/policy/waiting_order.h"

namespace orrery {

// KV token-steps of one request.
double KvTokenSteps(double prompt, double output);

// The fluid system: virtual time and finish tags.
class FairClock {
 public:
  using App = uint64_t;
  // `capacity` per second, shared by all applications that are not finished.
  void Advance(Time now, double capacity);
  // A request of this application; its tag.
  double Arrive(App app, double cost);
  // Nobody is before whom the engine has served.
  void Raise(double tag);
  double virtual_time() const { return virtual_; }
  size_t active() const { return tags_.size(); }

 private:
  double virtual_ = 0;
  Time now_;
  std::multimap<double, App> by_tag_;  // of those not finished
  absl::flat_hash_map<App, std::multimap<double, App>::iterator> tags_;
};

struct JustitiaOptions {
  int32_t token_budget = 0;    // tokens of a step; 0: the worker's max_step_tokens
  double quantile = 0.5;       // of the predicted length, for costs
  double peak_quantile = 0.9;  // the same for the future peak
};

class JustitiaPolicy final : public BatchPolicy {
 public:
  static absl::Span<const OptionField<JustitiaOptions>> Fields();

  explicit JustitiaPolicy(const JustitiaOptions& options) : options_(options) {}
  void Plan(const WorkerView& worker, Time now, BatchDecision* decision) override;
  void OnArrival(const SequenceView& sequence, Time now) override;
  void OnFinished(const SequenceView& sequence, Time) override { tags_.Erase(sequence.id); }

 private:
  struct Tag {
    double order = 0;  // F of its application after all that arrived with it
    double own = 0;    // F with this one as the last
  };
  void TagArrivals(const WorkerView& worker);
  Tag TagOf(const SequenceView& sequence) const;
  int64_t Admit(const WorkerView& worker, BatchDecision* decision);

  JustitiaOptions options_;
  StepPace pace_;
  RunningStep step_;
  PeakAdmission peak_;
  WaitingOrder waiting_;
  FairClock clock_;
  double capacity_ = 0;                                 // KV token-steps per second, as of the last Plan
  std::vector<std::pair<SequenceView, Time>> arrived_;  // not tagged yet: the predictor is the worker's
  PerSequence<Tag> tags_;
  absl::flat_hash_map<FairClock::App, double> together_;  // scratch: F after those that arrived together
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_JUSTITIA_H_
