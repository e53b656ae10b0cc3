#ifndef ORRERY_TESTS_FUZZ_JOURNAL_FUZZ_H_
#define ORRERY_TESTS_FUZZ_JOURNAL_FUZZ_H_

// What must hold for any bytes given to the journal's decoder and, through it, to WorkerCore: an error, a
// difference or an equal replay, and never a crash. Every record that is decoded goes through the worker's
// doors.

#include <cstddef>
#include <cstdint>

namespace orrery {

// An even first byte: the rest is a journal file. An odd one: the rest are records without hashes (type,
// payload length, payload), which are sealed and replayed on a small worker of depth 1 or 2, so that inputs
// get past the hashes.
void FuzzJournal(const uint8_t* data, size_t size);

}  // namespace orrery

#endif  // ORRERY_TESTS_FUZZ_JOURNAL_FUZZ_H_
