// The decisions between workers as a state machine without I/O: requests, snapshots and token events in;
// dispatches, cancels and refusals out. One worker or many, in one process or not: the same code, and the
// same in the simulator. It reads no clock, takes no lock and starts no thread.
//
// Promises. Every accepted sample ends exactly once as seen through OnTokenEvent (its last event is `fresh`)
// or in RouterOutput::ended. Events of an older attempt, or with an index already seen, are dropped and
// counted. What was emitted is kept until the sample ends, so that another worker could continue it. Queues
// are bounded by admission (router/admission.h).
//
// Failures. What a lost worker had goes back to the pool, in its order of arrival, and continues elsewhere
// under the next attempt from prompt and emitted ids (replay.cc): `max_replays` times without a token between
// them, which bounds what a request that kills its workers can do. Who could run nowhere for `worker_wait`,
// since workers are gone, ends with UNAVAILABLE. A worker that has something to do and neither makes a token
// nor ends a step for `progress_timeout` is given up as if it were lost. A token beyond the next one means
// that the worker lost one: the request leaves it and continues from what is known; so does what a worker no
// longer knows of. A worker that lies behind its peers gets nothing new for a while (router/outliers.h);
// policies see it like one that drains.
//
// Two stages. A policy may place a request for its prefill alone. Once all its samples have a first token it
// is between two workers, and the next call that places asks the policy where it goes on: where it is (and
// nothing happens), on another worker, or nowhere yet. Leaving a worker ends its samples there at once and
// frees slot and blocks; they go on under the next attempt, with what they have emitted and a KvSource. Until
// then the worker that was left vouches for the KV: lost with it, the request is replayed.
#ifndef ORRERY_ROUTER_ROUTER_CORE_H_
#define ORRERY_ROUTER_ROUTER_CORE_H_

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "router/admission.h"
#include "router/outliers.h"
#include "router/policy/route_policy.h"
#include "router/service_rate.h"
#include "router/worker_info.h"
#include "scheduler/base/ids.h"
#include "scheduler/base/time.h"
#include "scheduler/types/request.h"
#include "scheduler/types/worker_state.h"

namespace orrery {

struct Dispatch {
  WorkerId worker{};
  Submit submit;
};
struct CancelOrder {
  WorkerId worker{};
  RequestId request{};
};
// An attempt stops on a worker: it goes on elsewhere, which may take its KV from there, or the next one
// begins anew. What the worker still says of this attempt is dropped.
struct LeaveOrder {
  WorkerId worker{};
  SampleKey sample;
};
// A sample that ended without its worker: never placed, or refused by it.
struct EndedSample {
  SampleKey key;
  FinishReason finish = FinishReason::kError;
  absl::Status why;  // with kError: the refusal
};

struct RouterOutput {
  // Hung, and gone as after OnWorkerDown; their links are to be reset. One that answers again comes back with
  // OnWorkerUp.
  std::vector<WorkerId> given_up;
  std::vector<WorkerId> ask_prefixes;  // WorkerCore::TellPrefixes
  std::vector<LeaveOrder> leave;       // before `dispatch`
  std::vector<Dispatch> dispatch;      // in order, per worker with ascending Submit::submission
  std::vector<CancelOrder> cancel;
  std::vector<EndedSample> ended;
  bool empty() const {
    return given_up.empty() && ask_prefixes.empty() && leave.empty() && dispatch.empty() && cancel.empty() &&
           ended.empty();
  }
  void Clear() {
    given_up.clear();
    ask_prefixes.clear();
    leave.clear();
    dispatch.clear();
    cancel.clear();
    ended.clear();
  }
};

struct ReplayLimits {
  int32_t max_replays = 5;  // of one request that does not get any further
  Duration worker_wait = Duration::Seconds(30);
  Duration progress_timeout = Duration::Seconds(30);  // longer than any step takes
};

enum class ReplayReason : uint8_t { kWorkerLost, kHung, kGap, kDrained };
inline constexpr size_t kNumReplayReasons = 4;
// As a label: "worker_lost", "hung", "gap", "drained".
std::string_view ReplayReasonName(ReplayReason reason);

struct RouterCounters {
  uint64_t accepted = 0, refused = 0;                      // requests
  uint64_t shed = 0;                                       // of those accepted
  uint64_t dispatched = 0;                                 // samples
  uint64_t handed_over = 0;                                // of those, with KV from another worker
  uint64_t replayed = 0;                                   // samples taken back from a worker, in all
  std::array<uint64_t, kNumReplayReasons> replayed_for{};  // by ReplayReason
  uint64_t given_up = 0;                                   // workers that hung
  uint64_t ejections = 0;                                  // of workers that lay behind
  uint64_t fresh_events = 0;
  uint64_t dropped_events = 0;  // stale attempt, index already seen, unknown sample
  uint64_t gap_events = 0;      // of those, an index beyond the next one: a worker lost a token
  uint64_t prefix_gaps = 0;     // prefix events were lost, and all was asked anew
};

class RouterCore {
 public:
  // `hash_key` names the blocks of prompts: what workers tell of their prefix caches is understood when
  // theirs is the same.
  RouterCore(const AdmissionLimits& limits, std::unique_ptr<RoutePolicy> policy,
             const ReplayLimits& replay = {}, const OutlierOptions& outliers = {}, uint64_t hash_key = 0);

