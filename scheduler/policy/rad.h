// RAD, resource-aware dynamic batching (arXiv:2508.01002, Eq. 7 and section 4): steps are whole tiles of the
// matrix kernels, t(n) = t_tile * ceil(n / tile) + ..., and decode runs alone as soon as it fills one.
// Throughput-optimal: unstable only above tile / t_tile tokens per second, where everybody is.
//
//   unit = lcm(tile_rows, tile, tile_reduction)
//   1. as many decodes as a tile, or no prompt: DECODE step, a token for each
//   2. otherwise PREFILL step: units * unit tokens of the oldest prompts, begun ones first, then waiting ones
//   3. `cycle` > 0: after so many admissions everybody is finished before the next is admitted
//
// Reconstructed: where the paper pads a prompt to whole units, the rest of the unit goes to the next prompts;
// a prefill step is as many units long as a step may be (one, the paper's, wastes most of a step with a fixed
// cost); without room for any prompt decodes run, whatever their number; decodes whose oldest token is
// `patience_ms` old run too, since under light load step 2 could hold them up for as long as prompts arrive.
// The cycle serves the proof and costs idle rows: off by default. Arrival order throughout, so nobody
// starves. O(running + admitted).
#ifndef ORRERY_SCHEDULER_POLICY_RAD_H_
#define ORRERY_SCHEDULER_POLICY_RAD_H_

#include <cstdint>

#include "absl/types/span.h"
#include "scheduler/base/options.h"
#include "scheduler/policy/batch_policy.h"
#include "scheduler/policy/running_step.h"

namespace orrery {

struct RadOptions {
  int32_t tile = 128;  // tokens of a column tile, and decodes that fill a step
  int32_t tile_rows = 128, tile_reduction = 64;
  int32_t units = 0;  // of a prefill step; 0: as many as fit into max_step_tokens, at least one
  int32_t cycle = 0;  // admissions; 0: no cycles
  double patience_ms = 200;
  double watermark = 0.01;  // share of the pool that admission leaves free
};

// Tokens of a prefill unit: the least common multiple of the three tiles.
int32_t RadUnit(const RadOptions& options);

class RadPolicy final : public BatchPolicy {
 public:
  static absl::Span<const OptionField<RadOptions>> Fields();

  explicit RadPolicy(const RadOptions& options) : options_(options) {}
  void Plan(const WorkerView& worker, Time now, BatchDecision* decision) override;

 private:
  // Decodes first; how many is left in num_decodes_. True: one of them has waited too long.
  bool Arrange(const WorkerView& worker, Time now);
  void Prefill(const WorkerView& worker, BatchDecision* decision);

  RadOptions options_;
  RunningStep step_;
  size_t num_decodes_ = 0;
  int32_t admitted_ = 0;  // in this cycle
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_RAD_H_
