// The largest number of KV blocks that a set of sequences will hold at any step to come, when each one grows
// by a token per step and lets go of everything after its last: the question behind every admission by
// predicted memory (MC-SF, arXiv:2502.07115 Eq. 5; Past-Future, arXiv:2507.10150).
//
// An entry holds h tokens now and grows for r more steps: t steps from now it holds ceil((h + t) / B) blocks
// for 0 <= t <= r and none later. Between two ends memory only grows, so the peak is at the end of some
// entry. Exact in blocks, not an estimate with a block of slack per sequence. Blocks shared by several
// sequences are counted once, outside of the sum (set_shared_blocks); entries then speak of their private
// tokens.
//
// Ends are absolute steps, so that a step that everybody takes changes nothing: Advance only moves the
// present. With e = end, b = h - now, E = ceil(e / B), slack = E B - e and b = beta B + gamma, an entry holds
//     ceil((b + e') / B) = beta + E' + [gamma > slack']
// blocks at any end e', which makes a change one pass of additions over the entries that end no later, in a
// contiguous array; and since ceil is monotone, the worst of all of them beside a candidate is one number:
//     max_i (term_i + ceil((b + e_i) / B)) = ceil((max_i (B term_i + e_i) + b) / B).
//
// A question costs O(log n), a change O(n), Assign O(n log n). No question allocates.
#ifndef ORRERY_SCHEDULER_POLICY_FUTURE_PEAK_H_
#define ORRERY_SCHEDULER_POLICY_FUTURE_PEAK_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "scheduler/base/ids.h"

namespace orrery {

class FuturePeak {
 public:
  struct Entry {
    SequenceId id{};
    int64_t held = 0;       // private tokens now; >= 0
    int64_t remaining = 0;  // steps until it lets go, one token each; >= 0
  };

  // `block_tokens` in [1, 1024]; 1 counts tokens.
  explicit FuturePeak(int32_t block_tokens = 1);

  void Clear();  // entries and shared blocks
  // In place of all entries there were.
  void Assign(absl::Span<const Entry> entries);
  // REQUIRES: no entry has this id.
  void Add(SequenceId id, int64_t held, int64_t remaining);
  // False: there is no such entry (any more).
  bool Remove(SequenceId id);
  // Everybody has taken `steps` >= 0 steps. Entries whose end has passed are forgotten: one that still holds
  // memory has to be added again with a new prediction.
  void Advance(int64_t steps);
  void set_shared_blocks(int64_t blocks) { shared_ = blocks; }

  // Blocks, the shared ones included.
  int64_t Peak() const;
  // What Peak would be with one more entry.
  int64_t PeakWith(int64_t held, int64_t remaining) const;

  int32_t block_tokens() const { return static_cast<int32_t>(block_); }
  size_t size() const { return end_.size(); }

 private:
  static constexpr size_t kGroup = 64;

  // A number of tokens or steps as whole blocks and a rest in [0, block).
  struct Split {
    int64_t blocks;
    int32_t rest;
  };
  Split Down(int64_t tokens) const;  // tokens = blocks * B + rest
  Split Up(int64_t end) const;       // end = blocks * B - rest
  size_t FirstNotBefore(int64_t end) const;
  // Adds `sign` times what an entry with this base holds at each of the ends [0, count).
  void AddToTerms(int64_t base, size_t count, int64_t sign);
  void Insert(size_t at, SequenceId id, int64_t end, int64_t base, int64_t term);
  void Erase(size_t first, size_t last);
  void SumTerms();
  // What entries [first, n) hold at step `end`, no later than the first of their ends.
  int64_t HeldAt(size_t first, int64_t end) const;
  void Refresh() const;

  int64_t block_;
  int64_t now_ = 0;
  int64_t shared_ = 0;
  // Parallel arrays, ascending end.
  std::vector<SequenceId> id_;
  std::vector<int64_t> end_, end_blocks_, base_, base_blocks_;
  std::vector<int32_t> end_slack_, base_rest_;
  std::vector<int64_t> term_;                        // blocks held by all at end_[i]
  std::vector<std::pair<int64_t, uint32_t>> order_;  // scratch of Assign: remaining, index
  std::vector<int32_t> rest_counts_;                 // scratch of SumTerms

  // Made again at the first question after a change.
  mutable bool fresh_ = false;
  mutable std::vector<int64_t> reach_;       // [n]: max over j <= i of B term_j + end_j
  mutable std::vector<int64_t> later_peak_;  // [n + 1]: max over j >= i of term_j; 0 at n
  mutable std::vector<int64_t> later_base_;  // [n + 1]: sum over j >= i of base_blocks_j
  mutable std::vector<uint16_t>
      over_;  // [groups + 1, B]: entries of this and later groups with rest > column
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_FUTURE_PEAK_H_
