// The executor that computes: a model over a backend, the KV pool and the state of the admitted sequences.
//
// Launch applies releases and admissions, checks the plan against the limits, gathers the step's rows and
// enqueues all that is computed: layers, samples, and scores of prompts, a group of rows at a time. Wait
// waits for that step alone and makes its result. A plan that breaks a limit is an Internal error and changes
// nothing that a later step relies on.
//
// Where the backend has two steps in flight, a sequence of the later one goes on from a token that the host
// has not seen: it knows the token's place, and how the next one is chosen unless that depends on the tokens
// before it (penalties).
#ifndef ORRERY_ENGINE_MODEL_EXECUTOR_H_
#define ORRERY_ENGINE_MODEL_EXECUTOR_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/backend.h"
#include "engine/executor.h"
#include "engine/kv_pool.h"
#include "engine/model/decoder.h"
#include "engine/slot_state.h"

namespace orrery {

class ModelExecutor final : public Executor {
 public:
  // Rows of a step that go on behind the last attention at a time: all samples, or a group that is scored.
  static int64_t SelectedRows(const EngineLimits& limits, const Backend& backend) {
    return std::max<int64_t>(limits.max_num_seqs, backend.max_logit_rows());
  }

  ModelExecutor(std::unique_ptr<Backend> backend, std::unique_ptr<Decoder> decoder, KvPool pool,
                const EngineLimits& limits);
  // What is under way must not outlive the memory it uses.
  ~ModelExecutor() override {
    if (waited_ < launched_) backend_->Synchronize();
  }

  const EngineLimits& limits() const override { return limits_; }
  absl::Status Launch(const StepPlan& plan) override;
  absl::Status Wait(StepId step, StepResult* result) override;
  int max_in_flight() const override { return backend_->max_in_flight(); }

  const Decoder& decoder() const { return *decoder_; }
  const KvPool& pool() const { return pool_; }
  // Called by Launch with the logits of every sampled row of a step before sampling, in slice order; for
  // tests and tools. The view is f32 [rows, vocab].
  void set_logits_observer(std::function<void(const Tensor& logits)> observer) {
    observer_ = std::move(observer);
  }

 private:
  // A step in flight: what its operations read and write.
  struct Step {
    const StepPlan* plan = nullptr;
    std::vector<TokenId> ids;           // [rows]
    std::vector<int32_t> sources;       // [rows] where a row goes on from the step before, else empty
    std::vector<int32_t> block_tables;  // of the slices, concatenated
    std::vector<StepSlice> slices;
    std::vector<int32_t> sampled_rows;    // [samples]
    std::vector<uint32_t> sampled_slots;  // [samples]
    std::vector<SampleArgs> rules;
    std::vector<SampleResult> samples;
    std::vector<TokenLogprob> sampled_top;  // of the samples, concatenated

    // Of the prompt rows that are scored, slice by slice.
    std::vector<int32_t> scored_rows;
    std::vector<ScoreArgs> score_args;
    std::vector<SampleResult> scores;
    std::vector<TokenLogprob> scored_top;  // concatenated
  };

  absl::Status CheckPlan(const StepPlan& plan) const;
  absl::Status CheckSlice(const StepPlan& plan, size_t index) const;
  // Tokens of the slot's sequence that the step in flight samples: 0 or 1.
  int32_t Pending(uint32_t slot) const;
  void GatherRows(const StepPlan& plan, Step& step);
  void GatherScores(const StepPlan& plan, Step& step);
  void Enqueue(Step& step);
  void EnqueueSamples(Step& step);
  void EnqueueScores(Step& step);
  void FillSampled(const Step& step, StepResult* result);
  void FillScored(const Step& step, StepResult* result) const;

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Decoder> decoder_;
  KvPool pool_;
  const EngineLimits limits_;
  std::vector<SlotState> slots_;  // [max_num_seqs]
  std::function<void(const Tensor&)> observer_;

  std::vector<Step> steps_;             // [max_in_flight()], by turns
  uint64_t launched_ = 0, waited_ = 0;  // steps
  std::vector<int32_t> last_sample_;    // [max_num_seqs] of the slot: its number among its step's samples
};

}  // namespace orrery

#endif  // ORRERY_ENGINE_MODEL_EXECUTOR_H_
