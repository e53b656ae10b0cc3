// The ids a synthetic prompt may use: all of a vocabulary but its special tokens.
#ifndef ORRERY_SERVER_BENCH_TOKEN_SPACE_H_
#define ORRERY_SERVER_BENCH_TOKEN_SPACE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace orrery::bench {

class TokenSpace {
 public:
  // `special` in any order, repeats and ids outside the vocabulary allowed. InvalidArgument when no ordinary
  // id is left.
  static absl::StatusOr<TokenSpace> Create(int32_t vocab_size, std::vector<int32_t> special);

  // Number of ordinary ids.
  int32_t size() const { return size_; }
  // The k-th ordinary id, k in [0, size()).
  int32_t Id(int32_t k) const;

 private:
  TokenSpace() = default;
  int32_t size_ = 0;
  std::vector<int32_t> below_;  // below_[i] = ordinary ids smaller than the i-th special id; ascending
};

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_TOKEN_SPACE_H_
