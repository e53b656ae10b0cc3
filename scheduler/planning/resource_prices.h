// What one unit more of a worker's resources would be worth under the traffic it gets: the duals of the fluid
// program that serves each class of requests at a rate up to its arrivals, per worker and second.
//
//   max  sum_c o_c a_c                                 output tokens
//   s.t. sum_c a_c b k_c           <= blocks           "KV block-seconds"
//        sum_c a_c s_c             <= prefill rate     "prefill tokens"
//        sum_c a_c b n_c           <= slots            "slots"
//        0 <= a_c <= arrival_c
//
//   s_c, o_c: mean prompt and output tokens; n_c: steps that a request runs; k_c: block-steps it holds; b:
//   mean time of a step. Size: one variable for each class, 3 rows. The memory row alone is the stability
//   condition of arXiv:2605.04595. Where nothing is short all prices are zero.
#ifndef ORRERY_SCHEDULER_PLANNING_RESOURCE_PRICES_H_
#define ORRERY_SCHEDULER_PLANNING_RESOURCE_PRICES_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace orrery {

// Requests that are alike, in means.
struct TrafficClass {
  double arrival_rate_per_s = 0.0;  // at one worker
  double prompt_tokens = 0.0;       // those that have to be computed
  double output_tokens = 0.0;
  double steps = 0.0;        // n_c
  double block_steps = 0.0;  // k_c
};

struct RequestUse {
  double steps = 0.0, block_steps = 0.0;
};
// Of a request that runs undisturbed, its prompt in chunks of `chunk_tokens`; its last block is half full on
// average. `prompt_tokens` of which `cached_tokens` come from the prefix cache.
RequestUse UseOf(double prompt_tokens, double cached_tokens, double output_tokens, double chunk_tokens,
                 double block_tokens);

struct WorkerResources {
  double kv_blocks = 0.0;
  double prefill_tokens_per_s = 0.0;
  double slots = 0.0;
  double mean_step_s = 0.0;
};

struct ResourcePrices {
  double kv_block_second = 0.0, prefill_token = 0.0, slot_second = 0.0;  // output tokens for one unit more
  double output_tokens_per_s = 0.0;                                      // the optimum
  std::vector<double> served_rate_per_s;                                 // by class
};

// INVALID_ARGUMENT names the field that is not a finite number of at least 0 (mean_step_s: above 0).
absl::StatusOr<ResourcePrices> PriceResources(const WorkerResources& worker,
                                              const std::vector<TrafficClass>& classes);

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_PLANNING_RESOURCE_PRICES_H_
