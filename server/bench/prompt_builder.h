// Synthetic prompts of an exact number of ordinary ids, as a pure function of seeds.
//
// A prompt without hash ids is unique to its seed: two requests share no prefix but by chance. With hash ids,
// block b of the prompt is a function of its id alone, so that equal leading ids give equal leading tokens
// (and the server's prefix cache sees the sharing that the trace saw). Block b covers the tokens
// [floor(b * block_tokens), floor((b + 1) * block_tokens)); what lies past the last id is unique.
#ifndef ORRERY_SERVER_BENCH_PROMPT_BUILDER_H_
#define ORRERY_SERVER_BENCH_PROMPT_BUILDER_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "server/bench/request_spec.h"
#include "server/bench/token_space.h"

namespace orrery::bench {

class PromptBuilder {
 public:
  // `seed` is the run's: it changes every block of shared text.
  PromptBuilder(TokenSpace space, uint64_t seed) : space_(std::move(space)), seed_(seed) {}

  // Replaces *ids by the spec's prompt: exactly shape.prompt_tokens ids. Only for kTokens.
  void Build(const RequestSpec& spec, std::vector<int32_t>* ids) const;

 private:
  // Appends `count` ids drawn from (key, stream), starting at the stream's beginning.
  void Append(uint64_t key, uint32_t stream, int64_t count, std::vector<int32_t>* ids) const;

  TokenSpace space_;
  uint64_t seed_;
};

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_PROMPT_BUILDER_H_
