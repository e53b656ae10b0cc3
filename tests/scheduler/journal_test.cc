#include "scheduler/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "scheduler/base/bytes.h"
#include "scheduler/base/random.h"
#include "scheduler/journal_format.h"
#include "scheduler/kv/block_hash.h"
#include "tests/scheduler/recorded_run.h"

namespace orrery {
namespace {

using ::testing::HasSubstr;

struct RawRecord {
  uint8_t type = 0;
  std::string payload;
};

std::vector<RawRecord> Split(const std::string& journal) {
  ByteReader in(std::string_view(journal).substr(kJournalMagic.size()));
  std::vector<RawRecord> records;
  while (in.left() > 0) {
    RawRecord record;
    record.type = in.Byte();
    record.payload = std::string(in.Text());
    in.Fixed64();
    records.push_back(record);
  }
  EXPECT_TRUE(in.ok());
  return records;
}

// With right hashes, whatever the records say.
std::string Seal(const std::vector<RawRecord>& records) {
  std::string journal(kJournalMagic);
  uint64_t chain = 0;
  for (const RawRecord& record : records) {
    journal.push_back(static_cast<char>(record.type));
    PutText(record.payload, &journal);
    chain = JournalChain(chain, record.type, record.payload);
    PutFixed64(chain, &journal);
  }
  return journal;
}

class Journal : public ::testing::TestWithParam<int> {
 protected:
  WorkerSpec spec_ = SmallWorker(GetParam());
  std::string bytes_ = RecordRun(spec_, spec_);
};
INSTANTIATE_TEST_SUITE_P(Depths, Journal, ::testing::Values(1, 2));

TEST_P(Journal, ReplaysToEqualDigests) {
  const auto replay = Replay(bytes_);
  ASSERT_TRUE(replay.ok()) << replay.status();
  EXPECT_EQ(replay->difference, "");
  EXPECT_FALSE(replay->summary.truncated);
  EXPECT_EQ(replay->summary.arrivals, 41u);
  EXPECT_GT(replay->summary.plans, 80u);
  EXPECT_GT(replay->summary.steps, 50u);
  EXPECT_EQ(RecordRun(spec_, spec_), bytes_) << "the run itself is deterministic";
}

TEST_P(Journal, HeaderCarriesTheWholeSpecification) {
  spec_.scheduler = "fcfs:watermark=0.1";
  spec_.options.worker = WorkerId{7};
  spec_.options.incarnation = 1ull << 60;
  spec_.options.role = WorkerRole::kDecode;
  spec_.options.prefix_cache = false;
  const auto read = ReadJournalSpec(RecordRun(spec_, spec_));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->scheduler, spec_.scheduler);
  EXPECT_EQ(read->eviction, "lru");
  EXPECT_EQ(read->predictor, "request-bound");
  EXPECT_EQ(read->cost, "constant:5");
  EXPECT_EQ(read->options.worker, WorkerId{7});
  EXPECT_EQ(read->options.incarnation, 1ull << 60);
  EXPECT_EQ(read->options.role, WorkerRole::kDecode);
  EXPECT_EQ(read->options.num_blocks, 14);
  EXPECT_EQ(read->options.max_in_flight, GetParam());
  EXPECT_EQ(read->options.hash_key, HashKeyId(42)) << "equal where the key is, and not the secret itself";
  EXPECT_FALSE(read->options.prefix_cache);
}

TEST_P(Journal, EveryFlippedByteIsSeen) {
  // All of the first records, then every seventh byte: each flip replays all that comes before it.
  for (size_t i = 0; i < bytes_.size(); i += i < 1500 ? 1 : 7) {
    std::string flipped = bytes_;
    flipped[i] = static_cast<char>(flipped[i] ^ (1 << (i % 8)));
    const auto replay = Replay(flipped);
    const bool seen = !replay.ok() || !replay->difference.empty() || replay->summary.truncated;
    ASSERT_TRUE(seen) << "byte " << i;
  }
}

TEST_P(Journal, LostAndRepeatedRecordsAreSeen) {
  const std::vector<RawRecord> records = Split(bytes_);
  for (size_t i = 1; i + 1 < records.size(); i += 3) {
    // Cut out of the sealed bytes, so that only the chain can tell.
    std::string head = Seal({records.begin(), records.begin() + static_cast<ptrdiff_t>(i)});
    std::string next = Seal({records.begin(), records.begin() + static_cast<ptrdiff_t>(i) + 1});
    EXPECT_FALSE(Replay(head + bytes_.substr(next.size())).ok()) << "record " << i << " lost";
    EXPECT_FALSE(Replay(next + bytes_.substr(head.size())).ok()) << "record " << i << " repeated";
  }
}

TEST_P(Journal, AnotherPolicyConstantDiffers) {
  for (const char* scheduler : {"fcfs:watermark=0.3", "fcfs:token_budget=5"}) {
    const auto replay = Replay(bytes_, {.scheduler = scheduler, .eviction = {}, .predictor = {}});
    ASSERT_TRUE(replay.ok()) << replay.status();
    EXPECT_THAT(replay->difference, HasSubstr("differs")) << scheduler;
    EXPECT_GT(replay->record, 0u);
  }
  for (const auto change : {+[](WorkerSpec* s) { s->options.num_blocks = 13; },
                            +[](WorkerSpec* s) { s->options.max_step_tokens = 15; },
                            +[](WorkerSpec* s) { s->options.max_num_seqs = 5; },
                            +[](WorkerSpec* s) { s->options.prefix_cache = false; }}) {
    WorkerSpec header = spec_;
    change(&header);
    const auto replay = Replay(RecordRun(spec_, header));
    ASSERT_TRUE(replay.ok()) << replay.status();
    EXPECT_NE(replay->difference, "");
  }
}

TEST_P(Journal, OfAKilledProcessReplaysUpToItsEnd) {
  uint64_t last = 0;
  for (size_t size = 0; size < bytes_.size(); size += 37) {
    const auto replay = Replay(std::string_view(bytes_).substr(0, size));
    if (!replay.ok()) {
      EXPECT_LT(size, 300u) << "only without a whole header: " << replay.status();
      continue;
    }
    EXPECT_EQ(replay->difference, "");
    EXPECT_GE(replay->summary.records, last);
    last = replay->summary.records;
  }
  EXPECT_GT(last, 100u);
}

TEST_P(Journal, NonsenseWithRightHashesIsAnErrorNeverACrash) {
  const std::vector<RawRecord> records = Split(bytes_);
  RandomStream random(5);
  int errors = 0, differences = 0;
  for (int round = 0; round < 400; ++round) {
    std::vector<RawRecord> mutated = records;
    for (uint64_t change = 0; change <= random.Below(3); ++change) {
      RawRecord& record = mutated[random.Below(mutated.size())];
      if (random.Below(8) == 0) record.type = static_cast<uint8_t>(random.Below(12));
      if (record.payload.empty() || &record == &mutated[0]) continue;
      const size_t at = random.Below(record.payload.size());
      if (random.Below(3) == 0) {
        record.payload.resize(at);
      } else {
        record.payload[at] = static_cast<char>(random.Bits());
      }
    }
    if (random.Below(4) == 0)
      std::swap(mutated[1 + random.Below(mutated.size() - 1)], mutated[1 + random.Below(mutated.size() - 1)]);
    const auto replay = Replay(Seal(mutated));
    errors += !replay.ok();
    differences += replay.ok() && !replay->difference.empty();
  }
  EXPECT_GT(errors, 20);
  EXPECT_GT(differences, 20);
}

TEST(JournalFormat, RefusesWhatItIsNot) {
  EXPECT_EQ(Replay("").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Replay("GIF89a..").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Replay(kJournalMagic).status().code(), absl::StatusCode::kDataLoss);
  std::string future;
  PutSigned(0, &future);
  PutVarint(99, &future);
  EXPECT_THAT(std::string(Replay(Seal({{1, future}})).status().message()), HasSubstr("version 99"));
}

TEST(PlanDigestTest, EveryFieldCounts) {
  StepPlan base;
  base.step = StepId{1};
  base.slices = {{SequenceId{1}, 0, 0, 4, true, InputSource::kHost, 0}};
  base.blocks = {BlockId{3}};
  base.block_begin = {0, 1};
  const uint64_t digest = PlanDigest(base);
  const std::vector<void (*)(StepPlan*)> kChanges = {
      [](StepPlan* p) { p->step = StepId{2}; },
      [](StepPlan* p) { p->group_step = 1; },
      [](StepPlan* p) { p->expert_map_epoch = 1; },
      [](StepPlan* p) { p->graph_size = 8; },
      [](StepPlan* p) { p->participate_only = true; },
      [](StepPlan* p) {
        p->admitted.push_back({SequenceId{1}, 0, std::make_shared<const Submit>()});
      },
      [](StepPlan* p) { p->slices[0].sequence = SequenceId{2}; },
      [](StepPlan* p) { p->slices[0].slot = 1; },
      [](StepPlan* p) { p->slices[0].begin = 1; },
      [](StepPlan* p) { p->slices[0].count = 5; },
      [](StepPlan* p) { p->slices[0].sample = false; },
      [](StepPlan* p) { p->slices[0].input = InputSource::kPreviousStep; },
      [](StepPlan* p) { p->slices[0].output_index = 1; },
      [](StepPlan* p) { p->slices[0].num_scored = 1; },
      [](StepPlan* p) { p->blocks[0] = BlockId{4}; },
      [](StepPlan* p) { p->block_begin[1] = 0; },
      [](StepPlan* p) { p->preempted.push_back(SequenceId{1}); },
      [](StepPlan* p) { p->released_slots.push_back(1); },
      [](StepPlan* p) {
        p->copies.push_back({BlockId{1}, BlockId{2}});
      },
      [](StepPlan* p) { p->kv_loads.emplace_back(); },
      [](StepPlan* p) { p->kv_sends.emplace_back(); },
      [](StepPlan* p) { p->expert_moves.emplace_back(); },
      [](StepPlan* p) { p->num_tokens = 1; },
      [](StepPlan* p) { p->num_samples = 1; },
      [](StepPlan* p) { p->num_scoring = 1; },
  };
  std::vector<uint64_t> seen = {digest};
  for (size_t i = 0; i < kChanges.size(); ++i) {
    StepPlan changed = base;
    kChanges[i](&changed);
    EXPECT_THAT(seen, ::testing::Not(::testing::Contains(PlanDigest(changed)))) << "change " << i;
    seen.push_back(PlanDigest(changed));
  }
}

}  // namespace
}  // namespace orrery
