// The doors of WorkerCore: construction, arrivals, cancels, timers, snapshots.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "scheduler/base/check.h"
#include "scheduler/base/text.h"
#include "scheduler/journal.h"
#include "scheduler/kv/block_ledger.h"
#include "scheduler/predict/length_predictor.h"
#include "scheduler/types/refusal.h"
#include "scheduler/worker/impl.h"

namespace orrery {
namespace {

constexpr size_t kMaxStopIds = 1 << 12;
constexpr int32_t kMaxLogprobs = 1000;

absl::Status OutOfRange(std::string_view field, int64_t value, int64_t low, int64_t high) {
  return absl::InvalidArgumentError(
      Cat("worker option ", field, " = ", value, " is outside [", low, ", ", high, "]"));
}

absl::Status Refused(RefusalReason reason, std::string_view field, int64_t limit, int64_t actual,
                     std::string_view what) {
  return ToStatus({.reason = reason,
                   .field = std::string(field),
                   .limit = limit,
                   .actual = actual,
                   .message = Cat(field, ": ", what, " (", actual, ", limit ", limit, ")")});
}

absl::Status ValidateOptions(const WorkerOptions& options) {
  const struct {
    std::string_view field;
    int64_t value, low, high;
  } kRanges[] = {
      {"num_blocks", options.num_blocks, 1, 1 << 26},
      {"block_tokens", options.block_tokens, 1, 1024},
      {"max_num_seqs", options.max_num_seqs, 1, 4096},
      {"max_step_tokens", options.max_step_tokens, 1, 1 << 20},
      {"max_context", options.max_context, 2, 1 << 24},
      {"vocab_size", options.vocab_size, 0, 1 << 30},
      {"max_waiting", options.max_waiting, 1, 1 << 20},
      {"max_in_flight", options.max_in_flight, 1, 2},
      {"lookahead", options.lookahead, 0, kLookaheadSteps},
  };
  for (const auto& range : kRanges) {
    if (range.value < range.low || range.value > range.high) {
      return OutOfRange(range.field, range.value, range.low, range.high);
    }
  }
  // Token counts of the whole pool stay well inside 32 bits per sequence and 64 in all.
  if (int64_t{options.num_blocks} * options.block_tokens > int64_t{1} << 31) {
    return OutOfRange("num_blocks * block_tokens", int64_t{options.num_blocks} * options.block_tokens, 1,
                      int64_t{1} << 31);
  }
  return absl::OkStatus();
}

}  // namespace

WorkerCore::Impl::Impl(const WorkerOptions& options, WorkerParts parts)
    : options_(options),
      parts_(std::move(parts)),
      fallback_(FcfsOptions{}),
      limits_{.max_step_tokens = options.max_step_tokens,
              // A running sequence needs a row in every step.
              .max_num_seqs = std::min(options.max_num_seqs, options.max_step_tokens),
              .block_tokens = options.block_tokens},
      kv_(options.num_blocks, options.block_tokens, options.prefix_cache, std::move(parts_.eviction)) {
  for (int32_t slot = limits_.max_num_seqs; slot-- > 0;) free_slots_.push_back(static_cast<uint32_t>(slot));
}

absl::Status WorkerCore::Impl::ValidateSizes(const Submit& submit) const {
  if (submit.num_prompt < 1) {
    return Refused(RefusalReason::kInvalid, "num_prompt", 1, submit.num_prompt, "empty prompt");
  }
  if (submit.num_emitted < 0) {
    return Refused(RefusalReason::kInvalid, "num_emitted", 0, submit.num_emitted, "negative");
  }
  const int64_t given = int64_t{submit.num_prompt} + submit.num_emitted;
  if (submit.stop.max_tokens <= submit.num_emitted) {
    return Refused(RefusalReason::kInvalid, "max_tokens", int64_t{submit.num_emitted} + 1,
                   submit.stop.max_tokens, "leaves nothing to generate");
  }
  const int64_t total = int64_t{submit.num_prompt} + submit.stop.max_tokens;
  if (given >= options_.max_context) {
    return Refused(RefusalReason::kContext, "prompt", options_.max_context - 1, given,
                   "prompt is longer than the context");
  }
  if (total > options_.max_context) {
    return Refused(RefusalReason::kContext, "max_tokens", options_.max_context - submit.num_prompt,
                   submit.stop.max_tokens, "prompt and output exceed the context");
  }
  // The KV of the last output token is never needed.
  const int64_t kv_tokens = int64_t{options_.num_blocks} * options_.block_tokens;
  if (total - 1 > kv_tokens) {
    return Refused(RefusalReason::kKvTooSmall, "max_tokens",
                   std::max<int64_t>(0, kv_tokens + 1 - submit.num_prompt), submit.stop.max_tokens,
                   "prompt and output can never fit the KV pool");
  }
  return absl::OkStatus();
}

// An engine obeys these without a look.
absl::Status WorkerCore::Impl::ValidateSampling(const Submit& submit) const {
  const Sampling& sampling = submit.sampling;
  const struct {
    std::string_view field;
    float value, low, high;
  } kRanges[] = {
      {"temperature", sampling.temperature, 0, 100},
      {"top_p", sampling.top_p, std::numeric_limits<float>::min(), 1},
      {"min_p", sampling.min_p, 0, 1},
      {"presence_penalty", sampling.presence_penalty, -2, 2},
      {"frequency_penalty", sampling.frequency_penalty, -2, 2},
      {"repetition_penalty", sampling.repetition_penalty, 0.01f, 100},
  };
  for (const auto& range : kRanges) {
    if (range.value >= range.low && range.value <= range.high) continue;  // NaN is neither
    return ToStatus({.reason = RefusalReason::kInvalid,
                     .field = std::string(range.field),
                     .message = Cat(range.field, " is outside [", range.low, ", ", range.high, "]")});
  }
  for (const int32_t wanted : {sampling.num_logprobs, sampling.num_prompt_logprobs}) {
    if (wanted > kMaxLogprobs)
      return Refused(RefusalReason::kInvalid, "logprobs", kMaxLogprobs, wanted, "too many");
  }
  const int32_t vocab = options_.vocab_size > 0 ? options_.vocab_size : std::numeric_limits<TokenId>::max();
  TokenId last = -1;
  for (const auto& [id, bias] : sampling.logit_bias) {
    if (id <= last || id >= vocab || !(std::abs(bias) <= 100)) {
      return Refused(RefusalReason::kInvalid, "logit_bias", vocab, id,
                     "ids ascend within the vocabulary, values lie in [-100, 100]");
    }
    last = id;
  }
  const std::vector<TokenId>& stop_ids = submit.stop.stop_ids;
  if (stop_ids.size() > kMaxStopIds) {
    return Refused(RefusalReason::kInvalid, "stop_ids", kMaxStopIds, static_cast<int64_t>(stop_ids.size()),
                   "too many");
  }
  if (!std::is_sorted(stop_ids.begin(), stop_ids.end())) {
    return Refused(RefusalReason::kInvalid, "stop_ids", 0, 0, "not ascending");
  }
  if (!stop_ids.empty() && (stop_ids.front() < 0 || stop_ids.back() >= vocab)) {
    return Refused(RefusalReason::kInvalid, "stop_ids", vocab, stop_ids.back(), "id outside the vocabulary");
  }
  return absl::OkStatus();
}

absl::Status WorkerCore::Impl::Validate(const Submit& submit, Time now) const {
  if (draining_) {
    return ToStatus({.reason = RefusalReason::kDraining, .field = "worker", .message = "worker is draining"});
  }
  if (absl::Status status = ValidateSizes(submit); !status.ok()) return status;
  if (submit.tokens != nullptr && !submit.tokens->empty()) {
    const int64_t given = int64_t{submit.num_prompt} + submit.num_emitted;
    if (static_cast<int64_t>(submit.tokens->size()) != given) {
      return Refused(RefusalReason::kInvalid, "token_ids", given, static_cast<int64_t>(submit.tokens->size()),
                     "count does not match num_prompt + num_emitted");
    }
    const int32_t vocab = options_.vocab_size;
    for (const TokenId id : *submit.tokens) {
      if (id < 0 || (vocab > 0 && id >= vocab)) {
        return Refused(RefusalReason::kInvalid, "token_ids", vocab, id, "id outside the vocabulary");
      }
    }
  }
  if (submit.kv_source.has_value() && submit.kv_source->num_tokens < 0) {
    return Refused(RefusalReason::kInvalid, "kv_source", 0, submit.kv_source->num_tokens, "negative");
  }
  if (absl::Status status = ValidateSampling(submit); !status.ok()) return status;
  if (submit.deadline <= now) {
    return Refused(RefusalReason::kDeadline, "deadline", submit.deadline.ns, now.ns, "has passed");
  }
  if (by_key_.contains(submit.key)) {
    return Refused(RefusalReason::kDuplicate, "request_id", 1, 2, "sample is here already");
  }
  if (const int64_t waiting = int64_t{waiting_.size()} + num_hidden_; waiting >= options_.max_waiting) {
    return Refused(RefusalReason::kQueueFull, "max_waiting", options_.max_waiting, waiting, "queue is full");
  }
  return absl::OkStatus();
}

absl::Status WorkerCore::Impl::OnArrival(Submit submit, Time now) {
  const absl::Status valid = Validate(submit, now);
  if (journal_ != nullptr) journal_->Arrival(submit, now, valid.ok());
  // A refused one has arrived too: snapshots must cover it, or the router counts it as on its way for ever.
  last_submission_ = std::max(last_submission_, submit.submission);
  if (!valid.ok()) {
    ++counters_.refused;
    return valid;
  }
  ++counters_.accepted;
  counters_.prompt_tokens += static_cast<uint64_t>(submit.num_prompt);

  auto owned = std::make_unique<Sequence>();
  Sequence* sequence = owned.get();
  sequence->id = SequenceId{next_sequence_++};
  sequence->submit = std::make_shared<const Submit>(std::move(submit));
  const Submit& own = *sequence->submit;
  sequence->key = own.key;
  sequence->num_given = own.num_prompt + own.num_emitted;
  sequence->has_ids = own.tokens != nullptr && !own.tokens->empty();
  if (sequence->has_ids && !ids_seen_) {
    Settle();
    ids_seen_ = true;
  }
  sequence->num_emitted = own.num_emitted;
  sequence->penalised = own.sampling.has_penalties();
  sequence->min_tokens = own.stop.min_tokens;
  sequence->max_tokens = own.stop.max_tokens;
  sequence->stop_ids = own.stop.stop_ids;
  if (!own.stop.stop_ids.empty()) sequence->first_stop = own.stop.stop_ids.front();
  sequence->slo = own.slo;
  sequence->deadline = own.deadline;
  sequence->priority = own.priority;
  sequence->tenant = own.tenant;
  sequence->application = own.application;
  // An earlier attempt that got as far as an output token has told all about the prompt.
  if (own.sampling.num_prompt_logprobs >= 0 && own.num_emitted == 0) {
    sequence->num_unscored = own.num_prompt - 1;
  }
  // What somebody else computed cannot be scored here.
  if (sequence->submit->kv_source.has_value() && sequence->num_unscored == 0) {
    // The last token is computed here in any case: it makes the first sample.
    sequence->transferred = std::min(sequence->submit->kv_source->num_tokens, sequence->num_given - 1);
  }
  sequence->report.arrived = now;
  sequence->report.first_scheduled = sequence->report.first_token = sequence->report.finished = Time::Never();
  sequences_.emplace(sequence->id, std::move(owned));
  by_key_.emplace(sequence->submit->key, sequence);
  if (!sequence->submit->deadline.is_never()) {
    deadlines_.emplace(sequence->submit->deadline, sequence->id);
  }
  ExtendChain(sequence, (sequence->num_given - 1) / options_.block_tokens);
  parts_.policy->OnArrival(ViewOf(*sequence), now);
  JoinGroup(sequence);
  return absl::OkStatus();
}

void WorkerCore::Impl::JoinGroup(Sequence* sequence) {
  auto& group = groups_[sequence->submit->key.request];
  if (group == nullptr) {
    group = std::make_unique<SampleGroup>();
    group->request = sequence->submit->key.request;
  }
  sequence->group = group.get();
  // Samples of one prompt: the first computes it, the others find it in the prefix cache, but for one that
  // wants the prompt's log-probabilities.
  if (!sequence->chain.empty() && sequence->num_unscored == 0) {
    for (const Sequence* other : group->members) {
      if (other->chain.size() < sequence->chain.size() || PromptResident(*other)) continue;
      if (other->chain[sequence->chain.size() - 1] == sequence->chain.back()) sequence->follower = true;
    }
  }
  group->members.push_back(sequence);
  if (sequence->follower) {
    ++group->num_followers;
    ++num_hidden_;
    sequence->state = SequenceState::kHidden;
    sequence->queued_tokens = sequence->num_tokens();
    waiting_tokens_ += sequence->queued_tokens;
  } else {
    Queue(sequence);
  }
}

void WorkerCore::Impl::Queue(Sequence* sequence) {
  sequence->state = SequenceState::kWaiting;
  undisturbed_ = false;
  waiting_tokens_ += sequence->num_tokens() - sequence->queued_tokens;
  sequence->queued_tokens = sequence->num_tokens();
  sequence->match.clear();
  sequence->match_version = ~0ull;
  waiting_with_slot_ += sequence->slot >= 0;
  waiting_.Insert(ViewOf(*sequence), sequence);
}

void WorkerCore::Impl::FillView(const Sequence& sequence, SequenceView* out) {
  SequenceView& view = *out;
  view.id = sequence.id;
  view.arrival = sequence.report.arrived;
  view.first_token_deadline = view.arrival + sequence.slo.ttft;
  view.next_token_deadline =
      sequence.last_token.is_never() ? view.first_token_deadline : sequence.last_token + sequence.slo.tpot;
  view.deadline = sequence.deadline;
  view.first_scheduled = sequence.report.first_scheduled;
  view.first_token = sequence.report.first_token;
  view.last_token = sequence.last_token;
  view.num_prompt = sequence.num_given;
  view.num_tokens = sequence.num_tokens();
  view.num_computed = sequence.num_computed;
  if (sequence.state == SequenceState::kWaiting) view.cached_tokens = sequence.transferred;
  view.num_generated = sequence.num_generated();
  view.max_new_tokens = sequence.max_new();
  view.num_blocks = static_cast<int32_t>(sequence.blocks.size());
  view.priority = sequence.priority;
  view.tenant = sequence.tenant;
  view.application = sequence.application;
  view.num_preemptions = sequence.report.num_preemptions;
}

void WorkerCore::Impl::OnCancel(const SampleKey& key, Time now, TokenEvents* events) {
  if (journal_ != nullptr) journal_->Cancel(key, now);
  const auto found = by_key_.find(key);
  if (found != by_key_.end()) End(found->second, FinishReason::kCancelled, now, {}, events);
}

void WorkerCore::Impl::OnCancelRequest(RequestId request, Time now, TokenEvents* events) {
  if (journal_ != nullptr) journal_->CancelRequest(request, now);
  // End removes the member, and with the last one the group.
  for (auto found = groups_.find(request); found != groups_.end(); found = groups_.find(request)) {
    End(found->second->members.back(), FinishReason::kCancelled, now, {}, events);
  }
}

void WorkerCore::Impl::OnTimer(Time now, TokenEvents* events) {
  if (journal_ != nullptr) journal_->Timer(now);
  if (wake_ <= now) wake_ = Time::Never();
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    End(sequences_.at(deadlines_.begin()->second).get(), FinishReason::kDeadline, now, {}, events);
  }
}

