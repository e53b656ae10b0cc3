// An engine for tests that computes nothing but remembers everything: every KV entry is a hash of all tokens
// up to its position, every read is compared with what the sequence's own tokens say it must be, and every
// output token is a function of the sample and all tokens before it. A wrong block, a stale prefix, a reused
// slot, a lost or repeated token: each changes an entry or an output and is reported.
#ifndef ORRERY_TESTS_SCHEDULER_SHADOW_ENGINE_H_
#define ORRERY_TESTS_SCHEDULER_SHADOW_ENGINE_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "scheduler/types/step_plan.h"

namespace orrery {

// The token that follows `tokens` in this sample, in [0, vocab).
TokenId ReferenceToken(const SampleKey& key, const std::vector<TokenId>& tokens, int32_t vocab);
// What the sample must produce when nothing interrupts it, and how it ends.
struct ReferenceOutput {
  std::vector<TokenId> tokens;  // made after the emitted ones
  FinishReason finish = FinishReason::kNone;
};
ReferenceOutput ReferenceRun(const Submit& submit, int32_t vocab);

class ShadowEngine {
 public:
  ShadowEngine(int32_t num_blocks, int32_t block_tokens, int32_t num_slots, int32_t vocab);

  // Steps run at once and in order; results are handed out in the same order by Finish.
  void Launch(const StepPlan& plan);
  StepResult Finish();
  // The oldest step's result is lost; its tokens never reach the host.
  StepId FinishFailed();
  bool busy() const { return !results_.empty(); }
  // The next sample of this key, or scored part of its prompt, is reported as a numerical error.
  void PoisonNext(const SampleKey& key) { poisoned_.push_back(key); }

  // Everything that was wrong so far, one line each.
  const std::vector<std::string>& errors() const { return errors_; }
  int32_t occupied_slots() const;

 private:
  struct Slot {
    bool used = false;
    SequenceId sequence{};
    std::shared_ptr<const Submit> submit;
    std::vector<TokenId> tokens;  // given, then sampled
    size_t delivered = 0;         // of those, known to the host
    int32_t scored = 0;           // leading rows of the prompt
  };
  void Prepare(const StepPlan& plan);
  void RunSlice(const StepPlan& plan, size_t index, StepResult* result);
  void CheckInput(const Slot& slot, const Slice& slice);
  void Score(const Slice& slice, Slot& slot, StepResult* result);
  bool TakePoison(const SampleKey& key);
  uint64_t& Entry(BlockId block, int32_t offset) { return kv_[Value(block) * block_tokens_ + offset]; }
  void Fail(std::string what) { errors_.push_back(std::move(what)); }

  int32_t num_blocks_, block_tokens_, vocab_;
  std::vector<uint64_t> kv_;  // [num_blocks, block_tokens]
  std::vector<Slot> slots_;
  struct Pending {
    StepResult result;
    std::vector<uint32_t> slot_of_sample;  // [result.sampled]
  };
  std::deque<Pending> results_;
  std::vector<SampleKey> poisoned_;
  std::vector<std::string> errors_;
};

}  // namespace orrery

#endif  // ORRERY_TESTS_SCHEDULER_SHADOW_ENGINE_H_
