#include "server/bench/environment.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace orrery::bench {
namespace {

std::string CpuModel() {
  std::ifstream info("/proc/cpuinfo");
  std::string line;
  while (std::getline(info, line)) {
    absl::string_view rest = line;
    if (!absl::ConsumePrefix(&rest, "model name")) continue;
    const size_t colon = rest.find(':');
    if (colon != absl::string_view::npos && colon + 2 <= rest.size())
      return std::string(rest.substr(colon + 2));
  }
  return "";
}

}  // namespace

Environment ThisMachine() {
  Environment out;
  out.date = absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone());
  out.client_version = ORRERY_VERSION;
  out.compiler = absl::StrCat("g++ ", __VERSION__);
  if (utsname name; uname(&name) == 0) out.kernel = absl::StrCat(name.sysname, " ", name.release);
  out.cpu = CpuModel();
  out.cpus = static_cast<int32_t>(sysconf(_SC_NPROCESSORS_ONLN));
  double load = 0;
  if (getloadavg(&load, 1) == 1) out.load_average_1m = load;
  return out;
}

}  // namespace orrery::bench
