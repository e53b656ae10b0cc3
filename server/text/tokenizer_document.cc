#include "server/text/tokenizer_document.h"

#include <limits>

#include "absl/strings/str_cat.h"

namespace orrery {
namespace {

using Json = nlohmann::json;

// Takes the parser's events: those of the large lists go to the lists, all others to the root. Every event
// takes constant time, whatever the file nests or repeats.
class DocumentReader final : public nlohmann::json_sax<Json> {
 public:
  explicit DocumentReader(TokenizerDocument* out) : out_(*out) {}
  const std::string& error() const { return error_; }

  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(number_integer_t value) override { return AddInteger(value); }
  bool number_unsigned(number_unsigned_t value) override {
    const bool fits = value <= static_cast<number_unsigned_t>(std::numeric_limits<int64_t>::max());
    return fits ? AddInteger(static_cast<int64_t>(value)) : Add(value);
  }
  bool number_float(number_float_t value, const string_t& /*text*/) override { return Add(value); }
  bool string(string_t& value) override { return list_ == List::kMerges ? AddMergeText(value) : Add(value); }
  bool binary(binary_t& /*value*/) override { return false; }  // no part of JSON text
  bool key(string_t& value) override {
    if (list_ == List::kVocabulary && list_depth_ == 1) out_.vocabulary.emplace_back(value, -1);
    if (list_ != List::kNone) return true;
    if (open_.size() == 1) section_ = value;
    key_ = value;
    return true;
  }
  bool start_object(size_t /*size*/) override { return Open(Json::object(), List::kVocabulary, "vocab"); }
  bool start_array(size_t /*size*/) override { return Open(Json::array(), List::kMerges, "merges"); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool parse_error(size_t /*position*/, const std::string& /*token*/,
                   const nlohmann::detail::exception& error) override {
    error_ = error.what();
    return false;
  }

 private:
  enum class List { kNone, kVocabulary, kMerges };

  // Puts a value where the document is being written.
  Json* Place(Json value) {
    if (open_.empty()) return &(out_.root = std::move(value));
    Json& parent = *open_.back();
    if (parent.is_object()) return &(parent[key_] = std::move(value));
    parent.push_back(std::move(value));
    return &parent.back();
  }
  bool Add(Json value) {
    if (list_ == List::kMerges) AddMergePart(nullptr);
    if (list_ == List::kNone) Place(std::move(value));
    return true;
  }
  bool AddInteger(int64_t value) {
    if (list_ != List::kVocabulary || list_depth_ != 1) return Add(value);
    out_.vocabulary.back().second = value;
    return true;
  }
  bool Open(Json value, List list, const char* name) {
    if (list_ == List::kMerges) AddMergePart(nullptr);
    if (list_ == List::kMerges && list_depth_ == 1 && value.is_array()) part_ = 0;
    if (list_ == List::kNone) {
      if (open_.size() == 2 && open_.back()->is_object() && section_ == "model" && key_ == name) list_ = list;
      open_.push_back(Place(std::move(value)));
    }
    if (list_ != List::kNone) ++list_depth_;
    return true;
  }
  bool Close() {
    if (list_ != List::kNone && --list_depth_ > 0) return true;
    list_ = List::kNone;
    open_.pop_back();
    return true;
  }

  // "left right" among the merges, or a part of ["left", "right"].
  bool AddMergeText(const std::string& text) {
    AddMergePart(&text);
    if (list_depth_ != 1) return true;
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) return true;
    out_.merges.back() = {text.substr(0, space), text.substr(space + 1)};
    return true;
  }
  // Every value in the list of merges; null: not a text. What does not fit leaves its merge empty.
  void AddMergePart(const std::string* text) {
    if (list_depth_ == 1) {
      out_.merges.emplace_back();
      part_ = kNoPart;
    } else if (list_depth_ == 2) {
      auto& [left, right] = out_.merges.back();
      const bool fits = text != nullptr && part_ < 2;
      if (fits) {
        (part_ == 0 ? left : right) = *text;
      } else {
        left.clear(), right.clear();
      }
      part_ = fits ? part_ + 1 : kNoPart;
    }
  }

  static constexpr int kNoPart = 2;
  TokenizerDocument& out_;
  std::vector<Json*> open_;    // the objects and arrays around the next value
  std::string section_, key_;  // the last key of the root, of the innermost object
  List list_ = List::kNone;  // the list that is being read, how deep in it, and which part of a merge is next
  int list_depth_ = 0, part_ = kNoPart;
  std::string error_;
};

}  // namespace

absl::StatusOr<TokenizerDocument> ParseTokenizerDocument(const std::string& text) {
  TokenizerDocument document;
  DocumentReader reader(&document);
  if (!Json::sax_parse(text, &reader)) {
    return absl::InvalidArgumentError(absl::StrCat("tokenizer.json: ", reader.error()));
  }
  return document;
}

absl::StatusOr<Json> ParseJson(const std::string& text, const char* file) {
  try {
    return Json::parse(text);
  } catch (const Json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": ", error.what()));
  }
}

}  // namespace orrery
