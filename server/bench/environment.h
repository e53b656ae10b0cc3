// Where and how a measurement was made: enough to judge it and to repeat it.
#ifndef ORRERY_SERVER_BENCH_ENVIRONMENT_H_
#define ORRERY_SERVER_BENCH_ENVIRONMENT_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace orrery::bench {

struct Environment {
  std::string date;  // UTC, RFC 3339
  std::string client_version;
  std::string compiler;
  std::string kernel;  // operating system and release
  std::string cpu;
  int32_t cpus = 0;
  double load_average_1m = 0;  // before the run
  // About the server, from GetModel: name, backend, dtypes, context...
  std::vector<std::pair<std::string, std::string>> server;
  // Every option of the run by its flag.
  std::vector<std::pair<std::string, std::string>> options;
};

// Fills in what this machine can tell.
Environment ThisMachine();

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_ENVIRONMENT_H_
