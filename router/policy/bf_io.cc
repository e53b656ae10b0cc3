#include "router/policy/bf_io.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "router/policy/balance_score.h"

namespace orrery {
namespace {

constexpr size_t kSmallest = 6;        // sizes whose height above the fullest open worker is tried
constexpr double kEndedMemory = 1024;  // outputs after which one that ended counts 1/e
constexpr std::string_view kObjective = "tokens below the envelope behind the barrier";

static_assert(kLookaheadSteps < kMaxMargins);

// A sum of weights times tokens is exact to far better.
bool Below(double a, double b) { return a < b - 1e-6; }

}  // namespace

absl::Span<const OptionField<BfIoOptions>> BfIoPolicy::Fields() {
  static constexpr OptionField<BfIoOptions> kFields[] = {
      {"age", &BfIoOptions::age, 0, 1e9, "steps after which a candidate goes first; 0: never"},
      {"pool", &BfIoOptions::pool, 0, 1 << 20, "oldest requests to choose from; 0: 4 for each worker"},
      {"refine", &BfIoOptions::refine, "try several heights of the envelope where greedy is not best"},
      {"beta", &BfIoOptions::beta, 0, 1e6,
       "price of a token above the envelope, in tokens below it; 0: the number of workers"},
      {"lookahead", &BfIoOptions::lookahead, 0, kLookaheadSteps, "steps ahead whose balance counts"},
      {"decay", &BfIoOptions::decay, 0, 1, "weight of a step over that of the one before"},
      {"survival", &BfIoOptions::survival, "weights are the share of outputs that were longer instead"},
  };
  return kFields;
}

BfIoPolicy::BfIoPolicy(const BfIoOptions& options)
    : options_(options), width_(static_cast<size_t>(options.lookahead) + 1), ended_within_(width_) {
  weights_.assign(width_, 1);
  for (size_t h = 1; h < width_; ++h) weights_[h] = weights_[h - 1] * (options.survival ? 1 : options.decay);
}

void BfIoPolicy::OnFinished(int32_t output_tokens) {
  if (!options_.survival) return;
  constexpr double kKeep = 1 - 1 / kEndedMemory;
  ended_ = ended_ * kKeep + 1;
  for (size_t h = 0; h < width_; ++h) {
    ended_within_[h] = ended_within_[h] * kKeep + (output_tokens <= static_cast<int32_t>(h));
    weights_[h] = 1 - ended_within_[h] / ended_;
  }
}

void BfIoPolicy::Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time now,
                        Assignment* assignment) {
  work_ = 0;
  const int64_t slots = ReadWorkers(cluster);
  ReadStep(cluster, now);
  assignment->why = {.policy = "bf-io", .objective = kObjective, .value = Objective(peaks_, 0)};
  if (slots > 0 && !waiting.empty()) {
    ReadPool(waiting, slots);
    Solve(slots);
    for (const Pick& pick : best_.picks) {
      assignment->placements.push_back({request(pick.rank).request, rooms_[pick.room].worker->worker});
    }
    assignment->why.value = best_.objective;
    assignment->why.bound = LowerBound(slots, best_.picks.size());
  }
  assignment->why.work = work_ + num_workers_;
}

int64_t BfIoPolicy::ReadWorkers(const ClusterView& cluster) {
  num_workers_ = static_cast<int64_t>(cluster.workers.size());
  beta_ = options_.beta > 0 ? options_.beta : static_cast<double>(num_workers_);
  rooms_.clear();
  loads_.clear();
  peaks_.assign(width_, 0);
  sums_.assign(width_, 0);
  step_ = 0;
  int64_t slots = 0;
  for (size_t i = 0; i < cluster.workers.size(); ++i) {
    const WorkerLoad& worker = cluster.workers[i];
    const int64_t tokens = worker.load_tokens() + worker.prompt_left;
    step_ = std::max(step_, worker.step);
    double weight = 0;
    for (size_t h = 0; h < width_; ++h) {
      const bool told = h > 0 && i < cluster.leaving.size();
      const int64_t load = tokens - (told ? std::min(tokens, cluster.leaving[i].tokens[h - 1]) : 0);
      peaks_[h] = std::max(peaks_[h], load);
      sums_[h] += load;
      weight += weights_[h] * static_cast<double>(load);
      if (worker.accepts) loads_.push_back(load);
    }
    if (!worker.accepts) continue;
    // In place: a copy of what was just written field by field would stall.
    Room& room = rooms_.emplace_back();
    room.worker = &worker;
    // Those on their way and those that wait there will take slots.
    room.slots = std::max(0, worker.free_slots - worker.num_sent - worker.num_waiting);
    room.kv_tokens = worker.kv_capacity_tokens - tokens;
    room.weight = weight;
    slots += room.slots;
  }
  return slots;
}

