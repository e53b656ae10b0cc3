// Where step times come from, as an operator names it: numbers on the command line, an entry of a file of
// fits (../shared/data/profiles/linear_cost_fits.json), or a table made of measured runs
// (../shared/data/profiles/splitwise/perf_model.csv.xz) or of measured kernels
// (../shared/data/profiles/aiconfigurator). One reader for the simulator and the daemon.
#ifndef ORRERY_SERVER_COST_COST_PROFILE_H_
#define ORRERY_SERVER_COST_COST_PROFILE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace orrery {

struct CostProfile {
  std::string cost;                // ParseStepCost's form
  int64_t kv_capacity_tokens = 0;  // of one worker; 0: not stated
};

// `constant:MS`, `tile:...`, `linear:...`, `table:...`, `online[:...]`, FILE[#GPU/MODEL/tpN[/WEIGHTS]], where
// a file without a name means its first entry, or FOLDER#GPU/MODEL/tpN/WEIGHTS[/KV] (kernel_profile.h). Files
// may be packed (.xz, .gz). INVALID_ARGUMENT, one line: file, entry (the nearest is suggested), coefficient
// or column at fault.
absl::StatusOr<CostProfile> LoadCostProfile(const std::string& spec);

}  // namespace orrery

#endif  // ORRERY_SERVER_COST_COST_PROFILE_H_
