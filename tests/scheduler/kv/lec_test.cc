#include "scheduler/kv/lec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <memory>
#include <numbers>
#include <utility>
#include <vector>

#include "scheduler/base/random.h"
#include "scheduler/cost/prefill_cost.h"
#include "scheduler/kv/kv_cache.h"
#include "scheduler/kv/lru.h"

namespace orrery {
namespace {

using ::testing::ElementsAre;

// OPT-13B on an A100, ms.
constexpr PrefillCost kOpt13b = {.per_token = 0.10191, .per_token_sq = 7.1223e-6};

std::unique_ptr<StepCostModel> LinearPrefill(const PrefillCost& cost) {
  return NewLinearCost(
      {.alpha_prefill = 2.5, .per_token = cost.per_token, .per_token_sq = cost.per_token_sq});
}

std::vector<BlockId> EvictAll(EvictionPolicy* policy, int count) {
  std::vector<BlockId> victims;
  for (int i = 0; i < count; ++i) victims.push_back(policy->Evict());
  return victims;
}

TEST(Lec, RateHalvesInAHalfLife) {  // vector 26 of the design
  LecEviction lec({.half_life = 600});
  const BlockId block{0};
  lec.Hit(block, 1, Time{});
  EXPECT_NEAR(lec.Rate(block, Time{}), 0.001155, 5e-7);
  lec.Hit(block, 2, Time{} + Duration::Seconds(600));
  EXPECT_NEAR(lec.Rate(block, Time{} + Duration::Seconds(600)), 0.001733, 5e-7);
  EXPECT_NEAR(lec.Rate(block, Time{} + Duration::Seconds(1200)), 0.001733 / 2, 5e-7);
  lec.Hit(block, 1, Time{} + Duration::Seconds(1200));
  EXPECT_NEAR(lec.Rate(block, Time{} + Duration::Seconds(1200)), 0.001155, 5e-7) << "something else is in it";
}

TEST(Lec, RecomputeCostGrowsWithDepth) {
  EXPECT_NEAR(kOpt13b.Chunk(0, 16), 1.63, 5e-3);
  EXPECT_NEAR(kOpt13b.Chunk(1024, 16), 1.87, 5e-3);
  EXPECT_NEAR(kOpt13b.Chunk(8192, 16), 3.50, 5e-3);
  EXPECT_NEAR(kOpt13b.Chunk(32768, 16), 9.10, 5e-3);
}

TEST(Lec, EvictsTheLeastExpectedCostNotTheLeastFrequent) {  // vector 19 of the design
  EXPECT_NEAR(0.020 * kOpt13b.Chunk(0, 16), 0.03265, 5e-6);
  EXPECT_NEAR(0.012 * kOpt13b.Chunk(8192, 16), 0.04199, 5e-6);
  EXPECT_NEAR(0.015 * kOpt13b.Chunk(1024, 16), 0.02799, 5e-6);
  const auto model = LinearPrefill(kOpt13b);
  LecEviction lec({.half_life = std::numbers::ln2 / 0.001});  // a hit is 0.001 /s
  lec.UseCost(model.get(), 16);
  const BlockId x{0}, y{1}, z{2};
  struct Case {
    BlockId block;
    int32_t depth;
    uint32_t hits;
  };
  const Case cases[] = {{x, 0, 20}, {y, 8192 / 16, 12}, {z, 1024 / 16, 15}};
  for (const Case& c : cases) {
    for (uint32_t hit = 1; hit <= c.hits; ++hit) lec.Hit(c.block, hit, Time{});
    EXPECT_DOUBLE_EQ(lec.Rate(c.block, Time{}), 0.001 * c.hits);
  }
  for (const Case& c : cases) lec.Insert({.block = c.block, .depth = c.depth, .hits = c.hits});
  EXPECT_THAT(EvictAll(&lec, 3), ElementsAre(z, x, y));
}

TEST(Lec, WithoutAModelOfCostRatesAloneDecide) {
  LecEviction lec({});
  for (uint32_t hit = 1; hit <= 3; ++hit) lec.Hit(BlockId{0}, hit, Time{});
  for (uint32_t hit = 1; hit <= 2; ++hit) lec.Hit(BlockId{1}, hit, Time{});
  lec.Insert({.block = BlockId{0}, .depth = 0, .hits = 3});
  lec.Insert({.block = BlockId{1}, .depth = 1000, .hits = 2});
  EXPECT_THAT(EvictAll(&lec, 2), ElementsAre(BlockId{1}, BlockId{0}));
}

TEST(Lec, TiesGoToTheOlderLastAccess) {
  LecEviction lec({});
  for (const int32_t id : {4, 2, 7, 1}) {
    for (uint32_t hit = 1; hit <= 2; ++hit) lec.Hit(BlockId{id}, hit, Time{});
  }
  for (const int32_t id : {4, 2, 7, 1}) lec.Insert({.block = BlockId{id}, .depth = 0, .hits = 2});
  EXPECT_THAT(EvictAll(&lec, 4), ElementsAre(BlockId{4}, BlockId{2}, BlockId{7}, BlockId{1}));
}

TEST(Lec, AWarmBlockOutlivesColdOnesByItsScore) {
  // Hit four times at 0, so worth four times a block that was let go then: two half-lives.
  LecEviction lec({.half_life = 600});
  for (uint32_t hit = 1; hit <= 4; ++hit) lec.Hit(BlockId{0}, hit, Time{});
  const auto cold = [](int32_t id, double s) {
    return CachedBlock{.block = BlockId{id}, .let_go = Time{} + Duration::Seconds(s)};
  };
  lec.Insert({.block = BlockId{0}, .hits = 4});
  lec.Insert(cold(1, 0));
  lec.Insert(cold(2, 1199));
  lec.Insert(cold(3, 1201));
  EXPECT_THAT(EvictAll(&lec, 4), ElementsAre(BlockId{1}, BlockId{2}, BlockId{0}, BlockId{3}));
}

TEST(Lec, AParentWaitsForItsLastChild) {
  LecEviction lec({.half_life = 600});
  // 0 <- 1, 0 <- 2; both children are worth more than their parent.
  for (const int32_t id : {1, 2}) {
    for (uint32_t hit = 1; hit <= 5; ++hit) lec.Hit(BlockId{id}, hit, Time{});
    lec.Insert({.block = BlockId{id}, .depth = 1, .hits = 5, .parent = BlockId{0}});
  }
  lec.Insert({.block = BlockId{0}});
  lec.Insert({.block = BlockId{3}, .let_go = Time{} + Duration::Seconds(1)});
  EXPECT_EQ(lec.Evict(), BlockId{3}) << "the cheapest of all has children";
  EXPECT_EQ(lec.Evict(), BlockId{1});
  lec.Remove(BlockId{0});  // held again, and the other child with it
  lec.Remove(BlockId{2});
  lec.Insert({.block = BlockId{0}});
  EXPECT_EQ(lec.Evict(), BlockId{0});
}

TEST(Lec, AParentMayHaveAnyId) {
  LecEviction lec({});
  for (int32_t id = 0; id < 1000; ++id) {
    const BlockId parent{100000 * (1 + id % 4) - id};
    lec.Insert({.block = BlockId{id}, .depth = 1, .parent = parent});
  }
  for (int32_t id = 0; id < 1000; ++id) EXPECT_EQ(lec.Evict(), BlockId{id});
}

TEST(Lec, ColdBlocksGoAsByLru) {
  for (uint64_t seed = 0; seed < 1000; ++seed) {
    RandomStream random(seed, 1);
    LecEviction lec({.half_life = 30});
    LruEviction lru;
    constexpr int32_t kBlocks = 40;
    std::vector<std::vector<BlockId>> cached;  // chains, head first
    std::vector<BlockId> free;
    std::vector<uint32_t> hits(kBlocks);
    for (int32_t id = 0; id < kBlocks; ++id) free.push_back(BlockId{id});
    Time now;
    const auto insert = [&](const std::vector<BlockId>& chain) {
      for (size_t i = chain.size(); i-- > 0;) {
        const CachedBlock block = {.block = chain[i],
                                   .depth = static_cast<int32_t>(i),
                                   .hits = hits[Value(chain[i])],
                                   .parent = i > 0 ? chain[i - 1] : kNoBlock,
                                   .let_go = now};
        lec.Insert(block);
        lru.Insert(block);
      }
    };
    for (int i = 0; i < 60; ++i) {
      if (random.Below(2) == 0) now = now + Duration::Milliseconds(random.Below(20000));
      const uint64_t dice = random.Below(3);
      if (dice == 0 && !free.empty()) {
        const size_t length = 1 + random.Below(std::min<size_t>(free.size(), 6));
        const auto begin = free.end() - static_cast<std::ptrdiff_t>(length);
        const std::vector<BlockId> chain(begin, free.end());
        free.resize(free.size() - length);
        for (const BlockId block : chain) hits[Value(block)] = 0;
        insert(chain);
        cached.push_back(chain);
      } else if (dice == 1 && !cached.empty()) {
        // A chain is found: once in its life at most, or it is cold no longer.
        std::vector<BlockId>& chain = cached[random.Below(cached.size())];
        if (hits[Value(chain[0])] > 0) continue;
        for (const BlockId block : chain) {
          lec.Remove(block);
          lru.Remove(block);
          lec.Hit(block, ++hits[Value(block)], now);
        }
        now = now + Duration::Milliseconds(random.Below(1000));
        insert(chain);
      } else if (!cached.empty()) {
        const BlockId victim = lru.Evict();
        ASSERT_EQ(lec.Evict(), victim) << "seed " << seed;
        for (size_t c = 0; c < cached.size(); ++c) {
          if (cached[c].back() != victim) continue;
          cached[c].pop_back();
          if (cached[c].empty()) cached.erase(cached.begin() + static_cast<std::ptrdiff_t>(c));
          break;
        }
        free.push_back(victim);
      }
    }
  }
}

// A cache under random use, beside a reference that keeps every hit and computes all scores from the
// definition whenever a block has to go.
class CacheHistory {
 public:
  CacheHistory(uint64_t seed, bool discards) : random_(seed, 7), discards_(discards) {
    half_life_ = random_.Below(2) == 0 ? 50 : 600;
    block_tokens_ = static_cast<int32_t>(1 + random_.Below(4));
    num_blocks_ = static_cast<int32_t>(6 + random_.Below(30));
    cost_ = random_.Below(3) == 0 ? PrefillCost{0.05, 0} : PrefillCost{0.0176, 0.01};
    model_ = LinearPrefill(cost_);
    auto lec = std::make_unique<LecEviction>(LecOptions{.half_life = half_life_});
    lec->UseCost(model_.get(), block_tokens_);
    cache_ = std::make_unique<KvCache>(num_blocks_, block_tokens_, true, std::move(lec));
  }

