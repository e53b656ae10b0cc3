#include "router/policy/gate_and_route.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace orrery {
namespace {

constexpr double kWhole = 1e-9;  // n * share is a whole number of workers within this, as in the planner
constexpr double kSome = 1e-6;   // requests a worker: more of them waiting are planned, fewer are a rounding

}  // namespace

absl::Span<const OptionField<GateAndRouteOptions>> GateAndRoutePolicy::Fields() {
  static constexpr OptionField<GateAndRouteOptions> kFields[] = {
      {"pack", &GateAndRouteOptions::pack, "the next prompt fills up the last chunk of the one before"},
      {"buffer", &GateAndRouteOptions::buffer, 0, 1e6,
       "requests a worker waiting for decode, beyond plan, before classes planned to wait are held back"},
      {"hysteresis", &GateAndRouteOptions::hysteresis, 0, 1e6, "workers before one changes pool"},
  };
  return kFields;
}

void GateAndRoutePolicy::Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time,
                                Assignment* assignment) {
  if (!plan_.has_value()) return;
  SplitPools(cluster);
  const int64_t buffered = Route(cluster, assignment);
  Gate(cluster, waiting, buffered, assignment);
  assignment->why = {.policy = "gate-and-route",
                     .objective = "requests waiting for a decode slot",
                     .value = static_cast<double>(buffered),
                     .work = static_cast<int64_t>(rooms_.size() + assignment->placements.size())};
}

void GateAndRoutePolicy::SplitPools(const ClusterView& cluster) {
  rooms_.clear();
  for (const WorkerLoad& worker : cluster.workers) {
    if (!worker.accepts) continue;
    rooms_.push_back({.worker = &worker,
                      .decodes = worker.num_bound - worker.num_prefills,
                      .prefills = worker.num_prefills,
                      .prompt_left = worker.prompt_left});
  }
  const auto n = static_cast<int64_t>(rooms_.size());
  num_workers_ = static_cast<double>(n);
  double share = 0;
  for (const double x : plan_->answer.x) share += x;
  const double wanted = num_workers_ * share, slack = options_.hysteresis + kWhole;
  const auto mixed = static_cast<double>(num_mixed_);
  const bool keeps = num_mixed_ > 0 && wanted > mixed - 1 - slack && wanted <= mixed + slack;
  if (!keeps) num_mixed_ = static_cast<int64_t>(std::ceil(wanted - num_workers_ * kWhole));
  num_mixed_ = std::clamp<int64_t>(num_mixed_, std::min<int64_t>(n, 1), n);
  for (int64_t i = 0; i < num_mixed_; ++i) rooms_[static_cast<size_t>(i)].mixed = true;
}

GateAndRoutePolicy::Room* GateAndRoutePolicy::DecodeSlot(const Waiting& request) {
  const int64_t slots = plan_->question.slots;
  Room *solo = nullptr, *mixed = nullptr, *own = nullptr;
  for (Room& room : rooms_) {
    // A mixed worker keeps one slot for its prefills; those that a former one still runs keep theirs.
    const int64_t taken = room.decodes + (room.mixed ? 1 : room.prefills);
    // More samples than a worker may decode have one without decodes to themselves.
    const bool free = taken + request.num_samples <= slots || room.decodes == 0;
    if (!free || !CanRun(request, *room.worker)) continue;
    Room*& best = room.mixed ? mixed : solo;
    if (best == nullptr || room.decodes < best->decodes) best = &room;
    if (request.on_worker && room.worker->worker == request.from) own = &room;
  }
  return solo != nullptr ? solo : own != nullptr ? own : mixed;
}

int64_t GateAndRoutePolicy::Route(const ClusterView& cluster, Assignment* assignment) {
  size_t next = 0;
  int64_t passed = 0;
  for (; next < cluster.between.size(); ++next) {
    const Waiting& request = cluster.between[next];
    Room* room = DecodeSlot(request);
    if (room == nullptr) {
      const auto can_run = [&](const Room& one) { return CanRun(request, *one.worker); };
      if (std::any_of(rooms_.begin(), rooms_.end(), can_run)) break;
      ++passed;  // it waits for a worker that is not here now
      continue;
    }
    room->decodes += request.num_samples;
    assignment->placements.push_back({request.request, room->worker->worker});
  }
  return passed + static_cast<int64_t>(cluster.between.size() - next);
}

