// Budgets (registers of a thread, nothing spilled):
//   SampleKernel 112
#include <algorithm>
#include <cfloat>
#include <cmath>

#include "kernels/cuda/counter_random.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/sample.h"
#include "kernels/cuda/select.cuh"

namespace orrery::cuda {
namespace {

constexpr int kSampleThreads = 512;
// Tokens that are picked from a row to be looked at again in shared memory, and how much less likely than the
// best they may be: e^-17 of it. Where that leaves out what is kept, or picks too many, the row is used.
constexpr int kMaxPicked = 2048;
constexpr float kPickedDistance = 17.0f;
constexpr float kWeightOne = 0x1p40f;  // of the most likely token, as an integer weight

struct SampleScratch {
  TokenKey picked[kMaxPicked];
  SelectScratch select;
  TokenKey key_slots[kReduceSlots];
  float sum_slots[kReduceSlots];
  TokenKey top[kMaxTopTokens];
  uint32_t num_picked;
  uint32_t num_top;
  uint32_t original_found;
  float original;
};

// A modified logit is a number or -infinity: overflow saturates, and what is no number is masked.
__device__ __forceinline__ float Settle(float logit) {
  return logit != logit ? -INFINITY : fminf(logit, FLT_MAX);
}

// One row, by a block.
class RowSampler {
 public:
  __device__ __forceinline__ RowSampler(const SampleArgs& args, int row, SampleScratch& scratch)
      : args_(args),
        parameters_(args.parameters[row]),
        logits_(args.logits + row * args.stride),
        row_(row),
        scratch_(scratch) {}

  __device__ __forceinline__ void Run() {
    const SampleParameters& p = parameters_;
    const TokenSet all{logits_, nullptr, args_.vocab};
    const TokenKey original_best = Best(all);
    SampledToken result{IdOf(original_best), SampleStatus::kOk, 0.0f, 0};
    if (!IsFinite(original_best)) {
      result.status = SampleStatus::kNotFinite;
      return Finish(result);
    }
    const bool logprobs = p.num_top >= 0;
    float log_sum = 0.0f;
    if (logprobs) {
      log_sum = LogSumExp(all, LogitOf(original_best));
      result.num_top = p.num_top < args_.vocab ? p.num_top : args_.vocab;
      WriteTop(all, LogitOf(original_best), log_sum, result.num_top);
    }
    TokenKey best = original_best;
    if (p.known_token >= 0) {
      result.token = p.known_token;
    } else {
      if (Changes()) {
        Change();
        best = Best(all);
      }
      if (LogitOf(best) == -INFINITY) {
        result.status = SampleStatus::kAllMasked;
      } else {
        result.token = p.temperature == 0.0f || p.top_k == 1 ? IdOf(best) : Draw(all, LogitOf(best));
      }
    }
    if (logprobs) result.logprob = OriginalLogit(result.token) - log_sum;
    Finish(result);
  }

 private:
  __device__ __forceinline__ void Finish(const SampledToken& result) {
    if (ThreadX() == 0) args_.results[row_] = result;
  }

  static __device__ __forceinline__ bool IsFinite(TokenKey best) {
    return best >> 32 < KeyOf(INFINITY, 0) >> 32 && best >> 32 > KeyOf(-INFINITY, 0) >> 32;
  }

  __device__ __forceinline__ TokenKey Best(const TokenSet& tokens) {
    TokenKey best = 0;
    tokens.ForMine([&](TokenKey key) { best = best < key ? key : best; });
    return BlockReduce<Maximum>(best, TokenKey{0}, scratch_.key_slots);
  }

  __device__ __forceinline__ float LogSumExp(const TokenSet& tokens, float best) {
    float sum = 0.0f;
    tokens.ForMine([&](TokenKey key) { sum += expf(LogitOf(key) - best); });
    return best + logf(BlockReduce<Sum>(sum, 0.0f, scratch_.sum_slots));
  }

