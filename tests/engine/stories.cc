#include "tests/engine/stories.h"

#include <cstddef>

#include "scheduler/base/random.h"
#include "tests/engine/reference_model.h"

namespace orrery::testing {
namespace {

std::vector<StoryCase> ComputeStoryCases(const std::string& dir) {
  const ReferenceModel reference(dir);
  const std::vector<int32_t> story = reference.Greedy({1}, 200);
  RandomStream random(7);
  std::vector<StoryCase> cases(20);
  for (size_t i = 0; i < cases.size(); ++i) {
    std::vector<int32_t>& prompt = cases[i].prompt;
    prompt = {1};
    const auto first = story.begin() + static_cast<std::ptrdiff_t>(random.Below(100));
    prompt.insert(prompt.end(), first, first + static_cast<std::ptrdiff_t>(19 + 4 * i));
    cases[i].output = reference.Greedy(prompt, 200);
  }
  return cases;
}

}  // namespace

const std::vector<StoryCase>& TwentyStoryCases(const std::string& dir) {
  static const auto* cases = new std::vector<StoryCase>(ComputeStoryCases(dir));
  return *cases;
}

}  // namespace orrery::testing
