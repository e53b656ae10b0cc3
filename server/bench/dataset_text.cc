// The datasets whose prompts are text: `prompts` and `sharegpt`.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/bench/dataset.h"
#include "server/traces/byte_source.h"
#include "server/traces/line_reader.h"

namespace orrery::bench {
namespace {

using nlohmann::json;

constexpr int32_t kDefaultPromptOutput = 256;
constexpr size_t kMaxJsonBytes = size_t{2} << 30;

// Whether `path` names JSON lines, packed or not.
bool IsJsonLines(absl::string_view path) { return absl::StrContains(path, ".jsonl"); }

RequestShape TextShape(PromptKind kind, std::string text, int32_t output_tokens) {
  RequestShape shape;
  shape.kind = kind;
  shape.text = std::move(text);
  shape.output_tokens = output_tokens;
  return shape;
}

absl::Status AppendQuestion(const LineReader& lines, int32_t output_tokens, int64_t count,
                            std::vector<RequestShape>* shapes) {
  const json object = json::parse(lines.line(), nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return lines.Error("not a JSON object");
  if (const auto prompt = object.find("prompt"); prompt != object.end()) {
    if (!prompt->is_string()) return lines.Error("prompt is not a string");
    shapes->push_back(TextShape(PromptKind::kText, prompt->get<std::string>(), output_tokens));
    return absl::OkStatus();
  }
  const auto turns = object.find("turns");
  if (turns == object.end() || !turns->is_array() || turns->empty()) {
    return lines.Error("neither `turns`, a list of texts, nor `prompt`, a text");
  }
  for (const json& turn : *turns) {
    if (!turn.is_string()) return lines.Error("turns holds something that is not a string");
    if (static_cast<int64_t>(shapes->size()) == count) break;
    shapes->push_back(TextShape(PromptKind::kChat, turn.get<std::string>(), output_tokens));
  }
  return absl::OkStatus();
}

// Takes one conversation; false when it has no first message with a reply (such rows are skipped, as every
// reader of this format does).
absl::StatusOr<bool> AppendConversation(const json& item, const DatasetSpec& spec,
                                        const TokenCounter& counter, std::vector<RequestShape>* shapes) {
  const auto list = item.is_object() ? item.find("conversations") : item.end();
  if (!item.is_object() || list == item.end() || !list->is_array()) {
    return absl::InvalidArgumentError("no `conversations` list");
  }
  if (list->size() < 2) return false;
  const json& first = (*list)[0];
  const json& reply = (*list)[1];
  for (const json* message : {&first, &reply}) {
    if (!message->is_object() || !message->contains("value") || !message->at("value").is_string()) {
      return absl::InvalidArgumentError("a message without a text `value`");
    }
  }
  const std::string prompt = first.at("value").get<std::string>();
  const std::string answer = reply.at("value").get<std::string>();
  if (prompt.empty() || answer.empty()) return false;
  int32_t output_tokens = spec.output_len.value_or(0);
  if (output_tokens == 0) {
    auto counted = counter(answer);
    if (!counted.ok()) return counted.status();
    output_tokens = std::max(1, *counted);
  }
  shapes->push_back(TextShape(PromptKind::kChat, prompt, output_tokens));
  return true;
}

absl::StatusOr<std::string> ReadWhole(const std::string& path) {
  auto source = OpenByteSource(path);
  if (!source.ok()) return source.status();
  std::string text;
  std::vector<char> buffer(1 << 20);
  for (;;) {
    auto got = (*source)->Read(absl::MakeSpan(buffer));
    if (!got.ok()) return got.status();
    if (*got == 0) return text;
    if (text.size() + *got > kMaxJsonBytes) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": larger than ", kMaxJsonBytes, " bytes"));
    }
    text.append(buffer.data(), *got);
  }
}

absl::Status LoadShareGptLines(const std::string& path, const DatasetSpec& spec, int64_t count,
                               const TokenCounter& counter, std::vector<RequestShape>* shapes) {
  auto lines = LineReader::Open(path);
  if (!lines.ok()) return lines.status();
  while (static_cast<int64_t>(shapes->size()) < count) {
    auto more = lines->Next();
    if (!more.ok()) return more.status();
    if (!*more) break;
    if (absl::StripAsciiWhitespace(lines->line()).empty()) continue;
    const json item = json::parse(lines->line(), nullptr, /*allow_exceptions=*/false);
    auto taken = AppendConversation(item, spec, counter, shapes);
    if (absl::IsInvalidArgument(taken.status())) return lines->Error(taken.status().message());
    if (!taken.ok()) return taken.status();
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status LoadPrompts(const std::string& path, const DatasetSpec& spec, int64_t count,
                         std::vector<RequestShape>* shapes) {
  auto lines = LineReader::Open(path);
  if (!lines.ok()) return lines.status();
  const int32_t output_tokens = spec.output_len.value_or(kDefaultPromptOutput);
  while (static_cast<int64_t>(shapes->size()) < count) {
    auto more = lines->Next();
    if (!more.ok()) return more.status();
    if (!*more) break;
    if (absl::StripAsciiWhitespace(lines->line()).empty()) continue;
    if (!IsJsonLines(path)) {
      shapes->push_back(TextShape(PromptKind::kText, std::string(lines->line()), output_tokens));
    } else if (auto s = AppendQuestion(*lines, output_tokens, count, shapes); !s.ok()) {
      return s;
    }
  }
  return absl::OkStatus();
}

absl::Status LoadShareGpt(const std::string& path, const DatasetSpec& spec, int64_t count,
                          const TokenCounter& counter, std::vector<RequestShape>* shapes) {
  if (IsJsonLines(path)) return LoadShareGptLines(path, spec, count, counter, shapes);
  auto text = ReadWhole(path);
  if (!text.ok()) return text.status();
  // The callback takes each conversation as it ends and drops it, so that the document is never held as a
  // tree beside its text.
  absl::Status status;
  int64_t index = 0;
  const auto take = [&](int depth, json::parse_event_t event, json& item) {
    if (depth != 1 || event != json::parse_event_t::object_end) return true;
    ++index;
    if (!status.ok() || static_cast<int64_t>(shapes->size()) >= count) return false;
    auto taken = AppendConversation(item, spec, counter, shapes);
    if (absl::IsInvalidArgument(taken.status())) {
      status = absl::InvalidArgumentError(
          absl::StrCat(path, ": conversation ", index, ": ", taken.status().message()));
    } else if (!taken.ok()) {
      status = taken.status();
    }
    return false;
  };
  try {
    const json document = json::parse(*text, take);
    if (status.ok() && !document.is_array()) {
      status = absl::InvalidArgumentError(absl::StrCat(path, ": not a JSON array of conversations"));
    }
  } catch (const json::parse_error& error) {  // what() names line and column
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", error.what()));
  }
  return status;
}

}  // namespace orrery::bench
