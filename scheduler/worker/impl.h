// The body of WorkerCore, shared by its five files: core (doors), plan (decide and commit), step (results),
// steady (decodes apart), check (invariants). Nobody else includes it.
#ifndef ORRERY_SCHEDULER_WORKER_IMPL_H_
#define ORRERY_SCHEDULER_WORKER_IMPL_H_

#include <array>
#include <cstdint>
#include <memory>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "scheduler/cost/step_cost.h"
#include "scheduler/kv/kv_cache.h"
#include "scheduler/policy/batch_policy.h"
#include "scheduler/policy/fcfs.h"
#include "scheduler/worker/sequence.h"
#include "scheduler/worker/waiting_list.h"
#include "scheduler/worker_core.h"

namespace orrery {

using TokenEvents = std::vector<TokenEvent>;

class WorkerCore::Impl {
 public:
  Impl(const WorkerOptions& options, WorkerParts parts);

  // core.cc
  absl::Status OnArrival(Submit submit, Time now);
  void OnCancel(const SampleKey& key, Time now, TokenEvents* events);
  void OnCancelRequest(RequestId request, Time now, TokenEvents* events);
  void OnTimer(Time now, TokenEvents* events);
  Time NextWake() const;
  void State(Time now, WorkerState* state, StateScope scope);
  void CountLeaving(std::array<int64_t, kLookaheadSteps>* tokens);

  // plan.cc
  // `beside`: decodes may stand apart.
  const StepPlan& Plan(Time now, bool beside);
  bool CanPlan() const {
    return num_flights_ < options_.max_in_flight &&
           (num_flights_ == 0 || !flights_[first_flight_].holds_next);
  }

  // step.cc
  absl::Status OnStepDone(const StepResult& result, Time now, TokenEvents* events);
  absl::Status OnStepFailed(StepId step, std::string_view error, Time now, TokenEvents* events);

  // steady.cc
  bool SetApart();  // false: nobody stands apart
  Beside Apart() const { return {num_apart_, apart_tokens_ + num_apart_}; }
  int32_t KnownSteps(DecisionRecord* why);
  void PassKnownStep(Time start, Time end);
  void EndAfterKnownStep(absl::Span<const SampledToken> ended, TokenEvents* events);
  void Settle();

  // check.cc
  absl::Status CheckInvariants() const;

 private:
  friend class WorkerCore;

  struct KeyHash {
    size_t operator()(const SampleKey& key) const {
      return absl::Hash<std::array<uint64_t, 2>>()(
          {Value(key.request), (uint64_t{key.sample} << 32) | key.attempt});
    }
  };
  // A slice of a plan in flight, beside plan.slices.
  struct FlightRow {
    Sequence* sequence = nullptr;
    uint32_t epoch = 0;
  };
  struct Flight {
    StepPlan plan;
    std::vector<FlightRow> rows;  // [plan.slices]
    StepShape shape;
    int32_t beside = 0;  // sequences apart that decode in this step too
    // How a sequence's next token is chosen depends on the one that this step samples. Left out of the next
    // step, the sequence would decode at half the pace; so that step waits, which costs all a little.
    bool holds_next = false;
  };
  // A grant that was checked but not yet committed.
  struct Row {
    Sequence* sequence = nullptr;
    int32_t count = 0;  // tokens
    int32_t need = 0;   // new blocks
  };

  // core.cc
  absl::Status Validate(const Submit& submit, Time now) const;
  absl::Status ValidateSizes(const Submit& submit) const;
  absl::Status ValidateSampling(const Submit& submit) const;
  void JoinGroup(Sequence* sequence);
  void Queue(Sequence* sequence);  // to the waiting list
  // REQUIRES: *view is fresh. In place: this is done for every running sequence in every step.
  static void FillView(const Sequence& sequence, SequenceView* view);
  static SequenceView ViewOf(const Sequence& sequence) {
    SequenceView view;
    FillView(sequence, &view);
    return view;
  }

  // plan.cc
  void RefreshMatches();
  void BuildViews(absl::Span<Sequence* const> running);
  void Ask(BatchPolicy* policy, absl::Span<Sequence* const> running, int32_t beside, Time now);
  void Decide(BatchPolicy* policy, Time now, Flight* flight);
  // False: it cannot be decided without those apart, and nothing was.
  bool DecideBeside(Time now, Flight* flight);
  void CommitPreemptions(const BatchDecision& decision);
  void CommitRun(const BatchDecision& decision, Flight* flight, Time now);
  void CommitAdmissions(const BatchDecision& decision, Flight* flight, Time now);
  bool AdmitOne(Sequence* sequence, int32_t count, Flight* flight, Time now);
  void CommitSlice(Sequence* sequence, int32_t count, Flight* flight, Time now);
  void Preempt(Sequence* sequence);
  void FinishPlan(Flight* flight);
  Sequence* Find(SequenceId id) const;
  int32_t NewBlocks(const Sequence& sequence, int32_t count) const;
  static Slice NextSlice(const Sequence& sequence, int32_t count);
  // Leading blocks of the chain that it need not compute itself.
  size_t ReusableBlocks(const Sequence& sequence) const;
  static int32_t TakeScored(Sequence* sequence, int32_t end);

