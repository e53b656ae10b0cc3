// One line in the log for a request that is refused: its id, the reason and the field; nothing that its
// client wrote but the id, and of that no control character. At most kLinesPerSecond lines a second: how many
// were left out is told with the next one. Any thread may write, none waits for another.
#ifndef ORRERY_SERVER_LOOP_REFUSAL_LOG_H_
#define ORRERY_SERVER_LOOP_REFUSAL_LOG_H_

#include <atomic>
#include <cstdint>

#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"
#include "orrery/v1/inference.pb.h"
#include "scheduler/base/time.h"
#include "spdlog/spdlog.h"

namespace orrery {

class RefusalLog {
 public:
  static constexpr int64_t kLinesPerSecond = 10;

  void Write(absl::string_view request_id, const orrery::v1::ErrorInfo& info, Time now) {
    if (!spdlog::should_log(spdlog::level::info)) return;
    if (!Allowed(now.ns / 1'000'000'000)) {
      left_out_.fetch_add(1, std::memory_order_relaxed);
      return;
    }
    constexpr size_t kMostOfId = 256;  // of an id that is refused for its length
    spdlog::info("request={} refused reason={} field={} left_out={}",
                 absl::Utf8SafeCEscape(request_id.substr(0, kMostOfId)), info.reason(), info.field(),
                 left_out_.exchange(0, std::memory_order_relaxed));
  }

 private:
  // The high bits are the second, the low ones the lines in it.
  bool Allowed(int64_t second) {
    constexpr int kBits = 16;
    int64_t seen = state_.load(std::memory_order_relaxed);
    for (;;) {
      const bool same = seen >> kBits == second;
      const int64_t lines = same ? seen & ((int64_t{1} << kBits) - 1) : 0;
      if (lines >= kLinesPerSecond) return false;
      if (state_.compare_exchange_weak(seen, (second << kBits) | (lines + 1), std::memory_order_relaxed)) {
        return true;
      }
    }
  }

  std::atomic<int64_t> state_{-1};
  std::atomic<int64_t> left_out_{0};
};

}  // namespace orrery

#endif  // ORRERY_SERVER_LOOP_REFUSAL_LOG_H_
