// RouterCore: requests go on elsewhere when their worker is lost, hangs or loses tokens.
#include <algorithm>
#include <utility>

#include "router/router_core.h"
#include "scheduler/base/text.h"

namespace orrery {
namespace {

// What ended a request that cannot be replayed any more.
std::string_view What(ReplayReason reason) {
  static constexpr std::string_view kWhat[kNumReplayReasons] = {
      "its worker was lost", "its worker made no progress", "its worker lost a token", "its worker drains"};
  return kWhat[static_cast<size_t>(reason)];
}

}  // namespace

std::string_view ReplayReasonName(ReplayReason reason) {
  static constexpr std::string_view kNames[kNumReplayReasons] = {"worker_lost", "hung", "gap", "drained"};
  return kNames[static_cast<size_t>(reason)];
}

void RouterCore::ReplayAll(WorkerId worker, ReplayReason why, Time now, RouterOutput* out) {
  std::vector<RequestId> lost;
  for (const auto& [id, request] : requests_) {
    if (request->phase == Phase::kPooled || request->worker != worker) continue;
    // A worker that only forgot its samples still has the KV that others left there.
    if (why != ReplayReason::kGap || !request->parked) lost.push_back(id);
  }
  std::sort(lost.begin(), lost.end());
  for (const RequestId id : lost) Replay(requests_.at(id).get(), why, now, out);
}

void RouterCore::Replay(Request* request, ReplayReason why, Time now, RouterOutput* out) {
  if (request->cancelled) return EndRequest(request, FinishReason::kCancelled, absl::OkStatus(), out);
  // Who got further since the last time is not what its workers die of.
  size_t emitted = 0;
  for (const SampleState& sample : request->samples) emitted += sample.emitted.size();
  if (std::exchange(request->emitted_at_replay, emitted) < emitted) request->replays = 0;
  if (++request->replays > replay_.max_replays) {
    const absl::Status status = absl::UnavailableError(
        Cat(What(why), ", after ", replay_.max_replays, " times before without a token between them"));
    return EndRequest(request, FinishReason::kError, status, out);
  }
  if (request->phase == Phase::kBetween) {
    TakeFromBetween(*request);
  } else {
    CountBound(*request, -request->num_live);
  }
  request->parked = request->started = false;
  for (SampleState& sample : request->samples) ++sample.attempt;
  counters_.replayed += static_cast<uint64_t>(request->num_live);
  counters_.replayed_for[static_cast<size_t>(why)] += static_cast<uint64_t>(request->num_live);
  Pool(request, now);
}

void RouterCore::Restart(Request* request, Time now, RouterOutput* out) {
  OrderLeave(*request, out);
  Replay(request, ReplayReason::kGap, now, out);
  Place(now, out);
  EndStranded(now, out);
}

void RouterCore::Lose(WorkerId worker, ReplayReason why, Time now, RouterOutput* out) {
  ReplayAll(worker, why, now, out);
  const auto place = static_cast<ptrdiff_t>(PlaceOf(worker));
  workers_.erase(workers_.begin() + place);
  loads_.erase(loads_.begin() + place);
  leaving_.erase(leaving_.begin() + place);
  outliers_.Erase(static_cast<size_t>(place));
  SetAccepts(now);
}

// Called before something is bound to it.
void RouterCore::Watch(size_t place, Time now) {
  if (loads_[place].num_bound > 0) return;
  workers_[place].progress = now;
  hung_wake_ = std::min(hung_wake_, now + replay_.progress_timeout);
}

// A router that was itself late has not yet heard what its workers did meanwhile: it asks again a little
// later.
void RouterCore::GiveUpHung(Time now, RouterOutput* out) {
  const Duration patience{replay_.progress_timeout.ns / 8};
  if (hung_wake_ + patience < now) {
    hung_wake_ = now + patience;
    return;
  }
  hung_wake_ = Time::Never();
  const size_t first = out->given_up.size();
  for (size_t i = 0; i < loads_.size(); ++i) {
    if (loads_[i].num_bound == 0) continue;
    const Time due = workers_[i].progress + replay_.progress_timeout;
    if (due <= now) {
      out->given_up.push_back(loads_[i].worker);
    } else {
      hung_wake_ = std::min(hung_wake_, due);
    }
  }
  if (out->given_up.size() == first) return;
  for (size_t i = first; i < out->given_up.size(); ++i) {
    ++counters_.given_up;
    Lose(out->given_up[i], ReplayReason::kHung, now, out);
  }
  Place(now, out);
  EndStranded(now, out);
}

void RouterCore::AppendEmitted(const SampleState& sample, Submit* submit) {
  submit->num_emitted += static_cast<int32_t>(sample.emitted.size());
  if (submit->tokens == nullptr || submit->tokens->empty()) return;
  auto ids = std::make_shared<std::vector<TokenId>>(*submit->tokens);
  ids->insert(ids->end(), sample.emitted.begin(), sample.emitted.end());
  submit->tokens = std::move(ids);
}

void RouterCore::EndStranded(Time now, RouterOutput* out) {
  stranded_wake_ = Time::Never();
  std::vector<RequestId> over;
  for (size_t i = pool_begin_; i < pool_.size(); ++i) {
    const auto could_run = [&](const WorkerLoad& load) { return load.accepts && CanRun(pool_[i], load); };
    if (std::any_of(loads_.begin(), loads_.end(), could_run)) continue;
    const Time until = requests_.at(pool_[i].request)->pooled_since + replay_.worker_wait;
    if (now < until) {
      stranded_wake_ = std::min(stranded_wake_, until);
    } else {
      over.push_back(pool_[i].request);
    }
  }
  const absl::Status why = absl::UnavailableError(
      Cat("no worker came that could run it within ", replay_.worker_wait.seconds(), " s"));
  for (const RequestId id : over) {
    TakeFromPool(id);
    EndRequest(requests_.at(id).get(), FinishReason::kError, why, out);
  }
}

}  // namespace orrery
