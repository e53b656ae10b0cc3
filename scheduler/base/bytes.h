// Compact binary fields: varints, zigzag, fixed words, counted text. The reader never reads past its end,
// never allocates more than it has bytes for, and remembers its first failure.
#ifndef ORRERY_SCHEDULER_BASE_BYTES_H_
#define ORRERY_SCHEDULER_BASE_BYTES_H_

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

namespace orrery {

inline void PutVarint(uint64_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}
inline void PutSigned(int64_t value, std::string* out) {
  PutVarint((static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63), out);
}
inline void PutFixed64(uint64_t value, std::string* out) {
  for (int i = 0; i < 8; ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}
inline void PutFloat(float value, std::string* out) {
  const auto bits = std::bit_cast<uint32_t>(value);
  for (int i = 0; i < 4; ++i) out->push_back(static_cast<char>(bits >> (8 * i)));
}
inline void PutText(std::string_view text, std::string* out) {
  PutVarint(text.size(), out);
  out->append(text);
}

class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : bytes_(bytes) {}

  bool ok() const { return ok_; }
  // Everything was read and nothing was wrong.
  bool done() const { return ok_ && bytes_.empty(); }
  size_t left() const { return bytes_.size(); }

  uint64_t Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint8_t byte = Byte();
      if (!ok_ || (shift == 63 && byte > 1)) break;
      value |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
    return Fail();
  }
  int64_t Signed() {
    const uint64_t value = Varint();
    return static_cast<int64_t>((value >> 1) ^ (~(value & 1) + 1));
  }
  // An integer that must fit its type.
  template <typename Int>
  Int Integer() {
    const int64_t value = Signed();
    if (static_cast<int64_t>(static_cast<Int>(value)) != value) Fail();
    return static_cast<Int>(value);
  }
  // How many items follow, each of at least `item_bytes` bytes.
  size_t Count(size_t item_bytes) {
    const uint64_t count = Varint();
    if (count > bytes_.size() / item_bytes) return static_cast<size_t>(Fail());
    return static_cast<size_t>(count);
  }
  uint8_t Byte() {
    if (bytes_.empty()) return static_cast<uint8_t>(Fail());
    const auto byte = static_cast<uint8_t>(bytes_.front());
    bytes_.remove_prefix(1);
    return byte;
  }
  uint64_t Fixed64() {
    uint64_t value = 0;
    for (int i = 0; i < 8; ++i) value |= uint64_t{Byte()} << (8 * i);
    return value;
  }
  float Float() {
    uint32_t bits = 0;
    for (int i = 0; i < 4; ++i) bits |= uint32_t{Byte()} << (8 * i);
    return std::bit_cast<float>(bits);
  }
  std::string_view Text() { return Take(Count(1)); }
  std::string_view Take(size_t size) {
    if (size > bytes_.size()) {
      Fail();
      return {};
    }
    const std::string_view part = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return part;
  }

 private:
  uint64_t Fail() {
    ok_ = false;
    bytes_ = {};
    return 0;
  }
  std::string_view bytes_;
  bool ok_ = true;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_BASE_BYTES_H_
