// An ordered multiset of sizes that is filled once, then emptied and restored many times: sorted keys beside
// a bitmap of those present. Searching is O(log n), the nearest present member mostly one word further. Keeps
// its memory.
//
// Members are named by rank: ascending size, and of equal sizes the youngest (highest position) first, so
// that the last one up to a size is the largest, and of those the oldest.
#ifndef ORRERY_ROUTER_POLICY_SIZE_INDEX_H_
#define ORRERY_ROUTER_POLICY_SIZE_INDEX_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace orrery {

class SizeIndex {
 public:
  static constexpr int32_t kNone = -1;

  void Clear() { keys_.clear(); }
  // size >= 0. Then Seal.
  void Add(int32_t size, uint32_t position) {
    keys_.push_back((static_cast<uint64_t>(size) << 32) | (kLow - position));
  }
  void Seal() {
    std::sort(keys_.begin(), keys_.end());
    Restore();
  }
  // Everybody is present again.
  void Restore() {
    present_.assign((keys_.size() + 63) / 64, ~uint64_t{0});
    if (keys_.size() % 64 != 0) present_.back() >>= 64 - keys_.size() % 64;
  }
  void Take(int32_t rank) { present_[Word(rank)] &= ~Bit(rank); }

  int32_t count() const { return static_cast<int32_t>(keys_.size()); }
  int32_t size(int32_t rank) const { return static_cast<int32_t>(keys_[static_cast<size_t>(rank)] >> 32); }
  uint32_t position(int32_t rank) const {
    return static_cast<uint32_t>(kLow - (keys_[static_cast<size_t>(rank)] & kLow));
  }
  bool present(int32_t rank) const { return (present_[Word(rank)] & Bit(rank)) != 0; }
  // The first rank of a larger size, present or not.
  int32_t RankAbove(int64_t size) const {
    if (size < 0) return 0;
    if (size >= std::numeric_limits<int32_t>::max()) return count();
    const uint64_t key = (static_cast<uint64_t>(size) << 32) | kLow;
    return static_cast<int32_t>(std::upper_bound(keys_.begin(), keys_.end(), key) - keys_.begin());
  }
  // The last present rank < `rank`, or kNone.
  int32_t Before(int32_t rank) const {
    if (rank <= 0) return kNone;
    size_t word = Word(rank - 1);
    uint64_t bits = present_[word] & (~uint64_t{0} >> (63 - (rank - 1) % 64));
    while (bits == 0) {
      if (word == 0) return kNone;
      bits = present_[--word];
    }
    return static_cast<int32_t>(word * 64 + 63) - __builtin_clzll(bits);
  }
  // The first present rank >= `rank`, or kNone.
  int32_t From(int32_t rank) const {
    if (rank >= count()) return kNone;
    size_t word = Word(rank);
    uint64_t bits = present_[word] & (~uint64_t{0} << (rank % 64));
    while (bits == 0) {
      if (++word == present_.size()) return kNone;
      bits = present_[word];
    }
    return static_cast<int32_t>(word * 64) + __builtin_ctzll(bits);
  }

 private:
  static constexpr uint64_t kLow = 0xffffffff;
  static size_t Word(int32_t rank) { return static_cast<size_t>(rank) / 64; }
  static uint64_t Bit(int32_t rank) { return uint64_t{1} << (rank % 64); }

  std::vector<uint64_t> keys_;     // size, then youngest first
  std::vector<uint64_t> present_;  // a bit for each rank
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_POLICY_SIZE_INDEX_H_
