#include "router/sim/sim_worker.h"

#include <utility>

#include "router/sim/oracle_spec.h"
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

absl::Status SimWorker::Start(const WorkerSpec& spec, uint64_t incarnation) {
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

absl::Status SimWorker::Finish(Time start, Time end, std::vector<TokenEvent>* events) {
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
  return core_->OnStepDone(result_, end, events);
}

}  // namespace orrery::sim
