#include "scheduler/policy/nested_wait.h"

#include <algorithm>

namespace orrery {
namespace {

Time IdleSince(const SequenceView& sequence) {
  return sequence.last_token.is_never() ? sequence.arrival : sequence.last_token;
}

}  // namespace

absl::Span<const OptionField<NestedWaitOptions>> NestedWaitPolicy::Fields() {
  static constexpr OptionField<NestedWaitOptions> kFields[] = {
      {"token_budget", &NestedWaitOptions::token_budget, 0, 1 << 20,
       "tokens of a step; 0: --max-step-tokens"},
      {"total", &NestedWaitOptions::total, 0, 1 << 20, "bookings over all segments; 0: what the pool holds"},
      {"segments", &NestedWaitOptions::segments, 1, 64, "into which outputs are cut, at their quantiles"},
      {"window", &NestedWaitOptions::window, 1, 1 << 14, "finished outputs that count"},
      {"min_history", &NestedWaitOptions::min_history, 1, 1 << 14, "finished outputs before it waits at all"},
      {"timeout_ms", &NestedWaitOptions::timeout_ms, 0, 1e6, "longest idle time of a sequence"},
      {"watermark", &NestedWaitOptions::watermark, 0, 0.5, "share of the pool that admission leaves free"},
  };
  return kFields;
}

void NestedWaitPolicy::OnFinished(const SequenceView& sequence, Time) {
  const std::pair<int32_t, int32_t> lengths = {std::max(1, sequence.num_generated), sequence.num_prompt};
  if (finished_.size() < static_cast<size_t>(options_.window)) {
    finished_.push_back(lengths);
  } else {
    finished_[next_] = lengths;
    next_ = (next_ + 1) % finished_.size();
  }
  stale_ = true;
}

void NestedWaitPolicy::Plan(const WorkerView& worker, Time now, BatchDecision* decision) {
  CutSegments(worker);
  SortStages(worker);
  int32_t admissions = 0;
  SelectResidents(worker, now, &admissions);
  // Bookings bound those who ran out of patience as well.
  const bool room = worker.running.empty() || static_cast<double>(worker.running.size()) < total_;
  if (room && !worker.waiting.empty() && Overdue(worker.waiting.front(), now)) {
    admissions = std::max(admissions, 1);
  }
  step_.Begin(worker, options_.token_budget);
  const size_t active = OrderSelectedFirst();
  step_.GrantRunning(worker, decision, active);
  if (decision->preempt.empty()) {
    const auto watermark = static_cast<int32_t>(options_.watermark * worker.blocks_total);
    for (const SequenceView& sequence : worker.waiting) {
      if (admissions-- <= 0) break;
      if (step_.TryAdmit(worker, sequence, watermark, decision) != AdmitResult::kAdmitted) break;
    }
  }
  decision->wake = NextTimeout(worker, now);
  decision->why = {.policy = "nested-wait",
                   .objective = "sequences that wait for company",
                   .value = static_cast<double>(worker.waiting.size() + worker.running.size() -
                                                decision->admit.size() - decision->run.size()),
                   .work = static_cast<int64_t>(worker.running.size() + worker.waiting.size())};
}

bool NestedWaitPolicy::Overdue(const SequenceView& sequence, Time now) const {
  return IdleSince(sequence) + Duration::Seconds(options_.timeout_ms * 1e-3) <= now;
}

void NestedWaitPolicy::CutSegments(const WorkerView& worker) {
  if (!stale_ || finished_.size() < static_cast<size_t>(options_.min_history)) return;
  stale_ = false;
  sorted_.clear();
  for (const auto& [output, prompt] : finished_) sorted_.push_back(output);
  std::sort(sorted_.begin(), sorted_.end());
  classes_.clear();
  const auto count = static_cast<size_t>(options_.segments);
  size_t below = 0;
  for (size_t k = 1; k <= count; ++k) {
    const int32_t cut = sorted_[k * sorted_.size() / count - (k * sorted_.size() / count > 0)];
    const auto upto =
        static_cast<size_t>(std::upper_bound(sorted_.begin(), sorted_.end(), cut) - sorted_.begin());
    if (upto == below) continue;
    classes_.push_back({0, static_cast<double>(cut), static_cast<double>(upto - below)});
    below = upto;
  }
  total_ = Total(worker);
  NestedSegments(classes_, total_, &segments_);
}

// What the pool holds when residents are on average halfway through their output.
double NestedWaitPolicy::Total(const WorkerView& worker) const {
  if (options_.total > 0) return options_.total;
  double tokens = 0, stages = 0;
  for (const auto& [output, prompt] : finished_) {
    tokens += output * (prompt + output / 2.0);
    stages += output;
  }
  const double pool =
      (1 - options_.watermark) * worker.blocks_total * static_cast<double>(worker.limits.block_tokens);
  return std::clamp(pool * stages / tokens, 1.0, static_cast<double>(worker.limits.max_num_seqs));
}

void NestedWaitPolicy::SortStages(const WorkerView& worker) {
  stages_.clear();
  for (size_t i = 0; i < worker.running.size(); ++i) {
    const SequenceView& sequence = worker.running[i];
    if (sequence.tokens_to_compute() == 1) stages_.emplace_back(sequence.num_generated, i);
  }
  std::sort(stages_.begin(), stages_.end());
}

void NestedWaitPolicy::SelectResidents(const WorkerView& worker, Time now, int32_t* admissions) {
  const bool learnt = !segments_.empty();
  selected_.assign(worker.running.size(), 0);
  for (size_t i = 0; i < worker.running.size(); ++i) {
    const SequenceView& sequence = worker.running[i];
    // Prompts once begun go on.
    selected_[i] = !learnt || sequence.tokens_to_compute() > 1 || Overdue(sequence, now);
  }
  *admissions = learnt ? 0 : worker.limits.max_num_seqs;
  const auto prefilling = static_cast<int32_t>(worker.running.size() - stages_.size());
  size_t next = 0;
  for (size_t k = 0; k < segments_.size(); ++k) {
    const Segment& segment = segments_[k];
    const size_t first = next;
    // Longer than all that is known: the last segment.
    const bool last = k + 1 == segments_.size();
    while (next < stages_.size() && (last || stages_[next].first < segment.end)) ++next;
    // At the entrance of the first one is the queue, of a later one whoever has generated `begin`.
    size_t inside = first;
    while (k > 0 && inside < next && stages_[inside].first == segment.begin) ++inside;
    const auto waits = static_cast<int32_t>(k == 0 ? worker.waiting.size() : inside - first);
    const auto residents = static_cast<int32_t>(next - inside) + (k == 0 ? prefilling : 0);
    const int32_t take = std::min(segment.per_stage, static_cast<int32_t>(segment.total) - residents);
    if (waits < take) return;
    if (k == 0) *admissions = std::max(0, take);
    int32_t at_stage = 0;
    for (size_t i = first; i < next; ++i) {
      at_stage = i > first && stages_[i].first == stages_[i - 1].first ? at_stage + 1 : 1;
      const int32_t most = i < inside ? take : segment.per_stage;
      if (at_stage <= most) selected_[static_cast<size_t>(stages_[i].second)] = 1;
    }
  }
}

size_t NestedWaitPolicy::OrderSelectedFirst() {
  std::vector<int32_t>& order = step_.order();
  paused_.clear();
  size_t active = 0;
  for (size_t i = 0; i < selected_.size(); ++i) {
    if (selected_[i]) {
      order[active++] = static_cast<int32_t>(i);
    } else {
      paused_.push_back(static_cast<int32_t>(i));
    }
  }
  std::copy(paused_.begin(), paused_.end(), order.begin() + static_cast<ptrdiff_t>(active));
  return active;
}

Time NestedWaitPolicy::NextTimeout(const WorkerView& worker, Time now) const {
  const Duration timeout = Duration::Seconds(options_.timeout_ms * 1e-3);
  Time next = Time::Never();
  const auto look = [&](const SequenceView& sequence) {
    const Time at = IdleSince(sequence) + timeout;
    if (at > now) next = std::min(next, at);
  };
  for (size_t i = 0; i < worker.running.size(); ++i) {
    if (!selected_[i]) look(worker.running[i]);
  }
  if (!worker.waiting.empty()) look(worker.waiting.front());
  return next;
}

}  // namespace orrery
