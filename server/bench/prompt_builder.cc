#include "server/bench/prompt_builder.h"

#include <algorithm>
#include <cmath>

#include "scheduler/base/random.h"

namespace orrery::bench {
namespace {

// Which of the two kinds of text a draw is for (last counter word of the generator).
constexpr uint32_t kSharedStream = 1;
constexpr uint32_t kUniqueStream = 2;

}  // namespace

void PromptBuilder::Build(const RequestSpec& spec, std::vector<int32_t>* ids) const {
  const RequestShape& shape = spec.shape;
  ids->clear();
  ids->reserve(shape.prompt_tokens);
  for (size_t block = 0; block < shape.hash_ids.size(); ++block) {
    const double end = std::floor(static_cast<double>(block + 1) * shape.block_tokens);
    const int64_t stop = std::min<int64_t>(shape.prompt_tokens, static_cast<int64_t>(end));
    // The id is mixed into the key so that a block's text does not depend on where it stands.
    const uint64_t key = RandomStream(seed_ ^ (static_cast<uint64_t>(shape.hash_ids[block]) << 20)).Bits();
    Append(key, kSharedStream, stop - static_cast<int64_t>(ids->size()), ids);
  }
  Append(spec.prompt_seed, kUniqueStream, shape.prompt_tokens - static_cast<int64_t>(ids->size()), ids);
}

void PromptBuilder::Append(uint64_t key, uint32_t stream, int64_t count, std::vector<int32_t>* ids) const {
  const std::array<uint32_t, 2> key_words = {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
  const uint64_t size = static_cast<uint64_t>(space_.size());
  for (int64_t i = 0; i < count; i += 4) {
    const auto words = Philox(key_words, {static_cast<uint32_t>(i / 4), 0, 0, stream});
    const int64_t take = std::min<int64_t>(4, count - i);
    for (int64_t w = 0; w < take; ++w) {
      // The high half of the product is uniform on [0, size) to within size / 2^32.
      ids->push_back(space_.Id(static_cast<int32_t>((words[w] * size) >> 32)));
    }
  }
}

}  // namespace orrery::bench