Time WorkerCore::Impl::NextWake() const {
  return deadlines_.empty() ? wake_ : std::min(wake_, deadlines_.begin()->first);
}

// The chance in fifths: how many of five quantiles of a sample's length say that it will have ended. A sample
// whose prompt is not computed yet stays.
void WorkerCore::Impl::CountLeaving(std::array<int64_t, kLookaheadSteps>* tokens) {
  tokens->fill(0);
  if (options_.lookahead == 0 || parts_.predictor == nullptr) return;
  Settle();
  for (const Sequence* sequence : running_by_key_) {
    const SequenceView view = ViewOf(*sequence);
    if (view.tokens_to_compute() > 1) continue;
    for (const double q : {0.1, 0.3, 0.5, 0.7, 0.9}) {
      const int32_t left = std::max(1, parts_.predictor->Quantile(view, q) - view.num_generated);
      if (left <= options_.lookahead) (*tokens)[static_cast<size_t>(left) - 1] += view.num_computed;
    }
  }
  int64_t fifths = 0;
  for (int32_t h = 0; h < options_.lookahead; ++h) {
    fifths += (*tokens)[static_cast<size_t>(h)];
    (*tokens)[static_cast<size_t>(h)] = fifths / 5;
  }
}

void WorkerCore::Impl::State(Time now, WorkerState* state, StateScope scope) {
  state->worker = options_.worker;
  state->incarnation = options_.incarnation;
  state->role = options_.role;
  state->group = options_.group;
  state->rank = options_.rank;
  state->sequence_number = ++state_number_;
  state->at = now;
  state->step = last_step_;
  state->last_submission = last_submission_;
  state->free_slots = static_cast<int32_t>(free_slots_.size() + released_slots_.size());
  state->num_running = static_cast<int32_t>(running_.size());
  state->num_waiting = waiting_.size() + num_hidden_;
  state->waiting_prompt_tokens = waiting_tokens_;
  state->running_prompt_tokens = prompt_left_;
  state->kv_tokens = kv_tokens_;
  state->blocks_total = state->blocks_free = state->blocks_cached = 0;
  state->blocks_reserved = state->blocks_held = 0;
  state->running.clear();
  CountLeaving(&state->leaving_tokens);
  if (scope == StateScope::kAll) {
    Settle();
    state->blocks_total = options_.num_blocks;
    state->blocks_free = kv_.pool().num_free();
    state->blocks_cached = kv_.num_cached();
    for (const Sequence* sequence : running_by_key_) {
      state->running.push_back({sequence->key, sequence->num_computed, sequence->num_generated(),
                                std::max(0, sequence->num_given - sequence->num_computed)});
    }
  }
  state->finished.swap(finished_);
  finished_.clear();
  state->step_time = last_step_time_;
  state->step_shape = last_step_shape_;
  state->draining = draining_;
  state->prefix_events.clear();
  state->prefixes_anew = kv_.enabled() && kv_.prefix_log().Take(&state->prefix_events);
  state->prefix_event_sequence = kv_.enabled() ? kv_.prefix_log().number() : 0;
}

