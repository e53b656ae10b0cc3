// The contract between a worker's scheduler and its engine: a step is data. WorkerCore commits a StepPlan, an
// Executor (CPU, CUDA, modelled, fake) turns it into a StepResult. Plans are reused buffers: Clear() keeps
// capacity.
#ifndef ORRERY_SCHEDULER_TYPES_STEP_PLAN_H_
#define ORRERY_SCHEDULER_TYPES_STEP_PLAN_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "scheduler/base/ids.h"
#include "scheduler/base/time.h"
#include "scheduler/types/request.h"

namespace orrery {

enum class InputSource : uint8_t {
  kHost,  // the ids of the slice are known to the host (prompt, emitted, or sampled in a finished step)
  kPreviousStep,  // the single id is sampled by the step still in flight and never leaves the device in
                  // between
};

// Tokens [begin, begin + count) of one sequence are computed in this step.
struct Slice {
  SequenceId sequence{};
  uint32_t slot = 0;    // dense engine slot of the sequence, [0, max_num_seqs): index into executor state
  int32_t begin = 0;    // position of the first token
  int32_t count = 0;    // >= 1
  bool sample = false;  // the slice reaches the last known token: sample the next one
  InputSource input = InputSource::kHost;
  int32_t output_index = 0;  // with sample: index of the sampled id among the output ids
  // Of the slice's positions below num_prompt - 1, the last so many are scored: the log-probability of the
  // prompt token behind each is wanted.
  int32_t num_scored = 0;

  // The first position that is scored.
  int32_t ScoredBegin(int32_t num_prompt) const {
    return std::min(begin + count, num_prompt - 1) - num_scored;
  }
};

// A sequence the engine sees for the first time. The engine keeps `submit` until the sequence is released: it
// holds tokens, sampling and stop rules, and appends what it samples.
struct AdmittedSequence {
  SequenceId sequence{};
  uint32_t slot = 0;
  std::shared_ptr<const Submit> submit;
};

struct BlockCopy {
  BlockId from{};
  BlockId to{};
};
struct KvTransferOp {
  TransferId transfer{};
  SequenceId sequence{};
  WorkerId peer{};
  int32_t begin_token = 0, num_tokens = 0;
};
struct ExpertMove {
  LayerId layer{};
  SlotId to{};
  ExpertId expert{};
};

struct StepPlan {
  StepId step{};
  uint64_t group_step = 0;        // agreed by the group before launch; equals step for a group of one
  uint64_t expert_map_epoch = 0;  // agreed by the group
  int32_t graph_size = 0;         // padded number of rows for a captured graph; 0: no padding
  bool participate_only = false;  // an empty plan that still joins the group's collectives

  std::vector<AdmittedSequence> admitted;  // before their first slice; never again after a preemption
  std::vector<Slice> slices;               // decodes and prefill chunks together, each sequence at most once
  std::vector<BlockId> blocks;             // block tables of the slices, concatenated
  std::vector<int32_t> block_begin;        // [slices + 1] into blocks; table covers tokens [0, begin + count)
  std::vector<SequenceId> preempted;       // KV is gone, engine state stays
  std::vector<uint32_t> released_slots;  // engine state of these slots may be dropped; done before `admitted`
  std::vector<BlockCopy> copies;         // before the slices run
  std::vector<KvTransferOp> kv_loads, kv_sends;
  std::vector<ExpertMove> expert_moves;
  int32_t num_tokens = 0;   // sum of slices[i].count
  int32_t num_samples = 0;  // slices with sample
  int32_t num_scoring = 0;  // slices with num_scored > 0

  bool has_work() const { return !slices.empty() || participate_only; }
  // Nothing for the engine to do and nothing for it to forget.
  bool empty() const {
    return !has_work() && admitted.empty() && released_slots.empty() && kv_loads.empty() &&
           kv_sends.empty() && expert_moves.empty();
  }
  void Clear();
};

enum class SampleStatus : uint8_t {
  kOk,
  kNumericalError,  // NaN or infinite logits: the sequence ends with an error
};

struct SampledToken {
  SequenceId sequence{};
  TokenId token = -1;
  SampleStatus status = SampleStatus::kOk;
  std::shared_ptr<const TokenLogprobs> logprobs;  // null unless asked for
};

struct ScoredPrompt {
  SequenceId sequence{};
  SampleStatus status = SampleStatus::kOk;
  // [slice.num_scored] positions; null where the status is not kOk, and in a replay.
  std::shared_ptr<const PromptLogprobs> logprobs;
};

struct StepResult {
  StepId step{};
  std::vector<SampledToken> sampled;   // [plan.num_samples], slice order
  std::vector<ScoredPrompt> scored;    // [plan.num_scoring], slice order
  Time start, end;                     // on the driver's clock; filled by the driver
  std::vector<int32_t> expert_tokens;  // [layers, experts]; empty if dense
  std::vector<TransferId> completed_transfers;
  std::vector<ExpertMove> applied_moves;
  void Clear();
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_TYPES_STEP_PLAN_H_
