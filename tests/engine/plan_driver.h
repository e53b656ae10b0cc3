// Drives an Executor without a scheduler: admits sequences, owns a block allocator, builds StepPlans of any
// shape a test asks for and applies the results. Keeps what WorkerCore promises the engine: block tables
// cover every slice, releases ride on the next plan.
#ifndef ORRERY_TESTS_ENGINE_PLAN_DRIVER_H_
#define ORRERY_TESTS_ENGINE_PLAN_DRIVER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "engine/executor.h"
#include "scheduler/types/step_plan.h"

namespace orrery::testing {

class PlanDriver {
 public:
  struct Sequence {
    SequenceId id{};
    uint32_t slot = 0;
    std::shared_ptr<const Submit> submit;
    std::vector<TokenId> output;
    std::vector<SampledToken> sampled;  // parallel to output
    PromptLogprobs scored;              // of all positions so far
    std::vector<BlockId> blocks;
    int32_t computed = 0;  // tokens whose KV is in the pool
    bool admitted = false;
    bool failed = false;

    int32_t num_tokens() const { return static_cast<int32_t>(submit->tokens->size() + output.size()); }
    bool done() const {
      return failed || submit->num_emitted + static_cast<int32_t>(output.size()) >= submit->stop.max_tokens;
    }
  };

  explicit PlanDriver(Executor& executor);

  // Returns a handle. The last `num_emitted` tokens of `tokens` are output of an earlier attempt.
  int Add(std::vector<TokenId> tokens, int32_t max_tokens, const Sampling& sampling, StopRules stop = {},
          int32_t num_emitted = 0);
  Sequence& sequence(int handle) { return sequences_.at(handle); }

  // One step over these (handle, most tokens to compute): decode and chunks as their state has it.
  absl::Status Step(const std::vector<std::pair<int, int32_t>>& work);
  // Steps everything that is not done until all are: decodes first, then chunks of at most `chunk` tokens
  // under the executor's row budget.
  absl::Status RunAll(int32_t chunk);
  // Forgets the KV of a sequence: it is recomputed from its first token.
  void Preempt(int handle);
  // Frees blocks now and the slot with the next plan.
  void Release(int handle);
  // A free block, for a test that fills block tables itself.
  BlockId TakeBlock();
  // The next step copies this block first.
  void CopyNext(BlockId from, BlockId to) { copies_.push_back({from, to}); }
  int64_t num_free_blocks() const { return static_cast<int64_t>(free_blocks_.size()); }
  const StepPlan& plan() const { return plan_; }

 private:
  void Append(Sequence& sequence, int32_t count);

  Executor& executor_;
  StepPlan plan_;
  StepResult result_;
  uint64_t next_step_ = 1;
  uint64_t next_sequence_ = 1;
  int next_handle_ = 0;
  std::map<int, Sequence> sequences_;
  std::vector<BlockId> free_blocks_;
  std::vector<uint32_t> free_slots_;
  std::vector<uint32_t> released_slots_;
  std::vector<BlockCopy> copies_;
};

Sampling Greedy();

}  // namespace orrery::testing

#endif  // ORRERY_TESTS_ENGINE_PLAN_DRIVER_H_
