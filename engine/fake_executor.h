// An executor without a model, for tests of everything above it: a token is a function of request and output
// index (token_function.h). It computes nothing and checks everything that a plan promises. Its KV pool
// holds, for every place of every block, which prefix was written there; a slice whose block table does not
// hold exactly the sequence's own prefix is an error, so a wrong block table, a block freed too early, a
// false prefix hit or a missing copy ends the step that it would have corrupted. Log-probabilities that are
// asked for are all 0 and come without alternatives; a row of a prompt that is scored twice, or not before
// the first token, is an error.
//
// Faults can be injected: a step that does not start, a step that is lost, a row with broken logits.
#ifndef ORRERY_ENGINE_FAKE_EXECUTOR_H_
#define ORRERY_ENGINE_FAKE_EXECUTOR_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "engine/executor.h"
#include "engine/token_function.h"

namespace orrery {

struct FakeExecutorOptions {
  EngineLimits limits = {};
  int max_in_flight = 1;  // 2: a decode slice may take its input from the step still in flight
  // The token of (key, output index); not set: TokenAt.
  std::function<TokenId(const SampleKey&, int32_t)> token = {};
  // Faults; each is asked for every step or row, an OK status or false is no fault.
  std::function<absl::Status(const StepPlan&)> fail_launch = {}, fail_wait = {};
  std::function<bool(const SampleKey&, int32_t output_index)> numerical_error = {};
};

class FakeExecutor final : public Executor {
 public:
  explicit FakeExecutor(FakeExecutorOptions options);

  const EngineLimits& limits() const override { return options_.limits; }
  // Internal when the plan breaks a promise; the message says which.
  absl::Status Launch(const StepPlan& plan) override;
  absl::Status Wait(StepId step, StepResult* result) override;
  int max_in_flight() const override { return options_.max_in_flight; }

  int64_t steps() const { return steps_; }
  int64_t rows() const { return rows_; }            // token rows of all steps
  int32_t active_slots() const { return active_; }  // admitted and not released

 private:
  // Tokens of a slot and the running hash of each prefix: hashes[i] names tokens [0, i).
  struct Slot {
    SequenceId id{};
    std::shared_ptr<const Submit> submit;  // null: free
    std::vector<uint64_t> prefix_hashes;   // [known tokens + 1]
    int32_t num_scored = 0;                // leading rows of the prompt
    int32_t known() const { return static_cast<int32_t>(prefix_hashes.size()) - 1; }
  };

  absl::Status ApplyMembership(const StepPlan& plan);
  absl::Status RunSlice(const StepPlan& plan, size_t index, StepResult* result);
  static bool ScoreSlice(const Slice& slice, Slot& slot, StepResult* result);
  void Extend(Slot& slot, TokenId token);
  uint64_t& Place(const StepPlan& plan, size_t slice, int32_t position);

  const FakeExecutorOptions options_;
  std::vector<Slot> slots_;
  std::vector<uint64_t>
      pool_;  // [num_blocks, block_tokens]: hash of the prefix that ends here; 0: never written
  struct InFlight {
    const StepPlan* plan;
    StepResult result;
  };
  std::deque<InFlight> in_flight_;
  int64_t steps_ = 0, rows_ = 0;
  int32_t active_ = 0;
};

}  // namespace orrery

#endif  // ORRERY_ENGINE_FAKE_EXECUTOR_H_
