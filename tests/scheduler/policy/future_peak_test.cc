#include "scheduler/policy/future_peak.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "scheduler/base/random.h"

namespace orrery {
namespace {

// The definition, step by step: what everybody holds at every step to come.
int64_t SimulatedPeak(const std::vector<FuturePeak::Entry>& entries, int64_t block, int64_t shared) {
  int64_t last = 0, peak = 0;
  for (const auto& entry : entries) last = std::max(last, entry.remaining);
  for (int64_t step = 0; step <= last; ++step) {
    int64_t blocks = 0;
    for (const auto& entry : entries) {
      if (step <= entry.remaining) blocks += (entry.held + step + block - 1) / block;
    }
    peak = std::max(peak, blocks);
  }
  return shared + peak;
}

// UT-0 of the design.
TEST(FuturePeak, WorkedExample) {
  FuturePeak peak;
  EXPECT_EQ(peak.Peak(), 0);
  peak.Add(SequenceId{1}, 10, 5);
  peak.Add(SequenceId{2}, 20, 2);
  peak.Add(SequenceId{3}, 5, 8);
  EXPECT_EQ(peak.Peak(), 41);
  EXPECT_EQ(peak.PeakWith(12, 6), 55);
  peak.Add(SequenceId{4}, 12, 6);
  EXPECT_EQ(peak.Peak(), 55);
  EXPECT_TRUE(peak.Remove(SequenceId{4}));
  EXPECT_FALSE(peak.Remove(SequenceId{4}));
  EXPECT_EQ(peak.Peak(), 41);
}

TEST(FuturePeak, SharedBlocksCountOnce) {
  // Two sequences of 40 tokens share their first two blocks of 16: 8 private tokens each, one block.
  FuturePeak peak(16);
  peak.Add(SequenceId{1}, 8, 4);
  peak.Add(SequenceId{2}, 8, 4);
  peak.set_shared_blocks(2);
  EXPECT_EQ(peak.Peak(), 4);
  EXPECT_EQ(peak.PeakWith(8, 9), 5) << "the third one grows into a second block when the others are gone";
  EXPECT_EQ(peak.PeakWith(13, 4), 6);
  peak.Clear();
  EXPECT_EQ(peak.Peak(), 0);
}

TEST(FuturePeak, AStepOfEverybodyChangesNothing) {
  FuturePeak peak(16);
  peak.Add(SequenceId{1}, 100, 50);
  peak.Add(SequenceId{2}, 7, 80);
  const int64_t before = peak.Peak();
  for (int step = 1; step <= 50; ++step) {
    peak.Advance(1);
    ASSERT_EQ(peak.Peak(), before) << step;
  }
  peak.Advance(1);
  EXPECT_EQ(peak.size(), 1u) << "the first has ended";
  EXPECT_FALSE(peak.Remove(SequenceId{1}));
  EXPECT_EQ(peak.Peak(), 6) << "87 tokens";
}

// A set of entries beside the structure; every answer is compared with the simulation.
class History {
 public:
  History(uint64_t seed, int32_t block, int64_t longest, bool many)
      : random_(seed), block_(block), longest_(longest), limit_(many ? 300 : 12), peak_(block) {}

  void Run(int changes) {
    for (int i = 0; i < changes && !::testing::Test::HasFatalFailure(); ++i) {
      Change();
      Compare();
    }
  }

 private:
  FuturePeak::Entry Random() {
    return {SequenceId{++last_id_}, static_cast<int64_t>(random_.Below(static_cast<uint64_t>(longest_))),
            static_cast<int64_t>(random_.Below(static_cast<uint64_t>(longest_)))};
  }

  void Change() {
    const uint64_t dice = random_.Below(10);
    if (dice < 4 && entries_.size() < limit_) {
      entries_.push_back(Random());
      peak_.Add(entries_.back().id, entries_.back().held, entries_.back().remaining);
    } else if (dice < 6 && !entries_.empty()) {
      const size_t at = random_.Below(entries_.size());
      ASSERT_TRUE(peak_.Remove(entries_[at].id));
      entries_.erase(entries_.begin() + static_cast<ptrdiff_t>(at));
    } else if (dice == 6 && !entries_.empty()) {  // another prediction
      FuturePeak::Entry& entry = entries_[random_.Below(entries_.size())];
      entry.remaining = Random().remaining;
      ASSERT_TRUE(peak_.Remove(entry.id));
      peak_.Add(entry.id, entry.held, entry.remaining);
    } else if (dice == 7) {
      shared_ = static_cast<int64_t>(random_.Below(50));
      peak_.set_shared_blocks(shared_);
    } else if (dice == 8 && random_.Below(4) == 0) {
      for (size_t i = entries_.size(); i < limit_ / 2; ++i) entries_.push_back(Random());
      peak_.Assign(entries_);
    } else {
      Advance(static_cast<int64_t>(random_.Below(4)));
    }
  }

  void Advance(int64_t steps) {
    peak_.Advance(steps);
    std::erase_if(entries_, [&](const FuturePeak::Entry& entry) { return entry.remaining < steps; });
    for (FuturePeak::Entry& entry : entries_) {
      entry.held += steps;
      entry.remaining -= steps;
    }
  }

  void Compare() {
    ASSERT_EQ(peak_.size(), entries_.size());
    ASSERT_EQ(peak_.Peak(), SimulatedPeak(entries_, block_, shared_));
    for (int question = 0; question < 3; ++question) {
      const FuturePeak::Entry candidate = Random();
      entries_.push_back(candidate);
      const int64_t expected = SimulatedPeak(entries_, block_, shared_);
      entries_.pop_back();
      ASSERT_EQ(peak_.PeakWith(candidate.held, candidate.remaining), expected)
          << "held " << candidate.held << " remaining " << candidate.remaining;
    }
  }

  RandomStream random_;
  int64_t block_, longest_;
  size_t limit_;
  FuturePeak peak_;
  std::vector<FuturePeak::Entry> entries_;
  int64_t shared_ = 0;
  uint64_t last_id_ = 0;
};

TEST(FuturePeak, RandomHistoriesMatchSimulation) {
  constexpr int32_t kBlocks[] = {1, 2, 3, 7, 16, 1024};
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    History(seed, kBlocks[seed % std::size(kBlocks)], seed % 2 == 0 ? 12 : 40, false).Run(60);
    if (HasFatalFailure()) return;
  }
}

TEST(FuturePeak, LargeSetsMatchSimulation) {
  constexpr int32_t kBlocks[] = {1, 16, 48};
  for (uint64_t seed = 0; seed < 6; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    History(10000 + seed, kBlocks[seed % std::size(kBlocks)], 200, true).Run(200);
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace orrery
