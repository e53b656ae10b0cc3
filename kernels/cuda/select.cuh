// The largest of many tokens without a sort: those of a given number or of a given weight in all. Tokens are
// ordered by keys that no two share, most likely first; a radix search over the digits of the keys finds the
// least that is kept. Weights are integers, so that no order of additions matters.
#ifndef ORRERY_KERNELS_CUDA_SELECT_CUH_
#define ORRERY_KERNELS_CUDA_SELECT_CUH_

#include <cmath>
#include <cstdint>

#include "kernels/cuda/primitives.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/rows.cuh"

namespace orrery::cuda {

// Higher logits have higher keys, and lower ids on ties. NaN is above everything, -0 is 0. No key is 0.
using TokenKey = uint64_t;

__device__ __forceinline__ TokenKey KeyOf(float logit, int32_t id) {
  uint32_t bits = BitsOf(logit == 0.0f ? 0.0f : logit);
  bits = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  if (logit != logit) bits = 0xffffffffu;
  return static_cast<TokenKey>(bits) << 32 | (0xffffffffu - static_cast<uint32_t>(id));
}
__device__ __forceinline__ float LogitOf(TokenKey key) {
  const auto bits = static_cast<uint32_t>(key >> 32);
  return FloatOf((bits & 0x80000000u) != 0 ? bits & 0x7fffffffu : ~bits);
}
__device__ __forceinline__ int32_t IdOf(TokenKey key) {
  return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(key));
}

// Tokens as a block walks over them: a row of logits, or keys that were picked from one.
struct TokenSet {
  const float* row = nullptr;
  const TokenKey* keys = nullptr;  // used where not null
  int32_t size = 0;

  // f(key) for the thread's share, which is the same wherever the row lies.
  template <typename Function>
  __device__ __forceinline__ void ForMine(const Function& f) const {
    if (keys != nullptr) {
      for (int i = ThreadX(); i < size; i += BlockThreads()) f(keys[i]);
      return;
    }
    const bool aligned = reinterpret_cast<uintptr_t>(row) % sizeof(FloatVector) == 0;
    const int stride = BlockThreads() * kRowStep;
    for (int begin = ThreadX() * kRowStep; begin < size; begin += kRowLoads * stride) {
      // All loads before the first use: a row is read by few threads, which wait for memory only.
      FloatVector logits[kRowLoads];
      ORRERY_UNROLL
      for (int load = 0; load < kRowLoads; ++load) {
        const int first = begin + load * stride;
        if (aligned && first + kRowStep <= size) {
          logits[load] = LoadVector<FloatVector>(row + first);
        } else {
          ORRERY_UNROLL
          for (int i = 0; i < kRowStep; ++i)
            logits[load].values[i] = first + i < size ? row[first + i] : 0.0f;
        }
      }
      ORRERY_UNROLL
      for (int load = 0; load < kRowLoads; ++load) {
        ORRERY_UNROLL
        for (int i = 0; i < kRowStep; ++i) {
          const int id = begin + load * stride + i;
          if (id < size) f(KeyOf(logits[load].values[i], id));
        }
      }
    }
  }

 private:
  static constexpr int kRowStep = 4, kRowLoads = 4;
};

inline constexpr int kDigitBits = 8;
inline constexpr int kDigits = 1 << kDigitBits;

// Shared memory of a search.
struct SelectScratch {
  // The lower and the upper half of a sum: the device adds 32 bits at once in shared memory, and 64 by
  // trying.
  uint32_t weight_low[kDigits], weight_high[kDigits];
  uint32_t count[kDigits];
  uint64_t above;     // weight of what is certainly kept
  uint32_t digit;     // the least one that is kept, in part at least
  uint32_t in_digit;  // keys with it

  __device__ __forceinline__ uint64_t Weight(int of_digit) const {
    return static_cast<uint64_t>(weight_high[of_digit]) << 32 | weight_low[of_digit];
  }
  __device__ __forceinline__ void Add(uint32_t to_digit, uint64_t weight) {
    const auto low = static_cast<uint32_t>(weight);
    const uint32_t carry = AtomicAdd(&weight_low[to_digit], low) > 0xffffffffu - low ? 1 : 0;
    const uint32_t high = static_cast<uint32_t>(weight >> 32) + carry;
    if (high != 0) AtomicAdd(&weight_high[to_digit], high);
    AtomicAdd(&count[to_digit], 1u);
  }
};

// The first warp looks for the largest digit at which the weights, from the top, reach `target`; the lowest
// of all where they do not.
__device__ __forceinline__ void FindDigit(uint64_t target, SelectScratch& scratch) {
  constexpr int kEach = kDigits / 32;
  const int lane = ThreadX();
  uint64_t mine = 0;  // of the lane's digits; lane 0 has the highest
  for (int i = 0; i < kEach; ++i) mine += scratch.Weight(kDigits - 1 - (lane * kEach + i));
  uint64_t through = mine;
  ORRERY_UNROLL
  for (int distance = 1; distance < 32; distance *= 2) {
    const uint64_t lower = Shuffle(through, lane - distance + 32);
    if (lane >= distance) through += lower;
  }
  const uint64_t above = scratch.above;
  const uint32_t reached = Ballot(above + through >= target);
  // The first lane that reaches it, or the last.
  const int finder = reached != 0 ? 32 - PopCount(reached) : 31;
  SyncWarp();
  if (lane != finder) return;
  uint64_t sum = above + through - mine;
  int digit = kDigits - 1 - lane * kEach;
  for (int i = 1; i < kEach && sum + scratch.Weight(digit) < target; ++i) sum += scratch.Weight(digit--);
  scratch.above = sum;
  scratch.digit = static_cast<uint32_t>(digit);
  scratch.in_digit = scratch.count[digit];
}

// A bound such that the keys from it on are the fewest of the largest whose weights add up to `target`; all
// keys where they do not reach it. weight_of(key): uint64_t; the keys of weight 0 are ignored. For the whole
// block.
template <typename WeightOf>
__device__ TokenKey SelectLargest(const TokenSet& tokens, uint64_t target, const WeightOf& weight_of,
                                  SelectScratch& scratch) {
  TokenKey prefix = 0;
  if (ThreadX() == 0) scratch.above = 0;
  for (int shift = 64 - kDigitBits; shift >= 0; shift -= kDigitBits) {
    for (int i = ThreadX(); i < kDigits; i += BlockThreads()) {
      scratch.weight_low[i] = scratch.weight_high[i] = scratch.count[i] = 0;
    }
    SyncBlock();
    tokens.ForMine([&](TokenKey key) {
      const int above_digit = shift + kDigitBits;
      if (above_digit < 64 && key >> above_digit != prefix >> above_digit) return;
      const uint64_t weight = weight_of(key);
      if (weight == 0) return;
      scratch.Add(static_cast<uint32_t>(key >> shift) % kDigits, weight);
    });
    SyncBlock();
    if (ThreadX() < 32) FindDigit(target, scratch);
    SyncBlock();
    prefix |= static_cast<TokenKey>(scratch.digit) << shift;
    const bool done = scratch.in_digit <= 1;
    SyncBlock();
    if (done) break;
  }
  return prefix;
}

}  // namespace orrery::cuda

#endif  // ORRERY_KERNELS_CUDA_SELECT_CUH_
