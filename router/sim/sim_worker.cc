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

// Output ids are published to the prefix cache like any others, so those of two requests must not be equal.
TokenId OutputToken(uint32_t seed, int32_t index) {
  if (seed == 0) return kPlainToken;
  const uint32_t word = Philox({seed, 0}, {static_cast<uint32_t>(index), 0, 0, 0})[0];
  return static_cast<TokenId>(word >> 1) | 1;
}

struct OracleFields {
  double noise = 0;
  int32_t seed = 1;
};

}  // namespace

absl::StatusOr<std::optional<OracleOptions>> ParseOracle(std::string_view predictor) {
  static constexpr OptionField<OracleFields> kFields[] = {
      {"noise", &OracleFields::noise, 0, 0.99, "relative error of the point"},
      {"seed", &OracleFields::seed, 0, 1 << 30, "of the errors"},
  };
  if (predictor.substr(0, predictor.find(':')) != "oracle") return std::nullopt;
  auto spec = ParseNamedSpec(predictor);
  if (!spec.ok()) return spec.status();
  auto fields = ReadOptions<OracleFields>(*spec, kFields);
  if (!fields.ok()) return fields.status();
  return OracleOptions{fields->noise, static_cast<uint64_t>(fields->seed)};
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
  if (!prefill) submit.kv_source = KvSource{.num_tokens = request.prompt_tokens};
  return submit;
}

absl::Status SimWorker::Start(const WorkerSpec& spec, uint64_t incarnation, bool fast_forward) {
  fast_forward_ = fast_forward;
  known_left_ = 0;
  known_in_flight_ = slots_stale_ = false;
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
    shape_.decode_context += shape_.decodes;
    return true;
  }
  SettleSlots();
  const StepPlan& plan = core_->Plan(now);
  if (plan.empty()) return false;
  step_ = &plan;
  for (const AdmittedSequence& admitted : plan.admitted) {
    LiveRequest* request = live->Find(admitted.submit->key.request);
    request->first_scheduled = now;
    const bool ids_matter = request->request.tokens != nullptr;
    slots_[admitted.slot] = {.request = request->id,
                             .output_tokens = request->request.output_tokens,
                             .class_index = request->request.class_index,
                             .seed = ids_matter ? static_cast<uint32_t>(request->serial) | 0x80000000u : 0,
                             .measured = request->measured};
  }
  shape_ = ShapeOf(plan);
  return true;
}

void SimWorker::Interrupt() {
  known_left_ = 0;
  SettleSlots();
  if (!std::exchange(known_in_flight_, false)) return;
  const size_t expected = step_->slices.size();
  step_ = &core_->Plan(known_start_);
  ORRERY_CHECK(step_->slices.size() == expected && step_->admitted.empty());
}

void SimWorker::SettleSlots() {
  if (!std::exchange(slots_stale_, false)) return;
  for (const Slice& slice : step_->slices) slots_[slice.slot].last_token = last_end_;
}

void SimWorker::LookAhead(Time end) {
  const size_t num_slices = step_->slices.size();
  // All that run made a token in this step, in the order in which the next one takes them.
  if (static_cast<size_t>(step_->num_samples) != num_slices ||
      static_cast<size_t>(core_->num_running()) != num_slices) {
    return;
  }
  int32_t steps = std::numeric_limits<int32_t>::max();  // until the first of them ends
  int64_t context = 0;
  class_runs_.clear();
  enders_.clear();
  for (size_t i = 0; i < num_slices; ++i) {
    const Slice& slice = step_->slices[i];
    if (i > 0 && slice.sequence < step_->slices[i - 1].sequence) return;
    const Slot& slot = slots_[slice.slot];
    const int32_t left = slot.output_tokens - slice.output_index - 1;
    if (left < steps) enders_.clear();
    steps = std::min(steps, left);
    if (left == steps) {
      SampledToken& last = enders_.emplace_back();
      last.sequence = slice.sequence;
      last.token = kStopToken;
    }
    context += slice.begin + slice.count;
    if (class_runs_.empty() || class_runs_.back().class_index != slot.class_index ||
        class_runs_.back().measured != slot.measured) {
      class_runs_.push_back({slot.class_index, slot.measured, 0});
    }
    ++class_runs_.back().count;
  }
  known_left_ = std::min(steps, core_->KnownSteps(&known_why_));
  if (known_left_ == 0) return;
  known_to_end_ = known_left_ == steps;
  shape_ = StepShape{.decodes = static_cast<int32_t>(num_slices), .decode_context = context};
  last_end_ = end;
}

absl::Status SimWorker::Finish(Time start, Time end, std::vector<TokenEvent>* events) {
  if (std::exchange(known_in_flight_, false)) {
    core_->PassKnownStep(start, end);
    last_end_ = end;
    slots_stale_ = true;
    if (known_left_ == 0 && known_to_end_) core_->EndAfterKnownStep(enders_, events);
    return absl::OkStatus();
  }
  result_.step = step_->step;
  result_.start = start;
  result_.end = end;
  result_.sampled.resize(static_cast<size_t>(step_->num_samples));
  SampledToken* sampled = result_.sampled.data();
  for (const Slice& slice : step_->slices) {
    if (!slice.sample) continue;
    const Slot& slot = slots_[slice.slot];
    sampled->sequence = slice.sequence;
    sampled->token = slice.output_index + 1 == slot.output_tokens
                         ? kStopToken
                         : OutputToken(slot.seed, slice.output_index);
    ++sampled;
  }
  const absl::Status status = core_->OnStepDone(result_, end, events);
  if (fast_forward_ && status.ok()) LookAhead(end);
  return status;
}

}  // namespace orrery::sim