  void Run(int events) {
    for (int i = 0; i < events && !::testing::Test::HasFatalFailure(); ++i) {
      if (random_.Below(3) != 0) {
        now_ = now_ + Duration::Nanoseconds(static_cast<int64_t>(random_.Below(4000000000)));
        cache_->AdvanceTo(now_);
      }
      const uint64_t dice = random_.Below(5);  // as many leave as come
      if (dice < 2) {
        Admit();
      } else if (!tables_.empty()) {
        dice == 2 ? Publish(&tables_[random_.Below(tables_.size())]) : Leave(random_.Below(tables_.size()));
      }
      Check();
    }
    // Nothing is stuck: every block that nobody holds can be had.
    while (!tables_.empty()) Leave(tables_.size() - 1);
    std::vector<BlockId> all;
    for (int32_t i = 0; i < num_blocks_; ++i) ASSERT_NO_FATAL_FAILURE(Allocate(&all));
  }
  int64_t victims() const { return victims_; }
  int64_t warm_victims() const { return warm_victims_; }

 private:
  using Path = std::vector<TokenId>;  // of a block: the tokens at its chain's blocks' begins
  struct Known {                      // a published block
    BlockId block{};
    int32_t holders = 0;
    std::vector<Time> hits;
    Time let_go;
    int64_t turn = 0;
  };
  struct Table {
    std::vector<TokenId> tokens;
    std::vector<Hash128> chain;
    std::vector<BlockId> blocks;
    size_t published = 0;
  };

