// A worker as wide as its engine.
#ifndef ORRERY_TESTS_ENGINE_WORKER_SPEC_H_
#define ORRERY_TESTS_ENGINE_WORKER_SPEC_H_

#include "engine/executor.h"
#include "scheduler/worker_factory.h"

namespace orrery::testing {

inline WorkerSpec WorkerSpecOf(const EngineLimits& limits) {
  WorkerSpec spec;
  spec.options.num_blocks = limits.num_blocks;
  spec.options.block_tokens = limits.block_tokens;
  spec.options.max_num_seqs = limits.max_num_seqs;
  spec.options.max_step_tokens = limits.max_step_tokens;
  spec.options.max_context = limits.max_context;
  spec.options.vocab_size = limits.vocab_size;
  return spec;
}

}  // namespace orrery::testing

#endif  // ORRERY_TESTS_ENGINE_WORKER_SPEC_H_
