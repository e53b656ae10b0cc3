#include "server/simulate/resolve.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "router/policy/registry.h"
#include "router/sim/oracle_spec.h"
#include "scheduler/policy/registry.h"
#include "server/bench/traffic_class.h"
#include "server/bench/unknown_name.h"
#include "server/cli/plan_json.h"
#include "server/cost/cost_profile.h"
#include "server/traces/read_file.h"

namespace orrery::simulate {
namespace {

constexpr int64_t kMaxBlocks = int64_t{1} << 26;    // of a worker
constexpr int64_t kMaxKvTokens = int64_t{1} << 31;  // likewise
constexpr int64_t kMaxContext = int64_t{1} << 24;
constexpr int64_t kMaxSeeds = 1000;

absl::Status Bad(absl::string_view what) { return absl::InvalidArgumentError(what); }

absl::Status CheckRange(const char* flag, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return Bad(absl::StrCat(flag, ": must be in [", low, ", ", high, "], not ", value));
}

absl::StatusOr<Arrival> ParseArrival(const std::string& name) {
  if (name == "trace") return Arrival::kTrace;
  if (name == "poisson") return Arrival::kPoisson;
  if (name == "gamma") return Arrival::kGamma;
  if (name == "saturated") return Arrival::kSaturated;
  return bench::UnknownName("arrival", name, {"poisson", "gamma", "trace", "saturated"});
}

// "key=number,..." with exactly these keys.
absl::StatusOr<std::map<std::string, double>> ParseNumbers(const char* flag, const std::string& text,
                                                           const std::vector<std::string>& keys) {
  std::map<std::string, double> numbers;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const std::pair<absl::string_view, absl::string_view> pair =
        absl::StrSplit(part, absl::MaxSplits('=', 1));
    const std::string key(pair.first);
    double value = 0;
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) {
      const std::vector<absl::string_view> known(keys.begin(), keys.end());
      return bench::UnknownName(flag, key, known);
    }
    if (!absl::SimpleAtod(pair.second, &value) || !(value >= 0) || numbers.contains(key)) {
      return Bad(absl::StrCat(flag, ": '", part, "' is not one number >= 0"));
    }
    numbers[key] = value;
  }
  return numbers;
}

absl::StatusOr<uint32_t> ToWorker(const char* flag, double value, int64_t workers) {
  if (value != std::floor(value) || value >= static_cast<double>(workers)) {
    return Bad(absl::StrCat(flag, ": there is no worker ", value, " among ", workers));
  }
  return static_cast<uint32_t>(value);
}

absl::Status ReadTroubles(const SimulateOptions& o, sim::SimOptions* sim) {
  for (const std::string& text : o.fail) {
    auto numbers = ParseNumbers("fail", text, {"worker", "at", "for"});
    if (!numbers.ok()) return numbers.status();
    if (!numbers->contains("worker") || !numbers->contains("at")) {
      return Bad(absl::StrCat("fail: '", text, "' needs worker= and at="));
    }
    auto worker = ToWorker("fail", (*numbers)["worker"], o.workers);
    if (!worker.ok()) return worker.status();
    constexpr double kLongest = 9e9;  // seconds that fit the clock
    const double lasts = numbers->contains("for") ? (*numbers)["for"] : INFINITY;
    if ((*numbers)["at"] > kLongest) return Bad("fail: at= is beyond the end of time");
    sim->failures.push_back({*worker, Time{} + Duration::Seconds((*numbers)["at"]),
                             lasts > kLongest ? Duration::Infinite() : Duration::Seconds(lasts)});
  }
  for (const std::string& text : o.slow) {
    auto numbers = ParseNumbers("slow", text, {"worker", "factor"});
    if (!numbers.ok()) return numbers.status();
    auto worker = ToWorker("slow", (*numbers)["worker"], o.workers);
    if (!worker.ok()) return worker.status();
    if (numbers->size() != 2 || !((*numbers)["factor"] > 0 && (*numbers)["factor"] <= 1e6)) {
      return Bad(absl::StrCat("slow: '", text, "' needs worker= and factor= in (0, 1e6]"));
    }
    sim->slowdown.resize(static_cast<size_t>(o.workers), 1.0);
    sim->slowdown[*worker] = (*numbers)["factor"];
  }
  if (!o.power.empty()) {
    auto numbers = ParseNumbers("power", o.power, {"idle", "peak", "gamma"});
    if (!numbers.ok()) return numbers.status();
    for (const auto& [key, value] : *numbers) {
      (key == "idle" ? sim->power.idle_w : key == "peak" ? sim->power.peak_w : sim->power.gamma) = value;
    }
  }
  return absl::OkStatus();
}

