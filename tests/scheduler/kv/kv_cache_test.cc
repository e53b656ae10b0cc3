#include "scheduler/kv/kv_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <list>
#include <map>
#include <set>

#include "scheduler/base/random.h"
#include "scheduler/kv/block_ledger.h"
#include "scheduler/kv/lru.h"

namespace orrery {
namespace {

using ::testing::ElementsAre;

TEST(BlockPool, UsesFreedIdsAgainBeforeFreshOnes) {
  BlockPool pool(3);
  EXPECT_EQ(pool.Take(), BlockId{0});
  EXPECT_EQ(pool.Take(), BlockId{1});
  EXPECT_EQ(pool.Drop(BlockId{0}), 0);
  pool.Free(BlockId{0});
  EXPECT_EQ(pool.Take(), BlockId{0});
  EXPECT_EQ(pool.Take(), BlockId{2});
  EXPECT_EQ(pool.num_free(), 0);
}

TEST(BlockPool, CountsReferences) {
  BlockPool pool(2);
  const BlockId block = pool.Take();
  pool.Hold(block);
  EXPECT_EQ(pool.references(block), 2);
  EXPECT_EQ(pool.Drop(block), 1);
  EXPECT_EQ(pool.Drop(block), 0);
  EXPECT_EQ(pool.num_free(), 1) << "detached, not yet free";
  pool.Free(block);
  EXPECT_EQ(pool.num_free(), 2);
}

TEST(BlockLedger, ReservesAllOrNothing) {
  BlockLedger ledger(3);
  EXPECT_FALSE(ledger.Reserve(4));
  EXPECT_TRUE(ledger.Reserve(3));
  ledger.Owe(2);
  EXPECT_EQ(ledger.available(), -2);
  EXPECT_FALSE(ledger.Reserve(1));
  ledger.Return(3);
  EXPECT_TRUE(ledger.Reserve(1));
  EXPECT_EQ(BlocksFor(0, 16), 0);
  EXPECT_EQ(BlocksFor(16, 16), 1);
  EXPECT_EQ(BlocksFor(17, 16), 2);
}

TEST(Lru, EqualsAListUnderRandomUse) {
  LruEviction lru;
  std::list<int32_t> reference;
  RandomStream random(3);
  for (int i = 0; i < 20000; ++i) {
    const auto id = static_cast<int32_t>(random.Below(50));
    const auto at = std::find(reference.begin(), reference.end(), id);
    if (at == reference.end()) {
      lru.Insert({BlockId{id}, 0, 0});
      reference.push_back(id);
    } else if (random.Below(2) == 0) {
      lru.Remove(BlockId{id});
      reference.erase(at);
    } else {
      EXPECT_EQ(lru.Evict(), BlockId{reference.front()});
      reference.pop_front();
    }
  }
}

class PrefixTest : public ::testing::Test {
 protected:
  static constexpr int32_t kBlockTokens = 4;
  explicit PrefixTest() : cache_(6, kBlockTokens, true, std::make_unique<LruEviction>()) {}

