// From a row of logits to the next token. For every sampled row, in this order:
//
//   1. repetition penalty (logit > 0 ? logit / r : logit * r) on ids of prompt and output, then
//      logit -= frequency * count + presence on ids of the output
//   2. logit += bias; masked ids (stop ids before min_tokens) become -infinity
//   3. temperature; 0 is greedy: highest logit, lowest id on ties, and the rest is skipped
//   4. top_k most likely, then the shortest most-likely-first prefix whose share of what is left reaches
//      top_p, then those at least min_p times as likely as the most likely; ties go to lower ids
//   5. one draw: with ids ascending, the first whose cumulative share exceeds `uniform`
//
// Log-probabilities are those of the log-softmax of the unmodified logits. A row's result depends on that row
// and its arguments alone. Any finite argument gives a valid id; see SampleRowStatus for rows that are
// broken.
#ifndef ORRERY_KERNELS_CPU_SAMPLE_H_
#define ORRERY_KERNELS_CPU_SAMPLE_H_

#include <cstdint>

#include "kernels/cpu/thread_pool.h"
#include "kernels/token_lists.h"

namespace orrery {

// Ids are in [0, vocab) and occur once per list; lists are not owned.
struct SampleArgs {
  float temperature = 1.0f;  // >= 0
  int32_t top_k = 0;         // 0: off
  float top_p = 1.0f;        // (0, 1]; 1: off
  float min_p = 0.0f;        // [0, 1]; 0: off
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  float repetition_penalty = 1.0f;     // > 0; 1: off
  const TokenCount* counts = nullptr;  // ids of prompt and output
  int32_t num_counts = 0;
  const TokenBias* bias = nullptr;
  int32_t num_bias = 0;
  const int32_t* masked = nullptr;
  int32_t num_masked = 0;
  double uniform = 0.0;       // in [0, 1)
  int32_t num_logprobs = -1;  // -1: none; k: the chosen id's and the k best
};

enum class SampleRowStatus : uint8_t {
  kOk,
  kNotFinite,  // a logit is NaN or +infinity, or all are -infinity: the row is broken, the id means nothing
  kAllMasked,  // no id is left after bias and masks: the id is the best one of the unmodified logits
};

struct SampleResult {
  int32_t token = 0;
  SampleRowStatus status = SampleRowStatus::kOk;
  float logprob = 0.0f;         // of `token`, when num_logprobs >= 0
  int32_t num_top = 0;          // min(num_logprobs, vocab)
  TokenLogprob* top = nullptr;  // in: room for num_logprobs entries; best first, lower ids first on ties
};

// A row whose next token is known and whose log-probability is asked for.
struct ScoreArgs {
  int32_t id = 0;       // in [0, vocab)
  int32_t num_top = 0;  // the so many best with it, at most the vocabulary
};

// Bytes of scratch that SampleRows and ScoreRows need for one thread; a multiple of 64.
int64_t SampleScratchBytes(int32_t vocab);

// logits: row r at logits + r * stride, `vocab` (>= 1) values -> results [rows]. scratch: SampleScratchBytes
// for each thread of the pool, 64-byte aligned. One row is one thread's work.
void SampleRows(ThreadPool& pool, const float* logits, int64_t stride, int32_t vocab, const SampleArgs* args,
                int64_t rows, void* scratch, SampleResult* results);

// As above for rows that are not sampled: `token` is args.id, with its log-probability and the best ones.
void ScoreRows(ThreadPool& pool, const float* logits, int64_t stride, int32_t vocab, const ScoreArgs* args,
               int64_t rows, void* scratch, SampleResult* results);

}  // namespace orrery

#endif  // ORRERY_KERNELS_CPU_SAMPLE_H_