  static Path PathOf(const Table& table, size_t i, int32_t block_tokens) {
    Path path;
    for (size_t b = 0; b <= i; ++b) path.push_back(table.tokens[b * static_cast<size_t>(block_tokens)]);
    return path;
  }

  // By the definition, with every hit remembered.
  double Score(const Path& path, const Known& known) const {
    const auto weight = [&](Time at) {
      return std::log(2.0) / half_life_ * std::pow(2.0, -(now_ - at).seconds() / half_life_);
    };
    const auto recompute = [&](double depth) {
      const double n = block_tokens_, d = depth * n;
      return cost_.per_token * n + cost_.per_token_sq * ((d + n) * (d + n) - d * d);
    };
    if (known.hits.size() < 2) return weight(known.let_go) * recompute(0);
    double rate = 0;
    for (const Time hit : known.hits) rate += weight(hit);
    return rate * recompute(static_cast<double>(path.size()) - 1);
  }

  std::map<Path, Known>::iterator Victim() {
    auto best = known_.end();
    double least = 0;
    for (auto at = known_.begin(); at != known_.end(); ++at) {
      if (at->second.holders > 0) continue;
      // In lexical order a path's extensions follow it.
      const auto next = std::next(at);
      if (next != known_.end() && next->first.size() > at->first.size() &&
          std::equal(at->first.begin(), at->first.end(), next->first.begin())) {
        continue;
      }
      const double score = Score(at->first, at->second);
      const bool tie = best != known_.end() && std::abs(score - least) <= 1e-12 * least;
      if (best == known_.end() || (tie ? at->second.turn < best->second.turn : score < least)) {
        best = at;
        least = score;
      }
    }
    return best;
  }

