#include "server/text/bpe.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "scheduler/base/check.h"
#include "server/text/utf8.h"

namespace orrery {
namespace {

constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();
// Up to here searching all pairs for the lowest rank beats keeping a heap.
constexpr size_t kShortStretch = 32;
constexpr size_t kBorderBits = size_t{1} << 20;

CodePoint ReadUnit(std::string_view text, size_t pos, bool byte_level) {
  if (byte_level) return {static_cast<unsigned char>(text[pos]), 1};
  return DecodeValidUtf8(text.data() + pos);
}

}  // namespace

absl::StatusOr<Bpe> Bpe::Create(BpeSpec spec) {
  ORRERY_CHECK(spec.merges.size() == spec.merged.size() && spec.pieces.size() == spec.is_control.size());
  Bpe bpe;
  bpe.byte_units_.fill(-1);
  bpe.ascii_units_.fill(-1);
  for (size_t id = 0; id < spec.pieces.size(); ++id) {
    const std::string& piece = spec.pieces[id];
    if (piece.empty()) continue;
    const auto token = static_cast<TokenId>(id);
    if (spec.byte_level) {
      if (piece.size() == 1) bpe.byte_units_[static_cast<unsigned char>(piece[0])] = token;
      continue;
    }
    const CodePoint c = DecodeValidUtf8(piece.data());
    if (c.length == piece.size() && !spec.is_control[id]) {
      bpe.chars_[c.value] = token;
      if (c.value < 128) bpe.ascii_units_[c.value] = token;
    }
    unsigned byte = 0;
    if (piece.size() == 6 && std::sscanf(piece.c_str(), "<0x%2X>", &byte) == 1 &&
        piece == absl::StrFormat("<0x%02X>", byte)) {
      bpe.byte_units_[byte] = token;
    }
  }
  bpe.pairs_ = PairRanks(spec.merges.size());
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    if (spec.merged[rank] < 0) continue;
    const auto [left, right] = spec.merges[rank];
    bpe.pairs_.Insert(left, right, static_cast<uint32_t>(rank), spec.merged[rank]);
  }
  bpe.spec_ = std::move(spec);
  bpe.MarkBorders(bpe.spec_.pieces);
  bpe.IndexWholePieces(bpe.spec_.pieces, bpe.spec_.is_control);
  bpe.spec_.pieces = {};
  bpe.spec_.merges = {};
  bpe.spec_.merged = {};
  bpe.spec_.is_control = {};
  return bpe;
}

size_t Bpe::BorderBit(uint32_t left, uint32_t right) const {
  if (spec_.byte_level) return left << 8 | right;
  const uint64_t hash = (static_cast<uint64_t>(left) << 21 ^ right) * 0x9E3779B97F4A7C15u;
  return static_cast<size_t>(hash >> 44);  // 20 bits; a collision only means one cut less
}

bool Bpe::MayMergeAcross(uint32_t left, uint32_t right) const {
  const size_t bit = BorderBit(left, right);
  return borders_[bit >> 6] >> (bit & 63) & 1;
}

void Bpe::MarkBorders(const std::vector<std::string>& pieces) {
  borders_.assign(kBorderBits / 64, 0);
  // A merge of byte tokens spells characters that its piece does not show, so nothing is known about borders.
  if (!spec_.byte_level) {
    std::vector<bool> is_byte(pieces.size());
    for (const TokenId id : byte_units_) {
      if (id >= 0) is_byte[static_cast<size_t>(id)] = true;
    }
    for (const auto& [left, right] : spec_.merges) {
      if (!is_byte[static_cast<size_t>(left)] && !is_byte[static_cast<size_t>(right)]) continue;
      borders_.assign(kBorderBits / 64, ~uint64_t{0});
      return;
    }
  }
  for (const TokenId id : spec_.merged) {
    if (id < 0) continue;
    const std::string& piece = pieces[static_cast<size_t>(id)];
    CodePoint left = ReadUnit(piece, 0, spec_.byte_level);
    for (size_t pos = left.length; pos < piece.size();) {
      const CodePoint right = ReadUnit(piece, pos, spec_.byte_level);
      const size_t bit = BorderBit(left.value, right.value);
      borders_[bit >> 6] |= uint64_t{1} << (bit & 63);
      pos += right.length;
      left = right;
    }
  }
}

