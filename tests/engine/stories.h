// Prompts for the real trained model of the shared data, with what the double-precision reference says after
// each.
#ifndef ORRERY_TESTS_ENGINE_STORIES_H_
#define ORRERY_TESTS_ENGINE_STORIES_H_

#include <cstdint>
#include <string>
#include <vector>

namespace orrery::testing {

struct StoryCase {
  std::vector<int32_t> prompt;
  std::vector<int32_t> output;  // 200 greedy tokens
};

// Twenty prompts of 20 to 96 tokens, cut out of a story of the model's own; computed once in a process.
const std::vector<StoryCase>& TwentyStoryCases(const std::string& dir);

}  // namespace orrery::testing

#endif  // ORRERY_TESTS_ENGINE_STORIES_H_
