// What the load generator needs from a connection: send a request without waiting and hear what comes back.
#ifndef ORRERY_SERVER_BENCH_TRANSPORT_H_
#define ORRERY_SERVER_BENCH_TRANSPORT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/bench/request_spec.h"
#include "server/bench/slo.h"

namespace orrery::bench {

struct OutgoingRequest {
  std::string request_id;
  PromptKind kind = PromptKind::kTokens;
  std::vector<int32_t> token_ids;  // kTokens
  std::string text;                // kText, kChat
  int32_t max_tokens = 0;          // 0: the server's default
  bool ignore_eos = false;
  std::optional<double> temperature;  // absent: the model's default
  uint64_t seed = 0;
  int32_t priority = 0;
  std::string tenant;
  std::string slo_class;
  SloTargets slo;
};

enum class Outcome {
  kUnfinished,  // not sent, or still running when the run was stopped
  kCompleted,
  kFailed,
  kRejected,   // refused for load, with a reason
  kCancelled,  // by the client, as planned
};

// The server's own account of a request, in milliseconds.
struct ServerTimings {
  double queue_ms = 0;
  double prefill_ms = 0;
  double decode_ms = 0;
  double ttft_ms = 0;
};

struct StreamEnd {
  Outcome outcome = Outcome::kUnfinished;
  std::string reason;   // of a failure or refusal: one of few words, for counting
  std::string message;  // the same for people
  std::string finish_reason;
  std::optional<int32_t> prompt_tokens;  // as the server counted
  std::optional<int32_t> output_tokens;
  int32_t cached_tokens = 0;
  int32_t attempts = 0;        // workers that were tried
  uint64_t output_digest = 0;  // of the output ids in order: equal outputs, equal digests
  std::optional<ServerTimings> timings;
};

// Hears one stream. Called on threads of the transport, in order, never twice at a time for one stream.
class StreamEvents {
 public:
  virtual ~StreamEvents() = default;
  // A message with `count` > 0 tokens. False cancels the stream (OnEnd still comes).
  virtual bool OnTokens(int32_t count) = 0;
  // Exactly once, the last call.
  virtual void OnEnd(const StreamEnd& end) = 0;
};

class Transport {
 public:
  virtual ~Transport() = default;
  // Starts a request and returns at once; `events` must live until its OnEnd.
  virtual void Send(const OutgoingRequest& request, StreamEvents* events) = 0;
  // Cancels every stream that is open; their OnEnd calls follow.
  virtual void CancelAll() = 0;
};

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_TRANSPORT_H_
