// What a router sends to a worker and what comes back. Plain data, the same in one process and on the wire.
#ifndef ORRERY_SCHEDULER_TYPES_REQUEST_H_
#define ORRERY_SCHEDULER_TYPES_REQUEST_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/base/ids.h"
#include "scheduler/base/time.h"
#include "scheduler/types/sampling.h"

namespace orrery {

// Latency objective of a request; infinite where none was stated.
struct Slo {
  Duration ttft = Duration::Infinite();
  Duration tpot = Duration::Infinite();
};

// Names one sample of one request on its n-th try. Several samples of a request share prompt and request id;
// a retry on another worker raises the attempt, and whatever an older attempt still says is dropped.
struct SampleKey {
  RequestId request{};
  uint32_t sample = 0;
  uint32_t attempt = 0;
  friend auto operator<=>(const SampleKey&, const SampleKey&) = default;
};

// Where a prompt's KV comes from when another worker has computed it (disaggregated prefill).
struct KvSource {
  WorkerId worker{};
  TransferId transfer{};
  int32_t num_tokens = 0;  // KV of the first num_tokens tokens
};

struct Submit {
  SampleKey key;
  uint64_t submission = 0;  // ascending per link; WorkerState says which was the last one applied
  // prompt ids followed by ids already emitted by an earlier attempt, [num_prompt + num_emitted]; shared
  // between the samples of a request; empty only in simulation
  std::shared_ptr<const std::vector<TokenId>> tokens;
  int32_t num_prompt = 0;   // tokens of the prompt
  int32_t num_emitted = 0;  // tokens that count as output although this worker never made them
  Sampling sampling;
  StopRules stop;
  Slo slo;
  Time deadline = Time::Never();  // on the worker's clock: arrival + what remains
  int32_t priority = 0;           // higher is more important; negative may be shed
  uint32_t tenant = 0;            // interned at the edge
  uint32_t application = 0;       // interned at the edge; 0: none, the request stands for itself
  uint32_t traffic_class = 0;     // interned at the edge, counted from 0: the class that plans speak of
  uint64_t routing_key = 0;       // equal ones should meet on one worker; 0: none. For routers alone
  uint64_t cache_salt = 0;        // prefix blocks are shared only between equal salts
  std::optional<KvSource> kv_source;
};

enum class FinishReason : uint8_t { kNone, kStop, kLength, kCancelled, kDeadline, kError };

// The k best alternatives and the chosen id at one position, natural logarithm of the unmodified softmax.
struct TokenLogprobs {
  float chosen = 0.0f;
  std::vector<std::pair<TokenId, float>> top;
};

// The same of neighbouring prompt tokens, which a chunk of prefill has scored: those at positions
// [begin, begin + chosen.size()) of the prompt, each given all before it. The first token has none.
struct PromptLogprobs {
  int32_t begin = 1;
  int32_t num_top = 0;                         // alternatives at each position
  std::vector<float> chosen;                   // [positions], of the prompt's own tokens
  std::vector<std::pair<TokenId, float>> top;  // [positions, num_top], best first
};

// One output token (token >= 0), the end of a sample, or both; or log-probabilities of its prompt, which come
// in order, every position once for an attempt, before the attempt's first token.
struct TokenEvent {
  SampleKey key;
  int32_t index =
      -1;  // position among the output ids of the sample, emitted ones of earlier attempts included
  TokenId token = -1;
  FinishReason finish = FinishReason::kNone;
  std::string error;  // with kError: what went wrong, for the client
  std::shared_ptr<const TokenLogprobs> logprobs;
  std::shared_ptr<const PromptLogprobs> prompt_logprobs;
  Time at;  // when the step that made it ended
};

// Per-sample facts known at its end, for the final message.
struct SampleReport {
  int32_t cached_tokens = 0;  // prompt tokens taken from the prefix cache at first admission
  int32_t num_preemptions = 0;
  Time arrived, first_scheduled, first_token, finished;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_TYPES_REQUEST_H_
