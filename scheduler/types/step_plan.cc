#include "scheduler/types/step_plan.h"

namespace orrery {

void StepPlan::Clear() {
  step = {};
  group_step = expert_map_epoch = 0;
  graph_size = num_tokens = num_samples = num_scoring = 0;
  participate_only = false;
  admitted.clear();
  slices.clear();
  blocks.clear();
  block_begin.clear();
  preempted.clear();
  released_slots.clear();
  copies.clear();
  kv_loads.clear();
  kv_sends.clear();
  expert_moves.clear();
}

void StepResult::Clear() {
  step = {};
  sampled.clear();
  scored.clear();
  start = end = {};
  expert_tokens.clear();
  completed_transfers.clear();
  applied_moves.clear();
}

}  // namespace orrery
