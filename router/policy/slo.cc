#include "router/policy/slo.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace orrery {
namespace {

constexpr Duration kShortestWake = Duration::Milliseconds(1);
constexpr double kLongestMs = 1e9;

Duration FromMs(double ms) { return Duration::Seconds(std::min(ms, kLongestMs) * 1e-3); }

// Beyond a target, ms.
double Over(double ms, Duration target) {
  return target.is_infinite() ? 0 : std::max(0.0, ms - target.milliseconds());
}

// In ms, less the margin; infinite targets are never missed.
bool Meets(double ms, Duration target, double margin) {
  return target.is_infinite() || ms <= (1 - margin) * target.milliseconds();
}

bool HasRoom(const WorkerLoad& load) {
  return load.waiting_tokens + load.sent_tokens + load.prompt_left < 2 * int64_t{load.max_step_tokens} &&
         load.num_waiting + load.num_sent < load.free_slots;
}

bool HasSlo(const Waiting& request) {
  return !request.slo.ttft.is_infinite() || !request.slo.tpot.is_infinite();
}

}  // namespace

absl::Span<const OptionField<SloOptions>> SloPolicy::Fields() {
  static constexpr OptionField<SloOptions> kFields[] = {
      {"margin", &SloOptions::margin, 0, 0.9, "share of each target kept for the prediction's error"},
      {"wait_ms", &SloOptions::wait_ms, 0, 1e9, "beyond its ttft target that a request waits for room"},
      {"fair_ms", &SloOptions::fair_ms, 1, 1e9, "after which tokens served to a tenant count half"},
      {"block", &SloOptions::block, 1, 1 << 20, "tokens of a block of a known prefix"},
      {"blocks", &SloOptions::blocks, 1, 1 << 26, "remembered, of all workers together"},
  };
  return kFields;
}

SloPolicy::SloPolicy(const SloOptions& options)
    : options_(options), shares_(FromMs(options.fair_ms)), tree_(options.block) {}

void SloPolicy::Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time now,
                       Assignment* assignment) {
  loads_.assign(cluster.workers.begin(), cluster.workers.end());
  hash_key_ = cluster.hash_key;
  predictor_.Keep(cluster.workers);
  tree_.Keep(cluster.workers);
  shares_.Decay(now);
  wake_ = Time::Never();
  placed_ms_ = 0;
  num_with_room_ = std::count_if(loads_.begin(), loads_.end(), HasRoom);
  ReadTurns(waiting);
  weighed_again_ = weighed_ = 0;
  for (size_t begin = 0, end = 0; begin < turns_.size(); begin = end) {
    while (end < turns_.size() && turns_[end].priority == turns_[begin].priority) ++end;
    TakeTurns(waiting, begin, end, now, assignment);
  }
  last_ = now;
  ForgetNames(waiting);
  assignment->why = {.policy = "slo",
                     .objective = "milliseconds by which the samples placed and those there end later",
                     .value = placed_ms_,
                     .work = static_cast<int64_t>(weighed_ * loads_.size())};
}

void SloPolicy::ReadTurns(absl::Span<const Waiting> waiting) {
  turns_.clear();
  for (uint32_t at = 0; at < waiting.size(); ++at) {
    turns_.push_back({waiting[at].priority, waiting[at].tenant, at});
  }
  std::sort(turns_.begin(), turns_.end(), [](const Turn& a, const Turn& b) {
    return std::tuple(-int64_t{a.priority}, a.tenant, a.at) <
           std::tuple(-int64_t{b.priority}, b.tenant, b.at);
  });
}

