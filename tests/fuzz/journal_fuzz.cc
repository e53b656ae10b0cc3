// Fuzz target of the journal: journal_fuzz [corpus folder] [-max_total_time=60]
#include "tests/fuzz/journal_fuzz.h"

#include <string>
#include <string_view>

#include "scheduler/base/bytes.h"
#include "scheduler/base/check.h"
#include "scheduler/journal.h"
#include "scheduler/journal_format.h"
#include "tests/scheduler/recorded_run.h"

namespace orrery {
namespace {

// The header of a small worker, then the records of `bytes` with right hashes.
std::string Sealed(std::string_view bytes, int depth) {
  std::string journal = JournalWriter(SmallWorker(depth)).TakeBytes();
  ByteReader header(std::string_view(journal).substr(kJournalMagic.size()));
  header.Byte();
  header.Text();
  uint64_t chain = header.Fixed64();
  for (ByteReader in(bytes); in.left() > 0;) {
    const uint8_t type = in.Byte();
    const std::string_view payload = in.Text();
    if (!in.ok()) break;
    journal.push_back(static_cast<char>(type));
    PutText(payload, &journal);
    chain = JournalChain(chain, type, payload);
    PutFixed64(chain, &journal);
  }
  return journal;
}

}  // namespace

void FuzzJournal(const uint8_t* data, size_t size) {
  if (size == 0) return;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::string journal = data[0] % 2 == 0 ? std::string(rest) : Sealed(rest, data[0] / 2 % 2 + 1);
  const auto once = Replay(journal);
  const auto twice = Replay(journal);
  // Whatever it was, it is the same again.
  ORRERY_CHECK(once.ok() == twice.ok());
  if (once.ok()) {
    ORRERY_CHECK(once->difference == twice->difference && once->record == twice->record);
  }
}

}  // namespace orrery

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  orrery::FuzzJournal(data, size);
  return 0;
}
