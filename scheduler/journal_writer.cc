#include <utility>

#include "scheduler/base/bytes.h"
#include "scheduler/journal.h"
#include "scheduler/journal_format.h"
#include "scheduler/kv/block_hash.h"

namespace orrery {
namespace {

void PutKey(const SampleKey& key, std::string* out) {
  PutVarint(Value(key.request), out);
  PutVarint(key.sample, out);
  PutVarint(key.attempt, out);
}

void PutSampling(const Sampling& sampling, std::string* out) {
  PutFloat(sampling.temperature, out);
  PutSigned(sampling.top_k, out);
  for (const float value : {sampling.top_p, sampling.min_p, sampling.presence_penalty,
                            sampling.frequency_penalty, sampling.repetition_penalty}) {
    PutFloat(value, out);
  }
  PutVarint(sampling.logit_bias.size(), out);
  for (const auto& [id, bias] : sampling.logit_bias) {
    PutSigned(id, out);
    PutFloat(bias, out);
  }
  PutVarint(sampling.seed, out);
  PutSigned(sampling.num_logprobs, out);
  PutSigned(sampling.num_prompt_logprobs, out);
}

void PutTokens(const std::vector<TokenId>& tokens, std::string* out) {
  PutVarint(tokens.size(), out);
  for (const TokenId id : tokens) PutSigned(id, out);
}

void PutSubmit(const Submit& submit, std::string* out) {
  PutKey(submit.key, out);
  PutVarint(submit.submission, out);
  PutTokens(submit.tokens == nullptr ? std::vector<TokenId>() : *submit.tokens, out);
  PutSigned(submit.num_prompt, out);
  PutSigned(submit.num_emitted, out);
  PutSampling(submit.sampling, out);
  PutSigned(submit.stop.max_tokens, out);
  PutSigned(submit.stop.min_tokens, out);
  PutTokens(submit.stop.stop_ids, out);
  PutSigned(submit.slo.ttft.ns, out);
  PutSigned(submit.slo.tpot.ns, out);
  PutSigned(submit.deadline.ns, out);
  PutSigned(submit.priority, out);
  PutVarint(submit.tenant, out);
  PutVarint(submit.application, out);
  PutVarint(submit.cache_salt, out);
  PutVarint(submit.kv_source.has_value(), out);
  if (!submit.kv_source.has_value()) return;
  PutVarint(Value(submit.kv_source->worker), out);
  PutVarint(Value(submit.kv_source->transfer), out);
  PutSigned(submit.kv_source->num_tokens, out);
}

void PutSpec(const WorkerSpec& spec, std::string* out) {
  const WorkerOptions& options = spec.options;
  PutVarint(kJournalVersion, out);
  PutVarint(Value(options.worker), out);
  PutVarint(options.incarnation, out);
  PutVarint(static_cast<uint64_t>(options.role), out);
  PutVarint(Value(options.group), out);
  PutVarint(options.rank, out);
  for (const int32_t value :
       {options.num_blocks, options.block_tokens, options.max_num_seqs, options.max_step_tokens,
        options.max_context, options.vocab_size, options.max_waiting, options.max_in_flight}) {
    PutSigned(value, out);
  }
  PutVarint(options.prefix_cache, out);
  // Not the secret itself: a replay needs names that are equal where they were, no more.
  PutFixed64(HashKeyId(options.hash_key), out);
  for (const std::string* text : {&spec.scheduler, &spec.eviction, &spec.predictor, &spec.cost}) {
    PutText(*text, out);
  }
}

}  // namespace

JournalWriter::JournalWriter(const WorkerSpec& spec) {
  bytes_ = kJournalMagic;
  Begin(static_cast<uint8_t>(JournalRecord::kHeader), Time{});
  PutSpec(spec, &payload_);
  Finish();
}

void JournalWriter::Begin(uint8_t type, Time now) {
  type_ = type;
  payload_.clear();
  // Wraps around rather than overflows: Time::Never() is as good a time as any.
  PutSigned(static_cast<int64_t>(static_cast<uint64_t>(now.ns) - static_cast<uint64_t>(last_.ns)), &payload_);
  last_ = now;
}

void JournalWriter::Finish() {
  bytes_.push_back(static_cast<char>(type_));
  PutText(payload_, &bytes_);
  chain_ = JournalChain(chain_, type_, payload_);
  PutFixed64(chain_, &bytes_);
}

std::string JournalWriter::TakeBytes() { return std::exchange(bytes_, std::string()); }

void JournalWriter::Arrival(const Submit& submit, Time now, bool accepted) {
  Begin(static_cast<uint8_t>(JournalRecord::kArrival), now);
  PutVarint(accepted, &payload_);
  PutSubmit(submit, &payload_);
  Finish();
}

void JournalWriter::Cancel(const SampleKey& key, Time now) {
  Begin(static_cast<uint8_t>(JournalRecord::kCancel), now);
  PutKey(key, &payload_);
  Finish();
}

void JournalWriter::CancelRequest(RequestId request, Time now) {
  Begin(static_cast<uint8_t>(JournalRecord::kCancelRequest), now);
  PutVarint(Value(request), &payload_);
  Finish();
}

void JournalWriter::Timer(Time now) {
  Begin(static_cast<uint8_t>(JournalRecord::kTimer), now);
  Finish();
}

void JournalWriter::Drain(Time now) {
  Begin(static_cast<uint8_t>(JournalRecord::kDrain), now);
  Finish();
}

void JournalWriter::Plan(const StepPlan& plan, Time now) {
  Begin(static_cast<uint8_t>(JournalRecord::kPlan), now);
  PutVarint(Value(plan.step), &payload_);
  PutVarint(plan.slices.size(), &payload_);
  PutSigned(plan.num_tokens, &payload_);
  PutFixed64(PlanDigest(plan), &payload_);
  Finish();
}

void JournalWriter::StepDone(const StepResult& result, Time now) {
  Begin(static_cast<uint8_t>(JournalRecord::kStepDone), now);
  PutVarint(Value(result.step), &payload_);
  PutSigned(result.start.ns, &payload_);
  PutSigned(result.end.ns, &payload_);
  PutVarint(result.sampled.size(), &payload_);
  for (const SampledToken& sampled : result.sampled) {
    PutVarint(Value(sampled.sequence), &payload_);
    PutSigned(sampled.token, &payload_);
    PutVarint(static_cast<uint64_t>(sampled.status), &payload_);
  }
  PutVarint(result.scored.size(), &payload_);
  for (const ScoredPrompt& scored : result.scored) {
    PutVarint(Value(scored.sequence), &payload_);
    PutVarint(static_cast<uint64_t>(scored.status), &payload_);
  }
  PutVarint(result.expert_tokens.size(), &payload_);
  for (const int32_t tokens : result.expert_tokens) PutSigned(tokens, &payload_);
  PutVarint(result.completed_transfers.size(), &payload_);
  for (const TransferId transfer : result.completed_transfers) PutVarint(Value(transfer), &payload_);
  PutVarint(result.applied_moves.size(), &payload_);
  for (const ExpertMove& move : result.applied_moves) {
    PutSigned(Value(move.layer), &payload_);
    PutSigned(Value(move.to), &payload_);
    PutSigned(Value(move.expert), &payload_);
  }
  Finish();
}

void JournalWriter::StepFailed(StepId step, std::string_view error, Time now) {
  Begin(static_cast<uint8_t>(JournalRecord::kStepFailed), now);
  PutVarint(Value(step), &payload_);
  PutText(error, &payload_);
  Finish();
}

}  // namespace orrery
