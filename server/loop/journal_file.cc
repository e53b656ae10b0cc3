#include "server/loop/journal_file.h"

#include <pthread.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "spdlog/spdlog.h"

namespace orrery {

absl::StatusOr<std::unique_ptr<JournalFile>> JournalFile::Create(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("--record: cannot write '", path, "': ", std::strerror(errno)));
  }
  return std::unique_ptr<JournalFile>(new JournalFile(file, path));
}

JournalFile::JournalFile(std::FILE* file, std::string path)
    : file_(file), path_(std::move(path)), thread_([this] { Run(); }) {}

JournalFile::~JournalFile() {
  stop_.store(true);
  mailbox_.Interrupt();
  thread_.join();
  std::fclose(file_);
}

void JournalFile::Append(std::string bytes) {
  if (bytes.empty() || !recording()) return;
  const auto size = static_cast<int64_t>(bytes.size());
  if (unwritten_.fetch_add(size, std::memory_order_relaxed) + size > kMaxUnwrittenBytes) {
    return End("the disk is too slow");
  }
  mailbox_.Push(std::move(bytes));
}

void JournalFile::Run() {
  pthread_setname_np(pthread_self(), "journal");
  std::vector<std::string> batch;
  for (bool last = false; !last;) {
    last = stop_.load();  // before the drain: what was appended before the stop is still written
    mailbox_.Drain(&batch);
    for (const std::string& bytes : batch) {
      if (!recording()) break;
      if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) End(std::strerror(errno));
      unwritten_.fetch_sub(static_cast<int64_t>(bytes.size()), std::memory_order_relaxed);
    }
    if (!batch.empty() && recording() && std::fflush(file_) != 0) End(std::strerror(errno));
    batch.clear();
    if (!last) mailbox_.Wait(clock_, Time::Never());
  }
}

void JournalFile::End(const char* why) {
  if (recording_.exchange(false)) spdlog::error("journal {} ends here: {}", path_, why);
}

}  // namespace orrery
