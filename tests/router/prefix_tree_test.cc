// The tree of prefixes against sets that are searched one by one.
#include "router/policy/prefix_tree.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <map>
#include <random>
#include <set>

namespace orrery {
namespace {

Hash128 Name(int chain, int block) {
  return {static_cast<uint64_t>(chain * 100 + block + 1), static_cast<uint64_t>(chain)};
}
std::vector<Hash128> Path(int chain, int blocks) {
  std::vector<Hash128> names;
  for (int i = 0; i < blocks; ++i) names.push_back(Name(chain, i));
  return names;
}

// What one worker is taken to have, kept the simplest way.
struct Model {
  std::set<std::pair<uint64_t, uint64_t>> told;
  std::list<std::pair<uint64_t, uint64_t>> guessed;  // used last first
  static std::pair<uint64_t, uint64_t> Of(const Hash128& name) { return {name.low, name.high}; }

  void Insert(const std::vector<Hash128>& names, size_t most) {
    const size_t count = std::min(names.size(), most);
    for (size_t i = count; i-- > 0;) {
      if (told.contains(Of(names[i]))) continue;
      guessed.remove(Of(names[i]));
      guessed.push_front(Of(names[i]));
    }
    while (guessed.size() > most) guessed.pop_back();
  }
  void Tell(const PrefixEvent& event) {
    guessed.remove(Of(event.name));
    event.stored ? (void)told.insert(Of(event.name)) : (void)told.erase(Of(event.name));
  }
  bool Has(const Hash128& name) const {
    return told.contains(Of(name)) || std::find(guessed.begin(), guessed.end(), Of(name)) != guessed.end();
  }
};

TEST(PrefixTree, HoldsWhatItWasToldAndTheLatestGuesses) {
  constexpr int kWorkers = 4, kChains = 5, kBlocks = 6;
  for (uint32_t seed = 0; seed < 40; ++seed) {
    std::mt19937 random(seed);
    const auto below = [&](int n) { return static_cast<int>(random() % static_cast<uint32_t>(n)); };
    PrefixTree tree(16);
    std::map<int, Model> models;
    for (int step = 0; step < 300; ++step) {
      const int worker = below(kWorkers);
      const WorkerId id{static_cast<uint32_t>(worker)};
      const int what = below(20);
      if (what == 0) {
        tree.Forget(id);
        models[worker] = {};
      } else if (what == 1) {
        std::vector<WorkerLoad> kept;
        for (int w = 0; w < kWorkers; ++w) {
          if (w != worker) kept.push_back({.worker = WorkerId{static_cast<uint32_t>(w)}});
        }
        tree.Keep(kept);
        models[worker] = {};
      } else if (what < 10) {
        const auto names = Path(below(kChains), 1 + below(kBlocks));
        const int most = below(12);
        tree.Insert(names, id, most);
        models[worker].Insert(names, static_cast<size_t>(most));
      } else {
        std::vector<PrefixEvent> events;
        for (int i = below(4); i >= 0; --i)
          events.push_back({Name(below(kChains), below(kBlocks)), below(2) > 0});
        tree.Tell(id, events);
        for (const PrefixEvent& event : events) models[worker].Tell(event);
      }
      int64_t size = 0;
      for (const auto& [w, model] : models)
        size += static_cast<int64_t>(model.told.size() + model.guessed.size());
      ASSERT_EQ(tree.size(), size);
      for (int chain = 0; chain < kChains; ++chain) {
        for (int block = 0; block < kBlocks; ++block) {
          std::vector<int> expected, held;
          for (const auto& [w, model] : models) {
            if (model.Has(Name(chain, block))) expected.push_back(w);
          }
          for (const auto& holder : tree.HoldersOf(Name(chain, block))) {
            held.push_back(static_cast<int>(Value(holder.worker)));
          }
          ASSERT_EQ(held, expected) << "seed " << seed << " step " << step;
        }
      }
    }
  }
}

TEST(PrefixTree, WhatWasToldIsNoGuessThatGivesWayToOthers) {
  PrefixTree tree(16);
  const WorkerId worker{3};
  const auto told = Path(0, 4), guessed = Path(1, 4);
  for (const Hash128& name : told) tree.Tell(worker, {{{name, true}}});
  tree.Insert(told, worker, 0);
  tree.Insert(guessed, worker, 2);
  EXPECT_EQ(tree.Matched(told, worker), 4u);
  EXPECT_EQ(tree.Matched(guessed, worker), 2u);
  tree.Tell(worker, {{{told[3], false}}});
  EXPECT_EQ(tree.Matched(told, worker), 3u);
  EXPECT_EQ(tree.Matched(told, WorkerId{2}), 0u);
}

TEST(PrefixTree, OfThoseThatTellGuessesStandForWhatTheyHaveNotComputed) {
  PrefixTree tree(16);
  const auto names = Path(0, 5);
  WorkerLoad worker{
      .waiting_tokens = 320, .sent_tokens = 160, .prompt_left = 32, .kv_capacity_tokens = 16'000};
  EXPECT_EQ(tree.Room(worker, names, 64, 1 << 20, 4), 1000);
  EXPECT_EQ(tree.Room(worker, names, 64, 400, 4), 100);
  worker.tells_prefixes = true;
  EXPECT_EQ(tree.Room(worker, names, 64, 400, 4), 5 + (320 + 160 + 32 + 64) / 16);
}

}  // namespace
}  // namespace orrery
