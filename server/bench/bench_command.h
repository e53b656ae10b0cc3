// `orrery bench`: its flags. The command itself is RunBench (run_bench.h).
#ifndef ORRERY_SERVER_BENCH_BENCH_COMMAND_H_
#define ORRERY_SERVER_BENCH_BENCH_COMMAND_H_

#include <CLI/CLI.hpp>

#include "server/bench/bench_options.h"

namespace orrery::bench {

// Adds the subcommand `bench` to `app`; parsing fills *options, which must outlive the parse.
CLI::App* RegisterBench(CLI::App& app, BenchOptions* options);

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_BENCH_COMMAND_H_