// WorkerCore: the public face.

WorkerCore::WorkerCore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
WorkerCore::~WorkerCore() = default;

absl::StatusOr<std::unique_ptr<WorkerCore>> WorkerCore::Create(const WorkerOptions& options,
                                                               WorkerParts parts) {
  if (absl::Status status = ValidateOptions(options); !status.ok()) return status;
  if (parts.policy == nullptr || parts.eviction == nullptr) {
    return absl::InvalidArgumentError("a worker needs a batch policy and an eviction policy");
  }
  parts.eviction->UseCost(parts.cost.get(), options.block_tokens);
  return std::unique_ptr<WorkerCore>(new WorkerCore(std::make_unique<Impl>(options, std::move(parts))));
}

absl::Status WorkerCore::OnArrival(Submit submit, Time now) {
  return impl_->OnArrival(std::move(submit), now);
}
void WorkerCore::OnCancel(const SampleKey& key, Time now, TokenEvents* events) {
  impl_->Settle();
  impl_->OnCancel(key, now, events);
}
void WorkerCore::OnCancelRequest(RequestId request, Time now, TokenEvents* events) {
  impl_->Settle();
  impl_->OnCancelRequest(request, now, events);
}
void WorkerCore::OnTimer(Time now, TokenEvents* events) {
  impl_->Settle();
  impl_->OnTimer(now, events);
}
void WorkerCore::Drain(Time now) {
  if (impl_->journal_ != nullptr) impl_->journal_->Drain(now);
  impl_->draining_ = true;
}
const StepPlan& WorkerCore::Plan(Time now) {
  impl_->Settle();
  return impl_->Plan(now, false);
}
const StepPlan& WorkerCore::PlanBeside(Time now, Beside* beside) {
  const StepPlan& plan = impl_->Plan(now, true);
  *beside =
      impl_->num_flights_ > 0 && impl_->flights_[impl_->first_flight_].beside > 0 ? impl_->Apart() : Beside{};
  return plan;
}
WorkerCore::Beside WorkerCore::Apart() { return impl_->SetApart() ? impl_->Apart() : Beside{}; }
bool WorkerCore::can_plan() const { return impl_->CanPlan(); }
absl::Status WorkerCore::OnStepDone(const StepResult& result, Time now, TokenEvents* events) {
  return impl_->OnStepDone(result, now, events);
}
absl::Status WorkerCore::OnStepFailed(StepId step, std::string_view error, Time now, TokenEvents* events) {
  impl_->Settle();
  return impl_->OnStepFailed(step, error, now, events);
}
Time WorkerCore::NextWake() const { return impl_->NextWake(); }
bool WorkerCore::has_work() const {
  return !impl_->running_.empty() || num_waiting() > 0 || !impl_->released_slots_.empty();
}
bool WorkerCore::idle() const { return !has_work() && impl_->num_flights_ == 0; }
int32_t WorkerCore::in_flight() const { return impl_->num_flights_; }
int32_t WorkerCore::KnownSteps(DecisionRecord* why) { return impl_->KnownSteps(why); }
void WorkerCore::PassKnownStep(Time start, Time end) { impl_->PassKnownStep(start, end); }
void WorkerCore::EndAfterKnownStep(absl::Span<const SampledToken> ended, TokenEvents* events) {
  impl_->EndAfterKnownStep(ended, events);
}
void WorkerCore::Settle() { impl_->Settle(); }
void WorkerCore::TellPrefixes() {
  if (impl_->kv_.enabled()) impl_->kv_.TellPrefixes();
}
bool WorkerCore::has_prefix_events() const {
  return impl_->kv_.enabled() && !impl_->kv_.prefix_log().empty();
}
void WorkerCore::State(Time now, WorkerState* state, StateScope scope) { impl_->State(now, state, scope); }
std::optional<SampleReport> WorkerCore::Report(const SampleKey& key) const {
  for (const auto* reports : {&impl_->reports_, &impl_->old_reports_}) {
    if (const auto found = reports->find(key); found != reports->end()) return found->second;
  }
  return std::nullopt;
}
const WorkerCounters& WorkerCore::counters() const { return impl_->counters_; }
const WorkerOptions& WorkerCore::options() const { return impl_->options_; }
const StepCostModel* WorkerCore::cost() const { return impl_->parts_.cost.get(); }
const DecisionRecord& WorkerCore::last_decision() const { return impl_->last_decision_; }
int32_t WorkerCore::num_waiting() const { return impl_->waiting_.size() + impl_->num_hidden_; }
int32_t WorkerCore::num_running() const { return static_cast<int32_t>(impl_->running_.size()); }
int64_t WorkerCore::waiting_tokens() const { return impl_->waiting_tokens_; }
int64_t WorkerCore::kv_tokens() const { return impl_->kv_tokens_; }
void WorkerCore::set_journal(JournalWriter* journal) {
  impl_->Settle();
  impl_->journal_ = journal;
}
absl::Status WorkerCore::CheckInvariants() const {
  impl_->Settle();
  return impl_->CheckInvariants();
}

}  // namespace orrery
