#include "server/simulate/run_simulate.h"

#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "scheduler/journal.h"
#include "server/simulate/html_page.h"
#include "server/simulate/resolve.h"
#include "server/simulate/run_result.h"
#include "server/traces/read_file.h"

namespace orrery::simulate {
namespace {

using nlohmann::ordered_json;

constexpr int kExitOk = 0;
constexpr int kExitInternal = 1;
constexpr int kExitUsage = 2;
constexpr int kExitInfeasible = 3;
constexpr int kExitDiffers = 7;
constexpr size_t kMaxJournalBytes = size_t{4} << 30;
// Loads at which the curve of --html is drawn, relative to the rate asked for.
constexpr double kCurveFactors[] = {0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5};

int64_t WallNanoseconds() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

void Print(const ordered_json& document) {
  std::puts(document.dump(2, ' ', false, ordered_json::error_handler_t::replace).c_str());
}

int Fail(const absl::Status& status, bool json) {
  const std::string message(status.message());
  if (json) {
    const size_t colon = message.find(": ");
    Print({{"error",
            {{"code", absl::StatusCodeToString(status.code())},
             {"field", colon == std::string::npos ? "" : message.substr(0, colon)},
             {"limit", nullptr},
             {"reason", "invalid_argument"},
             {"message", message}}}});
  } else {
    std::fprintf(stderr, "orrery simulate: %s\n", message.c_str());
  }
  if (absl::IsFailedPrecondition(status)) return kExitInfeasible;
  return absl::IsInternal(status) || absl::IsUnknown(status) ? kExitInternal : kExitUsage;
}

// A line that is overwritten while a run goes on; only on a terminal.
class ProgressLine {
 public:
  ProgressLine() : terminal_(isatty(STDERR_FILENO) != 0) {}
  ~ProgressLine() {
    if (terminal_) std::fprintf(stderr, "\r\033[K");
  }
  Recorder::Progress For(std::string label, int64_t total) const {
    if (!terminal_) return nullptr;
    return
        [label = std::move(label), total, since = WallNanoseconds()](int64_t ended, Time now, int64_t steps) {
          const double wall = static_cast<double>(WallNanoseconds() - since) * 1e-9;
          const std::string text =
              absl::StrFormat("%s  %d%s requests  %.1f s simulated in %.1f s  %.1fM sequence-steps/s", label,
                              ended, total > 0 ? absl::StrCat(" of ", total) : "", now.seconds(), wall,
                              wall > 0 ? static_cast<double>(steps) / wall * 1e-6 : 0.0);
          winsize size = {};
          const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
          std::fprintf(stderr, "\r\033[K%.*s", known ? size.ws_col - 1 : 79, text.c_str());
        };
  }

