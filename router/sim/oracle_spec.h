// The predictor that only a simulation can have: `oracle[:noise=X,seed=N]`.
#ifndef ORRERY_ROUTER_SIM_ORACLE_SPEC_H_
#define ORRERY_ROUTER_SIM_ORACLE_SPEC_H_

#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "scheduler/predict/oracle.h"

namespace orrery::sim {

// Nothing when `predictor` names another one; unknown or ill-valued options: INVALID_ARGUMENT.
absl::StatusOr<std::optional<OracleOptions>> ParseOracle(std::string_view predictor);

}  // namespace orrery::sim

#endif  // ORRERY_ROUTER_SIM_ORACLE_SPEC_H_
