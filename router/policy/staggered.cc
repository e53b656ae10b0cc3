#include "router/policy/staggered.h"

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>

namespace orrery {
namespace {

constexpr int64_t kLostPasses = 3;
constexpr int64_t kLongestPass = 4;
constexpr int64_t kFreshPart = 8;
constexpr int64_t kPassMemory = 16;  // passes
constexpr size_t kFewestForQuartiles = 8;
constexpr Duration kShortestInterval = Duration::Milliseconds(1);

// Between neighbours in proportion; REQUIRES: sorted, not empty.
double Quantile(const std::vector<int64_t>& sorted, double share) {
  const double at = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double part = at - static_cast<double>(below);
  return static_cast<double>(sorted[below]) * (1 - part) + static_cast<double>(sorted[above]) * part;
}

}  // namespace

absl::Span<const OptionField<StaggeredOptions>> StaggeredPolicy::Fields() {
  static constexpr OptionField<StaggeredOptions> kFields[] = {
      {"chunk", &StaggeredOptions::chunk, 1, 1 << 24, "prompt tokens of a pass of one worker"},
      {"ranks", &StaggeredOptions::ranks, 0, 1 << 20, "workers of an instance; 0: all are one"},
      {"prefill", &StaggeredOptions::prefill, 0, 1 << 20, "workers for prompts alone; 0: all do both"},
      {"overdraft", &StaggeredOptions::overdraft, 0, 1 << 30,
       "tokens beyond its chunk that a worker is given"},
      {"net_ms", &StaggeredOptions::net_ms, 0, 1e6, "from the router to a worker"},
      {"age_ms", &StaggeredOptions::age_ms, 0, 1e9, "after which a prompt is kept no longer"},
      {"iqr", &StaggeredOptions::iqr, 0, 1e6, "quartile distances above which KV is an outlier's"},
  };
  return kFields;
}

void StaggeredPolicy::Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time now,
                             Assignment* assignment) {
  fullest_ = 0;
  ReadWorkers(cluster, now);
  PlaceDecodes(cluster.between, assignment);
  ReadPrompts(waiting);
  ReleaseAged(now, assignment);
  ReleaseInstances(now, assignment);
  SetWake(now);
  assignment->why = {.policy = "staggered",
                     .objective = "prompt tokens to compute on the fullest worker placed on",
                     .value = static_cast<double>(fullest_),
                     .work = static_cast<int64_t>(cluster.workers.size() + waiting.size())};
}

void StaggeredPolicy::ReadWorkers(const ClusterView& cluster, Time now) {
  former_ranks_.swap(ranks_);
  ranks_.clear();
  decode_.clear();
  auto former = former_ranks_.begin();
  for (const WorkerLoad& load : cluster.workers) {
    if (!load.accepts) continue;
    if (options_.prefill > 0 && ranks_.size() == static_cast<size_t>(options_.prefill)) {
      decode_.push_back({&load, load.num_bound - load.num_prefills, load.load_tokens()});
      continue;
    }
    while (former != former_ranks_.end() && former->worker < load.worker) ++former;
    Rank rank;
    if (former != former_ranks_.end() && former->worker == load.worker) rank = *former;
    rank.load = &load;
    rank.worker = load.worker;
    Measure(load, &rank);
    rank.capacity = options_.chunk - load.prompt_left - load.waiting_tokens - load.sent_tokens;
    rank.tokens = load.load_tokens();
    const bool idle = load.num_running + load.num_waiting + load.num_sent == 0;
    const Duration silent = now - load.state_at;
    const bool lost = silent > Duration{kLostPasses * pass_.ns};
    const bool ended = load.state_at > rank.released && silent <= net() + Duration{pass_.ns / kFreshPart};
    rank.ready = idle || lost || ended;
    ranks_.push_back(rank);
  }
}

void StaggeredPolicy::Measure(const WorkerLoad& load, Rank* rank) {
  if (load.state_at <= rank->seen || load.step_time.ns <= 0) return;
  rank->seen = load.state_at;
  if (pass_.ns == 0) pass_ = load.step_time;
  const int64_t pass = std::min(load.step_time.ns, kLongestPass * pass_.ns);
  pass_.ns += (pass - pass_.ns) / kPassMemory;
}

void StaggeredPolicy::ReadPrompts(absl::Span<const Waiting> waiting) {
  prompts_.clear();
  kept_tokens_ = 0;
  for (const Waiting& request : waiting) {
    prompts_.push_back({&request, request.arrival <= round_});
    kept_tokens_ += request.prompt_tokens;
  }
  std::stable_sort(prompts_.begin(), prompts_.end(), [](const Prompt& a, const Prompt& b) {
    if (a.left_over != b.left_over) return a.left_over;
    return a.request->prompt_tokens > b.request->prompt_tokens;
  });
}

void StaggeredPolicy::ReleaseAged(Time now, Assignment* assignment) {
  const Duration age = Duration::Seconds(options_.age_ms * 1e-3);
  for (Prompt& prompt : prompts_) {
    if (now - prompt.request->arrival < age) continue;
    Rank* rank = MostCapacity(*prompt.request, absl::MakeSpan(ranks_));
    if (rank != nullptr) Place(&prompt, rank, assignment);
  }
}

void StaggeredPolicy::ReleaseInstances(Time now, Assignment* assignment) {
  FindReady();
  for (const size_t instance : ready_) {
    if (kept_tokens_ > 0) Release(instance, now, assignment);
  }
  const auto full = static_cast<int64_t>(width()) * options_.chunk;
  for (bool due = now >= tick_; kept_tokens_ > 0 && (due || kept_tokens_ >= full); due = false) {
    const size_t next = NextInstance();
    const int64_t before = kept_tokens_;
    if (next < num_instances()) Release(next, now, assignment);
    if (kept_tokens_ == before) break;
  }
}

