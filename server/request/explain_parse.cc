// A message whose bytes could not be parsed is read again as plain wire format, to name the string that is
// not UTF-8. Only such requests pay for it.
#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/unknown_field_set.h"
#include "server/base/errors.h"
#include "server/request/validate.h"

namespace orrery {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::UnknownField;
using google::protobuf::UnknownFieldSet;

constexpr int kMaxDepth = 8;  // our messages nest three deep

// Length of the UTF-8 sequence at the front; 0: none (RFC 3629: no overlong forms, no surrogates).
size_t SequenceLength(absl::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto more = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xC2) return 0;
  if (lead < 0xE0) return more(1) ? 2 : 0;
  if (lead < 0xF0) {
    if ((lead == 0xE0 && byte(1) < 0xA0) || (lead == 0xED && byte(1) > 0x9F)) return 0;
    return more(1) && more(2) ? 3 : 0;
  }
  if (lead > 0xF4 || (lead == 0xF0 && byte(1) < 0x90) || (lead == 0xF4 && byte(1) > 0x8F)) return 0;
  return more(1) && more(2) && more(3) ? 4 : 0;
}

bool IsUtf8(absl::string_view text) {
  while (!text.empty()) {
    const size_t length = SequenceLength(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

// The path of the first bad string; empty: none found.
std::string FindBadString(absl::string_view bytes, const Descriptor* type, int depth) {
  UnknownFieldSet fields;
  if (depth == 0 || !fields.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return "";
  for (int i = 0; i < fields.field_count(); ++i) {
    const UnknownField& field = fields.field(i);
    const FieldDescriptor* known = type->FindFieldByNumber(field.number());
    if (known == nullptr || field.type() != UnknownField::TYPE_LENGTH_DELIMITED) continue;
    const std::string& value = field.length_delimited();
    if (known->type() == FieldDescriptor::TYPE_STRING && !IsUtf8(value)) return known->name();
    if (known->type() != FieldDescriptor::TYPE_MESSAGE) continue;
    const std::string inner = FindBadString(value, known->message_type(), depth - 1);
    if (!inner.empty()) return absl::StrCat(known->name(), ".", inner);
  }
  return "";
}

}  // namespace

absl::Status ExplainParseFailure(absl::string_view bytes, const Descriptor* type) {
  const std::string field = FindBadString(bytes, type, kMaxDepth);
  if (!field.empty()) return FieldError(field, "UTF-8", "");
  return FieldError("message", absl::StrCat("a well-formed ", type->full_name()), "");
}

}  // namespace orrery
