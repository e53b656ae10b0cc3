#include "server/bench/run_bench.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/bench/environment.h"
#include "server/bench/grpc_transport.h"
#include "server/bench/html_report.h"
#include "server/bench/load_driver.h"
#include "server/bench/measurement.h"
#include "server/bench/model_tokens.h"
#include "server/bench/result_json.h"
#include "server/bench/text_report.h"
#include "server/bench/unknown_name.h"

namespace orrery::bench {
namespace {

constexpr int kExitOk = 0;
constexpr int kExitInternal = 1;
constexpr int kExitUsage = 2;
constexpr int kExitUnreachable = 5;
constexpr int kExitFailedRequests = 6;

std::atomic<bool> g_stop{false};  // set by the signal handler

// While it lives, the first SIGINT or SIGTERM asks the run to stop; the second one ends the process.
class InterruptGuard {
 public:
  InterruptGuard() {
    g_stop.store(false);
    struct sigaction action = {};
    action.sa_handler = [](int) { g_stop.store(true, std::memory_order_relaxed); };
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    sigaction(SIGINT, &action, &old_int_);
    sigaction(SIGTERM, &action, &old_term_);
  }
  ~InterruptGuard() {
    sigaction(SIGINT, &old_int_, nullptr);
    sigaction(SIGTERM, &old_term_, nullptr);
  }

 private:
  struct sigaction old_int_ = {};
  struct sigaction old_term_ = {};
};

int ExitCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kResourceExhausted:
      return kExitUsage;
    case absl::StatusCode::kUnavailable:
      return kExitUnreachable;
    default:
      return kExitInternal;
  }
}

// Our messages read "field: why" or "FILE:LINE: why"; the JSON form tells the two parts apart.
int Fail(const BenchOptions& options, const absl::Status& status) {
  const std::string message(status.message());
  if (options.json) {
    const size_t colon = message.find(": ");
    const nlohmann::ordered_json error = {
        {"code", absl::StatusCodeToString(status.code())},
        {"field", colon == std::string::npos ? "" : message.substr(0, colon)},
        {"limit", nullptr},
        {"reason", absl::IsUnavailable(status) ? "unreachable" : "invalid_argument"},
        {"message", message}};
    std::printf("%s\n", nlohmann::ordered_json{{"error", error}}
                            .dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace)
                            .c_str());
  } else {
    std::fprintf(stderr, "orrery bench: %s\n", message.c_str());
  }
  return ExitCode(status);
}

absl::Status CheckWritable(const std::string& path) {
  if (path.empty() || std::ofstream(path, std::ios::app)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(path, ": cannot be written"));
}

std::vector<std::pair<std::string, std::string>> DescribeServer(const v1::GetModelResponse& model) {
  return {{"model", model.model()},
          {"architecture", model.architecture()},
          {"backend", model.backend()},
          {"dtype", model.dtype()},
          {"weights", model.weights()},
          {"kv_dtype", model.kv_dtype()},
          {"max_context", absl::StrCat(model.max_context())},
          {"kv_cache_tokens", absl::StrCat(uint64_t{model.num_blocks()} * model.block_tokens())},
          {"version", model.server_version()},
          {"model_digest", model.model_digest()}};
}

absl::StatusOr<TokenSpace> OrdinaryTokens(const BenchOptions& options, const v1::GetModelResponse& model) {
  if (!options.model_folder.empty()) return LoadTokenSpace(options.model_folder);
  std::vector<int32_t> special(model.special_token_ids().begin(), model.special_token_ids().end());
  special.insert(special.end(), model.end_token_ids().begin(), model.end_token_ids().end());
  return TokenSpace::Create(static_cast<int32_t>(model.vocab_size()), std::move(special));
}

std::vector<RequestRecord> RunLoad(const BenchOptions& options, const Schedule& schedule,
                                   const PromptBuilder& prompts, GrpcTransport* transport, RunClock* clock) {
  DriverOptions driver_options;
  driver_options.max_in_flight = options.max_in_flight;
  driver_options.temperature = options.temperature;
  driver_options.seed = options.seed;
  driver_options.id_prefix = absl::StrCat("bench-", getpid(), "-");
  LoadDriver driver(schedule, prompts, transport, clock, driver_options);
  InterruptGuard guard;
  prctl(PR_SET_TIMERSLACK, 1000UL);  // wake within a microsecond of an intended send, not fifty
  const bool terminal = isatty(STDERR_FILENO) != 0;
  const int64_t total = static_cast<int64_t>(schedule.requests.size());
  auto records = driver.Run(g_stop, [&](const DriverProgress& progress) {
    if (!terminal) return;
    winsize size = {};
    const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
    // A line that wraps could not be overwritten.
    std::fprintf(stderr, "\r\033[K%.*s", known ? size.ws_col - 1 : 79, ProgressLine(progress, total).c_str());
  });
  if (terminal) std::fprintf(stderr, "\r\033[K");
  return records;
}

}  // namespace

