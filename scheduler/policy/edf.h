// Deadline scheduling with dynamic chunks and relegation (Niyama, arXiv:2503.22562; rules as in the authors'
// code): every step is as large as the most urgent decode allows, and prompts come by deadline and length.
//
//   first-token deadline  arrival + TTFT; of a request with a deadline alone: deadline - output * batch_tpot
//   token deadline        max(first token, its deadline) + TPOT * generated   (bank=0: first token + ...),
//                         at most the request's own deadline
//   1. every running decode gets a token; slack = min over decodes of token deadline - now
//   2. n = the largest of {128, 256, 512, 768, ..., 2552} tokens with margin * T(n) <= slack, else the
//      least; at most 512 while less than `low_kv` of the pool is free. Prompts get n - decodes of them
//   3. prompts by first-token deadline + kappa * tokens left, those that run and those that wait alike:
//      a long prefill pauses for an urgent prompt at the end of a chunk
//   4. relegation: a prompt that never ran and would miss its deadline if it ran now comes `relegate_s` later
//
// T is the worker's cost model; without one every step may be full and what a prompt takes is judged by the
// prompt tokens per second so far. Reconstructed: the paper's relegated requests come after all others and
// can starve, ours behind those of the next `relegate_s` seconds; `low_kv` is a share here, there a number of
// tokens of one GPU; at least min_tokens / 4 go to prompts. Victims are the prompts least urgent, then the
// decodes admitted last. O(running + waiting + prefills log prefills + admitted log waiting).
#ifndef ORRERY_SCHEDULER_POLICY_EDF_H_
#define ORRERY_SCHEDULER_POLICY_EDF_H_

#include <cstdint>

#include "absl/types/span.h"
#include "scheduler/base/options.h"
#include "scheduler/policy/batch_policy.h"
#include "scheduler/policy/deadlines.h"
#include "scheduler/policy/prompt_merge.h"
#include "scheduler/policy/running_step.h"
#include "scheduler/policy/step_pace.h"

namespace orrery {

struct EdfOptions {
  double ttft_ms = 6000, tpot_ms = 100;  // of a request that states none
  double batch_tpot_ms = 400;            // of a request with nothing but a deadline
  double kappa = 0.008;                  // seconds per prompt token left
  bool dynamic_chunk = true;
  double margin = 1.2;
  int32_t min_tokens = 128, max_tokens = 2552;  // of a dynamic step
  double low_kv = 0.1;
  double relegate_s = 60;  // 0: no relegation
  bool bank = true;
  double watermark = 0.01;  // share of the pool that admission leaves free
};

class EdfPolicy final : public BatchPolicy {
 public:
  static absl::Span<const OptionField<EdfOptions>> Fields();

  explicit EdfPolicy(const EdfOptions& options);
  void Plan(const WorkerView& worker, Time now, BatchDecision* decision) override;

 private:
  // When the first token is due, seconds; asks for the predicted length of those with a deadline.
  double FirstToken(const WorkerView& worker, const SequenceView& sequence) const;
  // Seconds; the order of prompts.
  double Key(const WorkerView& worker, const SequenceView& sequence, Time now) const;
  bool Relegated(const WorkerView& worker, const SequenceView& sequence, double deadline, Time now) const;
  // Least time in hand of a running decode, seconds; infinite without one.
  double LeastSlack(const WorkerView& worker, Time now) const;
  int32_t StepTokens(const WorkerView& worker, double slack) const;

  EdfOptions options_;
  DefaultSlo slo_;
  StepPace pace_;
  RunningStep step_;
  PromptMerge merge_;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_EDF_H_