bool GateAndRoutePolicy::TakesPrompt(const Room& room) const {
  if (!room.mixed || room.decodes > plan_->question.slots - 1) return false;
  if (room.prefills == 0) return true;
  const WorkerLoad& worker = *room.worker;
  // What is left is known once everything placed has begun, and the engine must have a slot for one more.
  const bool known = worker.num_sent == 0 && worker.num_waiting == 0;
  return options_.pack && known && room.prompt_left < plan_->question.prefill_chunk_tokens &&
         room.prefills + room.decodes - worker.num_bound < worker.free_slots;
}

void GateAndRoutePolicy::Gate(const ClusterView& cluster, absl::Span<const Waiting> waiting, int64_t buffered,
                              Assignment* assignment) {
  if (waiting.empty()) return;
  double planned = 0;
  for (const double q : plan_->answer.q_decode) planned += q;
  const bool held = static_cast<double>(buffered) > num_workers_ * (planned + options_.buffer);
  bool filled = false;
  for (int64_t i = 0; i < num_mixed_; ++i) {
    Room& room = rooms_[static_cast<size_t>(i)];
    while (TakesPrompt(room)) {
      if (!std::exchange(filled, true)) FillQueues(cluster, waiting);
      ClassQueue* queue = NextClass(held, *room.worker);
      if (queue == nullptr) break;
      const Waiting& request = *queue->prompts[queue->next++];
      queue->in_service += request.num_samples;
      room.prefills += request.num_samples;
      room.prompt_left += request.prompt_tokens;
      assignment->placements.push_back({request.request, room.worker->worker, /*prefill_only=*/true});
    }
  }
}

void GateAndRoutePolicy::FillQueues(const ClusterView& cluster, absl::Span<const Waiting> waiting) {
  for (ClassQueue& queue : queues_) {
    queue.prompts.clear();
    queue.next = 0;
    queue.in_service = 0;
  }
  for (const Waiting& request : waiting) {
    if (request.traffic_class >= queues_.size()) queues_.resize(request.traffic_class + 1);
    queues_[request.traffic_class].prompts.push_back(&request);
  }
  for (size_t i = 0; i < std::min(queues_.size(), cluster.prefills_of_class.size()); ++i) {
    queues_[i].in_service = cluster.prefills_of_class[i];
  }
}

bool GateAndRoutePolicy::Before(size_t a, size_t b) const {
  const ClassQueue &first = queues_[a], &second = queues_[b];
  const double share_a = Share(a), share_b = Share(b);
  if ((share_a > 0) != (share_b > 0)) return share_a > 0;
  if (share_a > 0 && plan_->question.charge_separately) {
    const PoolClass &one = plan_->question.classes[a], &other = plan_->question.classes[b];
    const double gain_a = one.output_tokens / one.prompt_tokens;
    const double gain_b = other.output_tokens / other.prompt_tokens;
    if (gain_a != gain_b) return gain_a > gain_b;
  } else if (share_a > 0) {
    // (X - n x) / x without its constant: equal classes stay equal.
    const double index_a = static_cast<double>(first.in_service) / share_a;
    const double index_b = static_cast<double>(second.in_service) / share_b;
    if (index_a != index_b) return index_a < index_b;
  }
  const double more_a = static_cast<double>(first.waiting()) - num_workers_ * PlannedWaiting(a);
  const double more_b = static_cast<double>(second.waiting()) - num_workers_ * PlannedWaiting(b);
  return more_a != more_b ? more_a > more_b : a < b;
}

bool GateAndRoutePolicy::BringForward(const WorkerLoad& worker, ClassQueue* queue) {
  const auto first = queue->prompts.begin() + static_cast<ptrdiff_t>(queue->next);
  const auto found = std::find_if(first, queue->prompts.end(),
                                  [&](const Waiting* prompt) { return CanRun(*prompt, worker); });
  if (found == queue->prompts.end()) return false;
  std::rotate(first, found, found + 1);
  return true;
}

GateAndRoutePolicy::ClassQueue* GateAndRoutePolicy::NextClass(bool held, const WorkerLoad& worker) {
  size_t best = queues_.size();
  for (size_t i = 0; i < queues_.size(); ++i) {
    if ((held && PlannedWaiting(i) > kSome) || !BringForward(worker, &queues_[i])) continue;
    if (best == queues_.size() || Before(i, best)) best = i;
  }
  return best == queues_.size() ? nullptr : &queues_[best];
}

}  // namespace orrery
