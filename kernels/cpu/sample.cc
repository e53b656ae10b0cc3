#include "kernels/cpu/sample.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>

#include "kernels/cpu/sample_select.h"
#include "kernels/cpu/vector_kernels.h"

namespace orrery {
namespace {

constexpr int64_t kPad = 16;         // vector stores may run over by this much
constexpr int64_t kDrawBlock = 256;  // weights that are added up before the draw looks inside
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The memory of one thread.
struct Scratch {
  float* weights;     // [vocab + kPad]: modified logits, then weights
  float* candidates;  // [vocab + kPad]: values, or ids
  double* blocks;     // [vocab / kDrawBlock + 1]
};

int64_t RoundUp64(int64_t bytes) { return (bytes + 63) / 64 * 64; }
int64_t RowBytes(int32_t vocab) { return RoundUp64((vocab + kPad) * static_cast<int64_t>(sizeof(float))); }

Scratch ScratchAt(void* scratch, int32_t vocab, int thread) {
  uint8_t* base = static_cast<uint8_t*>(scratch) + thread * SampleScratchBytes(vocab);
  return {.weights = reinterpret_cast<float*>(base),
          .candidates = reinterpret_cast<float*>(base + RowBytes(vocab)),
          .blocks = reinterpret_cast<double*>(base + 2 * RowBytes(vocab))};
}

bool ChangesLogits(const SampleArgs& args) {
  const bool penalised =
      args.num_counts > 0 &&
      (args.repetition_penalty != 1.0f || args.presence_penalty != 0.0f || args.frequency_penalty != 0.0f);
  return penalised || args.num_bias > 0 || args.num_masked > 0;
}

// A modified logit is a number or -infinity: overflow saturates, and what is no number is masked.
float Settle(float logit) { return std::isnan(logit) ? -kInfinity : std::min(logit, FLT_MAX); }

void ChangeLogits(const SampleArgs& args, float* logits) {
  for (int32_t i = 0; i < args.num_counts; ++i) {
    const TokenCount& seen = args.counts[i];
    float logit = logits[seen.id];
    logit = logit > 0 ? logit / args.repetition_penalty : logit * args.repetition_penalty;
    if (seen.count > 0) {
      logit -= args.frequency_penalty * static_cast<float>(seen.count) + args.presence_penalty;
    }
    logits[seen.id] = Settle(logit);
  }
  for (int32_t i = 0; i < args.num_bias; ++i) {
    float& logit = logits[args.bias[i].id];
    logit = Settle(logit + args.bias[i].value);
  }
  for (int32_t i = 0; i < args.num_masked; ++i) logits[args.masked[i]] = -kInfinity;
}

int32_t FirstAtLeast(const VectorKernels& kernels, const float* x, int32_t n, float least) {
  int32_t ids[1 + kPad];
  return kernels.ids_at_least(x, n, least, 1, ids) > 0 ? ids[0] : 0;
}

// Which weights survive top_k, top_p and min_p; the largest weight is 1, `total` is the sum of all.
Cut FilterWeights(const VectorKernels& kernels, const SampleArgs& args, const Scratch& scratch, int32_t vocab,
                  double total) {
  Cut cut;
  const float* left = scratch.weights;
  int64_t num_left = vocab;
  if (args.top_k > 0 && args.top_k < vocab) {
    cut = CutAtCount(kernels, scratch.weights, vocab, args.top_k, scratch.candidates);
    num_left = kernels.keep_between(scratch.weights, vocab, cut.least, kInfinity, scratch.candidates);
    left = scratch.candidates;
    double above;
    kernels.count_at_least(left, num_left, NextAbove(cut.least), &above);
    total = above + static_cast<double>(cut.ties) * cut.least;
  }
  if (args.top_p < 1.0f) {
    const Cut nucleus = CutAtSum(kernels, left, num_left, args.top_p * total, total, scratch.candidates);
    if (nucleus.least > cut.least || (nucleus.least == cut.least && nucleus.ties < cut.ties)) cut = nucleus;
  }
  if (args.min_p > cut.least) cut = {.least = std::min(args.min_p, 1.0f)};
  return cut;
}

// Sets to zero the weights equal to cut.least beyond the first cut.ties of them.
void DropTies(const Cut& cut, float* weights, int32_t vocab) {
  int64_t left = cut.ties;
  for (int32_t i = 0; i < vocab; ++i) {
    if (weights[i] == cut.least && left-- <= 0) weights[i] = 0.0f;
  }
}

// The first id whose cumulative weight, among weights >= least, exceeds `uniform` of their sum.
int32_t Draw(const VectorKernels& kernels, const Scratch& scratch, int32_t vocab, float least,
             double uniform) {
  const float* weights = scratch.weights;
  const int64_t num_blocks = (vocab + kDrawBlock - 1) / kDrawBlock;
  double total = 0;
  for (int64_t b = 0; b < num_blocks; ++b) {
    const int64_t begin = b * kDrawBlock;
    kernels.count_at_least(weights + begin, std::min(kDrawBlock, vocab - begin), least, &scratch.blocks[b]);
    total += scratch.blocks[b];
  }
  const double target = uniform * total;
  double before = 0;
  int64_t block = 0;
  while (block + 1 < num_blocks && before + scratch.blocks[block] <= target)
    before += scratch.blocks[block++];
  // Rounding can carry the search into a block of zeros at the end, or past the last weight of its block.
  while (block > 0 && scratch.blocks[block] == 0) --block;
  int32_t chosen = -1;
  const int64_t end = std::min<int64_t>(vocab, (block + 1) * kDrawBlock);
  for (int64_t i = block * kDrawBlock; i < end; ++i) {
    if (weights[i] < least || weights[i] == 0.0f) continue;
    chosen = static_cast<int32_t>(i);
    before += weights[i];
    if (before > target) break;
  }
  return chosen;
}

// `best` is the largest of `logits`, which may be scratch.weights.
int32_t SampleToken(const VectorKernels& kernels, const SampleArgs& args, const float* logits, int32_t vocab,
                    float best, const Scratch& scratch) {
  if (args.temperature == 0.0f || args.top_k == 1) return FirstAtLeast(kernels, logits, vocab, best);
  // Within these bounds zero times the scale is zero and -infinity times it is -infinity.
  const float scale = std::clamp(1.0f / args.temperature, 1e-30f, 1e30f);
  const double total = kernels.exp_weights(logits, vocab, best, scale, scratch.weights);
  const Cut cut = FilterWeights(kernels, args, scratch, vocab, total);
  if (cut.least > 0 && cut.ties < cut.present) DropTies(cut, scratch.weights, vocab);
  return Draw(kernels, scratch, vocab, cut.least, args.uniform);
}

void FillLogprobs(const VectorKernels& kernels, const float* logits, int32_t vocab, float best,
                  int32_t wanted, const Scratch& scratch, SampleResult* result) {
  const double log_sum = best + std::log(kernels.sum_exp(logits, vocab, best));
  const auto logprob = [&](int32_t id) { return static_cast<float>(logits[id] - log_sum); };
  result->logprob = logprob(result->token);
  result->num_top = std::min(wanted, vocab);
  if (result->num_top == 0) return;
  const Cut cut = CutAtCount(kernels, logits, vocab, result->num_top, scratch.candidates);
  int32_t* ids = reinterpret_cast<int32_t*>(scratch.candidates);
  const int64_t found = kernels.ids_at_least(logits, vocab, cut.least, vocab, ids);
  const auto better = [&](int32_t a, int32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  };
  std::partial_sort(ids, ids + result->num_top, ids + found, better);
  for (int32_t i = 0; i < result->num_top; ++i) result->top[i] = {.id = ids[i], .logprob = logprob(ids[i])};
}

// Says in *result whether the row is broken; its largest logit.
float BeginRow(const VectorKernels& kernels, const float* logits, int32_t vocab, SampleResult* result) {
  bool broken = false;
  const float best = kernels.max_logit(logits, vocab, &broken);
  broken |= best == -kInfinity;
  result->token = 0;
  result->num_top = 0;
  result->logprob = 0.0f;
  result->status = broken ? SampleRowStatus::kNotFinite : SampleRowStatus::kOk;
  return best;
}

void SampleRow(const VectorKernels& kernels, const float* logits, int32_t vocab, const SampleArgs& args,
               const Scratch& scratch, SampleResult* result) {
  const float best = BeginRow(kernels, logits, vocab, result);
  if (result->status != SampleRowStatus::kOk) return;
  const float* changed = logits;
  float changed_best = best;
  if (ChangesLogits(args)) {
    std::copy_n(logits, vocab, scratch.weights);
    ChangeLogits(args, scratch.weights);
    changed = scratch.weights;
    bool broken = false;  // never: what is no number was masked
    changed_best = kernels.max_logit(changed, vocab, &broken);
  }
  if (changed_best == -kInfinity) {
    result->status = SampleRowStatus::kAllMasked;
    result->token = FirstAtLeast(kernels, logits, vocab, best);
  } else {
    result->token = SampleToken(kernels, args, changed, vocab, changed_best, scratch);
  }
  if (args.num_logprobs >= 0) FillLogprobs(kernels, logits, vocab, best, args.num_logprobs, scratch, result);
}

void ScoreRow(const VectorKernels& kernels, const float* logits, int32_t vocab, const ScoreArgs& args,
              const Scratch& scratch, SampleResult* result) {
  const float best = BeginRow(kernels, logits, vocab, result);
  if (result->status != SampleRowStatus::kOk) return;
  result->token = args.id;
  FillLogprobs(kernels, logits, vocab, best, args.num_top, scratch, result);
}

}  // namespace

int64_t SampleScratchBytes(int32_t vocab) {
  return 2 * RowBytes(vocab) + RoundUp64((vocab / kDrawBlock + 1) * static_cast<int64_t>(sizeof(double)));
}

void SampleRows(ThreadPool& pool, const float* logits, int64_t stride, int32_t vocab, const SampleArgs* args,
                int64_t rows, void* scratch, SampleResult* results) {
  const VectorKernels& kernels = ActiveVectorKernels();
  pool.ParallelFor(rows, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t r = begin; r < end; ++r) {
      SampleRow(kernels, logits + r * stride, vocab, args[r], ScratchAt(scratch, vocab, thread), &results[r]);
    }
  });
}

void ScoreRows(ThreadPool& pool, const float* logits, int64_t stride, int32_t vocab, const ScoreArgs* args,
               int64_t rows, void* scratch, SampleResult* results) {
  const VectorKernels& kernels = ActiveVectorKernels();
  pool.ParallelFor(rows, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t r = begin; r < end; ++r) {
      ScoreRow(kernels, logits + r * stride, vocab, args[r], ScratchAt(scratch, vocab, thread), &results[r]);
    }
  });
}

}  // namespace orrery