  std::vector<Hash128> Chain(const std::vector<TokenId>& tokens, uint64_t salt = 0, uint64_t key = 1) {
    std::vector<Hash128> chain;
    for (int32_t i = 0; i < static_cast<int32_t>(tokens.size()) / kBlockTokens; ++i) {
      chain.push_back(
          BlockHash(key, i == 0 ? ChainRoot(key, salt) : chain.back(), {tokens, {}}, i, kBlockTokens));
    }
    return chain;
  }
  std::vector<BlockId> Fill(const std::vector<TokenId>& tokens, uint64_t salt = 0) {
    std::vector<BlockId> table;
    const auto chain = Chain(tokens, salt);
    EXPECT_TRUE(cache_.Allocate(static_cast<int32_t>(chain.size()), &table));
    for (size_t i = 0; i < chain.size(); ++i) {
      table[i] = cache_.Publish(table[i], chain[i], {tokens, {}}, static_cast<int32_t>(i));
    }
    return table;
  }
  std::vector<BlockId> Match(const std::vector<TokenId>& tokens, uint64_t salt = 0, uint64_t key = 1) {
    std::vector<BlockId> found;
    cache_.Match(Chain(tokens, salt, key), {tokens, {}}, &found);
    return found;
  }
  KvCache cache_;
};

TEST_F(PrefixTest, FindsTheLongestCommonPrefix) {
  const auto table = Fill({1, 2, 3, 4, 5, 6, 7, 8});
  EXPECT_EQ(Match({1, 2, 3, 4, 5, 6, 7, 8, 9}), table);
  EXPECT_THAT(Match({1, 2, 3, 4, 5, 6, 7, 0}), ElementsAre(table[0]));
  EXPECT_THAT(Match({5, 6, 7, 8}), ElementsAre()) << "the same tokens elsewhere are another prefix";
}

TEST_F(PrefixTest, SaltAndKeySeparate) {
  Fill({1, 2, 3, 4}, 7);
  EXPECT_THAT(Match({1, 2, 3, 4}, 8), ElementsAre());
  EXPECT_THAT(Match({1, 2, 3, 4}, 7, 2), ElementsAre());
  EXPECT_EQ(Match({1, 2, 3, 4}, 7).size(), 1u);
  EXPECT_NE(HashKeyId(1), HashKeyId(2));
}

TEST_F(PrefixTest, ComparesTokensEvenWhenNamesCollide) {
  const std::vector<TokenId> tokens = {1, 2, 3, 4}, other = {1, 2, 3, 5};
  Fill(tokens);
  std::vector<BlockId> found;
  cache_.Match(Chain(tokens), {other, {}}, &found);
  EXPECT_THAT(found, ElementsAre()) << "equal name, other tokens";
}

TEST_F(PrefixTest, ReleasedBlocksStayUntilNeededTailFirst) {
  const auto table = Fill({1, 2, 3, 4, 5, 6, 7, 8});
  cache_.Release(table);
  EXPECT_EQ(cache_.available(), 6);
  EXPECT_EQ(cache_.num_cached(), 2);
  std::vector<BlockId> other;
  ASSERT_TRUE(cache_.Allocate(5, &other));
  EXPECT_THAT(Match({1, 2, 3, 4, 5, 6, 7, 8}), ElementsAre(table[0])) << "the tail went first";
  ASSERT_TRUE(cache_.Allocate(1, &other));
  EXPECT_THAT(Match({1, 2, 3, 4}), ElementsAre());
  EXPECT_EQ(cache_.evicted(), 2u);
  EXPECT_FALSE(cache_.Allocate(1, &other));
  EXPECT_EQ(other.size(), 6u);
}

TEST_F(PrefixTest, HeldBlocksAreNeverEvicted) {
  const auto table = Fill({1, 2, 3, 4});
  cache_.Hold(table);
  cache_.Release(table);
  std::vector<BlockId> other;
  EXPECT_FALSE(cache_.Allocate(6, &other));
  EXPECT_TRUE(other.empty()) << "all or nothing";
  EXPECT_TRUE(cache_.Allocate(5, &other));
  EXPECT_EQ(Match({1, 2, 3, 4}), table);
}

TEST_F(PrefixTest, EqualPrefixesShareOneBlock) {
  const auto first = Fill({1, 2, 3, 4});
  const auto second = Fill({1, 2, 3, 4});
  EXPECT_EQ(first, second);
  EXPECT_EQ(cache_.pool().references(first[0]), 2);
  EXPECT_EQ(cache_.available(), 5) << "the twin was given back";
  std::vector<int32_t> references(6, 0);
  references[Value(first[0])] = 2;
  EXPECT_TRUE(cache_.CheckInvariants(references).ok());
  references[Value(first[0])] = 1;
  EXPECT_FALSE(cache_.CheckInvariants(references).ok());
}

TEST(KvCache, OffMeansNothingIsKept) {
  KvCache cache(2, 4, false, nullptr);
  std::vector<BlockId> table;
  ASSERT_TRUE(cache.Allocate(2, &table));
  const std::vector<TokenId> tokens = {1, 2, 3, 4};
  EXPECT_EQ(cache.Publish(table[0], Hash128{1, 2}, {tokens, {}}, 0), table[0]);
  cache.Release(table);
  EXPECT_EQ(cache.num_cached(), 0);
  EXPECT_EQ(cache.pool().num_free(), 2);
}

// Whoever applies what the log tells has the names that the index has, however seldom it is asked.
TEST(PrefixLog, TellsWhatTheIndexHolds) {
  constexpr int kBlocks = 600;
  RandomStream random(9);
  PrefixIndex index(1);
  std::set<uint64_t> told, held;
  std::map<int32_t, uint64_t> name_of;
  uint64_t names = 0, number = 0;
  int anew = 0;
  const auto change = [&] {
    const auto block = static_cast<int32_t>(random.Below(kBlocks));
    if (const auto found = name_of.find(block); found != name_of.end()) {
      index.Withdraw(BlockId{block});
      held.erase(found->second);
      name_of.erase(found);
    } else {
      const TokenId token = 1;
      ASSERT_TRUE(index.Publish(BlockId{block}, {++names, 0}, {absl::MakeConstSpan(&token, 1), {}}, 0));
      held.insert(names);
      name_of[block] = names;
    }
  };
  for (int i = 0; i < 200; ++i) change();
  std::vector<PrefixEvent> events;
  EXPECT_FALSE(index.log().Take(&events));
  EXPECT_TRUE(events.empty()) << "nobody asked";
  index.TellAll();
  for (int round = 0; round < 300; ++round) {
    // Now and then nobody listens for long.
    const auto changes = static_cast<int>(random.Below(random.Below(20) == 0 ? 12'000 : 300));
    for (int i = 0; i < changes; ++i) change();
    do {
      if (index.log().Take(&events)) {
        told.clear();
        ++anew;
      }
      ASSERT_LE(events.size(), kMostPrefixEvents);
      number += events.size();
      ASSERT_EQ(index.log().number(), number);
      for (const PrefixEvent& event : events) {
        event.stored ? (void)told.insert(event.name.low) : (void)told.erase(event.name.low);
      }
    } while (!index.log().empty());
    ASSERT_EQ(told, held) << round;
  }
  EXPECT_GT(anew, 2) << "after too many changes all is told again";
}

}  // namespace
}  // namespace orrery
