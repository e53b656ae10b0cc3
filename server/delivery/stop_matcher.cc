#include "server/delivery/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace orrery {

StopStrings::StopStrings(std::vector<std::string> strings) : strings_(std::move(strings)) {
  for (const std::string& string : strings_) {
    std::vector<uint32_t> failure(string.size() + 1, 0);
    for (size_t i = 1; i < string.size(); ++i) {
      uint32_t border = failure[i];
      while (border > 0 && string[i] != string[border]) border = failure[border];
      failure[i + 1] = string[i] == string[border] ? border + 1 : 0;
    }
    failure_.push_back(std::move(failure));
  }
}

uint32_t StopStrings::Advance(size_t i, uint32_t matched, char byte) const {
  const std::string& string = strings_[i];
  if (matched == string.size()) matched = failure_[i][matched];
  while (matched > 0 && string[matched] != byte) matched = failure_[i][matched];
  return string[matched] == byte ? matched + 1 : 0;
}

std::optional<size_t> StopMatcher::Feed(absl::string_view text, bool armed, std::string* out) {
  if (matched_.empty()) {
    out->append(text.data(), text.size());
    return std::nullopt;
  }
  for (const char byte : text) {
    held_.push_back(byte);
    std::optional<size_t> found;
    for (size_t i = 0; i < matched_.size(); ++i) {
      matched_[i] = stops_->Advance(i, matched_[i], byte);
      if (matched_[i] != (*stops_)[i].size()) continue;
      if (!found || (*stops_)[i].size() > (*stops_)[*found].size()) found = i;
    }
    if (found && armed) {
      out->append(held_, 0, held_.size() - (*stops_)[*found].size());
      held_.clear();
      return found;
    }
  }
  size_t keep = 0;
  for (size_t i = 0; i < matched_.size(); ++i) {
    keep = std::max<size_t>(keep, stops_->Open(i, matched_[i]));
  }
  out->append(held_, 0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return std::nullopt;
}

void StopMatcher::Flush(std::string* out) {
  out->append(held_);
  held_.clear();
  std::fill(matched_.begin(), matched_.end(), 0);
}

}  // namespace orrery
