// SipHash (Aumasson and Bernstein, INDOCRYPT 2012) with a 128-bit result: a keyed hash that nobody without
// the key can find collisions for. SipHash24 names KV blocks across tenants; SipHash13 is the fast variant
// for digests and checksums.
#ifndef ORRERY_SCHEDULER_BASE_HASH_H_
#define ORRERY_SCHEDULER_BASE_HASH_H_

#include <bit>
#include <cstdint>
#include <string_view>

namespace orrery {

struct Hash128 {
  uint64_t low = 0, high = 0;
  friend bool operator==(const Hash128&, const Hash128&) = default;
  // Already uniform: no second mixing needed.
  template <typename H>
  friend H AbslHashValue(H state, const Hash128& hash) {
    return H::combine(std::move(state), hash.low);
  }
};

// A message of 64-bit words, optionally ended by bytes; equal to the published function on the same bytes in
// little-endian order.
template <int kCompress, int kFinal>
class SipHash {
 public:
  constexpr SipHash(uint64_t key0, uint64_t key1)
      : v0_(key0 ^ 0x736f6d6570736575u),
        v1_(key1 ^ 0x646f72616e646f6du ^ 0xeeu),
        v2_(key0 ^ 0x6c7967656e657261u),
        v3_(key1 ^ 0x7465646279746573u) {}

  constexpr void Add(uint64_t word) {
    length_ += 8;
    Compress(word);
  }
  // The last part of a message; nothing may be added after it.
  constexpr Hash128 FinishWith(std::string_view bytes) {
    while (bytes.size() >= 8) {
      Add(Load(bytes.substr(0, 8)));
      bytes.remove_prefix(8);
    }
    const uint64_t tail = Load(bytes);
    length_ += bytes.size();
    Compress(tail | (length_ << 56));
    v2_ ^= 0xee;
    for (int i = 0; i < kFinal; ++i) Round();
    const uint64_t low = v0_ ^ v1_ ^ v2_ ^ v3_;
    v1_ ^= 0xdd;
    for (int i = 0; i < kFinal; ++i) Round();
    return {low, v0_ ^ v1_ ^ v2_ ^ v3_};
  }
  constexpr Hash128 Finish() { return FinishWith({}); }

 private:
  static constexpr uint64_t Load(std::string_view bytes) {
    uint64_t word = 0;
    for (size_t i = 0; i < bytes.size(); ++i) {
      word |= uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
    }
    return word;
  }
  constexpr void Compress(uint64_t word) {
    v3_ ^= word;
    for (int i = 0; i < kCompress; ++i) Round();
    v0_ ^= word;
  }
  constexpr void Round() {
    v0_ += v1_;
    v1_ = std::rotl(v1_, 13) ^ v0_;
    v0_ = std::rotl(v0_, 32);
    v2_ += v3_;
    v3_ = std::rotl(v3_, 16) ^ v2_;
    v0_ += v3_;
    v3_ = std::rotl(v3_, 21) ^ v0_;
    v2_ += v1_;
    v1_ = std::rotl(v1_, 17) ^ v2_;
    v2_ = std::rotl(v2_, 32);
  }

  uint64_t v0_, v1_, v2_, v3_;
  uint64_t length_ = 0;
};

using SipHash24 = SipHash<2, 4>;
using SipHash13 = SipHash<1, 3>;

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_BASE_HASH_H_