  // A worker is there. The same id again is a new incarnation: what ran on the old one is replayed.
  // `more_follow`, here and below: others come or go with it, and placing waits for the last of them.
  void OnWorkerUp(const WorkerInfo& info, Time now, RouterOutput* out, bool more_follow = false);
  // It is gone; what it had is replayed.
  void OnWorkerDown(WorkerId worker, Time now, RouterOutput* out, bool more_follow = false);
  // A snapshot; older ones than the last, and those of another incarnation, are dropped. `more_follow`:
  // others of the same group step come at once, and placing waits for the last of them, to see all of the
  // group.
  void OnWorkerState(const WorkerState& state, Time now, RouterOutput* out, bool more_follow = false);

  // `prototype` is the request: its key names the request, the router fills sample, attempt and submission;
  // sample i draws with seed + i. Dispatches now or pools it; a refusal changes nothing.
  absl::Status OnArrival(Submit prototype, int32_t num_samples, Time now, RouterOutput* out);
  // True when the event is new: forward it. The snapshot of the step that made it should follow.
  bool OnTokenEvent(WorkerId from, const TokenEvent& event, Time now, RouterOutput* out);
  // The worker did not take a dispatched sample, which ends, or goes elsewhere if the worker only drains.
  void OnRefused(WorkerId from, const SampleKey& key, const absl::Status& why, Time now, RouterOutput* out);
  // Ends all samples of a request; those on a worker end through its events.
  void OnCancel(RequestId request, Time now, RouterOutput* out);
  // For the policy; an older plan than the last is dropped.
  void OnPlanReady(const RoutePlan& plan, Time now, RouterOutput* out);
  // Ends waiting requests whose deadline has passed, or that have waited too long for a worker, gives up
  // workers that hang, and places what the policy kept until now. Call when NextWake() <= now, after all that
  // has come by then.
  void OnTimer(Time now, RouterOutput* out);
  Time NextWake() const;
  // Refuses all further arrivals.
  void Drain() { draining_ = true; }

  bool idle() const { return requests_.empty(); }
  int32_t num_pooled() const { return static_cast<int32_t>(pool_.size() - pool_begin_); }
  int32_t num_between() const { return static_cast<int32_t>(between_.size()); }
  // It has left a worker and waits for the one it goes on on.
  bool Parked(RequestId request) const;
  // Accepted prompt tokens that are not computed yet, or whose request is parked between two workers.
  int64_t queued_tokens() const;
  Duration predicted_wait() const { return PredictedWait({queued_tokens(), rate_.tokens_per_s()}); }
  absl::Span<const WorkerLoad> workers() const { return loads_; }
  // The policy wants to know what workers have cached.
  bool wants_prefixes() const { return policy_->prefixes() != nullptr; }
  int32_t num_accepting() const { return num_accepting_; }  // workers that take new requests
  const RouterCounters& counters() const { return counters_; }
  const PredictionErrors* prediction_errors() const { return policy_->prediction_errors(); }  // null: none
  const DecisionRecord& last_decision() const { return assignment_.why; }
  // Emitted ids of a live sample: what a replay would continue from. Null when it has ended.
  const std::vector<TokenId>* Emitted(RequestId request, uint32_t sample) const;

 private:
  struct SampleState {
    uint32_t attempt = 0;
    bool ended = false;
    std::vector<TokenId> emitted;
  };
  enum class Phase : uint8_t {
    kPooled,
    kBound,    // to a worker until it ends
    kPrefill,  // to a worker until all samples have a first token
    kBetween,  // in between_; parked: it has left `worker`, which has its KV
  };
  struct Request {
    Submit prototype;
    std::vector<SampleState> samples;
    int32_t num_live = 0;
    Phase phase = Phase::kPooled;
    bool parked = false;
    bool cancelled = false;        // its worker was told
    bool started = false;          // a first token came: its prompt left the queue
    int32_t replays = 0;           // since it last got further
    size_t emitted_at_replay = 0;  // ids of all samples
    Time arrival;
    Time pooled_since;
    WorkerId worker{};
  };
  // Sent and not yet covered by a snapshot.
  struct Sent {
    uint64_t submission = 0;
    int64_t tokens = 0;
  };
  struct Worker {
    WorkerInfo info;
    uint64_t state_number = 0, next_submission = 1;
    uint64_t prefix_number = 0;  // of the last prefix event
    bool asked_prefixes = false;
    Time asked_at{};
    Time progress{};  // last seen; or since when it has something to do
    bool draining = false;
    std::deque<Sent> sent{};
  };