void BfIoPolicy::ReadStep(const ClusterView& cluster, Time now) {
  taken_until_ = wake_ = Time::Never();
  const auto full = [](const Room& room) { return room.slots == 0; };
  if (num_workers_ == 1 || std::none_of(rooms_.begin(), rooms_.end(), full)) return;
  Time ended{};
  Duration takes{};
  for (const WorkerLoad& worker : cluster.workers) {
    if (!worker.accepts) continue;
    // Nobody waits for another's step beside a worker that stands still.
    if (worker.num_running + worker.num_waiting + worker.num_sent == 0 && worker.free_slots > 0) return;
    if (worker.num_running == 0) continue;
    ended = std::max(ended, worker.step_at);
    takes = std::max(takes, worker.step_time);
  }
  // The step in flight should have ended by then; if nothing is heard, waiting ends all the same.
  const Time late = ended + takes + takes;
  if (late <= now) return;
  taken_until_ = ended;
  late_ = late;
}

void BfIoPolicy::ReadPool(absl::Span<const Waiting> waiting, int64_t slots) {
  const int64_t pool = std::max(slots, options_.pool > 0 ? options_.pool : 4 * num_workers_);
  candidates_.clear();
  index_.Clear();
  alike_ = true;
  for (const Waiting& request : waiting) {
    const auto position = static_cast<uint32_t>(candidates_.size());
    if (position == pool) break;
    if (request.arrival > taken_until_) {
      wake_ = late_;
      break;
    }
    const auto runs = [&](const Room& room) { return CanRun(request, *room.worker); };
    if (std::none_of(rooms_.begin(), rooms_.end(), runs)) continue;
    candidates_.push_back(&request);
    index_.Add(std::max(0, request.prompt_tokens), position);
    alike_ = alike_ && request.num_samples == 1;
  }
  index_.Seal();
  if (options_.age > 0) UpdateAges();
  FindDue(slots);
}

// Both lists are in order of arrival: who follows the first newcomer at the end is new as well.
void BfIoPolicy::UpdateAges() {
  former_ages_.swap(ages_);
  ages_.clear();
  size_t next = 0;
  for (const Waiting* request : candidates_) {
    size_t at = next;
    while (at < former_ages_.size() && former_ages_[at].request != request->request) ++at;
    int64_t since = step_;
    if (at < former_ages_.size()) {
      since = std::min(since, former_ages_[at].since);
      next = at + 1;
    } else if (!former_ages_.empty() && request->arrival >= former_ages_.back().arrival) {
      next = former_ages_.size();
    }
    ages_.push_back({request->request, request->arrival, since});
  }
}

void BfIoPolicy::FindDue(int64_t slots) {
  due_ranks_.clear();
  const bool all = num_workers_ == 1;
  if (!all && options_.age == 0) return;
  due_.assign(candidates_.size(), false);
  bool any = false;
  for (size_t i = 0; i < candidates_.size() && slots > 0; ++i) {
    if (!all && step_ - ages_[i].since <= options_.age) continue;
    slots -= candidates_[i]->num_samples;
    any = due_[i] = true;
  }
  for (int32_t rank = any ? index_.count() : 0; rank-- > 0;) {
    if (due_[index_.position(rank)]) due_ranks_.push_back(rank);
  }
}

