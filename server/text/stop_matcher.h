#ifndef ORRERY_SERVER_TEXT_STOP_MATCHER_H_
#define ORRERY_SERVER_TEXT_STOP_MATCHER_H_

// Stop strings in streamed text. The match that ends first wins, the longest of those that end together; how
// the text is cut into chunks makes no difference. Text is given out as soon as it cannot be part of a stop
// string any more, so what is held back is exactly the longest end of the text that begins one. Each stop
// string runs the automaton of Knuth, Morris and Pratt: amortised constant time per byte and stop string,
// whatever the text.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace orrery {

inline constexpr size_t kMaxStopStrings = 64;
inline constexpr size_t kMaxStopBytes = 1024;

// The stop strings of a request, compiled; shared by its choices.
class StopStrings {
 public:
  // Errors name `stop` and the limit: too many, too long, empty, not UTF-8.
  static absl::StatusOr<std::shared_ptr<const StopStrings>> Create(absl::Span<const std::string> stops);

  size_t size() const { return patterns_.size(); }
  const std::string& text(size_t i) const { return patterns_[i].text; }

 private:
  friend class StopMatcher;
  struct Pattern {
    std::string text;
    std::vector<uint16_t> fallback;  // [bytes + 1] length of the longest proper border of each prefix
  };
  std::vector<Pattern> patterns_;
};

class StopMatcher {
 public:
  // Without stop strings (null or none) text passes through. `include_stop`: a matched stop string is given
  // out too.
  explicit StopMatcher(std::shared_ptr<const StopStrings> stops, bool include_stop = false);

  // Appends to `out` what can be shown. Returns the index of the stop string that this text completed, or -1.
  // After a match everything is ignored. Not `armed`: a stop string that this text completes is let pass.
  int Push(std::string_view text, std::string* out, bool armed = true);
  // The text is over without a match: gives out what was held back.
  void Finish(std::string* out);

  bool matched() const { return matched_; }
  size_t held_bytes() const { return held_.size(); }

 private:
  // Moves every automaton over one byte; returns the longest stop string that ends here, or -1.
  int Advance(char byte);

  std::shared_ptr<const StopStrings> stops_;
  std::vector<uint16_t> states_;  // [stops] bytes of the pattern matched by the end of the text
  std::string held_;
  bool include_stop_;
  bool matched_ = false;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_TEXT_STOP_MATCHER_H_
