#include "server/text/char_class.h"

#include <utf8proc.h>

#include <algorithm>
#include <map>

namespace orrery {
namespace {

constexpr uint32_t kNumCodePoints = 0x110000;

ClassMask MaskOfCategory(utf8proc_category_t category) {
  switch (category) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return kLetter | kWord;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
      return kMark | kWord;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
      return kNumber | kWord;
    case UTF8PROC_CATEGORY_NO:
      return kNumber;
    case UTF8PROC_CATEGORY_PC:
      return kPunctuation | kWord;
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
      return kPunctuation;
    case UTF8PROC_CATEGORY_SM:
    case UTF8PROC_CATEGORY_SC:
    case UTF8PROC_CATEGORY_SK:
    case UTF8PROC_CATEGORY_SO:
      return kSymbol;
    default:
      return 0;
  }
}

bool IsWhiteSpace(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

// The full decomposition of one code point, canonical or compatible.
std::vector<int32_t> Decompose(uint32_t c, bool compatible) {
  const int options = UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | (compatible ? UTF8PROC_COMPAT : 0);
  std::vector<int32_t> out(64);
  int boundary = 0;
  const auto count =
      utf8proc_decompose_char(static_cast<int32_t>(c), out.data(), static_cast<int>(out.size()),
                              static_cast<utf8proc_option_t>(options), &boundary);
  out.resize(count > 0 ? std::min<size_t>(static_cast<size_t>(count), out.size()) : 0);
  return out;
}

bool RecomposesTo(std::vector<int32_t> decomposed, uint32_t c) {
  decomposed.resize(decomposed.size() + 1);  // utf8proc wants room for a terminator
  const auto count =
      utf8proc_normalize_utf32(decomposed.data(), static_cast<int>(decomposed.size()) - 1,
                               static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  return count == 1 && decomposed[0] == static_cast<int32_t>(c);
}

bool IsJamoThatComposes(uint32_t c) { return (c >= 0x1161 && c <= 0x1175) || (c >= 0x11A8 && c <= 0x11C2); }
bool IsHangulSyllable(uint32_t c) { return c >= 0xAC00 && c <= 0xD7A3; }

void AddNormalizationBits(std::vector<ClassMask>* masks) {
  constexpr ClassMask kAll = kUnstableNfc | kUnstableNfkc | kUnstableNfd | kUnstableNfkd;
  constexpr ClassMask kComposing = kUnstableNfc | kUnstableNfkc;
  constexpr ClassMask kDecomposing = kUnstableNfd | kUnstableNfkd;
  for (uint32_t c = 0; c < kNumCodePoints; ++c) {
    const utf8proc_property_t* property = utf8proc_get_property(static_cast<int32_t>(c));
    if (property->combining_class != 0) (*masks)[c] |= kAll;
    if (IsJamoThatComposes(c)) (*masks)[c] |= kComposing;
    if (IsHangulSyllable(c)) (*masks)[c] |= kDecomposing;
    if (property->decomp_seqindex == UINT16_MAX) continue;
    const std::vector<int32_t> canonical = Decompose(c, false);
    const std::vector<int32_t> compatible = Decompose(c, true);
    const auto is_itself = [c](const std::vector<int32_t>& d) {
      return d.size() == 1 && d[0] == static_cast<int32_t>(c);
    };
    if (!is_itself(canonical)) (*masks)[c] |= kUnstableNfd;
    if (!is_itself(compatible)) (*masks)[c] |= kUnstableNfkd;
    if (!RecomposesTo(canonical, c)) (*masks)[c] |= kUnstableNfc;
    if (!RecomposesTo(compatible, c)) (*masks)[c] |= kUnstableNfkc;
    // What ends a decomposition may compose with what stands before it, even when it is no combining mark.
    if (canonical.size() > 1) (*masks)[static_cast<size_t>(canonical.back())] |= kComposing;
  }
}

}  // namespace

const CharClasses& CharClasses::Get() {
  static const CharClasses classes;
  return classes;
}

CharClasses::CharClasses() {
  std::vector<ClassMask> masks(kNumCodePoints);
  for (uint32_t c = 0; c < kNumCodePoints; ++c) {
    masks[c] = MaskOfCategory(utf8proc_category(static_cast<int32_t>(c)));
    if (IsWhiteSpace(c)) masks[c] |= kSpace;
  }
  masks['\r'] |= kNewline;
  masks['\n'] |= kNewline;
  masks[0x200C] |= kWord;  // the two joiners belong to words
  masks[0x200D] |= kWord;
  AddNormalizationBits(&masks);

  std::map<std::vector<ClassMask>, uint16_t> known;
  for (uint32_t block = 0; block < index_.size(); ++block) {
    const std::vector<ClassMask> content(masks.begin() + block * 256, masks.begin() + (block + 1) * 256);
    const auto [it, is_new] = known.emplace(content, static_cast<uint16_t>(known.size()));
    if (is_new) blocks_.insert(blocks_.end(), content.begin(), content.end());
    index_[block] = it->second;
  }
}

}  // namespace orrery