  void Allocate(std::vector<BlockId>* blocks) {
    if (cache_->pool().num_free() > 0 || discards_) {
      ASSERT_TRUE(cache_->Allocate(1, blocks));
      return;
    }
    const auto victim = Victim();
    ASSERT_NE(victim, known_.end());
    ASSERT_TRUE(cache_->Allocate(1, blocks));
    ASSERT_EQ(blocks->back(), victim->second.block);
    ++victims_;
    warm_victims_ += victim->second.hits.size() >= 2;
    known_.erase(victim);
  }

  void Admit() {
    Table table;
    const size_t length = 1 + random_.Below(6);
    // Few branches near the root, so that prefixes repeat.
    for (size_t b = 0; b < length; ++b) {
      const auto branch = static_cast<TokenId>(random_.Below(b < 2 ? 2 : 3));
      table.tokens.insert(table.tokens.end(), static_cast<size_t>(block_tokens_), branch);
      table.chain.push_back(BlockHash(1, b == 0 ? ChainRoot(1, 0) : table.chain.back(), {table.tokens, {}},
                                      static_cast<int32_t>(b), block_tokens_));
    }
    cache_->Match(table.chain, {table.tokens, {}}, &table.blocks);
    cache_->Hold(table.blocks);
    table.published = table.blocks.size();
    for (size_t i = 0; i < table.published; ++i) {
      if (discards_) break;
      Known& known = known_.at(PathOf(table, i, block_tokens_));
      ASSERT_EQ(known.block, table.blocks[i]);
      ++known.holders;
      known.hits.push_back(now_);
    }
    while (table.blocks.size() < length && cache_->available() > 0) {
      ASSERT_NO_FATAL_FAILURE(Allocate(&table.blocks));
    }
    tables_.push_back(std::move(table));
  }

  // A few more blocks of it are full.
  void Publish(Table* table) {
    const size_t end =
        std::min(table->blocks.size(), table->published + static_cast<size_t>(random_.Below(4)));
    for (; table->published < end; ++table->published) {
      const size_t i = table->published;
      table->blocks[i] =
          cache_->Publish(table->blocks[i], table->chain[i], {table->tokens, {}}, static_cast<int32_t>(i));
      if (discards_) continue;
      Known& known = known_[PathOf(*table, i, block_tokens_)];
      if (known.holders++ > 0 || known.turn > 0) {
        known.hits.push_back(now_);  // somebody was faster
        ASSERT_EQ(table->blocks[i], known.block);
      } else {
        known.block = table->blocks[i];
      }
    }
  }

