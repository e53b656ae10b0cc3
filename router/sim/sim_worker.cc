#include "router/sim/sim_worker.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "router/sim/oracle_spec.h"
#include "scheduler/base/check.h"
#include "scheduler/base/options.h"
#include "scheduler/base/random.h"

namespace orrery::sim {
namespace {

// The id that ends a request before its bound; all other ids are larger.
constexpr TokenId kStopToken = 0;
constexpr TokenId kPlainToken = 1;

}  // namespace

absl::StatusOr<std::optional<OracleOptions>> ParseOracle(std::string_view predictor) {
  if (predictor.substr(0, predictor.find(':')) != "oracle") return std::nullopt;
  auto spec = ParseNamedSpec(predictor);
  if (!spec.ok()) return spec.status();
  auto fields = ReadOptions<OracleOptions>(*spec, OraclePredictor::Fields());
  if (!fields.ok()) return fields.status();
  return *fields;
}

// Output ids are published to the prefix cache like any others, so those of two requests must not be equal.
TokenId SimWorker::OutputToken(const Slot& slot, int32_t index) {
  if (slot.seed == 0) return kPlainToken;
  const uint32_t word = Philox({slot.seed, 0}, {static_cast<uint32_t>(index), 0, 0, 0})[0];
  return static_cast<TokenId>(word >> 1) | 1;
}

Submit SubmitOf(const LiveRequest& live, bool prefill) {
  const SimRequest& request = live.request;
  Submit submit;
  submit.key.request = live.id;
  submit.tokens = request.tokens;
  submit.num_prompt = request.prompt_tokens;
  submit.stop.max_tokens = request.max_tokens;
  if (request.output_tokens < request.max_tokens) submit.stop.stop_ids.push_back(kStopToken);
  submit.slo = request.slo;
  submit.priority = request.priority;
  submit.tenant = request.tenant;
  submit.routing_key = request.tenant;
  submit.traffic_class = static_cast<uint32_t>(request.class_index);
  if (!prefill) submit.kv_source = KvSource{.num_tokens = request.prompt_tokens};
  return submit;
}

absl::Status SimWorker::Start(const WorkerSpec& spec, uint64_t incarnation, bool fast_forward) {
  fast_forward_ = fast_forward;
  known_left_ = num_apart_ = 0;
  known_in_flight_ = false;
  members_.clear();
  WorkerSpec own = spec;
  own.options.incarnation = incarnation_ = incarnation;
  auto oracle = ParseOracle(own.predictor);
  if (!oracle.ok()) return oracle.status();
  std::shared_ptr<LengthPredictor> predictor;
  if (oracle->has_value()) {
    oracle_ = std::make_shared<OracleTable>();
    predictor = std::make_shared<OraclePredictor>(oracle_, **oracle);
  }
  auto core = NewWorkerCore(own, std::move(predictor));
  if (!core.ok()) return core.status();
  core_ = *std::move(core);
  slots_.assign(static_cast<size_t>(own.options.max_num_seqs), {});
  return absl::OkStatus();
}

bool SimWorker::Plan(Time now, LiveTable* live) {
  if (known_left_ > 0) {
    --known_left_;
    known_in_flight_ = true;
    known_start_ = now;
    const WorkerCore::Beside beside = core_->Apart();
    num_apart_ = beside.decodes;
    shape_ = StepShape{.decodes = beside.decodes, .decode_context = beside.decode_context};
    return true;
  }
  WorkerCore::Beside beside;
  const StepPlan& plan = members_.empty() ? core_->Plan(now) : core_->PlanBeside(now, &beside);
  num_apart_ = beside.decodes;
  if (num_apart_ == 0) SettleSlots();
  ORRERY_CHECK(static_cast<size_t>(num_apart_) == members_.size());
  if (plan.empty() && num_apart_ == 0) return false;
  step_ = &plan;
  for (const AdmittedSequence& admitted : plan.admitted) {
    LiveRequest* request = live->Find(admitted.submit->key.request);
    if (request->first_scheduled.is_never()) request->first_scheduled = now;
    const bool ids_matter = request->request.tokens != nullptr;
    slots_[admitted.slot] = {.key = admitted.submit->key,
                             .output_tokens = request->request.output_tokens,
                             .class_index = request->request.class_index,
                             .made = admitted.submit->num_emitted,
                             .last_token = request->last_token,
                             .seed = ids_matter ? static_cast<uint32_t>(request->serial) | 0x80000000u : 0,
                             .measured = request->measured};
  }
  shape_ = ShapeOf(plan);
  shape_.decodes += beside.decodes;
  shape_.decode_context += beside.decode_context;
  return true;
}

void SimWorker::PlanAfterAll() {
  known_left_ = 0;
  if (!std::exchange(known_in_flight_, false)) return;
  WorkerCore::Beside beside;
  step_ = &core_->PlanBeside(known_start_, &beside);
  ORRERY_CHECK(beside.decodes == num_apart_ && step_->slices.empty());
}

void SimWorker::Interrupt() {
  PlanAfterAll();
  core_->Settle();
  SettleSlots();
  num_apart_ = 0;
}

void SimWorker::SettleSlots() {
  for (const Member& member : members_) {
    Slot& slot = slots_[member.slot];
    slot.last_token = last_end_;
    slot.made = slot.output_tokens - static_cast<int32_t>(member.ends_at - clock_);
  }
  members_.clear();
}

void SimWorker::TakeIn() {
  for (const Slice& slice : step_->slices) {
    const Slot& slot = slots_[slice.slot];
    const int32_t left = slot.output_tokens - slice.output_index - 1;
    if (!slice.sample || left == 0) continue;
    const Member member = {slice.sequence, slice.slot, slot.class_index, slot.measured, clock_ + left};
    const auto later = [](SequenceId id, const Member& other) { return id < other.id; };
    members_.insert(std::upper_bound(members_.begin(), members_.end(), member.id, later), member);
  }
}

void SimWorker::EndDue(std::vector<SampledToken>* ended) {
  ended->clear();
  if (members_.empty() || clock_ < next_end_) return;
  std::erase_if(members_, [&](const Member& member) {
    if (member.ends_at > clock_) return false;
    SampledToken& last = ended->emplace_back();
    last.sequence = member.id;
    last.token = kStopToken;
    return true;
  });
}

void SimWorker::LookAhead() {
  next_end_ = std::numeric_limits<int64_t>::max();
  class_runs_.clear();
  for (const Member& member : members_) {
    next_end_ = std::min(next_end_, member.ends_at);
    if (class_runs_.empty() || class_runs_.back().class_index != member.class_index ||
        class_runs_.back().measured != member.measured) {
      class_runs_.push_back({member.class_index, member.measured, 0});
    }
    ++class_runs_.back().count;
  }
  known_left_ = 0;
  if (members_.empty()) return;
  const int64_t known = core_->KnownSteps(&known_why_);
  known_left_ = static_cast<int32_t>(std::min(known, next_end_ - clock_));
}

absl::Status SimWorker::Finish(Time start, Time end, std::vector<TokenEvent>* events) {
  ++clock_;
  if (std::exchange(known_in_flight_, false)) {
    core_->PassKnownStep(start, end);
    last_end_ = end;
    EndDue(&ended_);
    if (ended_.empty()) return absl::OkStatus();
    core_->EndAfterKnownStep(ended_, events);
    LookAhead();
    return absl::OkStatus();
  }
  result_.step = step_->step;
  result_.start = start;
  result_.end = end;
  result_.sampled.clear();
  if (num_apart_ > 0) EndDue(&result_.sampled);
  for (const Slice& slice : step_->slices) {
    if (!slice.sample) continue;
    const Slot& slot = slots_[slice.slot];
    SampledToken& sampled = result_.sampled.emplace_back();
    sampled.sequence = slice.sequence;
    sampled.token =
        slice.output_index + 1 == slot.output_tokens ? kStopToken : OutputToken(slot, slice.output_index);
  }
  const absl::Status status = core_->OnStepDone(result_, end, events);
  if (!fast_forward_ || !status.ok()) return status;
  last_end_ = end;
  known_left_ = 0;
  if (members_.empty() && core_->Apart().decodes == 0) return absl::OkStatus();
  TakeIn();
  // Nobody may, or one that decodes was left out of this step: they are listed, and their slots up to date.
  if (core_->Apart().decodes != static_cast<int32_t>(members_.size())) {
    core_->Settle();
    SettleSlots();
  }
  LookAhead();
  return absl::OkStatus();
}

}  // namespace orrery::sim