void SloPolicy::TakeTurns(absl::Span<const Waiting> waiting, size_t begin, size_t end, Time now,
                          Assignment* assignment) {
  lines_.clear();
  for (size_t from = begin, to = begin; from < end; from = to) {
    const uint32_t tenant = turns_[from].tenant;
    while (to < end && turns_[to].tenant == tenant) ++to;
    lines_.push_back({shares_.Served(tenant), from, to});
  }
  const auto later = [this](const Line& a, const Line& b) {
    return a.served != b.served ? a.served > b.served : turns_[a.begin].at > turns_[b.begin].at;
  };
  std::make_heap(lines_.begin(), lines_.end(), later);
  while (!lines_.empty()) {
    std::pop_heap(lines_.begin(), lines_.end(), later);
    Line& line = lines_.back();
    const Turn& turn = turns_[line.begin];
    if (weighed_again_ < kMostWeighedAgain || IsNew(waiting[turn.at])) {
      Decide(waiting[turn.at], now, assignment);
    }
    line.served = shares_.Served(turn.tenant);
    if (++line.begin < line.end) {
      std::push_heap(lines_.begin(), lines_.end(), later);
    } else {
      lines_.pop_back();
    }
  }
}

void SloPolicy::Decide(const Waiting& request, Time now, Assignment* assignment) {
  const bool has_slo = HasSlo(request);
  if (!has_slo && num_with_room_ == 0) return;  // it waits for a worker, not for a time
  const bool is_new = IsNew(request);
  const std::vector<Hash128>& names = NamesOf(request);
  const Verdict verdict = Weigh(request, names, now);
  ++weighed_;
  if (verdict.soonest.at == kNobody) return;
  weighed_again_ += !is_new;
  if (!has_slo) {
    if (verdict.fastest_with_room.at == kNobody) return;
    return Place(request, verdict.fastest_with_room, names, now, assignment);
  }
  if (verdict.cheapest.at != kNobody) {
    return Place(request, verdict.cheapest, names, now, assignment);
  }
  const bool may_be_shed = request.priority < 0 && !request.replayed;
  if (verdict.idle.at != kNobody && (may_be_shed || verdict.idle.ms <= verdict.least_late.ms)) {
    return Place(request, verdict.idle, names, now, assignment);
  }
  const Duration waited = now - request.arrival;
  if (may_be_shed) {
    // If the soonest one would meet the ttft target, it is its tpot that does not.
    const Latency& soonest = verdict.soonest.latency;
    const Duration wait = FromMs(soonest.ttft_ms());
    const double ttft_ms = (waited + wait).milliseconds();
    const bool tpot = Meets(ttft_ms, request.slo.ttft, options_.margin);
    const double predicted = tpot ? soonest.tpot_ms : ttft_ms;
    assignment->shed.push_back(
        {request.request, tpot, tpot ? request.slo.tpot : request.slo.ttft, FromMs(predicted), wait});
    return;
  }
  const Duration patience = FromMs(options_.wait_ms);
  const bool has_ttft = !request.slo.ttft.is_infinite();
  const Time late = has_ttft ? request.arrival + (request.slo.ttft - FromMs(verdict.least_bare_ms))
                             : request.arrival + patience;
  const Time overdue = has_ttft ? request.arrival + request.slo.ttft + patience : late;
  if (now < late) return WakeAt(late, now);
  const Choice& choice = verdict.least_late;
  if (now < overdue && !HasRoom(loads_[choice.at])) {
    Count(request, choice);
    return WakeAt(overdue, now);
  }
  Place(request, choice, names, now, assignment);
}

SloPolicy::Verdict SloPolicy::Weigh(const Waiting& request, absl::Span<const Hash128> names, Time now) const {
  Verdict verdict;
  for (size_t at = 0; at < loads_.size(); ++at) {
    if (loads_[at].accepts && CanRun(request, loads_[at])) WeighWorker(request, names, at, now, &verdict);
  }
  return verdict;
}