  // step.cc
  absl::Status ValidateResult(const Flight& flight, const StepResult& result) const;
  void CountStep(const Flight& flight, const StepResult& result);
  void Landed(Sequence* sequence, int32_t num_resident);
  // False when the sequence ended (and may be gone).
  bool Scored(Sequence* sequence, const Slice& slice, const ScoredPrompt& scored, Time now,
              TokenEvents* events);
  bool Sampled(Sequence* sequence, const SampledToken& sampled, Time now, TokenEvents* events);
  void EndBroken(Sequence* sequence, Time now, TokenEvents* events);
  // It was its last token.
  void EndSampled(Sequence* sequence, const SampledToken& sampled, Time now, TokenEvents* events);
  static bool Stops(const Sequence& sequence, TokenId last) {
    return sequence.num_emitted + sequence.num_made > sequence.min_tokens && sequence.StopsAt(last);
  }
  void Publish(Sequence* sequence);
  void ExtendChain(Sequence* sequence, int32_t num_blocks) const;
  // Sends the last event (or marks the given one) and lets go of everything that no step in flight names.
  void End(Sequence* sequence, FinishReason reason, Time now, TokenEvent event, TokenEvents* events);
  void Retire(Sequence* sequence);  // blocks, slot and memory of an ended sequence
  void LeaveGroup(Sequence* sequence);
  void ReleaseFollowers(SampleGroup* group);
  bool PromptResident(const Sequence& sequence) const;
  void CloseFlight();

  // steady.cc
  static bool CanStandApart(const Sequence& sequence);
  // Index into crossing_: of the next step of those apart, and of the steps in which one needs a block.
  size_t PhaseNow() const { return static_cast<size_t>(clock_ % options_.block_tokens); }
  size_t PhaseOf(const Sequence& sequence) const;
  void JoinApart(Sequence* sequence);
  void JoinIfDecoding(Sequence* sequence);
  void LeaveApart(Sequence* sequence);
  void ShowPassed(Sequence* sequence);
  void FindFirstBound();
  void StartApartStep();
  void EndApartStep(Time end);
  void List(Flight* flight);  // those apart, into a plan that left them out

  WorkerOptions options_;
  WorkerParts parts_;
  FcfsPolicy fallback_;
  BatchLimits limits_;
  KvCache kv_;
  WorkerCounters counters_;
  DecisionRecord last_decision_;
  JournalWriter* journal_ = nullptr;
  bool draining_ = false;

  uint64_t next_sequence_ = 1;
  // Lookups only; nothing that is decided iterates them.
  absl::flat_hash_map<SequenceId, std::unique_ptr<Sequence>> sequences_;  // ended ones in flight included
  absl::flat_hash_map<SampleKey, Sequence*, KeyHash> by_key_;             // live ones
  absl::flat_hash_map<RequestId, std::unique_ptr<SampleGroup>> groups_;
  std::set<std::pair<Time, SequenceId>> deadlines_;  // of live sequences that have one

  WaitingList waiting_;
  int32_t num_hidden_ = 0;
  int64_t waiting_tokens_ = 0;
  int64_t kv_tokens_ = 0;                  // num_computed of all running
  int64_t prompt_left_ = 0;                // likewise of their prompt_left()
  std::vector<Sequence*> running_;         // admission order
  std::vector<Sequence*> running_by_key_;  // ascending key, for State
  std::vector<SequenceView> running_views_;
  std::vector<SequenceView> admissible_;  // waiting ones that have a slot, while no slot is free
  int32_t waiting_with_slot_ = 0;

  std::vector<uint32_t> free_slots_;      // last freed first
  std::vector<uint32_t> released_slots_;  // to be announced by the next plan
  std::vector<SequenceId> preempted_;     // to be announced by the next plan that is not empty
  std::vector<Row> rows_;                 // scratch of Plan
  BatchDecision decision_;
  Time wake_ = Time::Never();
  uint64_t plan_serial_ = 0;
  uint64_t next_step_ = 1;

  // The last plan let everybody decode and admitted nobody, and nobody came or left since it was made.
  bool undisturbed_ = false;
  // Those apart. They hold their blocks; their counts and times are as of Sequence::apart_since.
  bool apart_ = false;
  bool ids_seen_ = false;  // a prompt with ids came: nobody stands apart from then on
  int32_t clock_ = 0;      // steps they made since the first was set apart
  int32_t num_apart_ = 0;
  int64_t apart_tokens_ = 0;  // num_computed of all, by the clock
  int32_t first_bound_ = 0;   // clock at which the first of them has max_new tokens
  Time apart_end_;            // of their last step
  std::vector<std::vector<Sequence*>>
      crossing_;                  // [block_tokens] who needs a block when clock mod that; by id
  std::vector<Sequence*> fresh_;  // the others that run, in admission order

  std::array<Flight, 2> flights_;
  int32_t first_flight_ = 0, num_flights_ = 0;
  StepPlan empty_plan_;

  absl::flat_hash_map<SampleKey, SampleReport, KeyHash> reports_;      // ended since the last plan
  absl::flat_hash_map<SampleKey, SampleReport, KeyHash> old_reports_;  // and before it
  std::vector<SampleKey> finished_;                                    // ended since the last snapshot
  uint64_t state_number_ = 0, last_submission_ = 0;
  StepId last_step_{};
  Duration last_step_time_{};
  StepShape last_step_shape_;
  StepTotals totals_;
  Time last_step_end_;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_WORKER_IMPL_H_
