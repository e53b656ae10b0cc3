#include "server/config/option_table.h"

namespace orrery {
namespace {

using C = ServerConfig;
constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kDay = 86'400 * kSecond;

std::vector<Option> MakeRows() {
  return {
      {"model", &C::model, "DIR", "Hugging Face checkpoint folder"},
      {"role",
       &C::role,
       "ROLE",
       "router and workers in this process (all), a router for worker processes, or a worker",
       0,
       0,
       {"all", "router", "worker"}},
      {"worker-address", &C::worker_address, "HOST:PORT", "a worker process of this router; may be repeated"},
      {"worker-dns", &C::worker_dns, "NAME:PORT",
       "a name whose addresses are worker processes of this router; may be repeated"},
      {"heartbeat", &C::heartbeat, "TIME",
       "how often router and worker process give a sign of life; five missing ones end what was between them",
       kSecond / 100, 60 * kSecond},
      {"backend",
       &C::backend,
       "NAME",
       "engine; auto: cuda where there is a device, else cpu; modeled computes nothing and takes the time a "
       "cost profile predicts",
       0,
       0,
       {"auto", "cpu", "cuda", "modeled"}},
      {"cost-profile", &C::cost_profile, "SPEC",
       "step times, which the modeled backend takes and policies start from: FILE#GPU/MODEL/tpN/WEIGHTS, "
       "FOLDER#GPU/MODEL/tpN/WEIGHTS[/KV] (put together from tables of kernels), constant:MS, "
       "linear:key=value,..., tile:key=value,... or table:..."},
      {"dtype",
       &C::dtype,
       "TYPE",
       "type of activations and native weights; auto: as the checkpoint has it, on CUDA bf16 for f32",
       0,
       0,
       {"auto", "f32", "bf16", "f16"}},
      {"weights",
       &C::weights,
       "KIND",
       "weights as in the checkpoint, or int8 per output channel (logits off by 2 to 3 %, bf16 by under 1 %)",
       0,
       0,
       {"native", "int8"}},
      {"kv-dtype", &C::kv_dtype, "TYPE", "type of the KV cache", 0, 0, {"auto", "f32", "bf16", "f16", "fp8"}},
      {"threads", &C::threads, "N", "threads of the CPU engine, of all workers together; 0: one per core", 0,
       1024},
      {"isa",
       &C::isa,
       "NAME",
       "best instruction set the CPU engine uses; auto: this machine's best",
       0,
       0,
       {"auto", "scalar", "avx2", "avx512", "amx"}},
      {"batch-invariant",
       &C::batch_invariant,
       "MODE",
       "a row's logits do not depend on what else is in the batch; the CPU engine keeps to that even when "
       "off; auto: off on CUDA, where it costs speed",
       0,
       0,
       {"auto", "on", "off"}},
      {"cuda-graphs", &C::cuda_graphs, "on|off",
       "launch decode steps of up to 256 sequences as a whole; off where batch-invariant"},
      {"workers", &C::workers, "W",
       "engine workers in this process: they share the weights and divide the threads; each has a KV pool "
       "and a scheduler of its own",
       1, 64},
      {"dp", &C::dp, "G",
       "workers of a data-parallel group, which begin every step together; divides --workers", 1, 64},
      {"kv-cache-tokens", &C::kv_cache_tokens, "N",
       "size of a worker's paged KV pool; 0: by --kv-cache-bytes, else its share of 60 % of free memory, on "
       "CUDA 90 %",
       0, int64_t{1} << 32},
      {"kv-cache-bytes", &C::kv_cache_bytes, "SIZE",
       "size of a worker's paged KV pool; 0: see --kv-cache-tokens", 0, int64_t{1} << 44},
      {"block-tokens", &C::block_tokens, "N", "tokens of one KV block", 16, 16},
      {"prefix-cache", &C::prefix_cache, "on|off", "share the KV blocks of equal prompt prefixes"},
      {"hash-key-file", &C::hash_key_file, "FILE",
       "secret of 16 to 4096 bytes that names cached prefixes: a router that has its workers' knows what "
       "they "
       "cache"},
      {"max-num-seqs", &C::max_num_seqs, "N", "sequences that run at once", 1, 512},
      {"max-step-tokens", &C::max_step_tokens, "N", "tokens of one engine step; 0: 2048, on CUDA 8192", 0,
       65'536},
      {"max-queue-tokens", &C::max_queue_tokens, "N", "prompt tokens that may wait", 1, int64_t{1} << 40},
      {"max-context", &C::max_context, "N", "tokens of one sequence; 0: the model's", 0, int64_t{1} << 24},
      {"scheduler", &C::scheduler, "NAME[:key=value,...]", "batch policy", 0, 0, {}, true},
      {"router",
       &C::router,
       "NAME[:key=value,...]",
       "route policy; a worker process reads from it how far ahead it is to look",
       0,
       0,
       {},
       true},
      {"eviction", &C::eviction, "NAME[:key=value,...]", "which cached block goes first", 0, 0, {}, true},
      {"predictor", &C::predictor, "NAME[:key=value,...]", "length predictor", 0, 0, {}, true},
      {"listen", &C::listen, "HOST:PORT", "gRPC; port 0 takes a free one"},
      {"metrics-listen", &C::metrics_listen, "HOST:PORT",
       "HTTP: /metrics, /health, /ready; port 0 takes a free one, empty: off"},
      {"metrics-compat", &C::metrics_compat, "NAME", "further metric names", 0, 0, {"none", "vllm"}},
      {"max-message-bytes", &C::max_message_bytes, "SIZE", "largest message a client may send", 1 << 10,
       int64_t{1} << 30},
      {"max-metadata-bytes", &C::max_metadata_bytes, "SIZE", "largest headers a client may send", 1 << 10,
       1 << 20},
      {"max-text-bytes", &C::max_text_bytes, "SIZE",
       "longest prompt text; what --max-message-bytes cannot carry stays out of reach", 1, kMostTextBytes},
      {"max-open-requests", &C::max_open_requests, "N", "requests in the server at once", 1, 1'000'000},
      {"max-streams-per-connection", &C::max_streams_per_connection, "N", "calls of one connection at once",
       1, 1'000'000},
      {"max-choices", &C::max_choices, "N", "largest sampling.n", 1, 512},
      {"max-logprobs", &C::max_logprobs, "N", "largest sampling.logprobs and prompt_logprobs", 0, 1'000},
      {"stream-buffer-bytes", &C::stream_buffer_bytes, "SIZE",
       "output a client may leave unread before its request is ended; prompt log-probabilities of some steps "
       "come on top",
       1 << 10, 1 << 30},
      {"grpc-memory", &C::grpc_memory, "SIZE",
       "memory of gRPC's buffers, half-received messages included; beyond it calls are cut off; several "
       "times "
       "--max-message-bytes; 0: no bound",
       0, int64_t{1} << 40},
      {"grpc-threads", &C::grpc_threads, "N", "thread quota of gRPC; 0: none", 0, 1'024},
      {"keepalive-interval", &C::keepalive_interval, "TIME", "silence after which a connection is probed",
       kSecond, kDay},
      {"keepalive-timeout", &C::keepalive_timeout, "TIME", "silence after the probe that closes it", kSecond,
       kDay},
      {"max-connection-age", &C::max_connection_age, "TIME", "a connection is asked to come anew; inf: never",
       kSecond},
      {"drain-timeout", &C::drain_timeout, "TIME", "what running requests get after SIGTERM", 0, kDay},
      {"step-timeout", &C::step_timeout, "TIME",
       "an engine step longer than this turns readiness off; a router takes the worker's requests elsewhere",
       kSecond / 1000},
      {"write-timeout", &C::write_timeout, "TIME", "a client that takes no byte for so long is cut off",
       kSecond / 1000},
      {"plan-interval", &C::plan_interval, "TIME", "how often the worker's resources are priced",
       kSecond / 10, kDay},
      {"record", &C::record, "FILE", "journal: what the scheduler was told and decided"},
      {"log-level",
       &C::log_level,
       "LEVEL",
       "least level that is logged",
       0,
       0,
       {"trace", "debug", "info", "warn", "error", "off"}},
      {"log-prompts", &C::log_prompts, "on|off", "write prompts into the log"},
  };
}

}  // namespace

absl::Span<const Option> Options() {
  static const auto* rows = new std::vector<Option>(MakeRows());
  return *rows;
}

}  // namespace orrery
