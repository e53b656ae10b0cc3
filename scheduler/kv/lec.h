// Least expected cost eviction (arXiv:2306.02003, there for whole answers): first goes the leaf of the prefix
// chains that saves the least,
//   score = rate * recompute / bytes
// with
//   rate       hits per second, an average that forgets with half-life tau: at every hit
//              rate <- rate 2^(-dt / tau) + ln 2 / tau
//   recompute  b n + c ((d + n)^2 - d^2) for a block of n tokens behind d others (cost/prefill_cost.h)
// All rates decay alike, so between hits the order of scores is that of fixed keys,
//   K = t / tau + log2(rate(t) * recompute / recompute of a first block)       for any t since the last hit;
// bytes are equal within a pool and left out, as is everything else common to all. Ties: first let go, first
// out.
//
// Of a block found less than twice no rate is known: its key is that of a first block hit once when it was
// last let go. Among such blocks the order is therefore that of `lru`, and a warm one outlives them by tau
// for every doubling of its score. A block with cached children waits until the last of them is gone. (One
// that is discarded leaves them behind: until they are gone they hold up whoever gets its id next.)
//
// Logarithmic in the number of leaves per call; grows with the largest id seen and allocates for nothing
// else.
#ifndef ORRERY_SCHEDULER_KV_LEC_H_
#define ORRERY_SCHEDULER_KV_LEC_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "scheduler/base/options.h"
#include "scheduler/cost/prefill_cost.h"
#include "scheduler/kv/eviction_policy.h"

namespace orrery {

struct LecOptions {
  double half_life = 600;  // tau, s
};

class LecEviction final : public EvictionPolicy {
 public:
  static absl::Span<const OptionField<LecOptions>> Fields();

  explicit LecEviction(const LecOptions& options) : half_life_(options.half_life) {}
  void UseCost(const StepCostModel* cost, int32_t block_tokens) override;
  void Hit(BlockId block, uint32_t hits, Time now) override;
  void Insert(const CachedBlock& block) override;
  void Remove(BlockId block) override;
  BlockId Evict() override;

  // Hits per second of a block that was hit since it was published. REQUIRES: now >= its last hit.
  double Rate(BlockId block, Time now) const;

 private:
  static constexpr int32_t kOutside = -1, kInner = -2;  // instead of a place in the heap
  struct Node {
    double rate = 0;  // at the last hit
    Time hit;
    // Inside:
    double key = 0;
    uint64_t turn = 0;  // of its arrival
    BlockId parent = kNoBlock;
    int32_t place = kOutside;
    int32_t children = 0;  // inside, with this as their parent
  };

  Node& At(BlockId block) { return nodes_[static_cast<size_t>(Value(block))]; }
  const Node& At(BlockId block) const { return nodes_[static_cast<size_t>(Value(block))]; }
  void GrowTo(BlockId block);
  double RelativeCost(int32_t depth) const;
  bool Before(BlockId a, BlockId b) const;
  void Place(BlockId block, int32_t place);
  void SiftUp(BlockId block, int32_t place);
  void SiftDown(BlockId block, int32_t place);
  void Push(BlockId block);
  void Pop(int32_t place);

  double half_life_;
  const StepCostModel* model_ = nullptr;
  PrefillCost cost_;  // of model_ as of learnt_
  Time learnt_{-1};   // negative: not yet
  int32_t block_tokens_ = 1;
  uint64_t turns_ = 0;
  std::vector<Node> nodes_;    // by block id
  std::vector<BlockId> heap_;  // leaves, the least key first
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_KV_LEC_H_
