// How many workers run prefill chunks beside decodes (mixed) and how many decode alone (solo), and which
// class of requests goes where: the fluid program of Gate-and-Route, arXiv:2602.02987, per worker and second.
//
//   max  sum_i w_i (m_i ym_i + s_i ys_i)                            w_i = price_prompt P_i + price_output D_i
//   s.t. sum_i x_i <= 1                                              "workers"
//        sum_i ym_i <= (B - 1) sum_i x_i                             "mixed decode slots"
//        sum_i ys_i <= B (1 - sum_i x_i)                             "solo decode slots"
//        arrival_i - abandon_i qp_i = p_i x_i                        "prefill flow of i"
//        p_i x_i - abandon_i qd_i = m_i ym_i + s_i ys_i              "decode flow of i"
//
//   tau = alpha + beta C, p_i = C / (P_i tau), m_i = 1 / (D_i tau), s_i = gamma / D_i; all variables >= 0.
//   Size: 5 variables and 2 rows for each class, and 3 rows.
//
// Charging separately pays for a prompt when its prefill ends: the objective is then
// sum_i [price_prompt P_i p_i x_i + price_output D_i (m_i ym_i + s_i ys_i)].
//
// Many optima are common (at light load a decode may run anywhere). The one reported has, among all of them,
// the fewest waiting and then the most decodes solo, which is where the router sends them first.
#ifndef ORRERY_SCHEDULER_PLANNING_MIXED_POOLS_H_
#define ORRERY_SCHEDULER_PLANNING_MIXED_POOLS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace orrery {

struct PoolClass {
  std::string name;                                 // for messages; may be empty
  double prompt_tokens = 0.0, output_tokens = 0.0;  // means
  double arrival_rate_per_worker_s = 0.0;
  double abandon_rate_per_s = 0.0;  // of one that waits; 0: nobody leaves, so nobody may be left waiting
  std::optional<double> reward;     // of a completed request, instead of w_i; bundled charging only
};

struct MixedPoolsInput {
  std::vector<PoolClass> classes;
  double alpha_s = 0.0, beta_s_per_token = 0.0;  // time of a mixed step with n prefill tokens: alpha + beta n
  double solo_decode_rate_per_s = 0.0;           // gamma: tokens a second of one sequence on a solo worker
  int64_t slots = 0;                             // B
  int64_t prefill_chunk_tokens = 0;              // C
  double price_prompt = 0.0, price_output = 0.0;
  bool charge_separately = false;
  std::vector<int64_t> fleet_sizes;
};

struct MixedPoolsPlan {
  double objective = 0.0;
  // By class: workers in prefill, decodes on mixed and on solo workers, waiting for prefill and for decode.
  std::vector<double> x, y_mixed, y_solo, q_prefill, q_decode;
  std::vector<double>
      solo_probability;  // by class: share of its decodes that the router sends to a solo worker
  std::vector<int64_t> mixed_workers;  // by fleet size: ceil(n sum x)
  // What one unit more would earn a second: of workers, of a decode slot on either kind, of an arrival and of
  // a finished prefill of each class.
  double price_worker = 0.0, price_mixed_slot = 0.0, price_solo_slot = 0.0;
  std::vector<double> price_prefill, price_decode;
};

// INVALID_ARGUMENT names the field; FAILED_PRECONDITION names the constraints that cannot be met together;
// RESOURCE_EXHAUSTED: more than kMaxPoolClasses classes or kMaxFleetSizes sizes.
absl::StatusOr<MixedPoolsPlan> PlanMixedPools(const MixedPoolsInput& input);
inline constexpr size_t kMaxPoolClasses = 10'000;
inline constexpr size_t kMaxFleetSizes = 10'000;

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_PLANNING_MIXED_POOLS_H_
