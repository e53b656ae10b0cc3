// What happened to one request, as the client saw it.
#ifndef ORRERY_SERVER_BENCH_REQUEST_RECORD_H_
#define ORRERY_SERVER_BENCH_REQUEST_RECORD_H_

#include <optional>
#include <string>
#include <vector>

#include "scheduler/base/time.h"
#include "server/bench/transport.h"

namespace orrery::bench {

// A streamed message that carried tokens.
struct Chunk {
  Time at;
  int32_t tokens = 0;
};

struct RequestRecord {
  Time intended = Time::Never();  // when it should have gone out: latency counts from here
  Time sent = Time::Never();      // when it did
  Time end = Time::Never();       // when its stream ended
  std::vector<Chunk> chunks;
  StreamEnd result;

  bool was_sent() const { return !sent.is_never(); }
  bool ended() const { return !end.is_never(); }
  // Output tokens as the server counted them, or as they came in where it did not say.
  int32_t output_tokens() const {
    if (result.output_tokens) return *result.output_tokens;
    int32_t sum = 0;
    for (const Chunk& chunk : chunks) sum += chunk.tokens;
    return sum;
  }
  // When the last token came, or the end of a stream without tokens.
  Time last() const { return chunks.empty() ? end : chunks.back().at; }
};

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_REQUEST_RECORD_H_
