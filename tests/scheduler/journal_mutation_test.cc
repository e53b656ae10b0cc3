// The fuzzer's entry on mutations of real journals: what a minute of fuzzing finds first.
#include <gtest/gtest.h>

#include "scheduler/base/bytes.h"
#include "scheduler/base/random.h"
#include "scheduler/journal_format.h"
#include "tests/fuzz/journal_fuzz.h"
#include "tests/scheduler/recorded_run.h"

namespace orrery {
namespace {

// The records of a journal without header and hashes.
std::string Records(const std::string& journal) {
  ByteReader in(std::string_view(journal).substr(kJournalMagic.size()));
  std::string records;
  for (bool header = true; in.left() > 0; header = false) {
    const uint8_t type = in.Byte();
    const std::string_view payload = in.Text();
    in.Fixed64();
    if (header) continue;
    records.push_back(static_cast<char>(type));
    PutText(payload, &records);
  }
  return records;
}

void Fuzz(const std::string& input) {
  FuzzJournal(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

TEST(JournalMutation, NeverCrashes) {
  RandomStream random(23);
  for (const int depth : {1, 2}) {
    const std::string journal = RecordRun(SmallWorker(depth), SmallWorker(depth));
    const std::string whole = std::string(1, '\0') + journal;
    const std::string records = std::string(1, static_cast<char>(2 * depth - 1)) + Records(journal);
    Fuzz(whole);
    Fuzz(records);
    for (int round = 0; round < 300; ++round) {
      std::string mutated = random.Below(4) == 0 ? whole : records;
      for (uint64_t i = 0; i <= random.Below(4); ++i) {
        const size_t at = 1 + random.Below(mutated.size() - 1);
        switch (random.Below(4)) {
          case 0:
            mutated[at] = static_cast<char>(random.Bits());
            break;
          case 1:
            mutated[at] = static_cast<char>(mutated[at] ^ (1 << random.Below(8)));
            break;
          case 2:
            mutated.erase(at, 1 + random.Below(20));
            break;
          default:
            mutated.insert(at, mutated.substr(1 + random.Below(mutated.size() - 1), random.Below(40)));
        }
      }
      Fuzz(mutated);
    }
  }
}

}  // namespace
}  // namespace orrery