void Bpe::IndexWholePieces(const std::vector<std::string>& pieces, const std::vector<bool>& is_control) {
  size_t total = 0;
  for (const std::string& piece : pieces) total += piece.size();
  piece_text_.reserve(total);  // the keys point into it
  Workspace work;
  std::vector<TokenId> ids;
  absl::flat_hash_map<std::string_view, TokenId> index;
  index.reserve(pieces.size());
  for (size_t id = 0; id < pieces.size(); ++id) {
    const std::string& piece = pieces[id];
    if (piece.empty() || is_control[id]) continue;
    ids.clear();
    const bool is_whole = spec_.ignore_merges || (EncodeStretch(piece, &work, &ids).ok() && ids.size() == 1 &&
                                                  ids[0] == static_cast<TokenId>(id));
    if (!is_whole) continue;
    const size_t begin = piece_text_.size();
    piece_text_.insert(piece_text_.end(), piece.begin(), piece.end());
    index.emplace(std::string_view(piece_text_.data() + begin, piece.size()), static_cast<TokenId>(id));
    longest_whole_piece_ = std::max(longest_whole_piece_, piece.size());
  }
  whole_pieces_ = std::move(index);
}

absl::Status Bpe::Encode(std::string_view piece, Workspace* work, std::vector<TokenId>* ids) const {
  if (piece.empty()) return absl::OkStatus();
  const size_t old_size = ids->size();
  if (piece.size() <= longest_whole_piece_) {
    if (const auto it = whole_pieces_.find(piece); it != whole_pieces_.end()) {
      ids->push_back(it->second);
      return absl::OkStatus();
    }
  }
  const auto encode = [&](std::string_view stretch) {
    if (stretch.size() <= longest_whole_piece_ && stretch.size() < piece.size() && !spec_.ignore_merges) {
      if (const auto it = whole_pieces_.find(stretch); it != whole_pieces_.end()) {
        ids->push_back(it->second);
        return absl::OkStatus();
      }
    }
    return EncodeStretch(stretch, work, ids);
  };
  size_t begin = 0;
  CodePoint left = ReadUnit(piece, 0, spec_.byte_level);
  for (size_t pos = left.length; pos < piece.size();) {
    const CodePoint right = ReadUnit(piece, pos, spec_.byte_level);
    if (!MayMergeAcross(left.value, right.value)) {
      if (absl::Status status = encode(piece.substr(begin, pos - begin)); !status.ok()) return status;
      begin = pos;
    }
    pos += right.length;
    left = right;
  }
  if (absl::Status status = encode(piece.substr(begin)); !status.ok()) return status;
  if (spec_.fuse_unknown) {
    // Only unknown units give unk, so equal neighbours in this piece are neighbours in the text.
    const auto last = std::unique(ids->begin() + static_cast<std::ptrdiff_t>(old_size), ids->end(),
                                  [this](TokenId a, TokenId b) { return a == spec_.unknown && b == a; });
    ids->erase(last, ids->end());
  }
  return absl::OkStatus();
}

absl::Status Bpe::AppendUnknown(std::string_view unit, std::vector<TokenId>* symbols) const {
  if (spec_.byte_fallback && !spec_.byte_level) {
    const bool has_all = std::all_of(
        unit.begin(), unit.end(), [this](char c) { return byte_units_[static_cast<unsigned char>(c)] >= 0; });
    if (has_all) {
      for (const char c : unit) symbols->push_back(byte_units_[static_cast<unsigned char>(c)]);
      return absl::OkStatus();
    }
  }
  if (spec_.unknown < 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("text: the tokenizer has no token for the character with first byte 0x%02X",
                        static_cast<unsigned char>(unit[0])));
  }
  symbols->push_back(spec_.unknown);
  return absl::OkStatus();
}

absl::Status Bpe::AppendUnits(std::string_view text, std::vector<TokenId>* symbols) const {
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint unit = ReadUnit(text, pos, spec_.byte_level);
    TokenId id = -1;
    if (spec_.byte_level) {
      id = byte_units_[unit.value];
    } else if (unit.value < 128) {
      id = ascii_units_[unit.value];
    } else if (const auto it = chars_.find(unit.value); it != chars_.end()) {
      id = it->second;
    }
    if (id >= 0) {
      symbols->push_back(id);
    } else if (absl::Status status = AppendUnknown(text.substr(pos, unit.length), symbols); !status.ok()) {
      return status;
    }
    pos += unit.length;
  }
  return absl::OkStatus();
}