void BfIoPolicy::Solve(int64_t slots) {
  Fill(0, true, &best_);
  if (!options_.refine || best_.picks.empty() || num_workers_ < 2) return;
  const double bound = LowerBound(slots, best_.picks.size());
  if (best_.objective <= bound) return;

  int64_t heaviest = 0;
  for (size_t i = 0; i < rooms_.size(); ++i) {
    if (rooms_[i].slots > 0) heaviest = std::max(heaviest, loads_[i * width_]);
  }
  std::array<int64_t, kSmallest + 2> raises;
  size_t num_raises = 0;
  raises[num_raises++] = 0;
  raises[num_raises++] = best_.peaks[0] - peaks_[0];
  for (int32_t rank = 0; rank < std::min<int32_t>(kSmallest, index_.count()); ++rank) {
    raises[num_raises++] = std::max<int64_t>(0, heaviest + index_.size(rank) - peaks_[0]);
  }
  std::sort(raises.begin(), raises.begin() + num_raises);
  const auto end = std::unique(raises.begin(), raises.begin() + num_raises);
  for (auto raise = raises.begin(); raise != end && !(best_.objective <= bound); ++raise) {
    Fill(*raise, false, &trial_);
    const bool fewer = trial_.picks.size() < best_.picks.size();
    const bool equal = !Below(best_.objective, trial_.objective) && !Below(trial_.objective, best_.objective);
    if (!fewer && (Below(trial_.objective, best_.objective) || (equal && trial_.peaks[0] < best_.peaks[0]))) {
      std::swap(best_, trial_);
    }
  }
}

void BfIoPolicy::Fill(int64_t raise, bool follows, Result* result) {
  open_ = rooms_;
  open_loads_ = loads_;
  index_.Restore();
  envelope_ = peaks_;
  for (int64_t& height : envelope_) height += raise;
  result->peaks = peaks_;
  result->picks.clear();
  PlaceDue(follows, result);
  heap_.clear();
  for (uint32_t i = 0; i < open_.size(); ++i) {
    if (open_[i].slots > 0) heap_.push_back(i);
  }
  std::make_heap(heap_.begin(), heap_.end(), [this](uint32_t a, uint32_t b) { return Heavier(a, b); });
  int64_t placed_tokens = 0;
  while (!heap_.empty() && result->picks.size() < candidates_.size()) {
    const uint32_t at = heap_.front();
    std::pop_heap(heap_.begin(), heap_.end(), [this](uint32_t a, uint32_t b) { return Heavier(a, b); });
    heap_.pop_back();
    const int32_t rank = Choose(at, follows);
    ++work_;
    if (rank == SizeIndex::kNone) continue;
    Put(rank, at, follows, result);
    if (open_[at].slots > 0) PushRoom(at);
  }
  for (const Pick& pick : result->picks) placed_tokens += index_.size(pick.rank);
  result->objective = Objective(result->peaks, placed_tokens);
}

void BfIoPolicy::PlaceDue(bool follows, Result* result) {
  for (const int32_t rank : due_ranks_) {
    const int64_t size = index_.size(rank);
    // The fullest that stays under the envelope, else the lightest.
    size_t best = open_.size();
    bool best_under = false;
    for (size_t i = 0; i < open_.size(); ++i) {
      if (open_[i].slots == 0 || !Fits(rank, open_[i])) continue;
      bool under = true;
      for (size_t h = 0; h < width_; ++h) under &= open_loads_[i * width_ + h] + size <= envelope_[h];
      const bool better = best == open_.size() || (under != best_under ? under
                                                   : under             ? open_[i].weight > open_[best].weight
                                                           : open_[i].weight < open_[best].weight);
      if (!better) continue;
      best = i;
      best_under = under;
    }
    ++work_;
    if (best < open_.size()) {
      Put(rank, best, follows, result);
    } else {
      KeepRoomFor(request(rank));
    }
  }
}

void BfIoPolicy::KeepRoomFor(const Waiting& request) {
  Room* kept = nullptr;
  for (Room& room : open_) {
    if (!CanRun(request, *room.worker)) continue;
    const auto lacks = [&](const Room& r) { return r.kv_tokens < request.prompt_tokens; };
    const bool sooner = kept == nullptr || (lacks(room) != lacks(*kept) ? !lacks(room)
                                            : room.slots != kept->slots ? room.slots > kept->slots
                                                                        : room.kv_tokens > kept->kv_tokens);
    if (sooner) kept = &room;
  }
  if (kept != nullptr) kept->slots = 0;
}

bool BfIoPolicy::Fits(int32_t rank, const Room& room) const {
  const Waiting& request = this->request(rank);
  // An empty worker takes whatever can run at all.
  return request.num_samples <= room.slots && CanRun(request, *room.worker) &&
         (room.kv_tokens >= request.prompt_tokens || room.kv_tokens == room.worker->kv_capacity_tokens);
}

