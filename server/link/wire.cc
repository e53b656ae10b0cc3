#include "server/link/wire.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "absl/container/node_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "scheduler/types/refusal.h"

namespace orrery {
namespace {

namespace v1 = ::orrery::v1;

constexpr int64_t kMostTokens = int64_t{1} << 40;  // of any sum that a worker tells

uint64_t AgeOf(Time at, Time now) { return static_cast<uint64_t>(std::max<int64_t>(0, (now - at).ns)); }
Time AtAge(uint64_t age, Time now) {
  return Time{now.ns - static_cast<int64_t>(std::min<uint64_t>(age, int64_t{1} << 60))};
}
uint64_t NonNegative(Duration duration) { return static_cast<uint64_t>(std::max<int64_t>(0, duration.ns)); }
Duration ToDuration(uint64_t ns) {
  return Duration{static_cast<int64_t>(std::min<uint64_t>(ns, int64_t{1} << 60))};
}
uint32_t Count(int32_t value) { return static_cast<uint32_t>(std::max(0, value)); }
// Of a state's counts: few enough that their sums are counts too.
int32_t Few(uint32_t value) { return static_cast<int32_t>(std::min<uint32_t>(value, 1 << 28)); }
int32_t Count(uint32_t value) {
  return static_cast<int32_t>(std::min<uint32_t>(value, std::numeric_limits<int32_t>::max()));
}
int64_t Sum(uint64_t value) { return static_cast<int64_t>(std::min<uint64_t>(value, kMostTokens)); }

absl::Status Broken(const char* what) {
  return absl::InvalidArgumentError(absl::StrCat("malformed: ", what));
}

void SamplingToWire(const Sampling& sampling, v1::WireSampling* wire) {
  wire->set_temperature(sampling.temperature);
  wire->set_top_k(sampling.top_k);
  wire->set_top_p(sampling.top_p);
  wire->set_min_p(sampling.min_p);
  wire->set_presence_penalty(sampling.presence_penalty);
  wire->set_frequency_penalty(sampling.frequency_penalty);
  wire->set_repetition_penalty(sampling.repetition_penalty);
  for (const auto& [id, bias] : sampling.logit_bias) {
    wire->add_bias_ids(static_cast<uint32_t>(id));
    wire->add_biases(bias);
  }
  wire->set_seed(sampling.seed);
  if (sampling.num_logprobs >= 0) wire->set_num_logprobs(static_cast<uint32_t>(sampling.num_logprobs));
  if (sampling.num_prompt_logprobs >= 0) {
    wire->set_num_prompt_logprobs(static_cast<uint32_t>(sampling.num_prompt_logprobs));
  }
}

absl::StatusOr<Sampling> SamplingFromWire(const v1::WireSampling& wire) {
  if (wire.bias_ids_size() != wire.biases_size()) return Broken("logit_bias");
  Sampling sampling;
  sampling.temperature = wire.temperature();
  sampling.top_k = wire.top_k();
  sampling.top_p = wire.top_p();
  sampling.min_p = wire.min_p();
  sampling.presence_penalty = wire.presence_penalty();
  sampling.frequency_penalty = wire.frequency_penalty();
  sampling.repetition_penalty = wire.repetition_penalty();
  for (int i = 0; i < wire.bias_ids_size(); ++i) {
    sampling.logit_bias.emplace_back(Count(wire.bias_ids(i)), wire.biases(i));
  }
  sampling.seed = wire.seed();
  if (wire.has_num_logprobs()) sampling.num_logprobs = Count(wire.num_logprobs());
  if (wire.has_num_prompt_logprobs()) sampling.num_prompt_logprobs = Count(wire.num_prompt_logprobs());
  return sampling;
}

template <typename Wire>
void TopToWire(absl::Span<const std::pair<TokenId, float>> top, Wire* wire) {
  for (const auto& [id, logprob] : top) {
    wire->add_top_ids(static_cast<uint32_t>(id));
    wire->add_top(logprob);
  }
}

void EventToWire(const TokenEvent& event, Time now, v1::WireEvent* wire) {
  ToWire(event.key, wire->mutable_key());
  if (event.index >= 0) wire->set_index(static_cast<uint32_t>(event.index));
  if (event.token >= 0) wire->set_token(static_cast<uint32_t>(event.token));
  wire->set_finish(static_cast<uint32_t>(event.finish));
  wire->set_error(event.error);
  wire->set_age_ns(AgeOf(event.at, now));
  if (event.logprobs != nullptr) {
    v1::WireLogprobs* out = wire->mutable_logprobs();
    out->set_chosen(event.logprobs->chosen);
    TopToWire(event.logprobs->top, out);
  }
  if (event.prompt_logprobs == nullptr) return;
  const PromptLogprobs& prompt = *event.prompt_logprobs;
  v1::WirePromptLogprobs* out = wire->mutable_prompt_logprobs();
  out->set_begin(Count(prompt.begin));
  out->set_num_top(Count(prompt.num_top));
  out->mutable_chosen()->Add(prompt.chosen.begin(), prompt.chosen.end());
  TopToWire(prompt.top, out);
}

// False: sizes differ, or an id is outside of the vocabulary.
template <typename Wire>
bool TopFromWire(const Wire& wire, int32_t vocab_size, std::vector<std::pair<TokenId, float>>* top) {
  if (wire.top_ids_size() != wire.top_size()) return false;
  top->reserve(static_cast<size_t>(wire.top_size()));
  for (int i = 0; i < wire.top_size(); ++i) {
    if (wire.top_ids(i) >= static_cast<uint32_t>(vocab_size)) return false;
    top->emplace_back(static_cast<TokenId>(wire.top_ids(i)), wire.top(i));
  }
  return true;
}

absl::Status EventFromWire(const v1::WireEvent& wire, int32_t vocab_size, Time now, TokenEvent* event) {
  event->key = FromWire(wire.key());
  if (wire.has_index()) event->index = Few(wire.index());
  if (wire.has_token()) {
    if (wire.token() >= static_cast<uint32_t>(vocab_size)) return Broken("a token outside of the vocabulary");
    if (!wire.has_index()) return Broken("a token without its place");
    event->token = static_cast<TokenId>(wire.token());
  }
  if (wire.finish() > static_cast<uint32_t>(FinishReason::kError)) return Broken("no such end");
  event->finish = static_cast<FinishReason>(wire.finish());
  event->error = wire.error();
  event->at = AtAge(wire.age_ns(), now);
  if (wire.has_logprobs()) {
    auto logprobs = std::make_shared<TokenLogprobs>();
    logprobs->chosen = wire.logprobs().chosen();
    if (!TopFromWire(wire.logprobs(), vocab_size, &logprobs->top)) return Broken("log-probabilities");
    event->logprobs = std::move(logprobs);
  }
  if (wire.has_prompt_logprobs()) {
    const v1::WirePromptLogprobs& in = wire.prompt_logprobs();
    auto prompt = std::make_shared<PromptLogprobs>();
    prompt->begin = Count(in.begin());
    prompt->num_top = Count(in.num_top());
    prompt->chosen.assign(in.chosen().begin(), in.chosen().end());
    const int64_t expected = int64_t{prompt->num_top} * in.chosen_size();
    if (!TopFromWire(in, vocab_size, &prompt->top) || in.top_size() != expected) {
      return Broken("log-probabilities of a prompt");
    }
    event->prompt_logprobs = std::move(prompt);
  }
  return absl::OkStatus();
}

// Decision records hold names by reference: what comes from afar is kept here once, of which there are few.
std::string_view Kept(const std::string& name) {
  constexpr size_t kMost = 1024, kMostBytes = 256;
  static absl::Mutex mutex(absl::kConstInit);
  static auto* names = new absl::node_hash_set<std::string>();
  absl::MutexLock lock(&mutex);
  const auto it = names->find(name);
  if (it != names->end()) return *it;
  if (names->size() >= kMost || name.size() > kMostBytes) return "other";
  return *names->insert(name).first;
}

void ShapeToWire(const StepShape& shape, v1::WireShape* wire) {
  wire->set_decodes(Count(shape.decodes));
  wire->set_decode_context(static_cast<uint64_t>(shape.decode_context));
  wire->set_chunks(Count(shape.chunks));
  wire->set_prefill_tokens(Count(shape.prefill_tokens));
  wire->set_prefill_squares(shape.prefill_squares);
}

StepShape ShapeFromWire(const v1::WireShape& wire) {
  StepShape shape;
  shape.decodes = Count(wire.decodes());
  shape.decode_context = Sum(wire.decode_context());
  shape.chunks = Count(wire.chunks());
  shape.prefill_tokens = Count(wire.prefill_tokens());
  shape.prefill_squares = std::isfinite(wire.prefill_squares()) ? std::max(0.0, wire.prefill_squares()) : 0;
  return shape;
}

void StepToWire(const StepStats& step, v1::WireStep* wire) {
  wire->set_num_prefill_tokens(Count(step.num_prefill_tokens));
  wire->set_num_decodes(Count(step.num_decodes));
  wire->set_num_sequences(Count(step.num_sequences));
  ShapeToWire(step.shape, wire->mutable_shape());
  wire->set_scores(step.scores);
  wire->set_engine_ns(NonNegative(step.engine));
  wire->set_host_ns(NonNegative(step.host));
  wire->set_decision_ns(NonNegative(step.decision));
  wire->set_predicted_ns(NonNegative(step.predicted));
  v1::WireDecision* why = wire->mutable_why();
  why->set_policy(step.why.policy.data(), step.why.policy.size());
  why->set_objective(step.why.objective.data(), step.why.objective.size());
  why->set_value(step.why.value);
  if (!std::isnan(step.why.bound)) why->set_bound(step.why.bound);
  why->set_work(step.why.work);
}

StepStats StepFromWire(const v1::WireStep& wire) {
  StepStats step;
  step.num_prefill_tokens = Count(wire.num_prefill_tokens());
  step.num_decodes = Count(wire.num_decodes());
  step.num_sequences = Count(wire.num_sequences());
  step.shape = ShapeFromWire(wire.shape());
  step.scores = wire.scores();
  step.engine = ToDuration(wire.engine_ns());
  step.host = ToDuration(wire.host_ns());
  step.decision = ToDuration(wire.decision_ns());
  step.predicted = ToDuration(wire.predicted_ns());
  step.why.policy = Kept(wire.why().policy());
  step.why.objective = Kept(wire.why().objective());
  step.why.value = wire.why().value();
  if (wire.why().has_bound()) step.why.bound = wire.why().bound();
  step.why.work = wire.why().work();
  return step;
}

void StateToWire(const WorkerState& state, Time now, v1::WireState* wire) {
  wire->set_sequence_number(state.sequence_number);
  wire->set_age_ns(AgeOf(state.at, now));
  wire->set_step(Value(state.step));
  wire->set_last_submission(state.last_submission);
  wire->set_kv_tokens(static_cast<uint64_t>(state.kv_tokens));
  wire->set_blocks_total(Count(state.blocks_total));
  wire->set_blocks_free(Count(state.blocks_free));
  wire->set_blocks_cached(Count(state.blocks_cached));
  wire->set_blocks_reserved(Count(state.blocks_reserved));
  wire->set_blocks_held(Count(state.blocks_held));
  wire->set_free_slots(Count(state.free_slots));
  wire->set_num_running(Count(state.num_running));
  wire->set_num_waiting(Count(state.num_waiting));
  wire->set_waiting_prompt_tokens(static_cast<uint64_t>(state.waiting_prompt_tokens));
  wire->set_running_prompt_tokens(static_cast<uint64_t>(state.running_prompt_tokens));
  const auto& leaving = state.leaving_tokens;
  if (std::any_of(leaving.begin(), leaving.end(), [](int64_t tokens) { return tokens != 0; })) {
    for (const int64_t tokens : leaving) wire->add_leaving_tokens(static_cast<uint64_t>(tokens));
  }
  wire->set_step_time_ns(NonNegative(state.step_time));
  ShapeToWire(state.step_shape, wire->mutable_step_shape());
  wire->set_draining(state.draining);
  for (const PrefixEvent& event : state.prefix_events) {
    wire->add_prefix_names(event.name.low);
    wire->add_prefix_names(event.name.high);
    wire->add_prefix_stored(event.stored);
  }
  wire->set_prefix_event_sequence(state.prefix_event_sequence);
  wire->set_prefixes_anew(state.prefixes_anew);
}

absl::Status StateFromWire(const v1::WireState& wire, Time now, WorkerState* state) {
  state->sequence_number = wire.sequence_number();
  state->at = AtAge(wire.age_ns(), now);
  state->step = StepId{wire.step()};
  state->last_submission = wire.last_submission();
  state->kv_tokens = Sum(wire.kv_tokens());
  state->blocks_total = Few(wire.blocks_total());
  state->blocks_free = Few(wire.blocks_free());
  state->blocks_cached = Few(wire.blocks_cached());
  state->blocks_reserved = Few(wire.blocks_reserved());
  state->blocks_held = Few(wire.blocks_held());
  state->free_slots = Few(wire.free_slots());
  state->num_running = Few(wire.num_running());
  state->num_waiting = Few(wire.num_waiting());
  state->waiting_prompt_tokens = Sum(wire.waiting_prompt_tokens());
  state->running_prompt_tokens = Sum(wire.running_prompt_tokens());
  for (size_t i = 0; i < std::min<size_t>(static_cast<size_t>(wire.leaving_tokens_size()), kLookaheadSteps);
       ++i) {
    state->leaving_tokens[i] = Sum(wire.leaving_tokens(static_cast<int>(i)));
  }
  state->step_time = ToDuration(wire.step_time_ns());
  state->step_shape = ShapeFromWire(wire.step_shape());
  state->draining = wire.draining();
  const auto num_events = static_cast<size_t>(wire.prefix_stored_size());
  if (num_events > kMostPrefixEvents || wire.prefix_names_size() != 2 * wire.prefix_stored_size()) {
    return Broken("prefix events");
  }
  state->prefix_events.reserve(num_events);
  for (int i = 0; i < wire.prefix_stored_size(); ++i) {
    state->prefix_events.push_back(
        {{wire.prefix_names(2 * i), wire.prefix_names(2 * i + 1)}, wire.prefix_stored(i)});
  }
  state->prefix_event_sequence = wire.prefix_event_sequence();
  state->prefixes_anew = wire.prefixes_anew();
  return absl::OkStatus();
}

void EndToWire(const SampleEnd& end, Time now, v1::WireSampleEnd* wire) {
  ToWire(end.key, wire->mutable_key());
  wire->set_cached_tokens(Count(end.report.cached_tokens));
  wire->set_num_preemptions(Count(end.report.num_preemptions));
  if (!end.report.arrived.is_never()) wire->set_arrived_ns(AgeOf(end.report.arrived, now));
  if (!end.report.first_scheduled.is_never()) {
    wire->set_first_scheduled_ns(AgeOf(end.report.first_scheduled, now));
  }
  if (!end.report.first_token.is_never()) wire->set_first_token_ns(AgeOf(end.report.first_token, now));
  if (!end.report.finished.is_never()) wire->set_finished_ns(AgeOf(end.report.finished, now));
}

SampleEnd EndFromWire(const v1::WireSampleEnd& wire, Time now) {
  SampleEnd end;
  end.key = FromWire(wire.key());
  end.report.cached_tokens = Count(wire.cached_tokens());
  end.report.num_preemptions = Count(wire.num_preemptions());
  const auto at = [&](bool has, uint64_t age) { return has ? AtAge(age, now) : Time::Never(); };
  end.report.arrived = at(wire.has_arrived_ns(), wire.arrived_ns());
  end.report.first_scheduled = at(wire.has_first_scheduled_ns(), wire.first_scheduled_ns());
  end.report.first_token = at(wire.has_first_token_ns(), wire.first_token_ns());
  end.report.finished = at(wire.has_finished_ns(), wire.finished_ns());
  return end;
}

void RefusedToWire(const RefusedSample& refused, v1::WireRefused* wire) {
  ToWire(refused.key, wire->mutable_key());
  const Refusal refusal =
      RefusalOf(refused.why).value_or(Refusal{.message = std::string(refused.why.message())});
  wire->set_reason(static_cast<uint32_t>(refusal.reason));
  wire->set_field(refusal.field);
  wire->set_limit(refusal.limit);
  wire->set_actual(refusal.actual);
  wire->set_message(refusal.message);
}

absl::StatusOr<RefusedSample> RefusedFromWire(const v1::WireRefused& wire) {
  if (wire.reason() > static_cast<uint32_t>(RefusalReason::kNoWorker)) return Broken("no such refusal");
  return RefusedSample{.key = FromWire(wire.key()),
                       .why = ToStatus({.reason = static_cast<RefusalReason>(wire.reason()),
                                        .field = wire.field(),
                                        .limit = wire.limit(),
                                        .actual = wire.actual(),
                                        .message = wire.message()})};
}

}  // namespace

void ToWire(const SampleKey& key, v1::WireSampleKey* wire) {
  wire->set_request(Value(key.request));
  wire->set_sample(key.sample);
  wire->set_attempt(key.attempt);
}

SampleKey FromWire(const v1::WireSampleKey& wire) {
  return {.request = RequestId{wire.request()}, .sample = wire.sample(), .attempt = wire.attempt()};
}

void ToWire(const Submit& submit, const SharedTokens& before, Time now, v1::WireSubmit* wire) {
  ToWire(submit.key, wire->mutable_key());
  wire->set_submission(submit.submission);
  if (submit.tokens != before) wire->mutable_tokens()->Add(submit.tokens->begin(), submit.tokens->end());
  wire->set_num_prompt(Count(submit.num_prompt));
  wire->set_num_emitted(Count(submit.num_emitted));
  SamplingToWire(submit.sampling, wire->mutable_sampling());
  wire->set_max_tokens(Count(submit.stop.max_tokens));
  wire->set_min_tokens(Count(submit.stop.min_tokens));
  wire->mutable_stop_ids()->Add(submit.stop.stop_ids.begin(), submit.stop.stop_ids.end());
  if (!submit.slo.ttft.is_infinite()) wire->set_ttft_ns(NonNegative(submit.slo.ttft));
  if (!submit.slo.tpot.is_infinite()) wire->set_tpot_ns(NonNegative(submit.slo.tpot));
  if (!submit.deadline.is_never()) wire->set_deadline_ns(NonNegative(submit.deadline - now));
  wire->set_priority(submit.priority);
  wire->set_tenant(submit.tenant);
  wire->set_application(submit.application);
  wire->set_traffic_class(submit.traffic_class);
  wire->set_cache_salt(submit.cache_salt);
}

absl::StatusOr<Submit> FromWire(const v1::WireSubmit& wire, Time now, SharedTokens* tokens) {
  if (wire.tokens_size() > 0) {
    *tokens = std::make_shared<const std::vector<TokenId>>(wire.tokens().begin(), wire.tokens().end());
  }
  Submit submit;
  submit.key = FromWire(wire.key());
  submit.submission = wire.submission();
  if (*tokens == nullptr) return Broken("a submission without tokens");
  submit.tokens = *tokens;
  submit.num_prompt = Count(wire.num_prompt());
  submit.num_emitted = Count(wire.num_emitted());
  auto sampling = SamplingFromWire(wire.sampling());
  if (!sampling.ok()) return sampling.status();
  submit.sampling = *std::move(sampling);
  submit.stop.max_tokens = Count(wire.max_tokens());
  submit.stop.min_tokens = Count(wire.min_tokens());
  for (const uint32_t id : wire.stop_ids()) submit.stop.stop_ids.push_back(Count(id));
  if (wire.has_ttft_ns()) submit.slo.ttft = ToDuration(wire.ttft_ns());
  if (wire.has_tpot_ns()) submit.slo.tpot = ToDuration(wire.tpot_ns());
  if (wire.has_deadline_ns()) submit.deadline = now + ToDuration(wire.deadline_ns());
  submit.priority = wire.priority();
  submit.tenant = wire.tenant();
  submit.application = wire.application();
  submit.traffic_class = wire.traffic_class();
  submit.cache_salt = wire.cache_salt();
  return submit;
}

void ToWire(const WorkerReport& report, uint32_t rank, Time now, v1::WireReport* wire) {
  wire->set_rank(rank);
  for (const TokenEvent& event : report.events) EventToWire(event, now, wire->add_events());
  for (const SampleEnd& end : report.ended) EndToWire(end, now, wire->add_ended());
  for (const RefusedSample& refused : report.refused) RefusedToWire(refused, wire->add_refused());
  for (const StepStats& step : report.steps) StepToWire(step, wire->add_steps());
  StateToWire(report.state, now, wire->mutable_state());
  wire->set_preemptions(static_cast<uint64_t>(report.preemptions));
  wire->set_prefix_hit_tokens(static_cast<uint64_t>(report.prefix_hit_tokens));
  wire->set_policy_fallbacks(static_cast<uint64_t>(report.policy_fallbacks));
  wire->set_more_follow(report.more_follow);
}

absl::StatusOr<WorkerReport> FromWire(const v1::WireReport& wire, int32_t vocab_size, Time now) {
  WorkerReport report;
  report.events.resize(static_cast<size_t>(wire.events_size()));
  for (int i = 0; i < wire.events_size(); ++i) {
    absl::Status status =
        EventFromWire(wire.events(i), vocab_size, now, &report.events[static_cast<size_t>(i)]);
    if (!status.ok()) return status;
  }
  for (const v1::WireSampleEnd& end : wire.ended()) report.ended.push_back(EndFromWire(end, now));
  for (const v1::WireRefused& refused : wire.refused()) {
    auto sample = RefusedFromWire(refused);
    if (!sample.ok()) return sample.status();
    report.refused.push_back(*std::move(sample));
  }
  for (const v1::WireStep& step : wire.steps()) report.steps.push_back(StepFromWire(step));
  if (absl::Status status = StateFromWire(wire.state(), now, &report.state); !status.ok()) return status;
  report.preemptions = Sum(wire.preemptions());
  report.prefix_hit_tokens = Sum(wire.prefix_hit_tokens());
  report.policy_fallbacks = Sum(wire.policy_fallbacks());
  report.more_follow = wire.more_follow();
  return report;
}

}  // namespace orrery
