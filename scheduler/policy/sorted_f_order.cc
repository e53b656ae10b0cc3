#include "scheduler/policy/sorted_f_order.h"

#include <algorithm>
#include <numeric>

namespace orrery {
namespace {

constexpr size_t kImproveUpTo = 64;  // jobs
constexpr int kMaxMoves = 64;        // each lowers F; the bound is for safety

// F(a) < F(b), or equal with the larger batch: outputs / count^2 without rounding.
bool Better(int64_t outputs_a, size_t count_a, int64_t outputs_b, size_t count_b) {
  if (count_b == 0) return count_a > 0;
  const auto square = [](size_t count) {
    return static_cast<__int128>(count) * static_cast<__int128>(count);
  };
  const __int128 a = outputs_a * square(count_b), b = outputs_b * square(count_a);
  return a != b ? a < b : count_a > count_b;
}

}  // namespace

absl::Span<const int32_t> SortedFOrder::Compute(absl::Span<const Job> jobs, int64_t memory) {
  jobs_ = jobs;
  order_.clear();
  batch_ends_.clear();
  taken_.assign(jobs.size(), 0);
  for (Sweep* sweep : {&by_output_, &by_size_}) {
    sweep->head = 0;
    sweep->list.resize(jobs.size());
    std::iota(sweep->list.begin(), sweep->list.end(), 0);
  }
  std::sort(by_output_.list.begin(), by_output_.list.end(), [&](int32_t a, int32_t b) {
    return Output(a) != Output(b) ? Output(a) < Output(b) : Size(a) != Size(b) ? Size(a) < Size(b) : a < b;
  });
  std::sort(by_size_.list.begin(), by_size_.list.end(),
            [&](int32_t a, int32_t b) { return Size(a) != Size(b) ? Size(a) < Size(b) : a < b; });
  while (order_.size() < jobs.size()) {
    batch_.clear();
    batch_outputs_ = 0;
    BestPrefix(&by_output_, memory);
    BestPrefix(&by_size_, memory);
    if (batch_.empty()) batch_.push_back(by_size_.list[by_size_.head]);  // fits alone, if at all
    if (jobs.size() <= kImproveUpTo) Improve(memory);
    for (const int32_t job : batch_) taken_[static_cast<size_t>(job)] = 1;
    std::sort(batch_.begin(), batch_.end(),
              [&](int32_t a, int32_t b) { return Output(a) != Output(b) ? Output(a) < Output(b) : a < b; });
    order_.insert(order_.end(), batch_.begin(), batch_.end());
    batch_ends_.push_back(static_cast<int32_t>(order_.size()));
  }
  return order_;
}

void SortedFOrder::BestPrefix(Sweep* sweep, int64_t memory) {
  const std::vector<int32_t>& list = sweep->list;
  while (sweep->head < list.size() && taken_[static_cast<size_t>(list[sweep->head])]) ++sweep->head;
  int64_t outputs = 0, size = 0, best_outputs = batch_outputs_;
  size_t count = 0, best_count = batch_.size(), best_end = 0;
  for (size_t i = sweep->head; i < list.size(); ++i) {
    if (taken_[static_cast<size_t>(list[i])]) continue;
    size += Size(list[i]);
    if (size > memory) break;
    outputs += Output(list[i]);
    ++count;
    if (Better(outputs, count, best_outputs, best_count)) {
      best_outputs = outputs;
      best_count = count;
      best_end = i + 1;
    }
  }
  if (best_end == 0) return;
  batch_outputs_ = best_outputs;
  batch_.clear();
  for (size_t i = sweep->head; i < best_end; ++i) {
    if (!taken_[static_cast<size_t>(list[i])]) batch_.push_back(list[i]);
  }
}

void SortedFOrder::Improve(int64_t memory) {
  for (int move = 0; move < kMaxMoves; ++move) {
    int64_t outputs = 0, size = 0;
    for (const int32_t job : batch_) {
      outputs += Output(job);
      size += Size(job);
    }
    std::vector<int32_t> rest;
    for (size_t job = 0; job < jobs_.size(); ++job) {
      const auto index = static_cast<int32_t>(job);
      if (!taken_[job] && std::find(batch_.begin(), batch_.end(), index) == batch_.end())
        rest.push_back(index);
    }
    if (!ImproveOnce(memory, outputs, size, rest)) return;
  }
}

// The first move that lowers F: drop one, add one, exchange one.
bool SortedFOrder::ImproveOnce(int64_t memory, int64_t outputs, int64_t size,
                               const std::vector<int32_t>& rest) {
  const size_t count = batch_.size();
  for (size_t i = 0; i < count && count > 1; ++i) {
    if (!Better(outputs - Output(batch_[i]), count - 1, outputs, count)) continue;
    batch_.erase(batch_.begin() + static_cast<ptrdiff_t>(i));
    return true;
  }
  for (const int32_t job : rest) {
    if (size + Size(job) > memory || !Better(outputs + Output(job), count + 1, outputs, count)) continue;
    batch_.push_back(job);
    return true;
  }
  for (int32_t& member : batch_) {
    for (const int32_t job : rest) {
      // Equal outputs but less memory makes room for another.
      const bool lower =
          Output(job) < Output(member) || (Output(job) == Output(member) && Size(job) < Size(member));
      if (!lower || size - Size(member) + Size(job) > memory) continue;
      member = job;
      return true;
    }
  }
  return false;
}

}  // namespace orrery
