#include "server/text/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/text/utf8.h"

namespace orrery {

absl::StatusOr<std::shared_ptr<const StopStrings>> StopStrings::Create(absl::Span<const std::string> stops) {
  if (stops.size() > kMaxStopStrings) {
    return absl::InvalidArgumentError(
        absl::StrCat("stop: ", stops.size(), " strings, the limit is ", kMaxStopStrings));
  }
  auto compiled = std::make_shared<StopStrings>();
  for (size_t i = 0; i < stops.size(); ++i) {
    const std::string& text = stops[i];
    if (text.empty() || text.size() > kMaxStopBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("stop[", i, "]: ", text.size(), " bytes, allowed are 1 to ", kMaxStopBytes));
    }
    if (FindInvalidUtf8(text) != std::string_view::npos) {
      return absl::InvalidArgumentError(absl::StrCat("stop[", i, "]: not valid UTF-8"));
    }
    Pattern pattern{text, std::vector<uint16_t>(text.size() + 1, 0)};
    for (size_t length = 2, border = 0; length <= text.size(); ++length) {
      while (border > 0 && text[border] != text[length - 1]) border = pattern.fallback[border];
      if (text[border] == text[length - 1]) ++border;
      pattern.fallback[length] = static_cast<uint16_t>(border);
    }
    compiled->patterns_.push_back(std::move(pattern));
  }
  return compiled;
}

StopMatcher::StopMatcher(std::shared_ptr<const StopStrings> stops, bool include_stop)
    : stops_(std::move(stops)),
      states_(stops_ == nullptr ? 0 : stops_->size(), 0),
      include_stop_(include_stop) {}

int StopMatcher::Advance(char byte) {
  int found = -1;
  for (size_t i = 0; i < states_.size(); ++i) {
    const StopStrings::Pattern& pattern = stops_->patterns_[i];
    uint16_t state = states_[i];
    while (state > 0 && pattern.text[state] != byte) state = pattern.fallback[state];
    if (pattern.text[state] == byte) ++state;
    const bool is_longer = found < 0 || pattern.text.size() > stops_->text(static_cast<size_t>(found)).size();
    if (state == pattern.text.size()) {
      if (is_longer) found = static_cast<int>(i);
      state = pattern.fallback[state];  // for a match that is let pass
    }
    states_[i] = state;
  }
  return found;
}

int StopMatcher::Push(std::string_view text, std::string* out, bool armed) {
  if (matched_) return -1;
  if (states_.empty()) {
    out->append(text);
    return -1;
  }
  for (size_t i = 0; i < text.size(); ++i) {
    const int found = Advance(text[i]);
    if (found < 0 || !armed) continue;
    held_.append(text.substr(0, i + 1));
    if (!include_stop_) held_.resize(held_.size() - stops_->text(static_cast<size_t>(found)).size());
    out->append(held_);
    held_.clear();
    matched_ = true;
    return found;
  }
  held_.append(text);
  // A stop string is whole characters, so the cut never falls into the middle of one.
  const size_t keep = *std::max_element(states_.begin(), states_.end());
  out->append(held_, 0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return -1;
}

void StopMatcher::Finish(std::string* out) {
  if (!matched_) out->append(held_);
  held_.clear();
}

}  // namespace orrery
