// 64 bits from the system's source of randomness, for what nobody outside may guess or repeat: secrets,
// incarnations, hash keys. Slow; not for sampling, whose streams are seeded (scheduler/base/random.h).
#ifndef ORRERY_SERVER_BASE_RANDOM_WORD_H_
#define ORRERY_SERVER_BASE_RANDOM_WORD_H_

#include <cstdint>
#include <random>

namespace orrery {

inline uint64_t RandomWord() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

}  // namespace orrery

#endif  // ORRERY_SERVER_BASE_RANDOM_WORD_H_