  void Leave(size_t which) {
    const Table table = std::move(tables_[which]);
    tables_.erase(tables_.begin() + static_cast<std::ptrdiff_t>(which));
    if (discards_ && random_.Below(3) == 0) return cache_->Discard(table.blocks);
    cache_->Release(table.blocks);
    for (size_t i = table.published; i-- > 0 && !discards_;) {
      Known& known = known_.at(PathOf(table, i, block_tokens_));
      if (--known.holders > 0) continue;
      known.let_go = now_;
      known.turn = ++turns_;
    }
  }

  void Check() {
    std::vector<int32_t> references(static_cast<size_t>(num_blocks_));
    for (const Table& table : tables_) {
      for (const BlockId block : table.blocks) ++references[static_cast<size_t>(Value(block))];
    }
    const absl::Status status = cache_->CheckInvariants(references);
    ASSERT_TRUE(status.ok()) << status;
    if (discards_) return;
    int32_t cached = 0;
    for (const auto& [path, known] : known_) {
      cached += known.holders == 0;
      if (path.size() == 1) continue;
      const auto parent = known_.find(Path(path.begin(), path.end() - 1));
      ASSERT_NE(parent, known_.end()) << "evicted from the middle";
      ASSERT_GE(parent->second.holders, known.holders);
    }
    ASSERT_EQ(cached, cache_->num_cached());
  }

  RandomStream random_;
  bool discards_;
  double half_life_ = 0;
  int32_t block_tokens_ = 0, num_blocks_ = 0;
  PrefillCost cost_;
  std::unique_ptr<StepCostModel> model_;
  std::unique_ptr<KvCache> cache_;
  std::map<Path, Known> known_;
  std::vector<Table> tables_;
  Time now_;
  int64_t turns_ = 0, victims_ = 0, warm_victims_ = 0;
};

TEST(Lec, EvictsWhatBruteForceEvicts) {
  int64_t victims = 0, warm = 0;
  for (uint64_t seed = 0; seed < 4000; ++seed) {
    CacheHistory history(seed, false);
    history.Run(300);
    ASSERT_FALSE(HasFatalFailure()) << "seed " << seed;
    victims += history.victims();
    warm += history.warm_victims();
  }
  EXPECT_GT(victims, 100000);
  EXPECT_GT(warm, 10000);
}

TEST(Lec, DiscardedParentsBlockNobody) {
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    CacheHistory history(seed, true);
    history.Run(120);
    ASSERT_FALSE(HasFatalFailure()) << "seed " << seed;
  }
}

TEST(FitPrefill, ReadsTheSlopesOfAnyModel) {
  const PrefillCost linear = FitPrefill(*LinearPrefill(kOpt13b));
  EXPECT_NEAR(linear.per_token, kOpt13b.per_token, 1e-8);
  EXPECT_NEAR(linear.per_token_sq, kOpt13b.per_token_sq, 1e-12);
  const PrefillCost constant = FitPrefill(**ParseStepCost("constant:20"));
  EXPECT_EQ(constant.per_token, 0);
  EXPECT_EQ(constant.per_token_sq, 0);
  EXPECT_DOUBLE_EQ(FitPrefill(**ParseStepCost("tile:c=3,a=1,b0=128")).per_token, 1.0 / 128);
  EXPECT_EQ(FitPrefill(**ParseStepCost("online")).per_token, 0) << "knows nothing yet";
  const PrefillCost prior = FitPrefill(
      **ParseStepCost("online:linear:alpha_prefill=3,per_token=0.02,per_token_sq=0.000001,per_seq=0.01,"
                      "per_kv_token=0.00003,alpha_decode=3"));
  EXPECT_NEAR(prior.per_token, 0.02, 1e-3);
  EXPECT_NEAR(prior.per_token_sq, 1e-6, 1e-7);
}

}  // namespace
}  // namespace orrery
