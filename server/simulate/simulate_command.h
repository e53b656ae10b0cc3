// The flags of `orrery simulate`.
#ifndef ORRERY_SERVER_SIMULATE_SIMULATE_COMMAND_H_
#define ORRERY_SERVER_SIMULATE_SIMULATE_COMMAND_H_

#include <CLI/CLI.hpp>

#include "server/simulate/simulate_options.h"

namespace orrery::simulate {

CLI::App* RegisterSimulate(CLI::App& app, SimulateOptions* options);

}  // namespace orrery::simulate

#endif  // ORRERY_SERVER_SIMULATE_SIMULATE_COMMAND_H_