absl::StatusOr<ScheduleOptions> ResolveOptions(const BenchOptions& options) {
  ScheduleOptions out;
  const int modes = options.rate.has_value() + options.concurrency.has_value() + options.use_trace_times;
  if (options.api != "grpc") return UnknownName("api", options.api, {"grpc"});
  if (modes > 1) {
    return absl::InvalidArgumentError("rate: give one of --rate, --concurrency and --use-trace-times");
  }
  if (!(options.timeout_s >= 0)) return absl::InvalidArgumentError("timeout: must be at least 0 seconds");
  if (options.max_in_flight < 0) return absl::InvalidArgumentError("max-in-flight: must be at least 0");
  if (options.temperature && !(*options.temperature >= 0 && *options.temperature <= 100)) {
    return absl::InvalidArgumentError("temperature: must be in [0, 100]");
  }
  TrafficClass base;
  if (!options.slo.empty()) {
    auto slo = ParseSlo(options.slo);
    if (!slo.ok()) return slo.status();
    base.slo = *slo;
  }
  if (!options.dataset.empty()) {
    auto kind = ParseDatasetKind(options.dataset);
    if (!kind.ok()) return kind.status();
    base.dataset.kind = *kind;
  } else if (options.class_file.empty()) {
    return absl::InvalidArgumentError(
        "dataset: required (lengths, azure, mooncake, sharegpt, prompts, random)");
  }
  base.dataset.paths = options.paths;
  base.dataset.input_len = options.input_len;
  base.dataset.output_len = options.output_len;
  base.dataset.range_ratio = options.range_ratio;
  out.classes = {base};
  if (!options.class_file.empty()) {
    auto classes = LoadClasses(options.class_file, base);
    if (!classes.ok()) return classes.status();
    out.classes = *std::move(classes);
  }
  const bool class_rates = out.classes[0].rate.has_value();
  if (class_rates ? modes > 0 : modes == 0) {
    return absl::InvalidArgumentError(class_rates
                                          ? "rate: the classes have their own rates"
                                          : "rate: give one of --rate, --concurrency and --use-trace-times");
  }
  out.mode = options.use_trace_times ? LoadMode::kTraceTimes
             : options.concurrency   ? LoadMode::kClosedLoop
                                     : LoadMode::kOpenLoop;
  if (out.mode != LoadMode::kOpenLoop && (options.arrival || options.burstiness)) {
    return absl::InvalidArgumentError("arrival: goes with --rate");
  }
  // A burstiness alone means gamma arrivals.
  auto kind = ParseArrivalKind(options.arrival.value_or(options.burstiness ? "gamma" : "poisson"));
  if (!kind.ok()) return kind.status();
  if (options.burstiness && *kind != ArrivalKind::kGamma) {
    return absl::InvalidArgumentError("burstiness: goes with --arrival gamma");
  }
  out.arrival = {*kind, options.rate.value_or(0), options.burstiness.value_or(1)};
  out.num_requests = options.num_requests;
  out.warmup = options.warmup;
  out.concurrency = options.concurrency.value_or(1);
  out.time_scale = options.time_scale;
  out.scale_context = options.scale_lengths;
  out.ignore_eos = options.ignore_eos;
  out.seed = options.seed;
  return out;
}

int RunBench(const BenchOptions& options) {
  auto resolved = ResolveOptions(options);
  if (!resolved.ok()) return Fail(options, resolved.status());
  for (const std::string& path : {options.save, options.html}) {
    if (auto status = CheckWritable(path); !status.ok()) return Fail(options, status);
  }
  Environment environment = ThisMachine();
  environment.options = options.given;

  // Bad data is reported before a missing server; only texts whose length must be counted need one earlier.
  std::unique_ptr<GrpcTransport> transport;
  const auto connect = [&]() -> absl::Status {
    if (transport != nullptr) return absl::OkStatus();
    auto connected = GrpcTransport::Connect(options.target, absl::Seconds(options.ready_timeout_s));
    if (!connected.ok()) return connected.status();
    transport = *std::move(connected);
    if (options.timeout_s > 0) transport->set_timeout(absl::Seconds(options.timeout_s));
    return absl::OkStatus();
  };
  const TokenCounter counter = [&](const std::string& text) -> absl::StatusOr<int32_t> {
    if (auto status = connect(); !status.ok()) return status;
    return transport->CountTokens(text);
  };
  auto schedule = BuildSchedule(*resolved, counter);
  if (!schedule.ok()) return Fail(options, schedule.status());
  if (auto status = connect(); !status.ok()) return Fail(options, status);
  auto tokens = OrdinaryTokens(options, transport->model());
  if (!tokens.ok()) return Fail(options, tokens.status());
  environment.server = DescribeServer(transport->model());

  const PromptBuilder prompts(*std::move(tokens), options.seed);
  SteadyRunClock clock;
  const auto records = RunLoad(options, *schedule, prompts, transport.get(), &clock);
  transport.reset();  // its threads may still be leaving the last call, and they use the clock
  const Measurement block = Measure(*schedule, records);
  if (options.json) {
    std::printf("%s\n", BlockJson(block).dump(2).c_str());
  } else {
    std::fputs(TextReport(block).c_str(), stdout);
  }
  const RunResult result{*schedule, records, block, environment};
  if (!options.save.empty()) {
    if (auto status = SaveResult(options.save, result); !status.ok()) return Fail(options, status);
  }
  if (!options.html.empty()) {
    if (auto status = SaveHtmlReport(options.html, result); !status.ok()) return Fail(options, status);
  }
  return block.failed > 0 ? kExitFailedRequests : kExitOk;
}

}  // namespace orrery::bench
