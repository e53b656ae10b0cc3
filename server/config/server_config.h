// Everything that can be set about a daemon, as plain values. Filled by LoadConfig (option_table.h), where
// each field's name, range and meaning stand; the values here are the defaults. Read once at start, never
// changed.
#ifndef ORRERY_SERVER_CONFIG_SERVER_CONFIG_H_
#define ORRERY_SERVER_CONFIG_SERVER_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "scheduler/base/time.h"

namespace orrery {

// A number of bytes; written as 4096, 512MiB, 2G (powers of 1024).
struct ByteSize {
  int64_t bytes = 0;
};

// Written with commas between; a flag may also be repeated, and YAML may write a list.
using StringList = std::vector<std::string>;

// The longest text that a tokenizer takes.
inline constexpr int64_t kMostTextBytes = 8 << 20;

struct ServerConfig {
  // model and engine
  std::string model;
  std::string role = "all";
  std::string backend = "auto";
  std::string cost_profile;
  std::string dtype = "auto";
  std::string weights = "native";
  std::string kv_dtype = "auto";
  int64_t threads = 0;  // 0: cores
  std::string isa = "auto";
  std::string batch_invariant = "auto";  // on, but off on CUDA
  bool cuda_graphs = true;
  int64_t workers = 1;
  int64_t dp = 1;               // of them in a group
  int64_t kv_cache_tokens = 0;  // 0: not given
  ByteSize kv_cache_bytes;      // 0: not given
  int64_t block_tokens = 16;
  bool prefix_cache = true;
  std::string hash_key_file;  // empty: a secret of the process alone
  // limits of scheduling
  int64_t max_num_seqs = 256;
  int64_t max_step_tokens = 0;  // 0: the backend's
  int64_t max_queue_tokens = 1'000'000;
  int64_t max_context = 0;  // 0: the model's
  // policies, NAME[:key=value,...]
  std::string scheduler = "fcfs";
  std::string router = "jsq-tokens";
  std::string eviction = "lru";
  std::string predictor = "request-bound";
  // addresses
  std::string listen = "127.0.0.1:50051";
  std::string metrics_listen = "127.0.0.1:9400";  // empty: off
  std::string metrics_compat = "none";
  // a router's worker processes
  StringList worker_address, worker_dns;
  Duration heartbeat = Duration::Seconds(1);
  // limits of the edge
  ByteSize max_message_bytes{4 << 20};
  ByteSize max_metadata_bytes{16 << 10};
  ByteSize max_text_bytes{2 << 20};
  int64_t max_open_requests = 20'000;
  int64_t max_streams_per_connection = 20'000;
  int64_t max_choices = 64;
  int64_t max_logprobs = 20;
  ByteSize stream_buffer_bytes{256 << 10};
  ByteSize grpc_memory{512 << 20};  // 0: no quota
  int64_t grpc_threads = 0;         // 0: no quota
  Duration keepalive_interval = Duration::Seconds(60);
  Duration keepalive_timeout = Duration::Seconds(20);
  Duration max_connection_age = Duration::Infinite();
  // life cycle
  Duration drain_timeout = Duration::Seconds(30);
  Duration step_timeout = Duration::Seconds(60);
  Duration write_timeout = Duration::Seconds(60);
  Duration plan_interval = Duration::Seconds(10);
  std::string record;
  // logging
  std::string log_level = "info";
  bool log_prompts = false;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_CONFIG_SERVER_CONFIG_H_
