#include "server/bench/token_space.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace orrery::bench {

absl::StatusOr<TokenSpace> TokenSpace::Create(int32_t vocab_size, std::vector<int32_t> special) {
  std::sort(special.begin(), special.end());
  special.erase(std::unique(special.begin(), special.end()), special.end());
  TokenSpace space;
  for (const int32_t id : special) {
    if (id < 0 || id >= vocab_size) continue;
    space.below_.push_back(id - static_cast<int32_t>(space.below_.size()));
  }
  space.size_ = vocab_size - static_cast<int32_t>(space.below_.size());
  if (vocab_size < 1 || space.size_ < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("a vocabulary of ", vocab_size, " ids has none that is not special"));
  }
  return space;
}

int32_t TokenSpace::Id(int32_t k) const {
  const auto skipped = std::upper_bound(below_.begin(), below_.end(), k) - below_.begin();
  return k + static_cast<int32_t>(skipped);
}

}  // namespace orrery::bench
