// The logits behind every prefix of a text, and how far they are from a reference.
#ifndef ORRERY_TESTS_ENGINE_PREFIX_LOGITS_H_
#define ORRERY_TESTS_ENGINE_PREFIX_LOGITS_H_

#include <cmath>
#include <functional>
#include <vector>

#include "engine/model_executor.h"

namespace orrery::testing {

// [tokens, vocab]: every prefix of `tokens` is a sequence of its own, all in one run, prefilled in chunks.
// to_host: an f32 tensor of the engine's as the host sees it.
std::vector<float> PrefixLogits(ModelExecutor& engine, const std::vector<TokenId>& tokens, int32_t chunk,
                                const std::function<std::vector<float>(const Tensor&)>& to_host);

// ||values - reference|| / ||reference||.
template <typename Values, typename Reference>
double RelativeError(const Values& values, const Reference& reference) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    error += (values[i] - reference[i]) * (values[i] - reference[i]);
    norm += reference[i] * reference[i];
  }
  return std::sqrt(error / norm);
}

}  // namespace orrery::testing

#endif  // ORRERY_TESTS_ENGINE_PREFIX_LOGITS_H_
