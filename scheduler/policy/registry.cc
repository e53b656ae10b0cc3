#include "scheduler/policy/registry.h"

#include "scheduler/kv/lec.h"
#include "scheduler/kv/lru.h"
#include "scheduler/policy/a_min.h"
#include "scheduler/policy/edf.h"
#include "scheduler/policy/fcfs.h"
#include "scheduler/policy/flow_prefill.h"
#include "scheduler/policy/jit.h"
#include "scheduler/policy/justitia.h"
#include "scheduler/policy/lagrangian.h"
#include "scheduler/policy/mc_sf.h"
#include "scheduler/policy/nested_wait.h"
#include "scheduler/policy/past_future.h"
#include "scheduler/policy/policy_table.h"
#include "scheduler/policy/rad.h"
#include "scheduler/policy/slai.h"
#include "scheduler/policy/sorted_f.h"
#include "scheduler/policy/vtc.h"
#include "scheduler/policy/wait.h"
#include "scheduler/predict/empirical.h"
#include "scheduler/predict/interval.h"
#include "scheduler/predict/oracle.h"
#include "scheduler/predict/request_bound.h"

namespace orrery {
namespace {

constexpr PolicyEntry<BatchPolicy> kBatch[] = {
    PolicyLine<BatchPolicy, FcfsPolicy, FcfsOptions>(
        "fcfs", "arXiv:2403.02310", "arrival order, decode first, chunked prefill under a token budget"),
    PolicyLine<BatchPolicy, McSfPolicy, McSfOptions>(
        "mc-sf", "arXiv:2502.07115", "shortest predicted output first while the future KV peak fits"),
    PolicyLine<BatchPolicy, PastFuturePolicy, PastFutureOptions>(
        "past-future", "arXiv:2507.10150",
        "arrival order while the KV peak of lengths drawn from recent ones fits; with --predictor empirical"),
    PolicyLine<BatchPolicy, AMinPolicy, AMinOptions>(
        "a-min", "arXiv:2508.14544", "shortest lower bound first, bounds refined while running"),
    PolicyLine<BatchPolicy, SortedFPolicy, SortedFOptions>(
        "sorted-f", "arXiv:2508.06133", "backlog in batches of least output per member squared"),
    PolicyLine<BatchPolicy, WaitPolicy, WaitOptions>(
        "wait", "arXiv:2504.11320", "waits until a class of lengths has enough arrivals, with a time-out"),
    PolicyLine<BatchPolicy, NestedWaitPolicy, NestedWaitOptions>(
        "nested-wait", "arXiv:2504.11320", "as wait, by segments of generation, without knowing lengths"),
    PolicyLine<BatchPolicy, SlaiPolicy, SlaiOptions>(
        "slai", "arXiv:2508.01002", "decodes as late as their pace allows, short prompts meanwhile"),
    PolicyLine<BatchPolicy, EdfPolicy, EdfOptions>(
        "edf", "arXiv:2503.22562", "earliest deadline first, steps as large as the tightest decode allows"),
    PolicyLine<BatchPolicy, VtcPolicy, VtcOptions>("vtc", "arXiv:2401.00588",
                                                   "fair shares of work between tenants"),
    PolicyLine<BatchPolicy, RadPolicy, RadOptions>(
        "rad", "arXiv:2508.01002", "whole tiles of prompt tokens until the decodes fill a tile"),
    PolicyLine<BatchPolicy, FlowPrefillPolicy, FlowPrefillOptions>(
        "flow-prefill", "arXiv:2602.16603", "earliest deadline first, long prefills give way between chunks"),
    PolicyLine<BatchPolicy, JitPolicy, JitOptions>(
        "jit", "arXiv:2504.20068",
        "goodput per bandwidth needed until the deadline, similar prompts together"),
    PolicyLine<BatchPolicy, JustitiaPolicy, JustitiaOptions>(
        "justitia", "arXiv:2510.17015", "applications in the order in which equal shares would finish them"),
    PolicyLine<BatchPolicy, LagrangianPolicy, LagrangianOptions>(
        "lagrangian", "arXiv:2502.15763", "prefill alone when idle rows have cost as much as it stalls"),
};

constexpr PolicyEntry<EvictionPolicy> kEviction[] = {
    PolicyLine<EvictionPolicy, LruEviction>("lru", "", "least recently used block first"),
    PolicyLine<EvictionPolicy, LecEviction, LecOptions>(
        "lec", "arXiv:2306.02003", "least hits per second times cost to compute again first, leaves only"),
};

constexpr PolicyEntry<LengthPredictor> kPredictor[] = {
    PolicyLine<LengthPredictor, RequestBoundPredictor>("request-bound", "",
                                                       "every request reaches its max_tokens"),
    PolicyLine<LengthPredictor, IntervalPredictor, IntervalOptions>(
        "interval", "arXiv:2508.14544", "every output has between low and high tokens"),
    PolicyLine<LengthPredictor, EmpiricalPredictor, EmpiricalOptions>(
        "empirical", "arXiv:2507.10150",
        "as the lengths that finished lately, per tenant, given what was generated so far"),
    {"oracle", "", "the true lengths, or near them; only `orrery simulate` has it",
     [] { return DescribeOptions(OraclePredictor::Fields()); },
     [](const NamedSpec&) -> absl::StatusOr<std::unique_ptr<LengthPredictor>> {
       return absl::InvalidArgumentError("predictor oracle: only `orrery simulate` knows what requests make");
     }},
};

}  // namespace

std::vector<PolicyInfo> SchedulerPolicies() {
  std::vector<PolicyInfo> infos;
  DescribePolicies("batch", kBatch, &infos);
  DescribePolicies("eviction", kEviction, &infos);
  DescribePolicies("predictor", kPredictor, &infos);
  return infos;
}

absl::StatusOr<std::unique_ptr<BatchPolicy>> NewBatchPolicy(std::string_view spec) {
  return NewPolicy("batch", kBatch, spec);
}

absl::StatusOr<std::unique_ptr<EvictionPolicy>> NewEvictionPolicy(std::string_view spec) {
  return NewPolicy("eviction", kEviction, spec);
}

absl::StatusOr<std::unique_ptr<LengthPredictor>> NewLengthPredictor(std::string_view spec) {
  return NewPolicy("predictor", kPredictor, spec);
}

}  // namespace orrery
