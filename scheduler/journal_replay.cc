#include <memory>
#include <utility>
#include <vector>

#include "scheduler/base/bytes.h"
#include "scheduler/base/text.h"
#include "scheduler/journal.h"
#include "scheduler/journal_format.h"

namespace orrery {
namespace {

// Token ids, stop ids and the like: one byte each at least.
constexpr size_t kMinItemBytes = 1;

template <typename Unsigned>
Unsigned Bounded(ByteReader* in) {
  // Anything larger than its type is a broken record; the sign trick of Integer does not fit unsigned values.
  const uint64_t value = in->Varint();
  if (static_cast<uint64_t>(static_cast<Unsigned>(value)) != value) in->Take(in->left() + 1);
  return static_cast<Unsigned>(value);
}

SampleKey ReadKey(ByteReader* in) {
  SampleKey key;
  key.request = RequestId{in->Varint()};
  key.sample = Bounded<uint32_t>(in);
  key.attempt = Bounded<uint32_t>(in);
  return key;
}

Sampling ReadSampling(ByteReader* in) {
  Sampling sampling;
  sampling.temperature = in->Float();
  sampling.top_k = in->Integer<int32_t>();
  for (float* value : {&sampling.top_p, &sampling.min_p, &sampling.presence_penalty,
                       &sampling.frequency_penalty, &sampling.repetition_penalty}) {
    *value = in->Float();
  }
  const size_t biases = in->Count(5);
  for (size_t i = 0; i < biases && in->ok(); ++i) {
    const auto id = in->Integer<TokenId>();
    sampling.logit_bias.emplace_back(id, in->Float());
  }
  sampling.seed = in->Varint();
  sampling.num_logprobs = in->Integer<int32_t>();
  sampling.num_prompt_logprobs = in->Integer<int32_t>();
  return sampling;
}

std::vector<TokenId> ReadTokens(ByteReader* in) {
  std::vector<TokenId> tokens(in->Count(kMinItemBytes));
  for (TokenId& id : tokens) id = in->Integer<TokenId>();
  return tokens;
}

Submit ReadSubmit(ByteReader* in) {
  Submit submit;
  submit.key = ReadKey(in);
  submit.submission = in->Varint();
  submit.tokens = std::make_shared<const std::vector<TokenId>>(ReadTokens(in));
  submit.num_prompt = in->Integer<int32_t>();
  submit.num_emitted = in->Integer<int32_t>();
  submit.sampling = ReadSampling(in);
  submit.stop.max_tokens = in->Integer<int32_t>();
  submit.stop.min_tokens = in->Integer<int32_t>();
  submit.stop.stop_ids = ReadTokens(in);
  submit.slo.ttft.ns = in->Signed();
  submit.slo.tpot.ns = in->Signed();
  submit.deadline.ns = in->Signed();
  submit.priority = in->Integer<int32_t>();
  submit.tenant = Bounded<uint32_t>(in);
  submit.application = Bounded<uint32_t>(in);
  submit.cache_salt = in->Varint();
  if (in->Varint() != 0) {
    KvSource source;
    source.worker = WorkerId{Bounded<uint32_t>(in)};
    source.transfer = TransferId{in->Varint()};
    source.num_tokens = in->Integer<int32_t>();
    submit.kv_source = source;
  }
  return submit;
}

absl::StatusOr<WorkerSpec> ReadSpec(ByteReader* in) {
  WorkerSpec spec;
  WorkerOptions& options = spec.options;
  if (const uint64_t version = in->Varint(); in->ok() && version != kJournalVersion) {
    return absl::InvalidArgumentError(
        Cat("journal of version ", version, "; this program reads version ", kJournalVersion));
  }
  options.worker = WorkerId{Bounded<uint32_t>(in)};
  options.incarnation = in->Varint();
  const auto role = in->Varint();
  options.role = static_cast<WorkerRole>(role);
  options.group = GroupId{Bounded<uint32_t>(in)};
  options.rank = Bounded<uint32_t>(in);
  for (int32_t* value :
       {&options.num_blocks, &options.block_tokens, &options.max_num_seqs, &options.max_step_tokens,
        &options.max_context, &options.vocab_size, &options.max_waiting, &options.max_in_flight}) {
    *value = in->Integer<int32_t>();
  }
  options.prefix_cache = in->Varint() != 0;
  options.hash_key = in->Fixed64();
  for (std::string* text : {&spec.scheduler, &spec.eviction, &spec.predictor, &spec.cost}) {
    *text = std::string(in->Text());
  }
  if (!in->done() || role > static_cast<uint64_t>(WorkerRole::kDecode)) {
    return absl::DataLossError("journal header is malformed");
  }
  return spec;
}

SampleStatus ReadStatus(ByteReader* in) {
  return in->Varint() == 0 ? SampleStatus::kOk : SampleStatus::kNumericalError;
}

StepResult ReadResult(ByteReader* in) {
  StepResult result;
  result.step = StepId{in->Varint()};
  result.start.ns = in->Signed();
  result.end.ns = in->Signed();
  result.sampled.resize(in->Count(3));
  for (SampledToken& sampled : result.sampled) {
    sampled.sequence = SequenceId{in->Varint()};
    sampled.token = in->Integer<TokenId>();
    sampled.status = ReadStatus(in);
  }
  result.scored.resize(in->Count(2));
  for (ScoredPrompt& scored : result.scored) {
    scored.sequence = SequenceId{in->Varint()};
    scored.status = ReadStatus(in);
  }
  result.expert_tokens = ReadTokens(in);
  result.completed_transfers.resize(in->Count(1));
  for (TransferId& transfer : result.completed_transfers) transfer = TransferId{in->Varint()};
  result.applied_moves.resize(in->Count(3));
  for (ExpertMove& move : result.applied_moves) {
    move.layer = LayerId{in->Integer<int32_t>()};
    move.to = SlotId{in->Integer<int32_t>()};
    move.expert = ExpertId{in->Integer<int32_t>()};
  }
  return result;
}

struct Record {
  JournalRecord type{};
  Time at;
  std::string_view body;  // without the time
};

// Splits a journal into records whose hashes are right.
class RecordReader {
 public:
  explicit RecordReader(std::string_view journal) : in_(journal) {}

