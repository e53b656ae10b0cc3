// What a worker says of itself when it connects.
#ifndef ORRERY_ROUTER_WORKER_INFO_H_
#define ORRERY_ROUTER_WORKER_INFO_H_

#include <cstdint>

#include "scheduler/base/ids.h"
#include "scheduler/types/worker_state.h"

namespace orrery {

struct WorkerInfo {
  WorkerId worker{};
  uint64_t incarnation = 0;
  WorkerRole role = WorkerRole::kMixed;
  int64_t kv_capacity_tokens = 0;
  int32_t max_context = 0;
  int32_t slots = 0;
  int32_t max_step_tokens = 2048;
  int32_t block_tokens = 16;
  // HashKeyId of the key that names its cached blocks; 0: it has no prefix cache.
  uint64_t hash_key_id = 0;
  // Workers of one number have equal engines on equal machines, which no other worker shares and whose steps
  // wait for nobody: equal steps should take them equal time (router/outliers.h). 0: compared with nobody.
  uint64_t peers = 0;
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_WORKER_INFO_H_