absl::Status ReadClasses(const SimulateOptions& o, WorkloadOptions* workload) {
  if (!o.slo.empty()) {
    auto slo = bench::ParseSlo(o.slo);
    if (!slo.ok()) return slo.status();
    workload->classes[0].slo = *slo;
  }
  if (o.class_file.empty()) return absl::OkStatus();
  bench::TrafficClass base;
  base.slo = workload->classes[0].slo;
  auto classes = bench::LoadClasses(o.class_file, base);
  if (!classes.ok()) return classes.status();
  std::map<std::string, uint32_t> tenants = {{"", 0}};
  workload->classes.clear();
  for (const bench::TrafficClass& one : *classes) {
    if (one.rate || one.cancel_probability > 0) {
      return Bad(absl::StrCat("class: ", one.name, ": rate and cancel_probability do not go with a trace"));
    }
    const uint32_t tenant =
        tenants.try_emplace(one.tenant, static_cast<uint32_t>(tenants.size())).first->second;
    workload->classes.push_back({one.name, one.share, one.priority, tenant, one.slo});
  }
  return absl::OkStatus();
}

// "a:x=1,y=2,b" is a:x=1,y=2 and b: a part with '=' and without ':' belongs to the one before.
std::vector<std::string> SplitPolicies(const std::string& text) {
  std::vector<std::string> out;
  for (const absl::string_view part : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    const bool more = !out.empty() && absl::StrContains(part, "=") && !absl::StrContains(part, ":");
    more ? absl::StrAppend(&out.back(), ",", part) : out.push_back(std::string(part));
  }
  return out;
}

absl::Status ReadCompared(const SimulateOptions& o, Scenario* scenario) {
  scenario->compared = SplitPolicies(o.compare);
  if (scenario->compared.size() > 64) return Bad("compare: at most 64 policies");
  absl::Status first;
  for (const std::string& name : scenario->compared) {
    const auto batch = NewBatchPolicy(name);
    const auto route = NewRoutePolicy(name);
    // "fcfs" is both: a scheduler, unless another name is a router's alone.
    if (!batch.ok() && route.ok()) scenario->compares_routers = true;
    if (!batch.ok() && !route.ok() && first.ok()) first = batch.status();
  }
  if (!first.ok()) return Bad(absl::StrCat("compare: ", first.message()));
  for (const std::string& name : scenario->compared) {
    const absl::Status status =
        scenario->compares_routers ? NewRoutePolicy(name).status() : NewBatchPolicy(name).status();
    if (!status.ok())
      return Bad(absl::StrCat("compare: schedulers or routers, not both: ", status.message()));
  }
  return absl::OkStatus();
}

