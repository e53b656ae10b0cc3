// orreryd: reads the configuration, loads the model, serves until told to stop.
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "google/protobuf/stubs/logging.h"
#include "server/base/version.h"
#include "server/config/option_table.h"
#include "server/config/option_values.h"
#include "server/daemon/load_parts.h"
#include "server/daemon/server.h"
#include "server/daemon/worker_server.h"
#include "spdlog/async.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace orrery {
namespace {

constexpr int kExitOk = 0;
constexpr int kExitFailure = 1;
constexpr int kExitBadConfiguration = 2;
// What the engine's last step gets after the drain.
constexpr Duration kLastStep = Duration::Seconds(5);

// Lines go to standard error through a bounded queue that drops the oldest: logging never holds up serving.
void StartLogging(const std::string& level) {
  spdlog::init_thread_pool(8192, 1);
  auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  auto logger = std::make_shared<spdlog::async_logger>("orreryd", sink, spdlog::thread_pool(),
                                                       spdlog::async_overflow_policy::overrun_oldest);
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %L %v");
  logger->set_level(spdlog::level::from_str(level));
  spdlog::set_default_logger(std::move(logger));
}

// Thousands of clients are thousands of descriptors.
void RaiseFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "orreryd: %s\n", std::string(status.message()).c_str());
  const bool ours =
      status.code() == absl::StatusCode::kInternal || status.code() == absl::StatusCode::kUnknown;
  return ours ? kExitFailure : kExitBadConfiguration;
}

// What SIGTERM and SIGINT mean depends on how far the daemon is: while it loads there is nothing to drain,
// and who asks twice does not want to wait.
enum Phase : int { kLoading, kServing, kStopping };
std::atomic<int> phase{kLoading};

void AskToStop() {
  phase.store(kStopping);
  phase.notify_all();
}

// Before the first thread: all of them leave these signals to the one of WatchSignals.
sigset_t BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  return signals;
}

void WatchSignals(const sigset_t& signals) {
  std::thread([signals] {
    for (;;) {
      int received = 0;
      sigwait(&signals, &received);
      const int before = phase.exchange(kStopping);
      if (before == kLoading) {
        std::fputs("stopped while loading\n", stderr);  // the logger is the other thread's to shut down
        std::_Exit(kExitOk);
      }
      if (before == kStopping) std::_Exit(kExitFailure);
      phase.notify_all();
    }
  }).detach();
}

// `Process` is a Server or a WorkerServer.
template <typename Process>
int ServeAs(const ServerConfig& config, ServerParts parts) {
  std::atomic<bool> failed{false};
  parts.engine.on_engine_failed = [&failed] {
    failed.store(true);
    AskToStop();
  };
  // From here on a signal drains, during the warm-up too.
  int expected = kLoading;
  phase.compare_exchange_strong(expected, kServing);
  auto server = Process::Start(config, std::move(parts));
  if (!server.ok()) return Fail(server.status());

  phase.wait(kServing);
  if (failed.load()) {
    server->reset();
    spdlog::shutdown();
    return kExitFailure;
  }
  spdlog::info("draining: at most {}", FormatDuration(config.drain_timeout));
  const bool clean = (*server)->Drain(config.drain_timeout);
  if (!(*server)->StopWorkers(kLastStep)) {
    spdlog::critical("the engine's step does not end: the process exits without it");
    spdlog::shutdown();
    std::_Exit(kExitFailure);
  }
  spdlog::info("stopped{}", clean ? "" : ": requests were cut off at the drain timeout");
  server->reset();
  spdlog::shutdown();
  return kExitOk;
}

int Serve(const ServerConfig& config) {
  const sigset_t signals = BlockSignals();
  RaiseFileLimit();
  StartLogging(config.log_level);
  WatchSignals(signals);
  google::protobuf::SetLogHandler(nullptr);  // it would write a line for every malformed message
  spdlog::debug("loading {}", config.model);
  auto parts = LoadParts(config);
  if (!parts.ok()) return Fail(parts.status());
  return config.role == "worker" ? ServeAs<WorkerServer>(config, *std::move(parts))
                                 : ServeAs<Server>(config, *std::move(parts));
}

int Main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const auto loaded = LoadConfig(arguments, [](const char* name) { return std::getenv(name); });
  if (!loaded.ok()) return Fail(loaded.status());
  switch (loaded->action) {
    case ConfigAction::kHelp:
      std::fputs(HelpText().c_str(), stdout);
      return kExitOk;
    case ConfigAction::kVersion:
      std::printf("orreryd %s\n", kVersion);
      return kExitOk;
    case ConfigAction::kPrintConfig:
      std::fputs(PrintConfig(loaded->config).c_str(), stdout);
      return kExitOk;
    case ConfigAction::kDryRun: {
      const auto plan = DescribePlan(loaded->config);
      if (!plan.ok()) return Fail(plan.status());
      std::fputs(plan->c_str(), stdout);
      return kExitOk;
    }
    case ConfigAction::kServe:
      return Serve(loaded->config);
  }
  return kExitFailure;
}

}  // namespace
}  // namespace orrery

int main(int argc, char** argv) { return orrery::Main(argc, argv); }
