#include "server/delivery/generation.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "server/base/errors.h"

namespace orrery {
namespace {

constexpr char kEngineFailed[] = "the engine failed while it ran the request";

// What the engine said is for the log: no internals leave the server.
grpc::Status EngineFailed() {
  orrery::v1::ErrorInfo info;
  info.set_reason("engine_error");
  return ToGrpcStatus(ErrorWithInfo(absl::StatusCode::kInternal, kEngineFailed, info));
}

grpc::Status StatusOfEnd(const ChoiceStream& stream) {
  switch (stream.finish()) {
    case FinishReason::kError:
      return EngineFailed();
    case FinishReason::kDeadline:
      return grpc::Status(grpc::DEADLINE_EXCEEDED, "the deadline of the request has passed");
    case FinishReason::kCancelled:
      return grpc::Status(grpc::CANCELLED, "cancelled");
    default:
      return grpc::Status::OK;
  }
}

void FillDecision(const char* kind, const DecisionRecord& record, orrery::v1::Finished* finished) {
  if (record.policy.empty()) return;
  orrery::v1::Decision* out = finished->add_decisions();
  out->set_kind(kind);
  out->set_policy(std::string(record.policy));
  out->set_objective(std::string(record.objective));
  out->set_value(record.value);
  if (!std::isnan(record.bound)) out->set_bound(record.bound);
  out->set_work(record.work);
}

}  // namespace

const char* NameOf(Outcome outcome) {
  constexpr const char* kNames[kNumOutcomes] = {"stop",     "length",  "cancelled", "deadline",
                                                "rejected", "invalid", "failed"};
  return kNames[static_cast<size_t>(outcome)];
}

Generation::Generation(RequestId id, GenerationSpec spec, const TextCodec& codec,
                       std::shared_ptr<StreamWriter> writer, Time arrived)
    : id_(id), spec_(std::move(spec)), writer_(std::move(writer)), arrived_(arrived) {
  choices_.reserve(spec_.num_choices);
  for (uint32_t i = 0; i < spec_.num_choices; ++i) {
    choices_.push_back({ChoiceStream(i, &spec_, codec.NewStreamDecoder(spec_.skip_special, *spec_.prompt)),
                        {},
                        false,
                        false});
  }
}

Submit Generation::Prototype() const {
  Submit submit;
  submit.key.request = id_;
  submit.tokens = spec_.prompt;
  submit.num_prompt = static_cast<int32_t>(spec_.prompt->size());
  submit.sampling = spec_.sampling;
  submit.stop = spec_.stop;
  submit.slo = spec_.slo;
  submit.deadline = deadline();
  submit.priority = spec_.priority;
  submit.tenant = spec_.tenant;
  submit.application = spec_.application;
  submit.routing_key = spec_.routing_key;
  submit.cache_salt = spec_.cache_salt;
  return submit;
}

Generation::Effect Generation::OnEvent(const TokenEvent& event) {
  Effect effect;
  if (event.key.sample >= choices_.size()) return effect;
  Choice& choice = choices_[event.key.sample];
  // Told as an age, by somebody else's clock.
  if (event.at < arrived_) {
    TokenEvent later = event;
    later.at = arrived_;
    return OnEvent(later);
  }
  const Time before = choice.stream.last_token();
  const int32_t tokens = choice.stream.num_tokens();
  const ChoiceStream::Effect said = choice.stream.OnEvent(event);
  effect.token = choice.stream.num_tokens() > tokens;
  if (effect.token && !before.is_never()) effect.gap = event.at - before;
  if (effect.token) effect.first = !std::exchange(has_token_, true);
  effect.cancel_sample = said == ChoiceStream::Effect::kStopString;
  if (effect.cancel_sample) choice.report_due = true;
  if (said == ChoiceStream::Effect::kProgress && status_.ok()) {
    const bool lost = choice.stream.finish() == FinishReason::kError && !loss_.ok();
    status_ = lost ? ToGrpcStatus(loss_) : StatusOfEnd(choice.stream);
  }
  return effect;
}

void Generation::OnSampleReport(const SampleKey& key, const SampleReport& report) {
  if (key.sample >= choices_.size()) return;
  if (key.attempt + 1 < workers_.size()) return;  // of a try that others have taken over from
  Choice& choice = choices_[key.sample];
  choice.report = report;
  choice.report_due = false;
}

bool Generation::OnSent(const SampleKey& key, WorkerId worker) {
  if (workers_.size() <= key.attempt) workers_.resize(key.attempt + 1, worker);
  return key.sample < choices_.size() && !choices_[key.sample].stream.ended();
}

void Generation::OnLost(const SampleKey& key, const absl::Status& why) {
  if (key.sample < choices_.size()) choices_[key.sample].report_due = false;
  if (loss_.ok()) loss_ = why;
}

void Generation::EndAll(FinishReason reason) {
  for (Choice& choice : choices_) {
    choice.report_due = false;
    if (choice.stream.ended()) continue;
    choice.stream.End(reason);
    if (status_.ok()) status_ = StatusOfEnd(choice.stream);
  }
}

bool Generation::all_ended() const {
  return std::all_of(choices_.begin(), choices_.end(), [](const Choice& c) { return c.stream.ended(); });
}

bool Generation::SendStarted() {
  message_.Clear();
  orrery::v1::Started* started = message_.mutable_started();
  started->set_request_id(spec_.request_id);
  started->set_prompt_tokens(static_cast<uint32_t>(spec_.prompt->size()));
  if (spec_.echo_prompt) started->mutable_prompt_token_ids()->Add(spec_.prompt->begin(), spec_.prompt->end());
  return Taken(writer_->TryWrite(message_));
}

bool Generation::Taken(bool taken) {
  num_taken_ += taken;
  return taken;
}

bool Generation::Pump(Time now) {
  const uint64_t before = num_taken_;
  bool taken = started_sent_ || (started_sent_ = SendStarted());
  for (size_t visited = 0; taken && visited < choices_.size(); ++visited) {
    taken = SendChoice(&choices_[next_choice_]);
    if (taken) next_choice_ = (next_choice_ + 1) % choices_.size();
  }
  if (taken) {
    blocked_since_ = Time::Never();
  } else if (num_taken_ != before || blocked_since_.is_never()) {
    blocked_since_ = now;
  }
  return over();
}

// False when the writer takes no more.
bool Generation::SendChoice(Choice* choice) {
  while (choice->stream.has_delta()) {
    if (!Taken(writer_->TryWrite(choice->stream.delta_message()))) return false;
    choice->stream.ClearDelta();
  }
  if (!choice->stream.ended() || choice->report_due || choice->sent_finished) return true;
  FillFinished(*choice);
  const bool last = num_finished_sent_ + 1 == choices_.size();
  if (!Taken(last ? writer_->TryWriteAndFinish(message_, status_) : writer_->TryWrite(message_))) {
    return false;
  }
  choice->sent_finished = true;
  ++num_finished_sent_;
  return true;
}

void Generation::FillFinished(const Choice& choice) {
  message_.Clear();
  orrery::v1::Finished* finished = message_.mutable_finished();
  const ChoiceStream& stream = choice.stream;
  stream.FillFinished(finished);
  if (stream.finish() == FinishReason::kError) finished->set_error(kEngineFailed);
  orrery::v1::Usage* usage = finished->mutable_usage();
  usage->set_prompt_tokens(static_cast<uint32_t>(spec_.prompt->size()));
  usage->set_completion_tokens(static_cast<uint32_t>(stream.num_tokens()));
  for (const WorkerId worker : workers_) finished->add_attempts()->set_worker(Value(worker));
  orrery::v1::Timings* timings = finished->mutable_timings();
  if (choice.report) {
    usage->set_cached_tokens(static_cast<uint32_t>(choice.report->cached_tokens));
    if (finished->attempts_size() > 0) {
      finished->mutable_attempts(finished->attempts_size() - 1)
          ->set_preemptions(static_cast<uint32_t>(choice.report->num_preemptions));
    }
  }
  if (!stream.first_token().is_never()) {
    // A worker that took over was late for the first token, and another's clock is told by ages.
    const Time scheduled =
        choice.report ? std::clamp(choice.report->first_scheduled, arrived_, stream.first_token()) : arrived_;
    timings->set_queue_ms((scheduled - arrived_).milliseconds());
    timings->set_prefill_ms((stream.first_token() - scheduled).milliseconds());
    timings->set_ttft_ms((stream.first_token() - arrived_).milliseconds());
    timings->set_decode_ms((stream.last_token() - stream.first_token()).milliseconds());
  }
  FillEffective(finished->mutable_effective());
  FillDecision("route", route_, finished);
  FillDecision("batch", batch_, finished);
}

void Generation::FillEffective(orrery::v1::Sampling* out) const {
  const Sampling& sampling = spec_.sampling;
  out->set_temperature(sampling.temperature);
  out->set_top_k(sampling.top_k);
  out->set_top_p(sampling.top_p);
  out->set_min_p(sampling.min_p);
  out->set_presence_penalty(sampling.presence_penalty);
  out->set_frequency_penalty(sampling.frequency_penalty);
  out->set_repetition_penalty(sampling.repetition_penalty);
  for (const auto& [token, bias] : sampling.logit_bias) {
    (*out->mutable_logit_bias())[static_cast<uint32_t>(token)] = bias;
  }
  out->set_seed(sampling.seed);
  out->set_max_tokens(static_cast<uint32_t>(spec_.stop.max_tokens));
  out->set_min_tokens(static_cast<uint32_t>(spec_.stop.min_tokens));
  const size_t num_stops = spec_.stop_strings == nullptr ? 0 : spec_.stop_strings->size();
  for (size_t i = 0; i < num_stops; ++i) out->add_stop(spec_.stop_strings->text(i));
  out->mutable_stop_token_ids()->Add(spec_.client_stop_ids.begin(), spec_.client_stop_ids.end());
  out->set_include_stop_in_output(spec_.include_stop);
  out->set_skip_special_tokens(spec_.skip_special);
  if (spec_.truncate_prompt > 0) out->set_truncate_prompt_tokens(spec_.truncate_prompt);
  out->set_ignore_eos(spec_.ignore_eos);
  out->set_n(spec_.num_choices);
  if (sampling.num_logprobs >= 0) out->set_logprobs(static_cast<uint32_t>(sampling.num_logprobs));
  if (sampling.num_prompt_logprobs >= 0) {
    out->set_prompt_logprobs(static_cast<uint32_t>(sampling.num_prompt_logprobs));
  }
}

Outcome Generation::outcome() const {
  Outcome outcome = Outcome::kStop;
  for (const Choice& choice : choices_) {
    switch (choice.stream.finish()) {
      case FinishReason::kError:
        return Outcome::kFailed;
      case FinishReason::kDeadline:
        return Outcome::kDeadline;
      case FinishReason::kCancelled:
        return Outcome::kCancelled;
      case FinishReason::kLength:
        outcome = Outcome::kLength;
        break;
      case FinishReason::kStop:
      case FinishReason::kNone:
        break;
    }
  }
  return outcome;
}

RequestTimes Generation::times() const {
  RequestTimes times;
  times.arrived = arrived_;
  times.prompt_tokens = static_cast<int64_t>(spec_.prompt->size());
  for (const Choice& choice : choices_) {
    const ChoiceStream& stream = choice.stream;
    times.output_tokens += stream.num_tokens();
    if (choice.report) {
      times.first_scheduled = std::min(times.first_scheduled, choice.report->first_scheduled);
      times.cached_tokens += choice.report->cached_tokens;
    }
    if (stream.first_token().is_never()) continue;
    times.first_token = std::min(times.first_token, stream.first_token());
    if (times.last_token.is_never() || stream.last_token() >= times.last_token) {
      times.last_token = stream.last_token();
      times.longest_choice = stream.num_tokens();
    }
  }
  if (!times.first_token.is_never() && !times.first_scheduled.is_never()) {
    times.first_scheduled = std::clamp(times.first_scheduled, arrived_, times.first_token);
  }
  return times;
}

std::optional<bool> Generation::MetSlo(Outcome outcome) const {
  const Slo& slo = spec_.slo;
  if ((slo.ttft.is_infinite() && slo.tpot.is_infinite()) || outcome == Outcome::kCancelled) {
    return std::nullopt;
  }
  const RequestTimes end = times();
  if ((outcome != Outcome::kStop && outcome != Outcome::kLength) || end.first_token.is_never()) return false;
  const Duration decode = end.last_token - end.first_token;
  // As a product: no division of a time, none by zero.
  const bool tpot_met = slo.tpot.is_infinite() ||
                        decode.seconds() <= slo.tpot.seconds() * static_cast<double>(end.longest_choice - 1);
  return end.first_token - end.arrived <= slo.ttft && tpot_met;
}

size_t Generation::pending_bytes() const {
  size_t bytes = 0;
  for (const Choice& choice : choices_) bytes += choice.stream.delta_bytes();
  return bytes;
}

}  // namespace orrery
