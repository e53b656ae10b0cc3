// The executor that computes: a model over a backend, the KV pool and the state of the admitted sequences.
//
// Launch applies releases and admissions, checks the plan against the limits and gathers the step's rows;
// Wait runs the layers, samples, and scores prompts a group of rows at a time. A plan that breaks a limit is
// an Internal error and changes nothing that a later step relies on. Depth 1.
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
  // Most rows whose logits exist at a time: bounds the logits buffer (rows * vocab * 4 bytes).
  static constexpr int64_t kLogitRows = 64;
  // Rows of a step that go on behind the last attention at a time: all samples, or a group that is scored.
  static constexpr int64_t SelectedRows(const EngineLimits& limits) {
    return std::max<int64_t>(limits.max_num_seqs, kLogitRows);
  }

  ModelExecutor(std::unique_ptr<Backend> backend, std::unique_ptr<Decoder> decoder, KvPool pool,
                const EngineLimits& limits);

  const EngineLimits& limits() const override { return limits_; }
  absl::Status Launch(const StepPlan& plan) override;
  absl::Status Wait(StepId step, StepResult* result) override;
  int max_in_flight() const override { return 1; }

  const Decoder& decoder() const { return *decoder_; }
  const KvPool& pool() const { return pool_; }
  // Called with the logits of every sampled row of a step before sampling, in slice order; for tests and
  // tools. The view is f32 [rows, vocab].
  void set_logits_observer(std::function<void(const Tensor& logits)> observer) {
    observer_ = std::move(observer);
  }

 private:
  absl::Status CheckPlan(const StepPlan& plan) const;
  absl::Status CheckSlice(const StepPlan& plan, size_t index) const;
  void GatherRows(const StepPlan& plan);
  absl::Status SampleAll();
  void FillResult(StepResult* result);
  absl::Status ScorePrompts(const StepPlan& plan, StepResult* result);
  absl::Status ScoreSlice(const StepPlan& plan, size_t index, ScoredPrompt* out);
  absl::Status ScoreGroup(int32_t row, int32_t position, int32_t count, const SlotState& state);

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Decoder> decoder_;
  KvPool pool_;
  const EngineLimits limits_;
  std::vector<SlotState> slots_;  // [max_num_seqs]
  std::function<void(const Tensor&)> observer_;

  // The step in flight.
  const StepPlan* plan_ = nullptr;
  std::vector<TokenId> ids_;           // [rows]
  std::vector<int32_t> block_tables_;  // of the slices, concatenated
  std::vector<StepSlice> slices_;
  std::vector<int32_t> sampled_rows_;    // [samples]
  std::vector<uint32_t> sampled_slots_;  // [samples]
  std::vector<SampleArgs> rules_;
  std::vector<SampleResult> samples_;

  // The group of prompt rows that is scored, [kLogitRows] at most each.
  std::vector<int32_t> scored_rows_;
  std::vector<ScoreArgs> score_args_;
  std::vector<SampleResult> scores_;
  std::vector<TokenLogprob> score_top_;  // [kLogitRows, alternatives]
};

}  // namespace orrery

#endif  // ORRERY_ENGINE_MODEL_EXECUTOR_H_