  // The tokens of the row whose logits, scaled, are within kPickedDistance of the best; the row itself where
  // there are too many.
  __device__ __forceinline__ TokenSet Pick(const TokenSet& row, float best, float scale) {
    if (ThreadX() == 0) scratch_.num_picked = 0;
    SyncBlock();
    row.ForMine([&](TokenKey key) {
      if ((LogitOf(key) - best) * scale < -kPickedDistance) return;
      const uint32_t at = AtomicAdd(&scratch_.num_picked, 1u);
      if (at < kMaxPicked) scratch_.picked[at] = key;
    });
    SyncBlock();
    const uint32_t count = scratch_.num_picked;
    SyncBlock();
    if (count > kMaxPicked) return row;
    return {nullptr, scratch_.picked, static_cast<int32_t>(count)};
  }

  __device__ __forceinline__ void WriteTop(const TokenSet& row, float best, float log_sum, int count) {
    if (count == 0) return;
    TokenSet tokens = Pick(row, best, 1.0f);
    if (tokens.size < count) tokens = row;
    const auto one = [](TokenKey) { return uint64_t{1}; };
    const TokenKey least = SelectLargest(tokens, count, one, scratch_.select);
    if (ThreadX() == 0) scratch_.num_top = 0;
    SyncBlock();
    tokens.ForMine([&](TokenKey key) {
      if (key >= least) scratch_.top[AtomicAdd(&scratch_.num_top, 1u)] = key;
    });
    SyncBlock();
    for (int i = ThreadX(); i < count; i += BlockThreads()) {
      const TokenKey key = scratch_.top[i];
      int rank = 0;
      for (int j = 0; j < count; ++j) rank += scratch_.top[j] > key;
      args_.top[int64_t{row_} * args_.top_stride + rank] = {IdOf(key), LogitOf(key) - log_sum};
    }
    SyncBlock();
  }

  __device__ __forceinline__ bool Changes() const {
    const SampleParameters& p = parameters_;
    const bool penalised =
        p.repetition_penalty != 1.0f || p.presence_penalty != 0.0f || p.frequency_penalty != 0.0f;
    return (penalised && p.counts.begin < p.counts.end) || p.biases.begin < p.biases.end ||
           p.masked.begin < p.masked.end;
  }

  // Changes the logits of one list, each before f(logit, i), and keeps what they were.
  template <typename IdAt, typename Function>
  __device__ __forceinline__ void ChangeListed(const ListRange& range, float* before, const IdAt& id_at,
                                               const Function& f) {
    for (int i = range.begin + ThreadX(); i < range.end; i += BlockThreads()) {
      const int32_t id = id_at(i);
      before[i] = logits_[id];
      logits_[id] = f(logits_[id], i);
    }
    SyncBlock();
  }

  __device__ __forceinline__ void Change() {
    const SampleParameters& p = parameters_;
    ChangeListed(
        p.counts, args_.before_counts, [&](int i) { return args_.counts[i].id; },
        [&](float logit, int i) {
          const int32_t count = args_.counts[i].count;
          logit = logit > 0.0f ? logit / p.repetition_penalty : logit * p.repetition_penalty;
          if (count > 0) logit -= p.frequency_penalty * static_cast<float>(count) + p.presence_penalty;
          return Settle(logit);
        });
    ChangeListed(
        p.biases, args_.before_biases, [&](int i) { return args_.biases[i].id; },
        [&](float logit, int i) { return Settle(logit + args_.biases[i].value); });
    ChangeListed(
        p.masked, args_.before_masked, [&](int i) { return args_.masked[i]; },
        [](float, int) { return -INFINITY; });
  }

  // The token's logit before Change, which the first list that has it knows.
  __device__ __forceinline__ float OriginalLogit(int32_t token) {
    if (ThreadX() == 0) {
      scratch_.original = logits_[token];
      scratch_.original_found = 0;
    }
    SyncBlock();
    if (parameters_.known_token < 0 && Changes()) {
      FindOriginal(parameters_.counts, args_.before_counts, token, [&](int i) { return args_.counts[i].id; });
      FindOriginal(parameters_.biases, args_.before_biases, token, [&](int i) { return args_.biases[i].id; });
      FindOriginal(parameters_.masked, args_.before_masked, token, [&](int i) { return args_.masked[i]; });
    }
    return scratch_.original;
  }

