#include "scheduler/kv/lec.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "scheduler/base/check.h"

namespace orrery {
namespace {

// A model that learns is asked again this often; keys made before keep what was believed then.
constexpr Duration kCostIsFresh = Duration::Seconds(1);

}  // namespace

absl::Span<const OptionField<LecOptions>> LecEviction::Fields() {
  static constexpr OptionField<LecOptions> kFields[] = {
      {"half-life", &LecOptions::half_life, 1, 1e6, "seconds in which a hit loses half its weight"},
  };
  return kFields;
}

void LecEviction::UseCost(const StepCostModel* cost, int32_t block_tokens) {
  model_ = cost;
  block_tokens_ = block_tokens;
}

void LecEviction::GrowTo(BlockId block) {
  const auto needed = static_cast<size_t>(Value(block)) + 1;
  if (needed <= nodes_.size()) return;
  nodes_.resize(needed);
  heap_.reserve(nodes_.capacity());
}

double LecEviction::Rate(BlockId block, Time now) const {
  const Node& node = At(block);
  return node.rate * std::exp2(-(now - node.hit).seconds() / half_life_);
}

void LecEviction::Hit(BlockId block, uint32_t hits, Time now) {
  GrowTo(block);
  Node& node = At(block);
  const double before = hits == 1 ? 0 : Rate(block, now);
  node.rate = before + std::numbers::ln2 / half_life_;
  node.hit = now;
  if (model_ != nullptr && (learnt_.ns < 0 || now - learnt_ >= kCostIsFresh)) {
    cost_ = FitPrefill(*model_);
    learnt_ = now;
  }
}

double LecEviction::RelativeCost(int32_t depth) const {
  const double first = cost_.Chunk(0, block_tokens_);
  if (!(first > 0)) return 1;
  return cost_.Chunk(int64_t{depth} * block_tokens_, block_tokens_) / first;
}

void LecEviction::Insert(const CachedBlock& block) {
  GrowTo(std::max(block.block, block.parent));
  Node& node = At(block.block);
  ORRERY_CHECK(node.place == kOutside);
  const double score =
      block.hits < 2 ? std::numbers::ln2 / half_life_ : node.rate * RelativeCost(block.depth);
  const Time since = block.hits < 2 ? block.let_go : node.hit;
  node.key = since.seconds() / half_life_ + std::log2(score);
  node.turn = ++turns_;
  node.parent = block.parent;
  if (node.parent != kNoBlock) ++At(node.parent).children;
  Push(block.block);
}

void LecEviction::Remove(BlockId block) {
  ORRERY_CHECK(static_cast<size_t>(Value(block)) < nodes_.size() && At(block).place != kOutside);
  Node& node = At(block);
  if (node.place >= 0) Pop(node.place);
  node.place = kOutside;
  const BlockId parent = std::exchange(node.parent, kNoBlock);
  if (parent == kNoBlock) return;
  if (--At(parent).children == 0 && At(parent).place == kInner) Push(parent);
}

BlockId LecEviction::Evict() {
  ORRERY_CHECK(!heap_.empty());
  const BlockId victim = heap_.front();
  Remove(victim);
  return victim;
}

bool LecEviction::Before(BlockId a, BlockId b) const {
  const Node &x = At(a), &y = At(b);
  return x.key != y.key ? x.key < y.key : x.turn < y.turn;
}

void LecEviction::Place(BlockId block, int32_t place) {
  heap_[static_cast<size_t>(place)] = block;
  At(block).place = place;
}

void LecEviction::SiftUp(BlockId block, int32_t place) {
  while (place > 0) {
    const int32_t above = (place - 1) / 2;
    if (!Before(block, heap_[static_cast<size_t>(above)])) break;
    Place(heap_[static_cast<size_t>(above)], place);
    place = above;
  }
  Place(block, place);
}

void LecEviction::SiftDown(BlockId block, int32_t place) {
  const auto size = static_cast<int32_t>(heap_.size());
  for (;;) {
    int32_t below = 2 * place + 1;
    if (below >= size) break;
    if (below + 1 < size && Before(heap_[static_cast<size_t>(below) + 1], heap_[static_cast<size_t>(below)]))
      ++below;
    if (!Before(heap_[static_cast<size_t>(below)], block)) break;
    Place(heap_[static_cast<size_t>(below)], place);
    place = below;
  }
  Place(block, place);
}

// Into the heap, unless it has children.
void LecEviction::Push(BlockId block) {
  if (At(block).children > 0) {
    At(block).place = kInner;
    return;
  }
  heap_.push_back(block);
  SiftUp(block, static_cast<int32_t>(heap_.size()) - 1);
}

void LecEviction::Pop(int32_t place) {
  const BlockId last = heap_.back();
  heap_.pop_back();
  if (static_cast<size_t>(place) == heap_.size()) return;
  // The last one fills the gap, and may belong above or below it.
  if (place > 0 && Before(last, heap_[static_cast<size_t>(place - 1) / 2])) {
    SiftUp(last, place);
  } else {
    SiftDown(last, place);
  }
}

}  // namespace orrery
