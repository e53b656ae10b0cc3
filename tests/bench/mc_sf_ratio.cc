// MC-SF on the two synthetic models of arXiv:2502.07115: its total latency over the dual bound of the linear
// program for every trial, over the best schedule a local search finds, and over the optimum where the search
// over rounds proves it in time. Prints Markdown; progress on standard error.
//
//   mc_sf_ratio MODEL TRIALS SECONDS [LOW HIGH]
//
// SECONDS: for the proof of one trial; 0: none. LOW, HIGH: the range of n (model 1) or of T (model 2), 40 and
// 60 as in the paper unless given.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "scheduler/planning/hindsight.h"
#include "tests/scheduler/planning/round_search.h"
#include "tests/scheduler/planning/synthetic.h"

namespace orrery {
namespace {

constexpr int kSearchTrials = 20'000;

struct Ratios {
  std::vector<double> values;
  void Print(const char* what) const {
    if (values.empty()) {
      std::printf("| %s | 0 | | | |\n", what);
      return;
    }
    double sum = 0.0;
    int exact = 0;
    for (const double v : values) {
      sum += v;
      exact += v <= 1.0;
    }
    std::printf("| %s | %zu | %.4f | %.4f | %d |\n", what, values.size(),
                sum / static_cast<double>(values.size()), *std::max_element(values.begin(), values.end()),
                exact);
  }
};

int Run(int model, int trials, double seconds, int64_t low, int64_t high) {
  using Clock = std::chrono::steady_clock;
  Ratios dual, optimum, best;
  for (int trial = 0; trial < trials; ++trial) {
    const auto seed = static_cast<uint64_t>(trial);
    const UnitInstance instance =
        model == 1 ? SyntheticModel1(seed, low, high) : SyntheticModel2(seed, low, high);
    if (instance.requests.empty()) continue;
    HindsightOptions options;
    options.exact = false;
    options.max_lp_terms = 0;  // minutes at n = 50, for a bound 0.02 % higher
    const auto plan = PlanHindsight(instance, options);
    if (!plan.ok()) {
      std::fprintf(stderr, "trial %d: %s\n", trial, std::string(plan.status().message()).c_str());
      return 1;
    }
    const auto mc_sf = static_cast<double>(plan->mc_sf.total_latency);
    const auto found = JudgeStarts(instance, ImproveStarts(instance, plan->best.starts, kSearchTrials, 1));
    int64_t least = *found;
    bool proven = false;
    const auto begin = Clock::now();
    const auto spent = [begin] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
    if (seconds > 0.0 && instance.requests.size() <= RoundSearch::kMaxRequests) {
      const auto exact = RoundSearch(instance).Optimum(least, [&] { return spent() < seconds; });
      if (proven = exact.has_value(); proven) least = *exact;
    }
    dual.values.push_back(mc_sf / *plan->dual_bound);
    best.values.push_back(mc_sf / static_cast<double>(least));
    if (proven) optimum.values.push_back(mc_sf / static_cast<double>(least));
    std::fprintf(stderr, "trial %d: n %zu, mc-sf %.0f, dual %.2f, best %ld, %s, %.1f s\n", trial,
                 instance.requests.size(), mc_sf, *plan->dual_bound, static_cast<long>(least),
                 proven ? "proven" : "open", spent());
  }
  std::printf("Model %d, %s in [%ld, %ld], %d trials, %g s for a proof\n\n", model, model == 1 ? "n" : "T",
              static_cast<long>(low), static_cast<long>(high), trials, seconds);
  std::printf("| MC-SF over | trials | mean | worst | exactly 1 |\n|---|---|---|---|---|\n");
  dual.Print("dual bound of the LP");
  optimum.Print("proven optimum");
  best.Print("best schedule found (the true ratio is at least this)");
  std::printf("\n");
  return 0;
}

}  // namespace
}  // namespace orrery

int main(int argc, char** argv) {
  const int model = argc > 1 ? std::atoi(argv[1]) : 0, trials = argc > 2 ? std::atoi(argv[2]) : 0;
  const double seconds = argc > 3 ? std::atof(argv[3]) : -1.0;
  const long low = argc > 4 ? std::atol(argv[4]) : 40, high = argc > 5 ? std::atol(argv[5]) : 60;
  if ((model != 1 && model != 2) || trials < 1 || seconds < 0.0 || low < 1 || high < low) {
    std::fprintf(stderr, "usage: mc_sf_ratio 1|2 TRIALS SECONDS [LOW HIGH]\n");
    return 2;
  }
  return orrery::Run(model, trials, seconds, low, high);
}