void SloPolicy::WeighWorker(const Waiting& request, absl::Span<const Hash128> names, size_t at, Time now,
                            Verdict* verdict) const {
  const WorkerLoad& load = loads_[at];
  const auto hit = static_cast<int64_t>(tree_.Matched(names, load.worker)) * options_.block;
  // The last token is computed in any case.
  const auto hit_tokens = static_cast<int32_t>(std::min<int64_t>(hit, request.prompt_tokens - 1));
  const Demand demand = {request.prompt_tokens, hit_tokens, request.num_samples, request.max_new_tokens};
  const Latency latency = predictor_.Predict(load, demand, now);
  const LatencyModel model = predictor_.ModelOf(load.worker);
  const double outputs = predictor_.ExpectedOutput(request.max_new_tokens);
  const double ttft_ms = (now - request.arrival).milliseconds() + latency.ttft_ms();
  const double own_ms = latency.ttft_ms() + outputs * latency.tpot_ms;
  const double in_the_way_ms =
      model.PromptMs(request.prompt_tokens, hit_tokens) +
      request.num_samples * outputs * (model.per_seq + model.per_kv * (request.prompt_tokens + outputs / 2));
  const double others_ms = load.num_bound * in_the_way_ms;
  const double late_ms =
      Over(ttft_ms, request.slo.ttft) + outputs * Over(latency.tpot_ms, request.slo.tpot) + others_ms;
  const auto consider = [&](double ms, Choice* choice) {
    const Choice mine{at, ms, latency};
    if (choice->at == kNobody || Better(mine, *choice)) *choice = mine;
  };

  if (Meets(ttft_ms, request.slo.ttft, options_.margin) &&
      Meets(latency.tpot_ms, request.slo.tpot, options_.margin)) {
    consider(own_ms + others_ms, &verdict->cheapest);
  }
  const bool first = verdict->soonest.at == kNobody;
  const double bare_ms = latency.pass_ms + latency.prompt_ms;
  verdict->least_bare_ms = first ? bare_ms : std::min(verdict->least_bare_ms, bare_ms);
  consider(latency.ttft_ms(), &verdict->soonest);
  consider(late_ms, &verdict->least_late);
  if (load.num_bound == 0) consider(late_ms, &verdict->idle);
  if (HasRoom(load)) consider(own_ms, &verdict->fastest_with_room);
}

bool SloPolicy::Better(const Choice& a, const Choice& b) const {
  if (a.ms != b.ms) return a.ms < b.ms;
  return loads_[a.at].load_tokens() < loads_[b.at].load_tokens();
}

void SloPolicy::Place(const Waiting& request, const Choice& choice, absl::Span<const Hash128> names, Time now,
                      Assignment* assignment) {
  const WorkerLoad& load = loads_[choice.at];
  const double outputs = predictor_.ExpectedOutput(request.max_new_tokens);
  assignment->placements.push_back({request.request, load.worker});
  predictor_.OnPlaced(request.request, load.worker, request.num_samples, choice.latency, now);
  tree_.Insert(names, load.worker, tree_.Room(load, names, 0, options_.blocks, loads_.size()));
  shares_.Add(request.tenant, request.prompt_tokens + request.num_samples * outputs);
  Count(request, choice);
  placed_ms_ += choice.ms;
  names_.erase(request.request);
}

void SloPolicy::Count(const Waiting& request, const Choice& choice) {
  WorkerLoad& load = loads_[choice.at];
  num_with_room_ -= HasRoom(load);
  load.sent_tokens += request.prompt_tokens;
  load.num_sent += request.num_samples;
  load.num_bound += request.num_samples;
  num_with_room_ += HasRoom(load);
}

void SloPolicy::WakeAt(Time time, Time now) { wake_ = std::min(wake_, std::max(time, now + kShortestWake)); }

bool SloPolicy::IsNew(const Waiting& request) const {
  return request.arrival >= last_ && !names_.contains(request.request);
}

const std::vector<Hash128>& SloPolicy::NamesOf(const Waiting& request) {
  const auto [known, is_new] = names_.try_emplace(request.request);
  if (is_new) NameBlocks(request, hash_key_, options_.block, &known->second);
  return known->second;
}

void SloPolicy::ForgetNames(absl::Span<const Waiting> waiting) {
  if (names_.size() <= 2 * waiting.size() + kMostWeighedAgain) return;
  absl::flat_hash_map<RequestId, std::vector<Hash128>> kept;
  for (const Waiting& request : waiting) {
    if (const auto known = names_.find(request.request); known != names_.end())
      kept.insert(std::move(*known));
  }
  names_ = std::move(kept);
}

}  // namespace orrery