  template <typename IdAt>
  __device__ __forceinline__ void FindOriginal(const ListRange& range, const float* before, int32_t token,
                                               const IdAt& id_at) {
    const bool found = scratch_.original_found != 0;
    SyncBlock();
    for (int i = range.begin + ThreadX(); i < range.end && !found; i += BlockThreads()) {
      if (id_at(i) != token) continue;
      scratch_.original = before[i];
      scratch_.original_found = 1;
    }
    SyncBlock();
  }

  // A draw among the tokens that the filters keep.
  __device__ __forceinline__ int32_t Draw(const TokenSet& all, float best) {
    const SampleParameters& p = parameters_;
    // Within these bounds zero times the scale is zero and -infinity times it is -infinity.
    const float scale = fminf(fmaxf(1.0f / p.temperature, 1e-30f), 1e30f);
    const auto share = [=](TokenKey key) { return expf((LogitOf(key) - best) * scale); };
    const bool counts = p.top_k > 0 && p.top_k < args_.vocab, weighs = p.top_p < 1.0f;
    TokenSet tokens = all;
    TokenKey least = 0;
    if (counts || weighs || p.min_p > 0.0f) tokens = Pick(all, best, scale);
    if (counts) {
      if (tokens.size < p.top_k) tokens = all;
      const auto one = [](TokenKey) { return uint64_t{1}; };
      least = SelectLargest(tokens, p.top_k, one, scratch_.select);
    }
    if (weighs) {
      const auto weight = [&](TokenKey key) {
        return key >= least ? static_cast<uint64_t>(share(key) * kWeightOne) : 0;
      };
      const uint64_t total = Total(counts ? tokens : all, weight);
      const auto target =
          static_cast<uint64_t>(ceil(static_cast<double>(p.top_p) * static_cast<double>(total)));
      if (tokens.keys != nullptr && !counts && Total(tokens, weight) < target) tokens = all;
      const TokenKey nucleus = SelectLargest(tokens, target, weight, scratch_.select);
      least = least < nucleus ? nucleus : least;
    }
    if (!counts && !weighs && p.min_p < expf(-kPickedDistance)) tokens = all;

    TokenKey winner = 0;
    tokens.ForMine([&](TokenKey key) {
      if (key < least || LogitOf(key) == -INFINITY || share(key) < p.min_p) return;
      const int32_t id = IdOf(key);
      const float score = (LogitOf(key) - best) * scale + GumbelOf(p.seed, p.position, id);
      const TokenKey candidate = KeyOf(score, id);
      winner = winner < candidate ? candidate : winner;
    });
    return IdOf(BlockReduce<Maximum>(winner, TokenKey{0}, scratch_.key_slots));
  }

  template <typename WeightOf>
  __device__ __forceinline__ uint64_t Total(const TokenSet& tokens, const WeightOf& weight_of) {
    uint64_t total = 0;
    tokens.ForMine([&](TokenKey key) { total += weight_of(key); });
    return BlockReduce<Sum>(total, uint64_t{0}, scratch_.key_slots);
  }

  const SampleArgs& args_;
  const SampleParameters parameters_;
  float* const logits_;
  const int row_;
  SampleScratch& scratch_;
};

// One block per row, alone on its multiprocessor: loads in flight are worth more than a second one.
__global__ void __launch_bounds__(kSampleThreads, 1) SampleKernel(const SampleArgs args) {
  ORRERY_SHARED_MEMORY(shared);
  RowSampler(args, BlockX(), *reinterpret_cast<SampleScratch*>(shared)).Run();
}

}  // namespace

void Sample(Stream stream, const SampleArgs& args) {
  const int threads = std::min(kSampleThreads, (args.vocab / 16 + 31) / 32 * 32 + 32);
  Launch(&SampleKernel, {static_cast<unsigned>(args.rows)}, threads, sizeof(SampleScratch), stream, args);
}

}  // namespace orrery::cuda
