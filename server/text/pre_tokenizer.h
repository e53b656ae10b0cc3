#ifndef ORRERY_SERVER_TEXT_PRE_TOKENIZER_H_
#define ORRERY_SERVER_TEXT_PRE_TOKENIZER_H_

// The `pre_tokenizer` of tokenizer.json: cuts normalised text into the pieces that merges never cross.
// Supported: Sequence, ByteLevel, Split, Digits, Metaspace. Time and memory are linear in the text times the
// number of steps.

#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"
#include "server/text/char_pattern.h"

namespace orrery {

class PreTokenizer {
 public:
  // `json` is the value of "pre_tokenizer"; null leaves the text in one piece. Unknown types are refused by
  // name.
  static absl::StatusOr<PreTokenizer> FromJson(const nlohmann::json& json);

  // True if pieces are to be read as bytes in the alphabet of ByteLevel (byte_alphabet.h).
  bool byte_level() const { return byte_level_; }

  // Calls `sink` with every piece in order; none is empty. `starts_text`: nothing precedes this text in the
  // whole input (Metaspace's scheme "first" asks). Stops at the first error of the sink.
  using Sink = absl::FunctionRef<absl::Status(std::string_view)>;
  absl::Status Split(std::string_view text, bool starts_text, Sink sink) const {
    return Run(0, text, starts_text, sink);
  }

 private:
  enum class Kind { kPrefixSpace, kSplit, kMetaspace };
  enum class Behavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };
  enum class Prepend { kAlways, kFirst, kNever };
  struct Step {
    Kind kind = Kind::kSplit;
    CharPattern pattern;  // kSplit
    Behavior behavior = Behavior::kIsolated;
    bool invert = false;
    std::string replacement;  // kMetaspace
    Prepend prepend = Prepend::kAlways;
  };

  absl::Status AddSteps(const nlohmann::json& json, int depth);
  absl::Status AddSplit(const nlohmann::json& json);
  absl::Status AddMetaspace(const nlohmann::json& json);
  absl::Status Run(size_t step, std::string_view text, bool starts_text, Sink sink) const;
  absl::Status RunSplit(size_t step, std::string_view text, bool starts_text, Sink sink) const;
  absl::Status RunMetaspace(size_t step, std::string_view text, bool starts_text, Sink sink) const;

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_TEXT_PRE_TOKENIZER_H_
