#include "server/text/post_processor.h"

#include <utility>

#include "server/text/json_object.h"

namespace orrery {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxTemplateTokens = 16;
constexpr size_t kMaxProcessors = 8;
constexpr int kMaxProcessorDepth = 4;

absl::Status AppendIds(const Json& special, const std::string& name, int32_t vocab_size,
                       std::vector<TokenId>* ids) {
  if (!special.is_object() || !special.contains(name) || !special[name].is_object() ||
      !special[name].contains("ids") || !special[name]["ids"].is_array()) {
    return absl::InvalidArgumentError(absl::StrCat("post_processor.special_tokens: no ids for '", name, "'"));
  }
  for (const Json& id : special[name]["ids"]) {
    const int64_t value = id.is_number_integer() ? id.get<int64_t>() : -1;
    if (value < 0 || value >= vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat("post_processor.special_tokens: an id of '", name,
                                                     "' is not a number below ", vocab_size));
    }
    ids->push_back(static_cast<TokenId>(value));
    if (ids->size() > kMaxTemplateTokens) {
      return absl::InvalidArgumentError(
          absl::StrCat("post_processor.single: more than ", kMaxTemplateTokens, " special tokens"));
    }
  }
  return absl::OkStatus();
}

absl::Status AddTemplate(const Json& json, int32_t vocab_size, PostProcessor* out) {
  JsonObject object(json, "post_processor");
  const Json& items = object.Child("single");
  if (!items.is_array()) return absl::InvalidArgumentError("post_processor.single: a list is expected");
  std::vector<TokenId> before, after;
  bool seen_text = false;
  for (const Json& item : items) {
    if (item.is_object() && item.contains("Sequence")) {
      if (std::exchange(seen_text, true))
        return absl::UnimplementedError("post_processor.single: more than one Sequence");
      continue;
    }
    if (!item.is_object() || !item.contains("SpecialToken")) {
      return absl::InvalidArgumentError("post_processor.single: Sequence or SpecialToken is expected");
    }
    JsonObject reference(item["SpecialToken"], "post_processor.single");
    const std::string name = reference.String("id");
    if (!reference.status().ok()) return reference.status();
    absl::Status status =
        AppendIds(object.Child("special_tokens"), name, vocab_size, seen_text ? &after : &before);
    if (!status.ok()) return status;
  }
  if (!seen_text) return absl::InvalidArgumentError("post_processor.single: the text itself is missing");
  out->prefix.insert(out->prefix.begin(), before.begin(), before.end());
  out->suffix.insert(out->suffix.end(), after.begin(), after.end());
  return absl::OkStatus();
}

absl::Status AddProcessor(const Json& json, int32_t vocab_size, int depth, PostProcessor* out) {
  if (json.is_null()) return absl::OkStatus();
  JsonObject object(json, "post_processor");
  const std::string type = object.String("type");
  if (!object.status().ok()) return object.status();
  if (type == "ByteLevel") return absl::OkStatus();
  if (type == "TemplateProcessing") return AddTemplate(json, vocab_size, out);
  if (type != "Sequence")
    return absl::UnimplementedError(absl::StrCat("post_processor type '", type, "' is not supported"));
  const Json& parts = object.Child("processors");
  if (!parts.is_array() || parts.size() > kMaxProcessors || depth == kMaxProcessorDepth) {
    return absl::InvalidArgumentError(absl::StrCat("post_processor.processors: a list of at most ",
                                                   kMaxProcessors, ", nested at most ", kMaxProcessorDepth,
                                                   " deep, is expected"));
  }
  for (const Json& part : parts) {
    if (absl::Status status = AddProcessor(part, vocab_size, depth + 1, out); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PostProcessor> PostProcessor::FromJson(const Json& json, int32_t vocab_size) {
  PostProcessor processor;
  if (absl::Status status = AddProcessor(json, vocab_size, 0, &processor); !status.ok()) return status;
  return processor;
}

}  // namespace orrery
