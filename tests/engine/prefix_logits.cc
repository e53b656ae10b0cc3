#include "tests/engine/prefix_logits.h"

#include <algorithm>

#include "scheduler/base/check.h"
#include "tests/engine/plan_driver.h"

namespace orrery::testing {

std::vector<float> PrefixLogits(ModelExecutor& engine, const std::vector<TokenId>& tokens, int32_t chunk,
                                const std::function<std::vector<float>(const Tensor&)>& to_host) {
  const auto vocab = static_cast<ptrdiff_t>(engine.limits().vocab_size);
  std::vector<float> all(tokens.size() * static_cast<size_t>(vocab));
  PlanDriver driver(engine);
  engine.set_logits_observer([&](const Tensor& logits) {
    const std::vector<float> rows = to_host(logits);
    auto row = rows.begin();
    for (const Slice& slice : driver.plan().slices) {
      if (!slice.sample) continue;
      const auto position = static_cast<ptrdiff_t>(slice.begin + slice.count - 1);
      std::copy(row, row + vocab, all.begin() + position * vocab);
      row += vocab;
    }
  });
  for (size_t n = 1; n <= tokens.size(); ++n) {
    driver.Add({tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(n)}, 1, Greedy());
  }
  ORRERY_CHECK(driver.RunAll(chunk).ok());
  engine.set_logits_observer(nullptr);
  for (size_t n = 0; n < tokens.size(); ++n) driver.Release(static_cast<int>(n));
  ORRERY_CHECK(driver.Step({}).ok());
  return all;
}

}  // namespace orrery::testing
