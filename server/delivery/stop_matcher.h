// Finds stop strings in text that comes in pieces, in time linear in the text for each stop string however
// hostile they are (Knuth, Morris, Pratt 1977). Text that may still turn out to be the beginning of a stop
// string is held back.
//
// A match is the one that is complete first; among those complete at the same byte, the longest.
#ifndef ORRERY_SERVER_DELIVERY_STOP_MATCHER_H_
#define ORRERY_SERVER_DELIVERY_STOP_MATCHER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace orrery {

// The stop strings of a request with their failure tables; shared by its choices. None is empty.
class StopStrings {
 public:
  explicit StopStrings(std::vector<std::string> strings);
  size_t size() const { return strings_.size(); }
  const std::string& operator[](size_t i) const { return strings_[i]; }
  // Longest prefix of string i that ends with `matched` bytes of its own followed by `byte`.
  uint32_t Advance(size_t i, uint32_t matched, char byte) const;
  // Bytes that may still grow into string i: `matched`, or the border of a complete match that was let pass.
  uint32_t Open(size_t i, uint32_t matched) const {
    return matched < strings_[i].size() ? matched : failure_[i][matched];
  }

 private:
  std::vector<std::string> strings_;
  std::vector<std::vector<uint32_t>> failure_;  // [string][matched]
};

class StopMatcher {
 public:
  explicit StopMatcher(const StopStrings* stops) : stops_(stops), matched_(stops->size(), 0) {}

  // Appends to *out what cannot be part of a stop string any more. When a stop string is complete and
  // `armed`, returns its index, puts only the text before it in *out and forgets the rest.
  std::optional<size_t> Feed(absl::string_view text, bool armed, std::string* out);
  // The text ended: what was held back is plain text.
  void Flush(std::string* out);

 private:
  const StopStrings* stops_;
  std::vector<uint32_t> matched_;  // [string] bytes of it that the text ends with
  std::string held_;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_DELIVERY_STOP_MATCHER_H_
