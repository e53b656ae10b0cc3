#include "server/text/pre_tokenizer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/text/json_object.h"
#include "server/text/tokenizer_limits.h"

namespace orrery {
absl::StatusOr<PreTokenizer> PreTokenizer::FromJson(const nlohmann::json& json) {
  PreTokenizer pre_tokenizer;
  if (json.is_null()) return pre_tokenizer;
  if (absl::Status status = pre_tokenizer.AddSteps(json, 0); !status.ok()) return status;
  return pre_tokenizer;
}

absl::Status PreTokenizer::AddSteps(const nlohmann::json& json, int depth) {
  JsonObject object(json, "pre_tokenizer");
  const std::string type = object.String("type");
  if (!object.status().ok()) return object.status();
  if (byte_level_)
    return absl::UnimplementedError("pre_tokenizer: ByteLevel is supported as the last step only");
  if (steps_.size() >= kMaxTokenizerSteps) return absl::InvalidArgumentError("pre_tokenizer: too many steps");
  if (type == "Sequence") {
    const nlohmann::json& parts = object.Child("pretokenizers");
    if (!parts.is_array())
      return absl::InvalidArgumentError("pre_tokenizer.pretokenizers: a list is expected");
    if (depth == kMaxSequenceDepth)
      return absl::InvalidArgumentError("pre_tokenizer: Sequences are nested too deep");
    for (const nlohmann::json& part : parts) {
      if (absl::Status status = AddSteps(part, depth + 1); !status.ok()) return status;
    }
    return absl::OkStatus();
  }
  if (type == "Split") return AddSplit(json);
  if (type == "Metaspace") return AddMetaspace(json);
  if (type == "Digits") {
    Step step;
    const bool individually = object.Bool("individual_digits", false);
    step.pattern = CharPattern::Numbers(individually);
    steps_.push_back(std::move(step));
    return object.status();
  }
  if (type == "ByteLevel") {
    byte_level_ = true;
    Step step;
    if (object.Bool("add_prefix_space", true)) {
      step.kind = Kind::kPrefixSpace;
      steps_.push_back(step);
    }
    if (object.Bool("use_regex", true)) {
      step.kind = Kind::kSplit;
      step.pattern = CharPattern::Gpt2();
      steps_.push_back(std::move(step));
    }
    return object.status();
  }
  return absl::UnimplementedError(absl::StrCat("pre_tokenizer type '", type, "' is not supported"));
}

absl::Status PreTokenizer::AddSplit(const nlohmann::json& json) {
  static constexpr std::pair<std::string_view, Behavior> kBehaviors[] = {
      {"Isolated", Behavior::kIsolated},
      {"Removed", Behavior::kRemoved},
      {"MergedWithPrevious", Behavior::kMergedWithPrevious},
      {"MergedWithNext", Behavior::kMergedWithNext},
      {"Contiguous", Behavior::kContiguous}};
  Step step;
  JsonObject object(json, "pre_tokenizer");
  step.invert = object.Bool("invert", false);
  const std::string behavior = object.String("behavior");
  JsonObject pattern(object.Child("pattern"), "pre_tokenizer.pattern");
  const std::string literal = pattern.String("String");
  const std::string regex = pattern.String("Regex");
  if (!object.status().ok()) return object.status();
  if (!pattern.status().ok()) return pattern.status();

  bool known = false;
  for (const auto& [name, value] : kBehaviors) {
    if (behavior == name) known = true, step.behavior = value;
  }
  if (!known) {
    return absl::UnimplementedError(
        absl::StrCat("pre_tokenizer Split behavior '", behavior, "' is not supported"));
  }
  if (!literal.empty()) {
    step.pattern = CharPattern::Literal(literal);
  } else {
    auto read = CharPattern::FromRegex(regex);
    if (!read.ok())
      return absl::Status(read.status().code(),
                          absl::StrCat("pre_tokenizer Split: ", read.status().message()));
    step.pattern = *std::move(read);
  }
  steps_.push_back(std::move(step));
  return absl::OkStatus();
}

absl::Status PreTokenizer::AddMetaspace(const nlohmann::json& json) {
  Step step;
  step.kind = Kind::kMetaspace;
  JsonObject object(json, "pre_tokenizer");
  step.replacement = object.String("replacement", "\u2581");
  // Older files say add_prefix_space instead of prepend_scheme.
  const bool add_prefix_space = object.Bool("add_prefix_space", true);
  const std::string scheme = object.String("prepend_scheme", add_prefix_space ? "always" : "never");
  const bool split = object.Bool("split", true);
  if (!object.status().ok()) return object.status();
  if (scheme == "first") {
    step.prepend = Prepend::kFirst;
  } else if (scheme == "never") {
    step.prepend = Prepend::kNever;
  } else if (scheme != "always") {
    return absl::UnimplementedError(
        absl::StrCat("pre_tokenizer Metaspace prepend_scheme '", scheme, "' is not supported"));
  }
  if (step.replacement.empty() || step.replacement.size() > 4) {
    return absl::InvalidArgumentError("pre_tokenizer Metaspace replacement: one character is expected");
  }
  steps_.push_back(step);
  if (!split) return absl::OkStatus();
  Step cut;
  cut.pattern = CharPattern::Literal(step.replacement);
  cut.behavior = Behavior::kMergedWithNext;
  steps_.push_back(std::move(cut));
  return absl::OkStatus();
}

absl::Status PreTokenizer::Run(size_t step, std::string_view text, bool starts_text, Sink sink) const {
  if (text.empty()) return absl::OkStatus();
  if (step == steps_.size()) return sink(text);
  switch (steps_[step].kind) {
    case Kind::kSplit:
      return RunSplit(step, text, starts_text, sink);
    case Kind::kMetaspace:
      return RunMetaspace(step, text, starts_text, sink);
    case Kind::kPrefixSpace:
      if (text.front() == ' ') return Run(step + 1, text, starts_text, sink);
      return Run(step + 1, std::string(1, ' ').append(text), starts_text, sink);
  }
  return absl::OkStatus();
}

absl::Status PreTokenizer::RunMetaspace(size_t step, std::string_view text, bool starts_text,
                                        Sink sink) const {
  const std::string& replacement = steps_[step].replacement;
  std::string replaced = absl::StrReplaceAll(std::string(text), {{" ", replacement}});
  const Prepend prepend = steps_[step].prepend;
  const bool wanted = prepend == Prepend::kAlways || (prepend == Prepend::kFirst && starts_text);
  if (wanted && !replaced.starts_with(replacement)) replaced.insert(0, replacement);
  return Run(step + 1, replaced, starts_text, sink);
}

absl::Status PreTokenizer::RunSplit(size_t step, std::string_view text, bool starts_text, Sink sink) const {
  const Step& split = steps_[step];
  size_t piece_begin = 0, pos = 0;  // the merging behaviours gather a piece that begins at piece_begin
  bool has_match = false;           // kContiguous: whether the gathered piece is one of matches
  const auto emit = [&](size_t begin, size_t end) {
    return Run(step + 1, text.substr(begin, end - begin), starts_text && begin == 0, sink);
  };
  // Feeds one stretch, matched or not, to the behaviour.
  const auto feed = [&](size_t begin, size_t end, bool is_match) -> absl::Status {
    if (begin == end) return absl::OkStatus();
    switch (split.behavior) {
      case Behavior::kIsolated:
        return emit(begin, end);
      case Behavior::kRemoved:
        return is_match ? absl::OkStatus() : emit(begin, end);
      case Behavior::kMergedWithPrevious: {
        if (!is_match) return absl::OkStatus();  // piece_begin stays: the next match ends this piece
        const size_t piece = std::exchange(piece_begin, end);
        return emit(piece, end);
      }
      case Behavior::kMergedWithNext: {
        if (!is_match || begin == piece_begin) return absl::OkStatus();
        const size_t piece = std::exchange(piece_begin, begin);
        return emit(piece, begin);
      }
      case Behavior::kContiguous: {
        const bool joins = begin == 0 || is_match == has_match;
        has_match = is_match;
        if (joins) return absl::OkStatus();
        const size_t piece = std::exchange(piece_begin, begin);
        return emit(piece, begin);
      }
    }
    return absl::OkStatus();
  };
  size_t begin = 0, end = 0;
  while (split.pattern.Find(text, pos, &begin, &end)) {
    if (absl::Status status = feed(pos, begin, split.invert); !status.ok()) return status;
    if (absl::Status status = feed(begin, end, !split.invert); !status.ok()) return status;
    pos = end;
  }
  if (absl::Status status = feed(pos, text.size(), split.invert); !status.ok()) return status;
  const bool gathers = split.behavior != Behavior::kIsolated && split.behavior != Behavior::kRemoved;
  return gathers ? emit(piece_begin, text.size()) : absl::OkStatus();
}

}  // namespace orrery
