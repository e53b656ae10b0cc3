// The load of the server as numbers that any thread may read: written by the front loop after every report,
// read by GetLoad, by the health checks and by the early refusal of calls.
#ifndef ORRERY_SERVER_LOOP_LOAD_BOARD_H_
#define ORRERY_SERVER_LOOP_LOAD_BOARD_H_

#include <atomic>
#include <cstdint>

namespace orrery {

struct LoadBoard {
  std::atomic<int64_t> waiting{0}, running{0};  // sequences
  std::atomic<int64_t> queue_tokens{0};         // prompt tokens that wait
  std::atomic<int64_t> predicted_wait_ns{0};    // of a request that comes now
  std::atomic<int64_t> kv_tokens{0}, blocks_total{0}, blocks_free{0}, blocks_used{0};
  std::atomic<int64_t> live_requests{0};  // admitted and not over
  std::atomic<int64_t> workers{0};        // that are there
  std::atomic<int64_t> accepting{0};      // of those, that take new requests
  std::atomic<bool> draining{false};
};

}  // namespace orrery

#endif  // ORRERY_SERVER_LOOP_LOAD_BOARD_H_