// The policies' names and the sizes of a worker.
absl::Status ReadWorker(const SimulateOptions& o, const CostProfile& profile, bool limited, bool prefill,
                        sim::SimOptions* sim) {
  for (const auto& [flag, value, low, high] :
       {std::tuple{"workers", o.workers, int64_t{1}, int64_t{1} << 16},
        std::tuple{"max-num-seqs", o.max_num_seqs, int64_t{1}, int64_t{4096}},
        std::tuple{"max-step-tokens", o.max_step_tokens, int64_t{1}, int64_t{1} << 20},
        std::tuple{"block-tokens", o.block_tokens, int64_t{1}, int64_t{1024}},
        std::tuple{"max-queue-tokens", o.max_queue_tokens, int64_t{0}, int64_t{1} << 60},
        std::tuple{"kv-cache-tokens", o.kv_cache_tokens.value_or(1), int64_t{1}, kMaxKvTokens},
        std::tuple{"warmup", o.warmup, int64_t{0}, int64_t{1} << 60}}) {
    if (absl::Status status = CheckRange(flag, value, low, high); !status.ok()) return status;
  }
  WorkerOptions& worker = sim->worker.options;
  const int64_t unlimited = std::min(kMaxBlocks * o.block_tokens, kMaxKvTokens);
  const int64_t stated = limited && profile.kv_capacity_tokens > 0 ? profile.kv_capacity_tokens : unlimited;
  const int64_t kv_tokens = std::min(o.kv_cache_tokens.value_or(stated), unlimited);
  worker.num_blocks = static_cast<int32_t>(std::max<int64_t>(1, kv_tokens / o.block_tokens));
  worker.block_tokens = static_cast<int32_t>(o.block_tokens);
  worker.max_num_seqs = static_cast<int32_t>(o.max_num_seqs);
  worker.max_step_tokens = static_cast<int32_t>(o.max_step_tokens);
  worker.max_context = static_cast<int32_t>(std::clamp<int64_t>(kv_tokens + 1, 2, kMaxContext));
  worker.max_waiting = 1 << 20;
  worker.prefix_cache = !o.no_prefix_cache;
  sim->worker.scheduler = o.scheduler;
  sim->worker.predictor = o.predictor;
  sim->worker.eviction = o.eviction;
  sim->router = o.router;
  sim->num_workers = static_cast<int32_t>(o.workers);
  sim->barrier = o.barrier;
  sim->prefill = prefill;
  sim->admission.max_queue_tokens =
      o.max_queue_tokens > 0 ? o.max_queue_tokens : std::numeric_limits<int64_t>::max() / 4;
  return absl::OkStatus();
}

// Unknown names are told before a long trace is read.
absl::Status CheckNames(const SimulateOptions& o) {
  const auto oracle = sim::ParseOracle(o.predictor);
  const bool foresees = !oracle.ok() || oracle->has_value();
  const std::pair<const char*, absl::Status> names[] = {
      {"scheduler", NewBatchPolicy(o.scheduler).status()},
      {"router", NewRoutePolicy(o.router).status()},
      {"predictor", foresees ? oracle.status() : NewLengthPredictor(o.predictor).status()},
      {"eviction", NewEvictionPolicy(o.eviction).status()}};
  for (const auto& [flag, status] : names) {
    if (!status.ok()) return Bad(absl::StrCat(flag, ": ", status.message()));
  }
  return absl::OkStatus();
}

// Only a file of classes says what a plan has to know of them.
absl::Status ReadPools(const SimulateOptions& o, Scenario* scenario) {
  std::vector<std::string> routers = {o.router};
  if (scenario->compares_routers) routers = scenario->compared;
  std::string planned;
  for (const std::string& router : routers) {
    const auto policy = NewRoutePolicy(router);
    if (!policy.ok()) return policy.status();
    if ((*policy)->needs().plan) planned = router;
  }
  if (planned.empty()) return absl::OkStatus();
  if (o.trace_format != "classes") {
    return Bad(absl::StrCat("router: ", planned, " decides by a plan for classes of requests: it needs ",
                            "--trace-format classes"));
  }
  constexpr size_t kMaxBytes = 1 << 20;
  auto text = ReadWholeFile(o.trace, kMaxBytes);
  if (!text.ok()) return text.status();
  const auto document = cli::ParseDocument(o.trace, *text);
  if (!document.ok()) return document.status();
  auto pools = cli::ReadMixedPools(*document);
  if (!pools.ok()) return Bad(absl::StrCat(o.trace, ": ", pools.status().message()));
  if (pools->slots > o.max_num_seqs) {
    return Bad(absl::StrCat("max-num-seqs: ", o.max_num_seqs, ", but the plan has ", pools->slots, " slots"));
  }
  pools->fleet_sizes = {o.workers};
  scenario->pools = *std::move(pools);
  return absl::OkStatus();
}

