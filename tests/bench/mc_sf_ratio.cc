// MC-SF on the two synthetic models of arXiv:2502.07115: its total latency over the LP bound for every trial,
// and over the proven optimum where the integer program closes in time. Prints Markdown; progress on standard
// error.
//
//   mc_sf_ratio MODEL TRIALS SECONDS [LOW HIGH]
//
// SECONDS: of wall time for one trial; 0: bounds alone. LOW, HIGH: the range
// of n (model 1) or of T (model 2), 40 and 60 as in the paper unless given.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "scheduler/planning/hindsight.h"
#include "tests/scheduler/planning/synthetic.h"

namespace orrery {
namespace {

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
  Ratios lp, bound, optimum, best;
  int failed = 0;
  for (int trial = 0; trial < trials; ++trial) {
    const auto seed = static_cast<uint64_t>(trial);
    const UnitInstance instance =
        model == 1 ? SyntheticModel1(seed, low, high) : SyntheticModel2(seed, low, high);
    HindsightOptions options;
    options.max_requests = 200;
    options.exact = seconds > 0.0;
    const auto begin = std::chrono::steady_clock::now();
    const auto spent = [begin] {
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    };
    if (seconds > 0.0) options.seconds_left = [&] { return seconds - spent(); };
    const auto plan = PlanHindsight(instance, options);
    if (!plan.ok() || !plan->lp_bound) {
      ++failed;
      std::fprintf(stderr, "trial %d: %s\n", trial,
                   plan.ok() ? plan->unproven.c_str() : std::string(plan.status().message()).c_str());
      continue;
    }
    const auto mc_sf = static_cast<double>(plan->mc_sf.total_latency);
    lp.values.push_back(mc_sf / *plan->lp_bound);
    bound.values.push_back(mc_sf / static_cast<double>(plan->lower_bound));
    best.values.push_back(mc_sf / static_cast<double>(plan->best.total_latency));
    if (plan->optimum) optimum.values.push_back(mc_sf / static_cast<double>(plan->optimum->total_latency));
    std::fprintf(stderr, "trial %d: n %zu, mc-sf %.0f, lp %.4f, best %ld, bound %ld, %s, %ld nodes, %.1f s\n",
                 trial, instance.requests.size(), mc_sf, *plan->lp_bound,
                 static_cast<long>(plan->best.total_latency), static_cast<long>(plan->lower_bound),
                 plan->optimum ? "proven" : "open", static_cast<long>(plan->nodes), spent());
  }
  std::printf("Model %d, %s in [%ld, %ld], %d trials, %g s a trial; %d without an LP bound\n\n", model,
              model == 1 ? "n" : "T", static_cast<long>(low), static_cast<long>(high), trials, seconds,
              failed);
  std::printf("| MC-SF over | trials | mean | worst | exactly 1 |\n|---|---|---|---|---|\n");
  lp.Print("LP bound");
  bound.Print("best proven bound");
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