  absl::Status Open() {
    return in_.Take(kJournalMagic.size()) == kJournalMagic ? absl::OkStatus()
                                                           : absl::InvalidArgumentError("not a journal");
  }
  bool truncated() const { return truncated_; }
  uint64_t count() const { return count_; }

  // False at the end, or where the last record is cut off.
  absl::StatusOr<bool> Next(Record* record) {
    if (in_.left() == 0) return false;
    ByteReader ahead = in_;
    const uint8_t type = ahead.Byte();
    const uint64_t size = ahead.Varint();
    if (!ahead.ok() || size > ahead.left() || ahead.left() - size < 8) {
      truncated_ = true;
      return false;
    }
    const std::string_view payload = ahead.Take(static_cast<size_t>(size));
    chain_ = JournalChain(chain_, type, payload);
    if (ahead.Fixed64() != chain_) return absl::DataLossError(Cat("record ", count_, " was changed"));
    in_ = ahead;
    ++count_;
    ByteReader body(payload);
    at_.ns = static_cast<int64_t>(static_cast<uint64_t>(at_.ns) + static_cast<uint64_t>(body.Signed()));
    record->type = static_cast<JournalRecord>(type);
    record->at = at_;
    record->body = body.ok() ? body.Take(body.left()) : std::string_view();
    return true;
  }

 private:
  ByteReader in_;
  uint64_t chain_ = 0, count_ = 0;
  Time at_;
  bool truncated_ = false;
};

// Feeds records to a worker and compares what it says with what it said.
class Replayer {
 public:
  Replayer(WorkerCore* core, JournalSummary* summary) : core_(core), summary_(summary) {}

  // The difference found, empty for none; an error for a record that makes no sense.
  absl::StatusOr<std::string> Apply(const Record& record) {
    ByteReader in(record.body);
    events_.clear();
    switch (record.type) {
      case JournalRecord::kArrival:
        return Arrival(&in, record.at);
      case JournalRecord::kCancel: {
        const SampleKey key = ReadKey(&in);
        if (!in.done()) return Malformed();
        core_->OnCancel(key, record.at, &events_);
        return std::string();
      }
      case JournalRecord::kCancelRequest: {
        const RequestId request{in.Varint()};
        if (!in.done()) return Malformed();
        core_->OnCancelRequest(request, record.at, &events_);
        return std::string();
      }
      case JournalRecord::kTimer:
        core_->OnTimer(record.at, &events_);
        return std::string();
      case JournalRecord::kDrain:
        core_->Drain(record.at);
        return std::string();
      case JournalRecord::kPlan:
        return Plan(&in, record.at);
      case JournalRecord::kStepDone:
      case JournalRecord::kStepFailed:
        return Step(record.type, &in, record.at);
      case JournalRecord::kHeader:
        break;
    }
    return Malformed();
  }