void BfIoPolicy::Put(int32_t rank, size_t at, bool follows, Result* result) {
  const int64_t size = index_.size(rank);
  Room& room = open_[at];
  room.slots -= request(rank).num_samples;
  room.kv_tokens -= size;
  for (size_t h = 0; h < width_; ++h) {
    int64_t& load = open_loads_[at * width_ + h];
    load += size;
    room.weight += weights_[h] * static_cast<double>(size);
    result->peaks[h] = std::max(result->peaks[h], load);
    if (follows) envelope_[h] = std::max(envelope_[h], load);
  }
  index_.Take(rank);
  result->picks.push_back({rank, static_cast<uint32_t>(at)});
}

void BfIoPolicy::PushRoom(uint32_t room) {
  heap_.push_back(room);
  std::push_heap(heap_.begin(), heap_.end(), [this](uint32_t a, uint32_t b) { return Heavier(a, b); });
}

int32_t BfIoPolicy::Choose(size_t at, bool follows) const {
  std::array<int64_t, kLookaheadSteps + 1> margins;
  for (size_t h = 0; h < width_; ++h) margins[h] = envelope_[h] - open_loads_[at * width_ + h];
  const auto margin_span = absl::MakeConstSpan(margins.data(), width_);
  const int64_t peak = PeakSize(margin_span, weights_, beta_);
  const int32_t under = LargestUpTo(peak, open_[at]);
  if (under != SizeIndex::kNone && !follows) return under;
  const int32_t above = SmallestAbove(peak, open_[at]);
  if (under == SizeIndex::kNone || above == SizeIndex::kNone) return std::max(under, above);
  const double score = BalanceScore(margin_span, weights_, beta_, index_.size(under));
  // Of equal ones the larger: what is taken now cannot stick out later.
  return Below(BalanceScore(margin_span, weights_, beta_, index_.size(above)), score) ? under : above;
}

int32_t BfIoPolicy::LargestUpTo(int64_t size, const Room& room) const {
  int32_t rank = index_.Before(index_.RankAbove(size));
  while (rank != SizeIndex::kNone && !Fits(rank, room)) rank = index_.Before(rank);
  return rank;
}

int32_t BfIoPolicy::SmallestAbove(int64_t size, const Room& room) const {
  for (int32_t first = index_.From(index_.RankAbove(size)); first != SizeIndex::kNone;) {
    // The oldest of this size.
    const int32_t end = index_.RankAbove(index_.size(first));
    for (int32_t rank = index_.Before(end); rank >= first; rank = index_.Before(rank)) {
      if (Fits(rank, room)) return rank;
    }
    first = index_.From(end);
  }
  return SizeIndex::kNone;
}

double BfIoPolicy::Objective(absl::Span<const int64_t> peaks, int64_t placed_tokens) const {
  double objective = 0;
  for (size_t h = 0; h < width_; ++h) {
    objective += weights_[h] * static_cast<double>(num_workers_ * peaks[h] - sums_[h] - placed_tokens);
  }
  return objective;
}

// With Z the envelope after placing and A the tokens placed, a step counts G Z - sum L - A. A is at most what
// the largest sizes add up to, and at most what the open workers have below Z; then the step's share only
// grows with Z, and Z is at least: the envelope of now, the mean of the open workers after taking the
// smallest sizes, and, where all slots are filled, the fullest open worker with the smallest size on top.
double BfIoPolicy::LowerBound(int64_t slots, size_t placed) const {
  const auto count = static_cast<int64_t>(placed);
  if (!alike_ || count != std::min<int64_t>(slots, index_.count()) || count == 0) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  int64_t smallest = 0, largest = 0;
  for (int32_t i = 0; i < count; ++i) {
    smallest += index_.size(i);
    largest += index_.size(index_.count() - 1 - i);
  }
  double bound = 0;
  for (size_t h = 0; h < width_; ++h) {
    int64_t open = 0, open_sum = 0, fullest = 0;
    for (size_t i = 0; i < rooms_.size(); ++i) {
      if (rooms_[i].slots == 0) continue;
      const int64_t load = loads_[i * width_ + h];
      ++open;
      open_sum += load;
      fullest = std::max(fullest, load);
    }
    int64_t height = std::max(peaks_[h], (open_sum + smallest + open - 1) / open);
    if (count == slots) height = std::max(height, fullest + index_.size(0));
    const int64_t most = std::min(largest, open * height - open_sum);
    bound += weights_[h] * static_cast<double>(num_workers_ * height - sums_[h] - most);
  }
  return bound;
}

}  // namespace orrery
