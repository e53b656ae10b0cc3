#ifndef ORRERY_SERVER_TEXT_PAIR_RANKS_H_
#define ORRERY_SERVER_TEXT_PAIR_RANKS_H_

// The merge table: (left id, right id) -> (rank, merged id). Open addressing in one array; a look-up is
// usually one cache line, which is what encoding spends its time on.

#include <bit>
#include <cstdint>
#include <limits>
#include <vector>

#include "scheduler/base/ids.h"

namespace orrery {

class PairRanks {
 public:
  static constexpr uint32_t kNoRank = std::numeric_limits<uint32_t>::max();

  struct Entry {
    uint64_t key;
    uint32_t rank;
    TokenId merged;
  };

  PairRanks() : PairRanks(0) {}
  explicit PairRanks(size_t num_pairs)
      : entries_(std::bit_ceil(num_pairs * 2 + 2), Entry{kEmpty, kNoRank, -1}),
        shift_(64 - std::countr_zero(entries_.size())) {}

  // A later rank for the same pair replaces the earlier. At most `num_pairs` distinct pairs.
  void Insert(TokenId left, TokenId right, uint32_t rank, TokenId merged) {
    const uint64_t key = Key(left, right);
    size_t i = Slot(key);
    while (entries_[i].key != kEmpty && entries_[i].key != key) i = (i + 1) & (entries_.size() - 1);
    entries_[i] = {key, rank, merged};
  }

  // An entry with kNoRank if the pair does not merge.
  const Entry& Find(TokenId left, TokenId right) const {
    const uint64_t key = Key(left, right);
    size_t i = Slot(key);
    while (entries_[i].key != kEmpty && entries_[i].key != key) i = (i + 1) & (entries_.size() - 1);
    return entries_[i];
  }

 private:
  static constexpr uint64_t kEmpty = std::numeric_limits<uint64_t>::max();  // ids are not negative

  static uint64_t Key(TokenId left, TokenId right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t Slot(uint64_t key) const {
    key ^= key >> 29;
    return static_cast<size_t>((key * 0x9E3779B97F4A7C15u) >> shift_);
  }

  std::vector<Entry> entries_;  // a power of two, at most half full
  int shift_;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_TEXT_PAIR_RANKS_H_