absl::Status Bpe::EncodeStretch(std::string_view text, Workspace* work, std::vector<TokenId>* ids) const {
  work->symbols.clear();
  if (absl::Status status = AppendUnits(text, &work->symbols); !status.ok()) return status;
  if (work->symbols.size() > kShortStretch) {
    MergeLong(work);
  } else if (work->symbols.size() > 1) {
    MergeShort(work);
  }
  ids->insert(ids->end(), work->symbols.begin(), work->symbols.end());
  return absl::OkStatus();
}

void Bpe::MergeShort(Workspace* work) const {
  TokenId* symbols = work->symbols.data();
  size_t count = work->symbols.size();
  uint32_t ranks[kShortStretch];  // of the pair that begins at each symbol
  TokenId merged[kShortStretch];  // what that pair makes
  const auto look_up = [&](size_t i) {
    const PairRanks::Entry& entry = pairs_.Find(symbols[i], symbols[i + 1]);
    ranks[i] = entry.rank;
    merged[i] = entry.merged;
  };
  for (size_t i = 0; i + 1 < count; ++i) look_up(i);
  while (count > 1) {
    const size_t best = static_cast<size_t>(std::min_element(ranks, ranks + count - 1) - ranks);
    work->scan_steps += count;
    if (ranks[best] == PairRanks::kNoRank) break;
    symbols[best] = merged[best];
    const size_t tail = count - best - 2;
    std::memmove(symbols + best + 1, symbols + best + 2, tail * sizeof(TokenId));
    if (tail > 0) {
      std::memmove(ranks + best + 1, ranks + best + 2, (tail - 1) * sizeof(uint32_t));
      std::memmove(merged + best + 1, merged + best + 2, (tail - 1) * sizeof(TokenId));
    }
    --count;
    if (best + 1 < count) look_up(best);
    if (best > 0) look_up(best - 1);
  }
  work->symbols.resize(count);
}

void Bpe::MergeLong(Workspace* work) const {
  std::vector<TokenId>& symbols = work->symbols;
  const auto count = static_cast<uint32_t>(symbols.size());
  work->ranks.assign(count, PairRanks::kNoRank);
  work->next.resize(count);
  work->prev.resize(count);
  work->heap.clear();
  const auto look_up = [&](uint32_t i) {
    const uint32_t right = work->next[i];
    work->ranks[i] = right == kNone ? PairRanks::kNoRank : pairs_.Find(symbols[i], symbols[right]).rank;
    return work->ranks[i] != PairRanks::kNoRank;
  };
  const auto entry = [&](uint32_t i) { return static_cast<uint64_t>(work->ranks[i]) << 32 | i; };
  for (uint32_t i = 0; i < count; ++i) {
    work->next[i] = i + 1 < count ? i + 1 : kNone;
    work->prev[i] = i > 0 ? i - 1 : kNone;
  }
  for (uint32_t i = 0; i < count; ++i) {
    if (look_up(i)) work->heap.push_back(entry(i));
  }
  std::make_heap(work->heap.begin(), work->heap.end(), std::greater<>());
  while (!work->heap.empty()) {
    std::pop_heap(work->heap.begin(), work->heap.end(), std::greater<>());
    const uint64_t top = work->heap.back();
    work->heap.pop_back();
    ++work->heap_pops;
    const auto i = static_cast<uint32_t>(top);
    if (work->ranks[i] != static_cast<uint32_t>(top >> 32)) continue;  // the pair is no more
    const uint32_t right = work->next[i];
    symbols[i] = pairs_.Find(symbols[i], symbols[right]).merged;
    symbols[right] = -1;
    work->ranks[right] = PairRanks::kNoRank;
    work->next[i] = work->next[right];
    if (work->next[i] != kNone) work->prev[work->next[i]] = i;
    const auto push = [&](uint32_t at) {
      if (!look_up(at)) return;
      work->heap.push_back(entry(at));
      std::push_heap(work->heap.begin(), work->heap.end(), std::greater<>());
    };
    push(i);
    if (work->prev[i] != kNone) push(work->prev[i]);
  }
  symbols.erase(std::remove(symbols.begin(), symbols.end(), -1), symbols.end());
}

}  // namespace orrery
