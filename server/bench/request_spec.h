// The plan of one request of a load test: everything about it that is decided before the run starts.
#ifndef ORRERY_SERVER_BENCH_REQUEST_SPEC_H_
#define ORRERY_SERVER_BENCH_REQUEST_SPEC_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/base/time.h"
#include "server/bench/slo.h"

namespace orrery::bench {

enum class PromptKind {
  kTokens,  // synthetic ids, exactly prompt_tokens of them
  kText,    // sent as text
  kChat,    // sent as one user message
};

// What a dataset row says about a request.
struct RequestShape {
  PromptKind kind = PromptKind::kTokens;
  int32_t prompt_tokens = 0;  // 0: known only to the server (kText, kChat)
  int32_t output_tokens = 0;  // most new tokens to ask for; 0: the server's default
  bool fixed_output = false;  // the output length is part of the data: end-of-sequence is ignored
  std::optional<double> arrival_s;
  std::string text;               // kText, kChat
  std::vector<int64_t> hash_ids;  // kTokens: shared blocks of the prompt, in order (see PromptBuilder)
  double block_tokens = 0;        // length of a shared block, a real number once lengths are scaled
};

struct RequestSpec {
  RequestShape shape;
  int32_t class_index = 0;
  Time intended;                    // open loop: when to send it; closed loop: not used
  int32_t cancel_after_tokens = 0;  // > 0: the client cancels at this token
  uint64_t prompt_seed = 0;
};

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_REQUEST_SPEC_H_
