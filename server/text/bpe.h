#ifndef ORRERY_SERVER_TEXT_BPE_H_
#define ORRERY_SERVER_TEXT_BPE_H_

// Byte-pair encoding of one piece of text: start from its units (bytes, or characters with fall-back to byte
// tokens), then always merge the adjacent pair of lowest rank, the leftmost on ties, until no pair has a
// rank.
//
// A piece of n units takes O(n log n) in the worst case and O(n) on ordinary text, for three reasons that do
// not change the result: a piece that is a token on its own is looked up; a piece is first cut wherever no
// merge spells the two units that meet there (no token can ever cross such a border); and a heap replaces the
// search for the lowest rank in stretches that are still long. Const and thread-safe.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "scheduler/base/ids.h"
#include "server/text/pair_ranks.h"

namespace orrery {

struct BpeSpec {
  // [ids] the piece of each id; in byte-level mode its bytes. Empty: the id is not part of the model.
  std::vector<std::string> pieces;
  std::vector<std::pair<TokenId, TokenId>> merges;  // by rank
  std::vector<TokenId> merged;  // [merges] what each merge makes; -1: the merge is disabled
  // Ids that text may never become although they have a piece (control tokens).
  std::vector<bool> is_control;  // [ids]
  bool byte_level = false;       // units are bytes; else characters
  bool byte_fallback = false;    // a character without a token becomes <0xNN> tokens
  bool fuse_unknown = false;     // adjacent unknown characters become one unk
  bool ignore_merges = false;    // a piece in the vocabulary is that token, whatever its merges give
  TokenId unknown = -1;          // -1: text with an unknown unit is refused
};

class Bpe {
 public:
  // Scratch memory of one caller; reused between pieces so that encoding does not allocate per piece.
  struct Workspace {
    std::vector<TokenId> symbols;
    std::vector<uint32_t> ranks;       // [symbols] of the pair (this, next)
    std::vector<uint32_t> next, prev;  // [symbols] linked list of those still alive
    std::vector<uint64_t> heap;        // rank << 32 | position
    uint64_t heap_pops = 0;            // work done, for tests of hostile input
    uint64_t scan_steps = 0;
  };

  static absl::StatusOr<Bpe> Create(BpeSpec spec);

  // Appends the ids of one piece (valid UTF-8).
  absl::Status Encode(std::string_view piece, Workspace* work, std::vector<TokenId>* ids) const;

 private:
  Bpe() = default;
  void MarkBorders(const std::vector<std::string>& pieces);
  void IndexWholePieces(const std::vector<std::string>& pieces, const std::vector<bool>& is_control);
  size_t BorderBit(uint32_t left, uint32_t right) const;
  bool MayMergeAcross(uint32_t left, uint32_t right) const;
  absl::Status EncodeStretch(std::string_view text, Workspace* work, std::vector<TokenId>* ids) const;
  absl::Status AppendUnits(std::string_view text, std::vector<TokenId>* symbols) const;
  absl::Status AppendUnknown(std::string_view unit, std::vector<TokenId>* symbols) const;
  void MergeShort(Workspace* work) const;
  void MergeLong(Workspace* work) const;

  BpeSpec spec_;  // pieces and merges are emptied once indexed
  PairRanks pairs_;
  std::array<TokenId, 256> byte_units_{};         // byte level: the token of a byte; else of <0xNN>; -1: none
  absl::flat_hash_map<uint32_t, TokenId> chars_;  // character level: the token of a code point
  std::array<TokenId, 128> ascii_units_{};        // the same for ASCII, without hashing
  std::vector<char> piece_text_;                  // holds the keys of whole_pieces_
  absl::flat_hash_map<std::string_view, TokenId> whole_pieces_;  // pieces that encode to exactly one token
  size_t longest_whole_piece_ = 0;
  std::vector<uint64_t> borders_;  // bit set of hashed pairs of units that some merge joins
};

}  // namespace orrery

#endif  // ORRERY_SERVER_TEXT_BPE_H_
