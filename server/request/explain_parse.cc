// A message whose bytes could not be parsed is read again as plain wire format, to name the string that is
// not UTF-8. Only such requests pay for it.
#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/unknown_field_set.h"
#include "server/base/errors.h"
#include "server/request/validate.h"
#include "server/text/utf8.h"

namespace orrery {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::UnknownField;
using google::protobuf::UnknownFieldSet;

constexpr int kMaxDepth = 8;  // our messages nest three deep

// The path of the first bad string; empty: none found.
std::string FindBadString(absl::string_view bytes, const Descriptor* type, int depth) {
  UnknownFieldSet fields;
  if (depth == 0 || !fields.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return "";
  for (int i = 0; i < fields.field_count(); ++i) {
    const UnknownField& field = fields.field(i);
    const FieldDescriptor* known = type->FindFieldByNumber(field.number());
    if (known == nullptr || field.type() != UnknownField::TYPE_LENGTH_DELIMITED) continue;
    const std::string& value = field.length_delimited();
    if (known->type() == FieldDescriptor::TYPE_STRING && FindInvalidUtf8(value) != std::string_view::npos)
      return known->name();
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
