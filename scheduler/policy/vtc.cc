#include "scheduler/policy/vtc.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace orrery {
namespace {

constexpr int32_t kMostPriority = 8;

}  // namespace

absl::Span<const OptionField<VtcOptions>> VtcPolicy::Fields() {
  static constexpr OptionField<VtcOptions> kFields[] = {
      {"token_budget", &VtcOptions::token_budget, 0, 1 << 20, "tokens of a step; 0: --max-step-tokens"},
      {"input_weight", &VtcOptions::input_weight, 0, 1e6, "charge of a prompt token"},
      {"output_weight", &VtcOptions::output_weight, 0, 1e6, "charge of an output token"},
      {"profiled", &VtcOptions::profiled, "charge by the published cost of (input, output) instead"},
      {"priority_weight", &VtcOptions::priority_weight, 1, 1e3, "share that one step of priority multiplies"},
      {"quantile", &VtcOptions::quantile, 0, 1, "of the predicted length; 1: its upper bound"},
      {"predict", &VtcOptions::predict, 0, 1,
       "quantile of the output that is charged at admission; 0: tokens as they come"},
  };
  return kFields;
}

double ProfiledCost(double input, double output) {
  return 0.21002 * input + 0.10075 * output + 0.0039868 * input * output + 0.0032473 * output * output +
         1.146;
}

VtcPolicy::Tenant* VtcPolicy::Of(uint32_t id) {
  const auto at = std::lower_bound(tenants_.begin(), tenants_.end(), id,
                                   [](const Tenant& tenant, uint32_t key) { return tenant.id < key; });
  if (at != tenants_.end() && at->id == id) return &*at;
  return &*tenants_.insert(at, {.id = id});
}

double VtcPolicy::counter(uint32_t tenant) const {
  const auto at =
      std::find_if(tenants_.begin(), tenants_.end(), [&](const Tenant& t) { return t.id == tenant; });
  return at == tenants_.end() ? 0 : at->counter;
}

double VtcPolicy::LeastWaiting() const {
  double least = std::numeric_limits<double>::infinity();
  for (const Tenant& tenant : tenants_) {
    if (tenant.waiting > 0) least = std::min(least, tenant.counter);
  }
  return least;
}

void VtcPolicy::OnArrival(const SequenceView& sequence, Time) {
  Tenant* tenant = Of(sequence.tenant);
  if (tenant->waiting == 0) {
    const double least = LeastWaiting();
    if (!std::isinf(least)) tenant->counter = std::max(tenant->counter, least);
  }
  ++tenant->waiting;
}

void VtcPolicy::Charge(const SequenceView& sequence, double work) {
  // Clamped: a priority is any number a client sends, and no tenant may become free of charge.
  if (options_.priority_weight != 1) {
    work /= std::pow(options_.priority_weight, std::clamp(sequence.priority, -kMostPriority, kMostPriority));
  }
  Of(sequence.tenant)->counter += work;
}

double VtcPolicy::Work(const SequenceView& sequence, int32_t output) const {
  const double input = sequence.num_prompt;
  return options_.profiled ? ProfiledCost(input, output)
                           : options_.input_weight * input + options_.output_weight * output;
}

void VtcPolicy::ChargeAdmission(const WorkerView& worker, const SequenceView& sequence) {
  int32_t output = 0;
  if (options_.predict > 0) {
    output = PredictedOutput(worker, sequence, options_.predict, 1);
    charged_.Set(sequence.id, output);
  }
  Charge(sequence, Work(sequence, output));
}

void VtcPolicy::ChargeToken(const SequenceView& sequence) {
  const int32_t output = sequence.num_generated;
  const int32_t* charged = charged_.Find(sequence.id);
  if (charged != nullptr && output < *charged) return;
  Charge(sequence, Work(sequence, output + 1) - Work(sequence, output));
}

void VtcPolicy::OnFinished(const SequenceView& sequence, Time) {
  const int32_t* charged = charged_.Find(sequence.id);
  if (charged == nullptr) return;
  if (sequence.num_generated < *charged) {
    Charge(sequence, Work(sequence, sequence.num_generated) - Work(sequence, *charged));
    Tenant* tenant = Of(sequence.tenant);  // forgotten meanwhile: no credit
    tenant->counter = std::max(0.0, tenant->counter);
  }
  charged_.Erase(sequence.id);
}

