#include "scheduler/policy/future_peak.h"

#include <algorithm>

#include "scheduler/base/check.h"

namespace orrery {

FuturePeak::FuturePeak(int32_t block_tokens) : block_(block_tokens) {
  ORRERY_CHECK(block_tokens >= 1 && block_tokens <= 1024);
}

void FuturePeak::Clear() {
  Erase(0, size());
  shared_ = 0;
}

FuturePeak::Split FuturePeak::Down(int64_t tokens) const {
  int64_t blocks = tokens / block_;
  if (tokens < blocks * block_) --blocks;  // rounds towards zero; bases are negative after a while
  return {blocks, static_cast<int32_t>(tokens - blocks * block_)};
}

FuturePeak::Split FuturePeak::Up(int64_t end) const {
  const int64_t blocks = (end + block_ - 1) / block_;
  return {blocks, static_cast<int32_t>(blocks * block_ - end)};
}

size_t FuturePeak::FirstNotBefore(int64_t end) const {
  return static_cast<size_t>(std::lower_bound(end_.begin(), end_.end(), end) - end_.begin());
}

void FuturePeak::AddToTerms(int64_t base, size_t count, int64_t sign) {
  const auto [blocks, rest] = Down(base);
  for (size_t i = 0; i < count; ++i) {
    term_[i] += sign * (blocks + end_blocks_[i] + (rest > end_slack_[i]));
  }
}

void FuturePeak::Insert(size_t at, SequenceId id, int64_t end, int64_t base, int64_t term) {
  const auto put = [at](auto* array, auto value) {
    array->insert(array->begin() + static_cast<ptrdiff_t>(at), value);
  };
  const Split end_split = Up(end);
  const Split base_split = Down(base);
  put(&id_, id);
  put(&end_, end);
  put(&end_blocks_, end_split.blocks);
  put(&end_slack_, end_split.rest);
  put(&base_, base);
  put(&base_blocks_, base_split.blocks);
  put(&base_rest_, base_split.rest);
  put(&term_, term);
  fresh_ = false;
}

void FuturePeak::Erase(size_t first, size_t last) {
  const auto cut = [first, last](auto* array) {
    array->erase(array->begin() + static_cast<ptrdiff_t>(first),
                 array->begin() + static_cast<ptrdiff_t>(last));
  };
  cut(&id_);
  cut(&end_);
  cut(&end_blocks_);
  cut(&end_slack_);
  cut(&base_);
  cut(&base_blocks_);
  cut(&base_rest_);
  cut(&term_);
  fresh_ = false;
}

void FuturePeak::Add(SequenceId id, int64_t held, int64_t remaining) {
  ORRERY_CHECK(held >= 0 && remaining >= 0 && size() < UINT16_MAX);
  const int64_t end = now_ + remaining;
  const int64_t base = held - now_;
  const Split at = Up(end);
  int64_t term = (base + end + block_ - 1) / block_;
  for (size_t i = FirstNotBefore(end); i < size(); ++i) {
    term += base_blocks_[i] + at.blocks + (base_rest_[i] > at.rest);
  }
  const size_t place = FirstNotBefore(end + 1);
  AddToTerms(base, place, 1);
  Insert(place, id, end, base, term);
}

bool FuturePeak::Remove(SequenceId id) {
  const size_t at = static_cast<size_t>(std::find(id_.begin(), id_.end(), id) - id_.begin());
  if (at == size()) return false;
  AddToTerms(base_[at], FirstNotBefore(end_[at] + 1), -1);
  Erase(at, at + 1);
  return true;
}

void FuturePeak::Assign(absl::Span<const Entry> entries) {
  ORRERY_CHECK(entries.size() <= UINT16_MAX);
  Erase(0, size());
  order_.clear();
  for (uint32_t i = 0; i < entries.size(); ++i) order_.emplace_back(entries[i].remaining, i);
  std::sort(order_.begin(), order_.end());
  for (const auto& [remaining, index] : order_) {
    const Entry& entry = entries[index];
    ORRERY_CHECK(entry.held >= 0 && remaining >= 0);
    Insert(size(), entry.id, now_ + remaining, entry.held - now_, 0);
  }
  SumTerms();
}

// From the last end to the first; a Fenwick tree over the rests counts those above a slack.
void FuturePeak::SumTerms() {
  rest_counts_.assign(static_cast<size_t>(block_) + 1, 0);
  int64_t blocks = 0, count = 0;
  size_t tied = size();  // entries [i, tied) end together
  for (size_t i = size(); i-- > 0;) {
    for (int64_t at = base_rest_[i] + 1; at <= block_; at += at & -at)
      ++rest_counts_[static_cast<size_t>(at)];
    blocks += base_blocks_[i];
    ++count;
    if (i > 0 && end_[i - 1] == end_[i]) continue;
    int64_t over = count;
    for (int64_t at = end_slack_[i] + 1; at > 0; at -= at & -at)
      over -= rest_counts_[static_cast<size_t>(at)];
    std::fill(term_.begin() + static_cast<ptrdiff_t>(i), term_.begin() + static_cast<ptrdiff_t>(tied),
              blocks + count * end_blocks_[i] + over);
    tied = i;
  }
}

void FuturePeak::Advance(int64_t steps) {
  now_ += steps;
  // An end in the past is no part of any later term.
  if (!end_.empty() && end_.front() < now_) Erase(0, FirstNotBefore(now_));
}

int64_t FuturePeak::HeldAt(size_t first, int64_t end) const {
  const Split at = Up(end);
  const size_t group = (first + kGroup - 1) / kGroup;
  int64_t over = over_[group * static_cast<size_t>(block_) + static_cast<size_t>(at.rest)];
  const size_t stop = std::min(group * kGroup, size());
  for (size_t i = first; i < stop; ++i) over += base_rest_[i] > at.rest;
  return later_base_[first] + static_cast<int64_t>(size() - first) * at.blocks + over;
}

int64_t FuturePeak::Peak() const {
  Refresh();
  return shared_ + later_peak_[0];
}

int64_t FuturePeak::PeakWith(int64_t held, int64_t remaining) const {
  Refresh();
  const int64_t end = now_ + remaining;
  const int64_t base = held - now_;
  const size_t later = FirstNotBefore(end);
  // At its own end, at the ends after it, at the ends before it.
  int64_t peak = HeldAt(later, end) + (held + remaining + block_ - 1) / block_;
  peak = std::max(peak, later_peak_[later]);
  if (later > 0) {
    const Split worst = Down(reach_[later - 1] + base + block_ - 1);
    peak = std::max(peak, worst.blocks);
  }
  return shared_ + peak;
}

void FuturePeak::Refresh() const {
  if (fresh_) return;
  fresh_ = true;
  const size_t n = size();
  const auto block = static_cast<size_t>(block_);
  reach_.resize(n);
  later_peak_.resize(n + 1);
  later_base_.resize(n + 1);
  int64_t reach = INT64_MIN;
  for (size_t i = 0; i < n; ++i) reach_[i] = reach = std::max(reach, block_ * term_[i] + end_[i]);
  later_peak_[n] = later_base_[n] = 0;
  for (size_t i = n; i-- > 0;) {
    later_peak_[i] = std::max(later_peak_[i + 1], term_[i]);
    later_base_[i] = later_base_[i + 1] + base_blocks_[i];
  }
  const size_t groups = (n + kGroup - 1) / kGroup;
  over_.assign((groups + 1) * block, 0);
  for (size_t group = groups; group-- > 0;) {
    uint16_t* row = &over_[group * block];
    // Entries by rest, then how many lie above each column.
    for (size_t i = group * kGroup; i < std::min(n, (group + 1) * kGroup); ++i) ++row[base_rest_[i]];
    const uint16_t* next = row + block;
    uint16_t above = 0;
    for (size_t rest = block; rest-- > 0;) {
      const uint16_t here = row[rest];
      row[rest] = static_cast<uint16_t>(next[rest] + above);
      above = static_cast<uint16_t>(above + here);
    }
  }
}

}  // namespace orrery
