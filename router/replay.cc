// RouterCore: requests go on elsewhere when their worker is lost.
#include <algorithm>
#include <utility>

#include "router/router_core.h"
#include "scheduler/base/text.h"

namespace orrery {

void RouterCore::ReplayAll(WorkerId worker, std::string_view why, Time now, RouterOutput* out) {
  std::vector<RequestId> lost;
  for (const auto& [id, request] : requests_) {
    if (request->phase != Phase::kPooled && request->worker == worker) lost.push_back(id);
  }
  std::sort(lost.begin(), lost.end());
  for (const RequestId id : lost) Replay(requests_.at(id).get(), why, now, out);
}

void RouterCore::Replay(Request* request, std::string_view why, Time now, RouterOutput* out) {
  if (request->cancelled) return EndRequest(request, FinishReason::kCancelled, absl::OkStatus(), out);
  if (++request->replays > replay_.max_replays) {
    const absl::Status status =
        absl::UnavailableError(Cat(why, ", as ", replay_.max_replays, " others before it"));
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
  Pool(request, now);
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
