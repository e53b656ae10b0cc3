// What a simulation is fed with: requests as typed rows from an iterator. Files, formats and arrival
// processes are the front end's (server/simulate).
#ifndef ORRERY_ROUTER_SIM_WORKLOAD_H_
#define ORRERY_ROUTER_SIM_WORKLOAD_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/base/ids.h"
#include "scheduler/base/time.h"
#include "scheduler/types/request.h"

namespace orrery::sim {

struct SimRequest {
  Time arrival;
  int32_t prompt_tokens = 1;
  int32_t output_tokens = 1;  // what it will really make; only an oracle knows
  int32_t max_tokens = 1;     // what it asked for, >= output_tokens: what policies see
  int32_t class_index = 0;
  int32_t priority = 0;
  uint32_t tenant = 0;
  Slo slo;
  // It gives up when it has waited that long in all: to start, and between two workers.
  Duration patience = Duration::Infinite();
  // The prompt's ids where they decide about shared prefixes, [prompt_tokens]; null: nothing is shared.
  std::shared_ptr<const std::vector<TokenId>> tokens;
};

class RequestSource {
 public:
  virtual ~RequestSource() = default;
  // The next request, arrivals ascending; false at the end. With a pool (SimOptions::pool) arrivals are not
  // looked at and the source should not end.
  virtual absl::StatusOr<bool> Next(SimRequest* request) = 0;
};

}  // namespace orrery::sim

#endif  // ORRERY_ROUTER_SIM_WORKLOAD_H_
