// `orrery simulate` as typed: what the flags hold, before anything is checked.
#ifndef ORRERY_SERVER_SIMULATE_SIMULATE_OPTIONS_H_
#define ORRERY_SERVER_SIMULATE_SIMULATE_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace orrery::simulate {

struct SimulateOptions {
  std::string trace, trace_format;
  std::string scheduler = "fcfs", router = "jsq-tokens", predictor = "request-bound", eviction = "lru";
  int64_t workers = 1;
  bool barrier = false;
  std::string cost_profile, believed_cost;
  std::optional<std::string> arrival;
  std::optional<double> rate, rho, burstiness;
  std::optional<int64_t> num_requests, pool, warmup_steps, steps;
  int64_t warmup = 0;
  int64_t max_num_seqs = 256, max_step_tokens = 2048, block_tokens = 16, max_queue_tokens = 0;
  std::optional<int64_t> kv_cache_tokens;
  std::optional<std::string> prefill;
  std::string max_tokens = "4096";
  bool no_prefix_cache = false;
  std::string slo, class_file;
  std::optional<int64_t> seed, seeds;
  std::vector<std::string> fail, slow;
  std::string compare, html, replay, power;
  std::optional<int64_t> explain;
  bool json = false;
};

}  // namespace orrery::simulate

#endif  // ORRERY_SERVER_SIMULATE_SIMULATE_OPTIONS_H_
