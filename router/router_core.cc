#include "router/router_core.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "router/policy/prefix_tree.h"
#include "scheduler/base/text.h"
#include "scheduler/kv/block_hash.h"
#include "scheduler/types/refusal.h"

namespace orrery {
namespace {

// Long enough to smooth over steps, short enough to follow a change of load.
constexpr Duration kRateMemory = Duration::Milliseconds(10'000);

// Until an answer that did not come is asked for again.
constexpr Duration kAskAgain = Duration::Seconds(1);

absl::Span<const TokenId> IdsOf(const Submit& submit) {
  return submit.tokens == nullptr ? absl::Span<const TokenId>() : *submit.tokens;
}

}  // namespace

RouterCore::RouterCore(const AdmissionLimits& limits, std::unique_ptr<RoutePolicy> policy,
                       const ReplayLimits& replay, const OutlierOptions& outliers, uint64_t hash_key)
    : limits_(limits),
      replay_(replay),
      policy_(std::move(policy)),
      outliers_(outliers),
      rate_(kRateMemory),
      hash_key_(hash_key) {}

size_t RouterCore::PlaceOf(WorkerId worker) const {
  // While nobody is gone, ids are places.
  const auto guess = static_cast<size_t>(Value(worker));
  if (guess < loads_.size() && loads_[guess].worker == worker) return guess;
  const auto found = std::lower_bound(loads_.begin(), loads_.end(), worker,
                                      [](const WorkerLoad& load, WorkerId id) { return load.worker < id; });
  return found != loads_.end() && found->worker == worker ? static_cast<size_t>(found - loads_.begin())
                                                          : loads_.size();
}

WorkerLoad* RouterCore::LoadOf(WorkerId worker) {
  const size_t place = PlaceOf(worker);
  return place < loads_.size() ? &loads_[place] : nullptr;
}

void RouterCore::OnWorkerUp(const WorkerInfo& info, Time now, RouterOutput* out, bool more_follow) {
  size_t place = PlaceOf(info.worker);
  if (place < loads_.size()) {
    ReplayAll(info.worker, ReplayReason::kWorkerLost, now, out);
    outliers_.Erase(place);
  } else {
    const auto after = std::find_if(loads_.begin(), loads_.end(),
                                    [&](const WorkerLoad& other) { return info.worker < other.worker; });
    place = static_cast<size_t>(after - loads_.begin());
    loads_.insert(after, WorkerLoad{});
    workers_.insert(workers_.begin() + static_cast<ptrdiff_t>(place), Worker{});
    leaving_.insert(leaving_.begin() + static_cast<ptrdiff_t>(place), Leaving{});
  }
  outliers_.Insert(place, info, now);
  workers_[place] = Worker{.info = info};
  leaving_[place] = Leaving{};
  loads_[place] = WorkerLoad{.worker = info.worker,
                             .state_at = now,
                             .step_at = now,
                             .free_slots = info.slots,
                             .kv_capacity_tokens = info.kv_capacity_tokens,
                             .max_context = info.max_context,
                             .max_step_tokens = info.max_step_tokens};
  AskPrefixes(place, now, out);
  SetAccepts(now);
  if (!more_follow) Place(now, out);
}

void RouterCore::OnWorkerDown(WorkerId worker, Time now, RouterOutput* out, bool more_follow) {
  if (PlaceOf(worker) == loads_.size()) return;
  Lose(worker, ReplayReason::kWorkerLost, now, out);
  if (more_follow) return;
  Place(now, out);
  EndStranded(now, out);
}

void RouterCore::AskPrefixes(size_t place, Time now, RouterOutput* out) {
  PrefixTree* tree = policy_->prefixes();
  if (tree == nullptr) return;
  Worker& worker = workers_[place];
  tree->Forget(loads_[place].worker);
  loads_[place].tells_prefixes = false;
  const WorkerInfo& info = worker.info;
  worker.asked_prefixes =
      info.hash_key_id == HashKeyId(hash_key_) && info.block_tokens == tree->block_tokens();
  worker.asked_at = now;
  if (worker.asked_prefixes) out->ask_prefixes.push_back(info.worker);
}

void RouterCore::ReadPrefixes(size_t place, const WorkerState& state, Time now, RouterOutput* out) {
  Worker& worker = workers_[place];
  WorkerLoad& load = loads_[place];
  if (!worker.asked_prefixes) return;
  PrefixTree* tree = policy_->prefixes();
  if (state.prefixes_anew) {
    tree->Forget(load.worker);
    load.tells_prefixes = true;
  } else if (!load.tells_prefixes) {
    // Said before it was asked; or, a while after that, the answer was lost.
    if (state.prefix_event_sequence > 0 && now - worker.asked_at >= kAskAgain) AskPrefixes(place, now, out);
    return;
  } else if (state.prefix_event_sequence - state.prefix_events.size() != worker.prefix_number) {
    ++counters_.prefix_gaps;
    return AskPrefixes(place, now, out);
  }
  worker.prefix_number = state.prefix_event_sequence;
  tree->Tell(load.worker, state.prefix_events);
  if (tree->NumTold(load.worker) <= load.kv_capacity_tokens / tree->block_tokens()) return;
  // More than it has room for: what it tells is not to be believed.
  tree->Forget(load.worker);
  load.tells_prefixes = worker.asked_prefixes = false;
}

void RouterCore::SetDraining(size_t place, bool draining, Time now) {
  if (std::exchange(workers_[place].draining, draining) == draining) return;
  outliers_.SetDraining(place, draining);
  SetAccepts(now);
}

void RouterCore::CountFailure(WorkerId worker, RequestId request, Time at, Time now) {
  const size_t place = PlaceOf(worker);
  if (place < loads_.size() && outliers_.OnFailure(place, request, at, now)) SetAccepts(now);
}

void RouterCore::SetAccepts(Time now) {
  outliers_.Update(now);
  counters_.ejections = outliers_.ejections();
  num_accepting_ = 0;
  for (size_t i = 0; i < loads_.size(); ++i) {
    loads_[i].accepts = !workers_[i].draining && !outliers_.out(i);
    num_accepting_ += loads_[i].accepts;
  }
}

void RouterCore::EndRequest(Request* request, FinishReason finish, const absl::Status& why,
                            RouterOutput* out) {
  const auto num_samples = static_cast<uint32_t>(request->samples.size());
  for (uint32_t i = 0, left = static_cast<uint32_t>(request->num_live); i < num_samples && left > 0; ++i) {
    if (request->samples[i].ended) continue;
    --left;
    EndSample(request, i, finish, why, out);  // with the last one the request is gone
  }
}

void RouterCore::OnWorkerState(const WorkerState& state, Time now, RouterOutput* out, bool more_follow) {
  const size_t place = PlaceOf(state.worker);
  if (place == loads_.size() || workers_[place].info.incarnation != state.incarnation) return;
  Worker& worker = workers_[place];
  WorkerLoad* load = &loads_[place];
  if (state.sequence_number <= worker.state_number) return;
  worker.state_number = state.sequence_number;
  int64_t applied_tokens = 0;
  while (!worker.sent.empty() && worker.sent.front().submission <= state.last_submission) {
    applied_tokens += worker.sent.front().tokens;
    load->sent_tokens -= worker.sent.front().tokens;
    --load->num_sent;
    worker.sent.pop_front();
  }
  const bool leaves = state.draining && !worker.draining;
  SetDraining(place, state.draining, now);
  load->state_at = state.at;
  load->kv_tokens = state.kv_tokens;
  load->waiting_tokens = state.waiting_prompt_tokens;
  load->prompt_left = state.running_prompt_tokens;
  load->num_running = state.num_running;
  load->num_waiting = state.num_waiting;
  load->free_slots = state.free_slots;
  const auto step = static_cast<int64_t>(Value(state.step));
  if (step > std::exchange(load->step, step)) {
    worker.progress = now;
    load->step_at = state.at;
    if (outliers_.OnStep(place, state.step_shape, state.step_time, now)) SetAccepts(now);
  }
  leaving_[place].tokens = state.leaving_tokens;
  load->step_time = state.step_time;
  ReadPrefixes(place, state, now, out);
  policy_->OnWorkerState(*load, applied_tokens);
  // It has seen all that was sent and says that it has nothing: their ends got lost.
  const bool forgot =
      load->num_bound > 0 && worker.sent.empty() && state.num_running + state.num_waiting == 0;
  if (forgot) ReplayAll(state.worker, ReplayReason::kGap, now, out);
  if (!more_follow) Place(now, out);
  if (leaves || forgot) EndStranded(now, out);
}

int64_t RouterCore::queued_tokens() const {
  int64_t tokens = pooled_tokens_ + parked_tokens_;
  for (const WorkerLoad& load : loads_) tokens += load.waiting_tokens + load.sent_tokens;
  return tokens;
}

AdmissionCapacity RouterCore::Capacity() const {
  AdmissionCapacity capacity;
  for (const WorkerLoad& load : loads_) {
    if (!load.accepts) continue;
    ++capacity.num_workers;
    capacity.max_context = std::max(capacity.max_context, load.max_context);
    capacity.kv_tokens = std::max(capacity.kv_tokens, load.kv_capacity_tokens);
  }
  return capacity;
}

absl::Status RouterCore::OnArrival(Submit prototype, int32_t num_samples, Time now, RouterOutput* out) {
  const RequestId id = prototype.key.request;
  absl::Status status;
  if (draining_) {
    status =
        ToStatus({.reason = RefusalReason::kDraining, .field = "server", .message = "server is draining"});
  } else if (requests_.contains(id)) {
    status = ToStatus({.reason = RefusalReason::kDuplicate,
                       .field = "request_id",
                       .message = "a request of this id is running"});
  } else {
    status = CheckAdmission(limits_, Capacity(), {queued_tokens(), rate_.tokens_per_s()}, prototype,
                            num_samples, now);
  }
  if (!status.ok()) {
    ++counters_.refused;
    return status;
  }
  ++counters_.accepted;
  rate_.Add(0, !requests_.empty(), now);
  auto request = std::make_unique<Request>();
  request->samples.resize(static_cast<size_t>(num_samples));
  request->num_live = num_samples;
  request->arrival = now;
  request->prototype = std::move(prototype);
  Pool(request.get(), now);
  requests_.emplace(id, std::move(request));
  Place(now, out);
  return absl::OkStatus();
}

void RouterCore::Pool(Request* request, Time now) {
  const Submit& submit = request->prototype;
  int32_t emitted = 0;
  for (const SampleState& sample : request->samples) {
    if (!sample.ended) emitted = std::max(emitted, static_cast<int32_t>(sample.emitted.size()));
  }
  request->phase = Phase::kPooled;
  request->pooled_since = now;
  const auto later = [](Time arrival, const Waiting& other) { return arrival < other.arrival; };
  const auto begin = pool_.begin() + static_cast<ptrdiff_t>(pool_begin_);
  pool_.insert(std::upper_bound(begin, pool_.end(), request->arrival, later),
               {.request = submit.key.request,
                .arrival = request->arrival,
                .prompt_tokens = submit.num_prompt + emitted,
                .max_new_tokens = submit.stop.max_tokens - emitted,
                .num_samples = request->num_live,
                .slo = submit.slo,
                .deadline = submit.deadline,
                .priority = submit.priority,
                .tenant = submit.tenant,
                .traffic_class = submit.traffic_class,
                .replayed = request->replays > 0,
                .routing_key = submit.routing_key,
                .cache_salt = submit.cache_salt,
                .prompt_ids = IdsOf(submit)});
  pooled_tokens_ += submit.num_prompt + emitted;
  if (!submit.deadline.is_never()) deadlines_.emplace(submit.deadline, submit.key.request);
}

void RouterCore::Place(Time now, RouterOutput* out) {
  if (num_pooled() == 0 && between_.empty()) return;
  assignment_.Clear();
  policy_->Assign({loads_, between_, prefills_of_class_, leaving_, hash_key_},
                  absl::MakeSpan(pool_).subspan(pool_begin_), now, &assignment_);
  size_t placed = 0;
  for (const Placement& placement : assignment_.placements) {
    const auto found = requests_.find(placement.request);
    const WorkerLoad* load = LoadOf(placement.worker);
    if (found == requests_.end() || load == nullptr) continue;
    Request* request = found->second.get();
    if (request->phase == Phase::kBetween) {
      GoOn(request, *load, now, out);
    } else if (request->phase == Phase::kPooled && load->accepts) {
      request->phase = placement.prefill_only ? Phase::kPrefill : Phase::kBound;
      Send(request, placement.worker, now, out);
      ++placed;
    }
  }
  TakePlacedFromPool(placed);
  for (const Shed& shed : assignment_.shed) Refuse(shed, out);
  LeaveAllUnplaced(out);
}

void RouterCore::Refuse(const Shed& shed, RouterOutput* out) {
  const auto found = requests_.find(shed.request);
  if (found == requests_.end()) return;
  Request* request = found->second.get();
  if (request->phase != Phase::kPooled || request->replays > 0) return;
  ++counters_.shed;
  TakeFromPool(shed.request);
  const std::string_view target = shed.tpot ? "slo.tpot" : "slo.ttft";
  const double limit = shed.target.milliseconds(), actual = shed.predicted.milliseconds();
  EndRequest(request, FinishReason::kError,
             ToStatus({.reason = RefusalReason::kShed,
                       .field = std::string(target),
                       .limit = shed.target.ns / 1'000'000,
                       .actual = shed.predicted.ns / 1'000'000,
                       .predicted_wait = shed.wait,
                       .message = Cat(target, ": no worker is sure to meet it now (", actual,
                                      " ms predicted, target ", limit, " ms)")}),
             out);
}

// Those placed are mostly the oldest: the search ends with the last of them, and a long rest stays where it
// is until half of the list is gone.
void RouterCore::TakePlacedFromPool(size_t placed) {
  size_t end = pool_begin_, kept = 0;
  for (; placed > 0; ++end) {
    const Waiting& waiting = pool_[end];
    if (requests_.at(waiting.request)->phase == Phase::kPooled) {
      ++kept;
      continue;
    }
    --placed;
    pooled_tokens_ -= waiting.prompt_tokens;
    if (!waiting.deadline.is_never()) deadlines_.erase({waiting.deadline, waiting.request});
  }
  // What was passed over moves up to the rest.
  for (size_t from = end, to = end; kept > 0;) {
    --from;
    if (requests_.at(pool_[from].request)->phase != Phase::kPooled) continue;
    pool_[--to] = pool_[from];
    --kept;
    if (kept == 0) end = to;
  }
  pool_begin_ = end;
  if (pool_begin_ * 2 >= pool_.size()) {
    pool_.erase(pool_.begin(), pool_.begin() + static_cast<ptrdiff_t>(pool_begin_));
    pool_begin_ = 0;
  }
}

void RouterCore::Send(Request* request, WorkerId worker_id, Time now, RouterOutput* out) {
  const size_t place = PlaceOf(worker_id);
  Watch(place, now);
  Worker& worker = workers_[place];
  WorkerLoad* load = &loads_[place];
  const bool moves = std::exchange(request->parked, false);
  const WorkerId from = std::exchange(request->worker, worker_id);
  bool first = true;
  for (uint32_t i = 0; i < request->samples.size(); ++i) {
    if (request->samples[i].ended) continue;
    Submit submit = request->prototype;
    submit.key.sample = i;
    submit.key.attempt = request->samples[i].attempt;
    submit.submission = worker.next_submission++;
    submit.sampling.seed += i;
    const bool goes_on = !request->samples[i].emitted.empty();
    if (i > 0 || goes_on) submit.sampling.num_prompt_logprobs = -1;  // the prompt they share is told of once
    if (goes_on) AppendEmitted(request->samples[i], &submit);
    if (moves) {
      // The last token's KV is not computed before the step that reads it.
      submit.kv_source = KvSource{.worker = from,
                                  .transfer = TransferId{++transfers_},
                                  .num_tokens = submit.num_prompt + submit.num_emitted - 1};
      ++counters_.handed_over;
    }
    // The samples share the prompt: it is there once.
    const int64_t tokens = (std::exchange(first, false) ? submit.num_prompt : 0) + submit.num_emitted;
    worker.sent.push_back({submit.submission, tokens});
    load->sent_tokens += tokens;
    ++load->num_sent;
    ++counters_.dispatched;
    out->dispatch.push_back({worker_id, std::move(submit)});
  }
  CountBound(*request, request->num_live);
}

void RouterCore::CountBound(const Request& request, int32_t samples) {
  if (request.phase != Phase::kBound && request.phase != Phase::kPrefill) return;
  WorkerLoad* load = LoadOf(request.worker);
  load->num_bound += samples;
  if (request.phase == Phase::kBound) return;
  load->num_prefills += samples;
  const size_t of = request.prototype.traffic_class;
  if (of >= prefills_of_class_.size()) prefills_of_class_.resize(of + 1);
  prefills_of_class_[of] += samples;
}

bool RouterCore::OnTokenEvent(WorkerId from, const TokenEvent& event, Time now, RouterOutput* out) {
  const auto found = requests_.find(event.key.request);
  Request* request = found == requests_.end() ? nullptr : found->second.get();
  const bool known = request != nullptr && request->phase != Phase::kPooled && request->worker == from &&
                     event.key.sample < request->samples.size() &&
                     !request->samples[event.key.sample].ended &&
                     request->samples[event.key.sample].attempt == event.key.attempt;
  SampleState* sample = known ? &request->samples[event.key.sample] : nullptr;
  const auto expected = known ? static_cast<int32_t>(sample->emitted.size()) : 0;
  // One that does not stop where it should is as little to be relied on as one that leaves tokens out.
  const bool too_many = known && event.token >= 0 && expected >= request->prototype.stop.max_tokens;
  if (!known || too_many || (event.token >= 0 && event.index != expected)) {
    ++counters_.dropped_events;
    const bool gap = known && (too_many || event.index > expected);
    counters_.gap_events += gap;
    if (gap && !request->cancelled) {
      CountFailure(from, event.key.request, event.at, now);
      Restart(request, now, out);
    }
    return false;
  }
  ++counters_.fresh_events;
  const size_t place = PlaceOf(from);
  workers_[place].progress = now;
  if (event.token >= 0) {
    if (!std::exchange(request->started, true)) {
      rate_.Add(request->prototype.num_prompt, true, now);
      policy_->OnFirstToken(event.key.request, now);
    }
    sample->emitted.push_back(event.token);
    outliers_.OnToken(place);
  }
  if (event.finish == FinishReason::kError) CountFailure(from, event.key.request, event.at, now);
  const bool ends = event.finish != FinishReason::kNone, over = ends && request->num_live == 1;
  if (ends) {
    const bool by_itself = event.finish == FinishReason::kStop || event.finish == FinishReason::kLength;
    // The end tells the length: a simulator leaves out what is between it and the first token.
    if (by_itself) policy_->OnFinished(std::min(event.index, request->prototype.stop.max_tokens - 1) + 1);
    EndSample(request, event.key.sample, FinishReason::kNone, absl::OkStatus(), out);
    if (requests_.empty()) rate_.Add(0, true, now);
  }
  if (!over && request->phase == Phase::kPrefill) EndPrefillStage(request, now);
  return true;
}

void RouterCore::EndSample(Request* request, uint32_t index, FinishReason finish, const absl::Status& why,
                           RouterOutput* out) {
  SampleState& sample = request->samples[index];
  const RequestId id = request->prototype.key.request;
  sample.ended = true;
  std::vector<TokenId>().swap(sample.emitted);
  if (finish != FinishReason::kNone) out->ended.push_back({{id, index, sample.attempt}, finish, why});
  CountBound(*request, -1);
  if (--request->num_live > 0) return;
  if (request->phase == Phase::kBetween) TakeFromBetween(*request);
  requests_.erase(id);
}

void RouterCore::OnRefused(WorkerId from, const SampleKey& key, const absl::Status& why, Time now,
                           RouterOutput* out) {
  const auto found = requests_.find(key.request);
  if (found == requests_.end()) return;
  Request* request = found->second.get();
  const bool there = request->phase != Phase::kPooled && request->worker == from;
  if (!there || key.sample >= request->samples.size()) return;
  const SampleState& sample = request->samples[key.sample];
  if (sample.ended || sample.attempt != key.attempt) return;
  rate_.Add(0, true, now);
  const auto refusal = RefusalOf(why);
  if (!refusal.has_value() || refusal->reason != RefusalReason::kDraining) {
    // Refusals with a reason are about the request, or about load.
    if (!refusal.has_value()) CountFailure(from, key.request, now, now);
    return EndSample(request, key.sample, FinishReason::kError, why, out);
  }
  SetDraining(PlaceOf(from), true, now);
  // The other samples of the request, if it took them before it began to drain.
  if (request->num_live > 1) out->cancel.push_back({from, key.request});
  Replay(request, ReplayReason::kDrained, now, out);
  Place(now, out);
  EndStranded(now, out);
}

void RouterCore::OnCancel(RequestId id, Time now, RouterOutput* out) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return;
  Request* request = found->second.get();
  if (request->phase == Phase::kBetween && !request->parked) Stay(request, now);
  if (request->phase == Phase::kBound || request->phase == Phase::kPrefill) {
    request->cancelled = true;
    out->cancel.push_back({request->worker, id});
    return;
  }
  if (request->phase == Phase::kPooled) TakeFromPool(id);
  EndRequest(request, FinishReason::kCancelled, absl::OkStatus(), out);
}

void RouterCore::TakeFromPool(RequestId id) {
  const auto waiting = std::find_if(pool_.begin() + static_cast<ptrdiff_t>(pool_begin_), pool_.end(),
                                    [&](const Waiting& w) { return w.request == id; });
  pooled_tokens_ -= waiting->prompt_tokens;
  if (!waiting->deadline.is_never()) deadlines_.erase({waiting->deadline, id});
  pool_.erase(waiting);
}

void RouterCore::OnPlanReady(const RoutePlan& plan, Time now, RouterOutput* out) {
  if (plan.id < plan_) return;
  plan_ = plan.id;
  policy_->OnPlanReady(plan);
  Place(now, out);
}

void RouterCore::OnTimer(Time now, RouterOutput* out) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    const RequestId id = deadlines_.begin()->second;
    const size_t first = out->ended.size();
    OnCancel(id, now, out);
    for (size_t i = first; i < out->ended.size(); ++i) out->ended[i].finish = FinishReason::kDeadline;
  }
  if (stranded_wake_ <= now) EndStranded(now, out);
  if (hung_wake_ <= now) GiveUpHung(now, out);
  const bool comes_back = outliers_.NextWake() <= now;
  if (comes_back) SetAccepts(now);
  if (comes_back || policy_->NextWake() <= now) Place(now, out);
}

Time RouterCore::NextWake() const {
  const Time deadline = deadlines_.empty() ? Time::Never() : deadlines_.begin()->first;
  const Time policy = num_pooled() == 0 ? Time::Never() : policy_->NextWake();
  return std::min({deadline, policy, stranded_wake_, hung_wake_, outliers_.NextWake()});
}

const std::vector<TokenId>* RouterCore::Emitted(RequestId id, uint32_t sample) const {
  const auto found = requests_.find(id);
  if (found == requests_.end() || sample >= found->second->samples.size()) return nullptr;
  const SampleState& state = found->second->samples[sample];
  return state.ended ? nullptr : &state.emitted;
}

}  // namespace orrery
