// Why a policy decided as it did: beside every decision. Feeds the metrics, the final message of a request
// and `orrery simulate --explain`. Wall time is not part of it: the driver times the call from outside.
#ifndef ORRERY_SCHEDULER_TYPES_DECISION_RECORD_H_
#define ORRERY_SCHEDULER_TYPES_DECISION_RECORD_H_

#include <cstdint>
#include <limits>
#include <string_view>

namespace orrery {

struct DecisionRecord {
  std::string_view policy;                                  // registered name; static storage
  std::string_view objective;                               // what was minimised, in words; static storage
  double value = 0.0;                                       // objective value reached
  double bound = std::numeric_limits<double>::quiet_NaN();  // lower bound where the policy has one
  int64_t work = 0;                                         // deterministic work units
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_TYPES_DECISION_RECORD_H_