 private:
  const bool terminal_;
};

absl::StatusOr<RunResult> RunOne(const Scenario& scenario, const std::string& policy, uint64_t seed,
                                 const ProgressLine& progress) {
  sim::SimOptions options = scenario.sim;
  if (!scenario.compared.empty())
    (scenario.compares_routers ? options.router : options.worker.scheduler) = policy;
  options.wall_clock = WallNanoseconds;
  options.worker.options.hash_key = 1;  // names of blocks are no secret here, but must not vary
  std::vector<ReportClass> classes;
  for (const SimClass& one : scenario.workload->classes()) classes.push_back({one.name, one.slo, one.reward});
  if (scenario.pools.has_value()) {
    auto plan = PlanPools(scenario);
    if (!plan.ok()) return plan.status();
    options.plan = *std::move(plan);
  }
  auto source = scenario.workload->Draw(seed);
  if (!source.ok()) return source.status();
  RunResult run;
  run.policy = policy;
  run.seed = seed;
  run.rate = scenario.workload->rate();
  run.recorder = std::make_unique<Recorder>(
      std::move(classes), options.num_workers,
      progress.For(policy, scenario.saturated ? 0 : scenario.workload->num_requests()));
  const int64_t began = WallNanoseconds();
  auto report = sim::Simulate(options, *scenario.cost, source->get(), run.recorder.get());
  if (!report.ok()) return report.status();
  run.wall_s = static_cast<double>(WallNanoseconds() - began) * 1e-9;
  run.report = *std::move(report);
  const Recorder& recorder = *run.recorder;
  run.block = recorder.Block(run.report, scenario.saturated);
  run.decisions = recorder.decisions();
  run.decision_us = recorder.decision_us().Summarize();
  run.max_decision_us = recorder.decision_us().max();
  run.max_ttft_ms = recorder.max_ttft_ms();
  run.waiting_growth = recorder.WaitingGrowth();
  run.jain_fairness = recorder.JainFairness();
  run.reward_per_worker_s = recorder.RewardPerWorker();
  return run;
}

std::vector<std::string> Policies(const Scenario& scenario) {
  if (!scenario.compared.empty()) return scenario.compared;
  return {scenario.sim.worker.scheduler};
}

absl::StatusOr<std::string> Page(Scenario* scenario, absl::Span<const RunResult> runs,
                                 const ProgressLine& progress, const SimulateOptions& o) {
  // The plots over time and the distributions are of the first seed.
  std::vector<RunResult> curve;
  if (const auto rate = scenario->workload->rate()) {
    for (const std::string& policy : Policies(*scenario)) {
      for (const double factor : kCurveFactors) {
        scenario->workload->set_rate(*rate * factor);
        auto run = RunOne(*scenario, policy, scenario->seeds[0], progress);
        if (!run.ok()) return run.status();
        run->recorder.reset();
        curve.push_back(*std::move(run));
      }
    }
    scenario->workload->set_rate(*rate);
  }
  const std::string command = absl::StrCat(o.trace_format, " ", o.trace, ", ", o.workers, " workers, router ",
                                           o.router, ", ", o.cost_profile);
  return HtmlPage(runs, curve, command);
}

int Replay(const SimulateOptions& o) {
  if (!o.trace.empty() || !o.compare.empty() || !o.cost_profile.empty()) {
    return Fail(
        absl::InvalidArgumentError("replay: the journal holds arrivals, policy and step times; --trace, "
                                   "--compare and --cost-profile do not go with it"),
        o.json);
  }
  auto journal = ReadWholeFile(o.replay, kMaxJournalBytes);
  if (!journal.ok())
    return Fail(absl::InvalidArgumentError(absl::StrCat("replay: ", journal.status().message())), o.json);
  auto result = orrery::Replay(*journal);
  if (!result.ok()) {
    return Fail(
        absl::InvalidArgumentError(absl::StrCat("replay: ", o.replay, ": ", result.status().message())),
        o.json);
  }
  const bool equal = result->difference.empty();
  if (o.json) {
    const JournalSummary& s = result->summary;
    Print({{"equal", equal},
           {"records", s.records},
           {"arrivals", s.arrivals - s.warm_ups},
           {"warm_ups", s.warm_ups},
           {"plans", s.plans},
           {"steps", s.steps},
           {"truncated", s.truncated},
           {"differing_decisions", equal ? 0 : 1},
           {"first_difference",
            equal ? ordered_json(nullptr)
                  : ordered_json{{"record", result->record}, {"what", result->difference}}}});
  } else if (equal) {
    std::printf("%llu decisions over %llu steps came again, bit for bit%s\n",
                static_cast<unsigned long long>(result->summary.plans),
                static_cast<unsigned long long>(result->summary.steps),
                result->summary.truncated ? " (the journal is cut off after them)" : "");
  } else {
    std::printf("record %llu: %s\n", static_cast<unsigned long long>(result->record),
                result->difference.c_str());
  }
  return equal ? kExitOk : kExitDiffers;
}

}  // namespace

int RunSimulate(const SimulateOptions& o) {
  if (!o.replay.empty()) return Replay(o);
  auto scenario = Resolve(o);
  if (!scenario.ok()) return Fail(scenario.status(), o.json);
  if (!o.html.empty() && !std::ofstream(o.html, std::ios::app)) {
    return Fail(absl::InvalidArgumentError(absl::StrCat("html: ", o.html, ": cannot be written")), o.json);
  }
  std::vector<RunResult> runs;
  {
    const ProgressLine progress;
    for (const std::string& policy : Policies(*scenario)) {
      for (const uint64_t seed : scenario->seeds) {
        auto run = RunOne(*scenario, policy, seed, progress);
        if (!run.ok()) return Fail(run.status(), o.json);
        // Samples are large: they are kept only where they will be drawn, and then of the first seed.
        if (o.html.empty() || seed != scenario->seeds[0]) run->recorder.reset();
        runs.push_back(*std::move(run));
      }
    }
    if (!o.html.empty()) {
      auto page = Page(&*scenario, runs, progress, o);
      if (!page.ok()) return Fail(page.status(), o.json);
      if (absl::Status s = SaveHtmlPage(o.html, *page); !s.ok()) return Fail(s, o.json);
    }
  }
  const bool several = !scenario->compared.empty() || runs.size() > 1;
  if (o.json) {
    Print(several ? ComparisonJson(runs) : RunJson(runs[0]));
  } else {
    std::fputs((several ? ComparisonText(runs) : RunText(runs[0])).c_str(), stdout);
  }
  return kExitOk;
}

}  // namespace orrery::simulate