void StaggeredPolicy::FindReady() {
  ready_.clear();
  for (size_t i = 0; i < num_instances(); ++i) {
    const auto instance = Instance(i);
    const auto ready = [](const Rank& rank) { return rank.ready; };
    if (std::all_of(instance.begin(), instance.end(), ready)) ready_.push_back(i);
  }
  // Instances get their releases as a whole: the first rank stands for all.
  const auto key = [this](size_t i) {
    int64_t capacity = 0;
    for (const Rank& rank : Instance(i)) capacity += rank.capacity;
    return std::pair(-capacity, Instance(i)[0].released);
  };
  std::stable_sort(ready_.begin(), ready_.end(), [&](size_t a, size_t b) { return key(a) < key(b); });
}

size_t StaggeredPolicy::NextInstance() const {
  size_t best = num_instances();
  Time soonest = Time::Never();
  for (size_t i = 0; i < num_instances(); ++i) {
    Time ended{};
    bool room = false;
    for (size_t r = i * width(); r < std::min(ranks_.size(), (i + 1) * width()); ++r) {
      ended = std::max(ended, ranks_[r].load->state_at);
      room |= ranks_[r].capacity > -options_.overdraft;
    }
    if (!room || ended >= soonest) continue;
    best = i;
    soonest = ended;
  }
  return best;
}

void StaggeredPolicy::Release(size_t i, Time now, Assignment* assignment) {
  const auto instance = Instance(i);
  bool any = false;
  for (Prompt& prompt : prompts_) {
    if (prompt.placed) continue;
    Rank* rank = MostCapacity(*prompt.request, instance);
    if (rank == nullptr || rank->capacity <= -options_.overdraft) continue;
    Place(&prompt, rank, assignment);
    any = true;
  }
  if (!any) return;
  for (Rank& rank : instance) rank.released = now;
  round_ = now;
  const Duration interval{(pass_ + net()).ns / static_cast<int64_t>(num_instances())};
  tick_ = now + std::max(kShortestInterval, interval);
}

void StaggeredPolicy::Place(Prompt* prompt, Rank* rank, Assignment* assignment) {
  const Waiting& request = *prompt->request;
  prompt->placed = true;
  rank->capacity -= request.prompt_tokens;
  rank->tokens += request.prompt_tokens;
  kept_tokens_ -= request.prompt_tokens;
  fullest_ = std::max(fullest_, options_.chunk - rank->capacity);
  assignment->placements.push_back({request.request, rank->worker, apart()});
}

StaggeredPolicy::Rank* StaggeredPolicy::MostCapacity(const Waiting& request, absl::Span<Rank> ranks) const {
  Rank* best = nullptr;
  for (Rank& rank : ranks) {
    if (!CanRun(request, *rank.load)) continue;
    const bool more = best == nullptr || rank.capacity > best->capacity;
    if (more || (rank.capacity == best->capacity && rank.tokens < best->tokens)) best = &rank;
  }
  return best;
}

// Aged prompts that are still here fit nobody: they wait for a worker, not for a time.
void StaggeredPolicy::SetWake(Time now) {
  const Duration age = Duration::Seconds(options_.age_ms * 1e-3);
  wake_ = Time::Never();
  for (const Prompt& prompt : prompts_) {
    const Time aged = prompt.request->arrival + age;
    if (!prompt.placed && aged > now) wake_ = std::min(wake_, aged);
  }
  if (wake_.is_never()) return;
  if (tick_ <= now) tick_ = now + std::max(kShortestInterval, pass_);
  wake_ = std::min(wake_, tick_);
}

void StaggeredPolicy::PlaceDecodes(absl::Span<const Waiting> between, Assignment* assignment) {
  long_first_.clear();
  for (const Waiting& request : between) long_first_.push_back(&request);
  std::stable_sort(long_first_.begin(), long_first_.end(),
                   [](const Waiting* a, const Waiting* b) { return a->prompt_tokens > b->prompt_tokens; });
  for (const Waiting* request : long_first_) {
    const WorkerLoad* rank = DecodeRankFor(*request);
    if (rank != nullptr) {
      assignment->placements.push_back({request->request, rank->worker});
    } else if (request->on_worker) {
      assignment->placements.push_back({request->request, request->from});
    }
  }
}

const WorkerLoad* StaggeredPolicy::DecodeRankFor(const Waiting& request) {
  double cut = std::numeric_limits<double>::infinity();
  if (decode_.size() >= kFewestForQuartiles) {
    sorted_.clear();
    for (const DecodeRank& rank : decode_) sorted_.push_back(rank.kv_tokens);
    std::sort(sorted_.begin(), sorted_.end());
    const double q1 = Quantile(sorted_, 0.25), q3 = Quantile(sorted_, 0.75);
    cut = q3 + options_.iqr * (q3 - q1);
  }
  // Where only outliers can run it, one of them does.
  const auto key = [&](const DecodeRank& rank) {
    return std::tuple(static_cast<double>(rank.kv_tokens) > cut, rank.samples, rank.kv_tokens);
  };
  DecodeRank* best = nullptr;
  for (DecodeRank& rank : decode_) {
    if (CanRun(request, *rank.load) && (best == nullptr || key(rank) < key(*best))) best = &rank;
  }
  if (best == nullptr) return nullptr;
  best->samples += request.num_samples;
  best->kv_tokens += request.prompt_tokens;
  return best->load;
}

}  // namespace orrery
