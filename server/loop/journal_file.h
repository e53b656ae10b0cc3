// Writes the journal of a worker to a file on a thread of its own, so that the worker never waits for a disk.
// What is not written yet is bounded: a disk that cannot keep up, or is full, ends the recording with one log
// line and never the serving. A journal that ends early is a valid journal of what came before.
#ifndef ORRERY_SERVER_LOOP_JOURNAL_FILE_H_
#define ORRERY_SERVER_LOOP_JOURNAL_FILE_H_

#include <atomic>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "server/loop/clock.h"
#include "server/loop/mailbox.h"

namespace orrery {

class JournalFile {
 public:
  // Creates or empties the file. INVALID_ARGUMENT when it cannot be written.
  static absl::StatusOr<std::unique_ptr<JournalFile>> Create(const std::string& path);
  // Writes what was appended.
  ~JournalFile();

  // Takes the next bytes; nothing once the recording has ended. One caller at a time.
  void Append(std::string bytes);
  bool recording() const { return recording_.load(std::memory_order_relaxed); }

 private:
  static constexpr int64_t kMaxUnwrittenBytes = 64 << 20;
  explicit JournalFile(std::FILE* file, std::string path);
  void Run();
  void End(const char* why);

  std::FILE* file_;
  const std::string path_;
  Clock clock_;
  Mailbox<std::string> mailbox_;
  std::atomic<int64_t> unwritten_{0};
  std::atomic<bool> recording_{true}, stop_{false};
  std::thread thread_;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_LOOP_JOURNAL_FILE_H_
