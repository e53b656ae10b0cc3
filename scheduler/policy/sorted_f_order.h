// The order in which Sorted-F (arXiv:2508.06133) serves a backlog: batches X in ascending
//     F(X) = sum of outputs over X / |X|^2        (lower is better, ties: the larger batch)
// among those that fit the memory together, each batch by ascending output. Finding the best batch is hard;
// this sweeps the prefixes of two lists, by output and by size, and improves the winner by exchanging, adding
// and dropping members while F falls, where the backlog is small enough (64) for that to be quick.
#ifndef ORRERY_SCHEDULER_POLICY_SORTED_F_ORDER_H_
#define ORRERY_SCHEDULER_POLICY_SORTED_F_ORDER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace orrery {

class SortedFOrder {
 public:
  struct Job {
    int64_t prompt = 0;  // tokens
    int64_t output = 0;  // predicted tokens, >= 1
  };

  // Indices of `jobs` in serving order. A job larger than `memory` tokens is a batch of its own. Sorting,
  // then O(jobs) per pass over a batch.
  absl::Span<const int32_t> Compute(absl::Span<const Job> jobs, int64_t memory);
  // Where batches end in the order, ascending; the last is the number of jobs.
  absl::Span<const int32_t> batch_ends() const { return batch_ends_; }

 private:
  struct Sweep {
    std::vector<int32_t> list;
    size_t head = 0;  // everything before it is taken
  };
  int64_t Size(int32_t job) const { return jobs_[static_cast<size_t>(job)].prompt + Output(job); }
  int64_t Output(int32_t job) const { return jobs_[static_cast<size_t>(job)].output; }
  // Puts the prefix with the least F into batch_ if it beats what is there.
  void BestPrefix(Sweep* sweep, int64_t memory);
  void Improve(int64_t memory);
  bool ImproveOnce(int64_t memory, int64_t outputs, int64_t size, const std::vector<int32_t>& rest);

  absl::Span<const Job> jobs_;
  Sweep by_output_, by_size_;
  std::vector<uint8_t> taken_;
  std::vector<int32_t> batch_, order_, batch_ends_;
  int64_t batch_outputs_ = 0;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_SORTED_F_ORDER_H_
