// Rendezvous hashing (Thaler and Ravishankar, 1998): every worker has a weight for every key, and a key
// belongs where its weight is largest. A worker that goes takes only its own keys with it, 1/G of them, and
// they spread evenly over the others; nothing is stored.
#ifndef ORRERY_ROUTER_POLICY_RENDEZVOUS_H_
#define ORRERY_ROUTER_POLICY_RENDEZVOUS_H_

#include <cstdint>

#include "scheduler/base/ids.h"

namespace orrery {

// A bijection of 64-bit words in which every bit of the input reaches every bit of the output (the finaliser
// of SplitMix64, Steele et al., OOPSLA 2014).
constexpr uint64_t Mix64(uint64_t word) {
  word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
  word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
  return word ^ (word >> 31);
}

// Seeds are hash functions: under another one every key has other weights.
constexpr uint64_t RendezvousWeight(uint64_t key, WorkerId worker, uint64_t seed) {
  return Mix64(key ^ Mix64(Value(worker) ^ Mix64(seed)));
}

}  // namespace orrery

#endif  // ORRERY_ROUTER_POLICY_RENDEZVOUS_H_