absl::Status ReadSeeds(const SimulateOptions& o, Scenario* scenario) {
  if (o.seed && o.seeds) return Bad("seeds: give one of --seed and --seeds");
  const int64_t count = o.seeds.value_or(1);
  if (absl::Status status = CheckRange("seeds", count, 1, kMaxSeeds); !status.ok()) return status;
  for (int64_t i = 0; i < count; ++i) scenario->seeds.push_back(static_cast<uint64_t>(o.seed.value_or(i)));
  return absl::OkStatus();
}

absl::Status ApplyRho(const SimulateOptions& o, const CostProfile& profile, Scenario* scenario) {
  if (!o.rho) return absl::OkStatus();
  if (o.rate) return Bad("rho: give one of --rate and --rho");
  if (!(*o.rho > 0 && *o.rho < 1e6)) return Bad("rho: must be above 0");
  if (profile.cost.rfind("constant:", 0) != 0) return Bad("rho: needs a constant step time (constant:MS)");
  StepShape one;
  one.AddDecode(1);
  const double step_s = scenario->cost->Predict(one).seconds();
  if (step_s <= 0) return Bad("rho: needs a step time above 0");
  const double slots = static_cast<double>(o.workers) * scenario->sim.worker.options.max_num_seqs;
  scenario->workload->set_rate(*o.rho * slots / (scenario->workload->mean_output_tokens() * step_s));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RoutePlan> PlanPools(const Scenario& scenario) {
  RoutePlan plan{.id = PlanId{1}, .question = *scenario.pools, .answer = {}};
  double rate = 0;  // of the file
  for (const PoolClass& one : plan.question.classes) rate += one.arrival_rate_per_worker_s;
  rate *= scenario.sim.num_workers;
  const double scale = rate > 0 ? scenario.workload->rate().value_or(rate) / rate : 1;
  for (PoolClass& one : plan.question.classes) one.arrival_rate_per_worker_s *= scale;
  auto answer = PlanMixedPools(plan.question);
  if (!answer.ok()) return answer.status();
  plan.answer = *std::move(answer);
  return plan;
}

absl::StatusOr<Scenario> Resolve(const SimulateOptions& o) {
  if (o.trace.empty()) return Bad("trace: required");
  if (o.trace_format.empty())
    return Bad("trace-format: required (azure, mooncake, lengths, servegen, classes, bench)");
  if (o.cost_profile.empty())
    return Bad("cost-profile: required, such as constant:20 or FILE#GPU/MODEL/tpN/WEIGHTS");
  if (absl::Status status = CheckNames(o); !status.ok()) return status;
  Scenario scenario;
  WorkloadOptions workload;
  auto arrival = ParseArrival(o.arrival.value_or("trace"));
  if (!arrival.ok()) return arrival.status();
  // A rate alone is enough to know what is meant where the trace has no times.
  if (!o.arrival && (o.trace_format == "lengths" || o.rho) && (o.rate || o.rho)) arrival = Arrival::kPoisson;
  scenario.saturated = *arrival == Arrival::kSaturated;
  const std::string prefill = o.prefill.value_or(scenario.saturated ? "none" : "chunked");
  if (prefill != "none" && prefill != "chunked")
    return bench::UnknownName("prefill", prefill, {"chunked", "none"});
  if (scenario.saturated && (o.rate || o.rho)) return Bad("rate: a saturated run has none");
  if (!scenario.saturated && (o.pool || o.warmup_steps || o.steps)) {
    return Bad(absl::StrCat(o.pool    ? "pool"
                            : o.steps ? "steps"
                                      : "warmup-steps",
                            ": only with --arrival saturated"));
  }
  if (o.rate && !(*o.rate > 0 && *o.rate < 1e9)) return Bad("rate: must be above 0");
  if (o.burstiness && !(*o.burstiness > 0 && *o.burstiness < 1e6)) return Bad("burstiness: must be above 0");
  auto profile = LoadCostProfile(o.cost_profile);
  if (!profile.ok()) return profile.status();
  if (profile->cost.rfind("online", 0) == 0) {
    return Bad("cost-profile: 'online' learns from an engine, and here it would be the engine");
  }
  auto cost = ParseStepCost(profile->cost);
  if (!cost.ok()) return cost.status();
  scenario.cost = *std::move(cost);
  if (absl::Status s = ReadWorker(o, *profile, !scenario.saturated, prefill == "chunked", &scenario.sim);
      !s.ok()) {
    return s;
  }
  scenario.sim.worker.cost = profile->cost;
  if (!o.believed_cost.empty()) {
    auto believed = LoadCostProfile(o.believed_cost);
    if (!believed.ok()) return believed.status();
    scenario.sim.worker.cost = believed->cost;
  }
  if (absl::Status s = ReadTroubles(o, &scenario.sim); !s.ok()) return s;
  if (absl::Status s = ReadSeeds(o, &scenario); !s.ok()) return s;
  if (absl::Status s = ReadCompared(o, &scenario); !s.ok()) return s;
  if (absl::Status s = ReadPools(o, &scenario); !s.ok()) return s;
  if (absl::Status s = ReadClasses(o, &workload); !s.ok()) return s;

  workload.path = o.trace;
  workload.format = o.trace_format;
  workload.arrival = *arrival;
  workload.rate = o.rate;
  workload.shape = o.burstiness;
  workload.num_requests = o.num_requests;
  workload.num_workers = static_cast<int32_t>(o.workers);
  workload.max_context = scenario.sim.worker.options.max_context;
  workload.shared_prefixes = !o.no_prefix_cache && prefill == "chunked";
  if (o.num_requests && *o.num_requests < 1) return Bad("num-requests: must be at least 1");
  int64_t bound = 0;
  if (o.max_tokens != "exact" &&
      (!absl::SimpleAtoi(o.max_tokens, &bound) || bound < 1 || bound > kMaxContext)) {
    return Bad(
        absl::StrCat("max-tokens: '", o.max_tokens, "' is neither exact nor in [1, ", kMaxContext, "]"));
  }
  workload.max_tokens = static_cast<int32_t>(bound);
  auto opened = Workload::Open(std::move(workload));
  if (!opened.ok()) return opened.status();
  scenario.workload = std::make_unique<Workload>(*std::move(opened));
  if (absl::Status s = ApplyRho(o, *profile, &scenario); !s.ok()) return s;
  sim::SimOptions& sim = scenario.sim;
  sim.warmup_requests = static_cast<uint64_t>(o.warmup);
  if (!scenario.saturated && o.warmup >= scenario.workload->num_requests()) {
    return Bad(
        absl::StrCat("warmup: leaves none of ", scenario.workload->num_requests(), " requests to measure"));
  }
  if (scenario.saturated) {
    for (const auto& [flag, value, low] : {std::tuple{"pool", o.pool.value_or(1), int64_t{1}},
                                           std::tuple{"warmup-steps", o.warmup_steps.value_or(0), int64_t{0}},
                                           std::tuple{"steps", o.steps.value_or(1), int64_t{1}}}) {
      if (absl::Status s = CheckRange(flag, value, low, 1'000'000'000); !s.ok()) return s;
    }
    sim.pool = o.pool.value_or(4 * o.workers);
    sim.warmup_steps = o.warmup_steps.value_or(1500);
    sim.steps = o.steps.value_or(3000);
  }
  if (o.explain) {
    if (*o.explain < 0) return Bad("explain: requests are counted from 0");
    if (!scenario.saturated && *o.explain >= scenario.workload->num_requests()) {
      return Bad(absl::StrCat("explain: there is no request ", *o.explain, " among ",
                              scenario.workload->num_requests(), ", counted from 0"));
    }
    sim.explain = static_cast<uint64_t>(*o.explain);
  }
  return scenario;
}

}  // namespace orrery::simulate