  // Its place in loads_ and workers_, or their size.
  size_t PlaceOf(WorkerId worker) const;
  WorkerLoad* LoadOf(WorkerId worker);
  void Place(Time now, RouterOutput* out);
  void TakePlacedFromPool(size_t placed);
  void Refuse(const Shed& shed, RouterOutput* out);
  void Send(Request* request, WorkerId worker, Time now, RouterOutput* out);
  void EndSample(Request* request, uint32_t sample, FinishReason finish, const absl::Status& why,
                 RouterOutput* out);
  void EndRequest(Request* request, FinishReason finish, const absl::Status& why, RouterOutput* out);
  // To the pool, in order of arrival; from it, an unplaced one.
  void Pool(Request* request, Time now);
  void TakeFromPool(RequestId id);
  AdmissionCapacity Capacity() const;
  // Adds to what is known of the worker that `samples` of a request are bound to.
  void CountBound(const Request& request, int32_t samples);
  void SetDraining(size_t place, bool draining, Time now);
  // Of a worker: something that only it can be blamed for.
  void CountFailure(WorkerId worker, RequestId request, Time at, Time now);
  // Of a worker whose names are the router's, where the policy wants to know.
  void AskPrefixes(size_t place, Time now, RouterOutput* out);
  void ReadPrefixes(size_t place, const WorkerState& state, Time now, RouterOutput* out);
  // Who gets new requests, by what the workers and the outlier rules say.
  void SetAccepts(Time now);

  // replay.cc
  void ReplayAll(WorkerId worker, ReplayReason why, Time now, RouterOutput* out);
  void Replay(Request* request, ReplayReason why, Time now, RouterOutput* out);
  // A worker is gone.
  void Lose(WorkerId worker, ReplayReason why, Time now, RouterOutput* out);
  // A request that its worker cannot continue, since a token is missing.
  void Restart(Request* request, Time now, RouterOutput* out);
  void Watch(size_t place, Time now);
  void GiveUpHung(Time now, RouterOutput* out);
  // Ends those that have waited too long for any worker that could run them, and sets the time to ask again.
  void EndStranded(Time now, RouterOutput* out);
  static void AppendEmitted(const SampleState& sample, Submit* submit);

  // two_stages.cc
  void EndPrefillStage(Request* request, Time now);
  void GoOn(Request* request, const WorkerLoad& load, Time now, RouterOutput* out);
  void Stay(Request* request, Time now);
  void Leave(Request* request, RouterOutput* out);
  static void OrderLeave(const Request& request, RouterOutput* out);
  void LeaveAllUnplaced(RouterOutput* out);
  void TakeFromBetween(const Request& request);

  AdmissionLimits limits_;
  ReplayLimits replay_;
  std::unique_ptr<RoutePolicy> policy_;
  Outliers outliers_;
  RouterCounters counters_;
  ServiceRate rate_;
  const uint64_t hash_key_;
  bool draining_ = false;

  std::vector<WorkerLoad> loads_;  // ascending id: what the policy sees
  std::vector<Leaving> leaving_;   // of the same
  std::vector<Worker> workers_;    // of the same
  // Lookups only, except where a worker is lost: then in ascending request id.
  absl::flat_hash_map<RequestId, std::unique_ptr<Request>> requests_;
  std::vector<Waiting> pool_;  // arrival order, from pool_begin_ on; before it stand those that were placed
  size_t pool_begin_ = 0;
  int32_t num_accepting_ = 0;
  int64_t pooled_tokens_ = 0, parked_tokens_ = 0;
  std::set<std::pair<Time, RequestId>> deadlines_;  // of pooled and parked requests
  Time stranded_wake_ = Time::Never();              // EndStranded
  Time hung_wake_ = Time::Never();                  // GiveUpHung; nobody is due before
  std::vector<Waiting> between_;                    // parked ones first
  std::vector<int32_t> prefills_of_class_;          // samples in Phase::kPrefill
  uint64_t transfers_ = 0;
  PlanId plan_{};
  Assignment assignment_;
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_ROUTER_CORE_H_