 private:
  static absl::Status Malformed() { return absl::DataLossError("is malformed"); }

  absl::StatusOr<std::string> Arrival(ByteReader* in, Time now) {
    const bool accepted = in->Varint() != 0;
    Submit submit = ReadSubmit(in);
    if (!in->done()) return Malformed();
    ++summary_->arrivals;
    summary_->warm_ups += submit.key.request == kWarmUpRequest;
    const uint64_t request = Value(submit.key.request);
    if (core_->OnArrival(std::move(submit), now).ok() == accepted) return std::string();
    return Cat("request ", request,
               accepted ? " was accepted and is refused" : " was refused and is accepted");
  }

  absl::StatusOr<std::string> Plan(ByteReader* in, Time now) {
    const uint64_t step = in->Varint(), slices = in->Varint();
    const auto tokens = in->Integer<int32_t>();
    const uint64_t digest = in->Fixed64();
    if (!in->done() || !core_->can_plan()) return Malformed();
    ++summary_->plans;
    const StepPlan& plan = core_->Plan(now);
    if (PlanDigest(plan) == digest) return std::string();
    return Cat("plan of step ", step, " differs: recorded ", slices, " slices with ", tokens,
               " tokens, replayed ", plan.slices.size(), " with ", plan.num_tokens);
  }

  absl::StatusOr<std::string> Step(JournalRecord type, ByteReader* in, Time now) {
    ++summary_->steps;
    absl::Status status;
    if (type == JournalRecord::kStepDone) {
      const StepResult result = ReadResult(in);
      if (!in->done()) return Malformed();
      status = core_->OnStepDone(result, now, &events_);
    } else {
      const StepId step{in->Varint()};
      const std::string_view error = in->Text();
      if (!in->done()) return Malformed();
      status = core_->OnStepFailed(step, error, now, &events_);
    }
    return status.ok() ? std::string() : std::string(status.message());
  }

  WorkerCore* core_;
  JournalSummary* summary_;
  std::vector<TokenEvent> events_;
};

absl::StatusOr<WorkerSpec> ReadHeader(RecordReader* reader) {
  if (absl::Status status = reader->Open(); !status.ok()) return status;
  Record record;
  auto more = reader->Next(&record);
  if (!more.ok()) return more.status();
  if (!*more || record.type != JournalRecord::kHeader) return absl::DataLossError("journal has no header");
  ByteReader in(record.body);
  return ReadSpec(&in);
}

}  // namespace

absl::StatusOr<WorkerSpec> ReadJournalSpec(std::string_view journal) {
  RecordReader reader(journal);
  return ReadHeader(&reader);
}

absl::StatusOr<ReplayResult> Replay(std::string_view journal, const ReplayOverrides& overrides) {
  RecordReader reader(journal);
  auto spec = ReadHeader(&reader);
  if (!spec.ok()) return spec.status();
  if (overrides.scheduler) spec->scheduler = *overrides.scheduler;
  if (overrides.eviction) spec->eviction = *overrides.eviction;
  if (overrides.predictor) spec->predictor = *overrides.predictor;
  auto core = NewWorkerCore(*spec);
  if (!core.ok()) return core.status();

  ReplayResult result;
  Replayer replayer(core->get(), &result.summary);
  Record record;
  for (;;) {
    auto more = reader.Next(&record);
    if (!more.ok()) return more.status();
    if (!*more) break;
    result.record = reader.count() - 1;
    auto difference = replayer.Apply(record);
    if (!difference.ok()) {
      return absl::DataLossError(
          Cat("record ", result.record, " ", std::string(difference.status().message())));
    }
    result.difference = *std::move(difference);
    if (!result.difference.empty()) break;
  }
  result.summary.records = reader.count();
  result.summary.truncated = reader.truncated();
  return result;
}

}  // namespace orrery
