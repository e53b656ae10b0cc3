// RouterCore: requests whose prefill runs on one worker and whose decode may run on another.
#include <algorithm>
#include <utility>

#include "router/router_core.h"

namespace orrery {

void RouterCore::EndPrefillStage(Request* request, Time now) {
  if (request->cancelled) return;  // its worker ends it
  for (const SampleState& sample : request->samples) {
    if (!sample.ended && sample.emitted.empty()) return;
  }
  CountBound(*request, -request->num_live);
  request->phase = Phase::kBetween;
  const Submit& submit = request->prototype;
  between_.push_back({.request = submit.key.request,
                      .arrival = now,
                      .prompt_tokens = submit.num_prompt,
                      .max_new_tokens = submit.stop.max_tokens,
                      .num_samples = request->num_live,
                      .slo = submit.slo,
                      .deadline = submit.deadline,
                      .priority = submit.priority,
                      .tenant = submit.tenant,
                      .traffic_class = submit.traffic_class,
                      .from = request->worker,
                      .on_worker = true});
}

void RouterCore::GoOn(Request* request, const WorkerLoad& load, Time now, RouterOutput* out) {
  if (!request->parked && request->worker == load.worker) return Stay(request, now);
  if (!load.accepts) return;
  if (!request->parked) Leave(request, out);
  TakeFromBetween(*request);
  request->phase = Phase::kBound;
  Send(request, load.worker, now, out);
}

void RouterCore::Stay(Request* request, Time now) {
  Watch(PlaceOf(request->worker), now);
  TakeFromBetween(*request);
  request->phase = Phase::kBound;
  CountBound(*request, request->num_live);
}

void RouterCore::Leave(Request* request, RouterOutput* out) {
  const Submit& submit = request->prototype;
  OrderLeave(*request, out);
  for (SampleState& sample : request->samples) ++sample.attempt;
  request->parked = true;
  parked_tokens_ += submit.num_prompt;
  if (!submit.deadline.is_never()) deadlines_.emplace(submit.deadline, submit.key.request);
}

void RouterCore::OrderLeave(const Request& request, RouterOutput* out) {
  for (uint32_t i = 0; i < request.samples.size(); ++i) {
    const SampleState& sample = request.samples[i];
    if (sample.ended) continue;
    out->leave.push_back({request.worker, {request.prototype.key.request, i, sample.attempt}});
  }
}

void RouterCore::LeaveAllUnplaced(RouterOutput* out) {
  // Whoever came since the last time stands at the end.
  for (size_t i = between_.size(); i-- > 0 && between_[i].on_worker;) {
    Request* request = requests_.at(between_[i].request).get();
    Leave(request, out);
    between_[i].on_worker = false;
    between_[i].num_samples = request->num_live;
  }
}

void RouterCore::TakeFromBetween(const Request& request) {
  const RequestId id = request.prototype.key.request;
  const auto found =
      std::find_if(between_.begin(), between_.end(), [&](const Waiting& w) { return w.request == id; });
  if (request.parked) {
    parked_tokens_ -= found->prompt_tokens;
    if (!found->deadline.is_never()) deadlines_.erase({found->deadline, id});
  }
  between_.erase(found);
}

bool RouterCore::Parked(RequestId id) const {
  const auto found = requests_.find(id);
  return found != requests_.end() && found->second->phase == Phase::kBetween && found->second->parked;
}

}  // namespace orrery
