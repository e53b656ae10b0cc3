// `orrery simulate`: from flags to numbers. Exit codes: 0 done, 1 internal, 2 bad input (one line), 7 replay
// differs.
#ifndef ORRERY_SERVER_SIMULATE_RUN_SIMULATE_H_
#define ORRERY_SERVER_SIMULATE_RUN_SIMULATE_H_

#include "server/simulate/simulate_options.h"

namespace orrery::simulate {

int RunSimulate(const SimulateOptions& options);

}  // namespace orrery::simulate

#endif  // ORRERY_SERVER_SIMULATE_RUN_SIMULATE_H_