// Grants come in the order of worker.running: first the decodes, then the prefills.
void VtcPolicy::ChargeRunning(const WorkerView& worker, const BatchDecision& decision) {
  size_t at = 0;
  for (const Grant& grant : decision.run) {
    while (worker.running[at].id != grant.sequence) at = (at + 1) % worker.running.size();
    if (grant.count == worker.running[at].tokens_to_compute()) ChargeToken(worker.running[at]);
  }
}

void VtcPolicy::Plan(const WorkerView& worker, Time, BatchDecision* decision) {
  // Without free slots the worker may show none but those that have one: the counts of before still hold.
  if (worker.free_slots > 0) Recount(worker);
  charged_.ForgetAbsent(worker);
  const PeakRule rule = {options_.quantile, 0, worker.limits.block_tokens};
  peak_.Follow(worker, rule, options_.token_budget);
  step_.Begin(worker, options_.token_budget);
  step_.GrantRunning(worker, decision);
  ChargeRunning(worker, *decision);
  int64_t tried = 0;
  if (decision->preempt.empty() && !step_.full(worker)) tried = Admit(worker, decision);
  if (tenants_.size() > kMaxTenants) std::erase_if(tenants_, [](const Tenant& t) { return t.waiting == 0; });
  double least = std::numeric_limits<double>::infinity(), most = 0;
  for (const Tenant& tenant : tenants_) {
    if (tenant.waiting == 0) continue;
    least = std::min(least, tenant.counter);
    most = std::max(most, tenant.counter);
  }
  decision->why = {.policy = "vtc",
                   .objective = "largest less least work received of tenants that wait",
                   .value = std::max(0.0, most - least),
                   .work = static_cast<int64_t>(worker.running.size()) + tried};
}

void VtcPolicy::Recount(const WorkerView& worker) {
  for (Tenant& tenant : tenants_) tenant.waiting = 0;
  for (const SequenceView& sequence : worker.waiting) {
    if (sequence.first_scheduled.is_never()) ++Of(sequence.tenant)->waiting;
  }
}

void VtcPolicy::QueueByTenant(const WorkerView& worker) {
  for (Tenant& tenant : tenants_) tenant.head = -1;
  behind_.assign(worker.waiting.size(), -1);
  for (size_t i = 0; i < worker.waiting.size(); ++i) {
    Tenant* tenant = Of(worker.waiting[i].tenant);
    const auto index = static_cast<int32_t>(i);
    (tenant->head < 0 ? tenant->head : behind_[static_cast<size_t>(tenant->tail)]) = index;
    tenant->tail = index;
  }
  heads_.clear();
  for (const Tenant& tenant : tenants_) {
    if (tenant.head >= 0) heads_.push_back({{tenant.counter, tenant.head}, tenant.id});
  }
  std::make_heap(heads_.begin(), heads_.end(), std::greater<>());
}

int64_t VtcPolicy::Admit(const WorkerView& worker, BatchDecision* decision) {
  QueueByTenant(worker);
  int64_t tried = 0;
  while (!heads_.empty()) {
    std::pop_heap(heads_.begin(), heads_.end(), std::greater<>());
    auto& [key, tenant] = heads_.back();
    const SequenceView& sequence = worker.waiting[static_cast<size_t>(key.second)];
    const int32_t predicted =
        PredictedOutput(worker, sequence, options_.quantile, worker.limits.block_tokens);
    ++tried;
    if (!peak_.Fits(sequence, predicted)) break;
    if (step_.TryAdmit(worker, sequence, 0, decision) != AdmitResult::kAdmitted) break;
    peak_.Admit(sequence, predicted);
    const bool fresh = sequence.first_scheduled.is_never();
    if (fresh) ChargeAdmission(worker, sequence);
    const bool samples =
        decision->admit.back().count == sequence.tokens_to_compute() - sequence.cached_tokens;
    if (samples) ChargeToken(sequence);
    Tenant* owner = Of(tenant);
    owner->waiting -= fresh;
    key = {owner->counter, behind_[static_cast<size_t>(key.second)]};
    if (key.second < 0) {
      heads_.pop_back();
    } else {
      std::push_heap(heads_.begin(), heads_.end(), std::greater<>());
    }
  }
  return tried;
}

}  // namespace orrery
