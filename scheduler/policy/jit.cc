#include "scheduler/policy/jit.h"

#include <algorithm>
#include <functional>

#include "scheduler/cost/step_cost.h"
#include "scheduler/kv/block_ledger.h"
#include "scheduler/policy/peak_admission.h"

namespace orrery {
namespace {

constexpr double kLeastSeconds = 1e-6;

// Blocks for the rest of its tokens and for the one that it makes of them: this step and the next.
int32_t TakesUntilNext(const WorkerView& worker, const SequenceView& sequence) {
  return std::max(0, BlocksFor(sequence.num_tokens + 1, worker.limits.block_tokens) - sequence.num_blocks);
}

}  // namespace

double JitFloor(absl::Span<double> prios, size_t rows) {
  if (prios.empty() || rows == 0) return 0;
  const size_t at = std::min(rows, prios.size()) - 1;
  std::nth_element(prios.begin(), prios.begin() + static_cast<ptrdiff_t>(at), prios.end(), std::greater<>());
  return prios[at];
}

absl::Span<const int32_t> JitGroup::Pick(absl::Span<const JitCandidate> candidates, double least,
                                         size_t count) {
  // Prompt length above index: one number to sort by.
  keys_.clear();
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (candidates[i].prio >= least) keys_.push_back(static_cast<uint64_t>(candidates[i].prompt) << 32 | i);
  }
  std::sort(keys_.begin(), keys_.end());
  kept_.clear();
  for (const uint64_t key : keys_) kept_.push_back(static_cast<int32_t>(key & UINT32_MAX));
  const auto prio = [&](size_t i) { return candidates[static_cast<size_t>(kept_[i])].prio; };
  if (kept_.size() <= count) return kept_;
  double sum = 0;
  for (size_t i = 0; i < count; ++i) sum += prio(i);
  double best = sum;
  size_t first = 0;
  for (size_t i = count; i < kept_.size(); ++i) {
    sum += prio(i) - prio(i - count);
    if (sum > best) {
      best = sum;
      first = i + 1 - count;
    }
  }
  return absl::MakeConstSpan(kept_).subspan(first, count);
}

absl::Span<const OptionField<JitOptions>> JitPolicy::Fields() {
  static constexpr OptionField<JitOptions> kFields[] = {
      {"token_budget", &JitOptions::token_budget, 0, 1 << 20, "tokens of a step; 0: --max-step-tokens"},
      {"ttft_ms", &JitOptions::ttft_ms, 0, 1e9, "time to first token of a request that states none"},
      {"tpot_ms", &JitOptions::tpot_ms, 0, 1e9, "time per output token of a request that states none"},
      {"quantile", &JitOptions::quantile, 0, 1, "of the predicted length"},
      {"cutoff", &JitOptions::cutoff, 0, 1, "share of the last row's priority that makes a candidate"},
      {"preempt", &JitOptions::preempt, "a newcomer may take the place of who gains less"},
      {"patience_s", &JitOptions::patience_s, 0, 1e6, "who waited longer goes before all others"},
      {"watermark", &JitOptions::watermark, 0, 0.5, "share of the pool that admission leaves free"},
  };
  return kFields;
}

void JitPolicy::Plan(const WorkerView& worker, Time now, BatchDecision* decision) {
  pace_.Follow(worker.totals);
  step_.Begin(worker, options_.token_budget);
  ArrangeRunning(worker, now);
  queue_.clear();
  if (!step_.full(worker)) Enqueue(worker, now);
  if (!queue_.empty()) MakePlace(worker, queue_.front(), now, decision);
  step_.GrantRunning(worker, decision);
  // What prefixes are shared changes with a preemption: admission waits for the next step.
  if (decision->preempt.empty()) Admit(worker, decision);
  double least = 0;
  for (const Rank& rank : running_) least += rank.bandwidth > 1;
  decision->why = {.policy = "jit",
                   .objective = "running sequences that cannot meet their deadline",
                   .value = least,
                   .work = static_cast<int64_t>(worker.running.size() + queue_.size())};
}

double JitPolicy::Compute(const WorkerView& worker, int32_t begin, int32_t count) const {
  if (count <= 0) return 0;
  if (worker.cost != nullptr) {
    StepShape shape;
    shape.AddChunk(begin, count);
    return worker.cost->Predict(shape).seconds();
  }
  const double rate = pace_.prefill_rate();
  return rate > 0 ? count / rate : 0;
}

JitPolicy::Rank JitPolicy::RankOf(const WorkerView& worker, const SequenceView& sequence, Time now) const {
  const int32_t output = PredictedOutput(worker, sequence, options_.quantile, 1);
  const double first = slo_.FirstToken(sequence, 0);
  double due = sequence.last_token.is_never() ? first : sequence.last_token.seconds() + slo_.Tpot(sequence);
  double need = 1;
  if (DefaultSlo::batch(sequence)) {
    due = sequence.deadline.seconds();
    need = output - sequence.num_generated;
  }
  const int32_t begin = sequence.num_computed + sequence.cached_tokens;
  const int32_t left = sequence.tokens_to_compute() - sequence.cached_tokens;
  const double takes =
      (sequence.is_decode() ? 0 : Compute(worker, begin, left)) + need * pace_.mean_step().seconds();
  Rank rank;
  rank.left_s = due - now.seconds();
  rank.bandwidth = rank.left_s > 0 ? std::max(takes, kLeastSeconds) / rank.left_s : 2;
  rank.prio = (sequence.num_prompt + output) / rank.bandwidth;
  if (rank.bandwidth > 1) rank.prio = 0;
  return rank;
}

bool JitPolicy::WaitsTooLong(const SequenceView& sequence, Time now) const {
  Time since = sequence.last_token.is_never() ? sequence.first_scheduled : sequence.last_token;
  if (since.is_never()) since = sequence.arrival;
  return (now - since).seconds() >= options_.patience_s;
}

bool JitPolicy::WaitedTooLong(const SequenceView& sequence, Time now) const {
  const Time until = sequence.num_preemptions == 0 ? sequence.first_scheduled : now;
  return (until - sequence.arrival).seconds() >= options_.patience_s;
}

// Decodes by prio, then prefills; the least urgent at the back of each.
void JitPolicy::ArrangeRunning(const WorkerView& worker, Time now) {
  running_.clear();
  for (const SequenceView& sequence : worker.running) running_.push_back(RankOf(worker, sequence, now));
  std::vector<int32_t>& order = step_.order();
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    const auto i = static_cast<size_t>(a), j = static_cast<size_t>(b);
    const bool prefill_i = worker.running[i].tokens_to_compute() > 1;
    const bool prefill_j = worker.running[j].tokens_to_compute() > 1;
    if (prefill_i != prefill_j) return prefill_j;
    const bool overdue_i = WaitedTooLong(worker.running[i], now);
    const bool overdue_j = WaitedTooLong(worker.running[j], now);
    if (overdue_i != overdue_j) return overdue_i;
    if (!overdue_i && running_[i].prio != running_[j].prio) return running_[i].prio > running_[j].prio;
    return worker.running[i].id < worker.running[j].id;
  });
}

void JitPolicy::Enqueue(const WorkerView& worker, Time now) {
  waiting_.clear();
  candidates_.clear();
  prios_.clear();
  for (const SequenceView& sequence : worker.waiting) {
    waiting_.push_back(RankOf(worker, sequence, now));
    prios_.push_back(waiting_.back().prio);
    candidates_.push_back({waiting_.back().prio, sequence.num_prompt});
  }
  for (const Rank& rank : running_) prios_.push_back(rank.prio);
  const auto rows = static_cast<size_t>(worker.limits.max_num_seqs);
  const double least = options_.cutoff * JitFloor(absl::MakeSpan(prios_), rows);
  for (size_t i = 0; i < waiting_.size(); ++i) {
    const auto index = static_cast<int32_t>(i);
    const bool feasible = waiting_[i].bandwidth <= 1;
    queue_.push_back({feasible ? 2 : 3, feasible ? -waiting_[i].prio : 0, index});
    if (WaitsTooLong(worker.waiting[i], now)) queue_.back() = {0, 0, index};
  }
  const size_t free = rows - worker.running.size();
  for (const int32_t index : group_.Pick(candidates_, least, free)) {
    Queued& queued = queue_[static_cast<size_t>(index)];
    if (queued.rank == 2) queued.rank = 1;
  }
  std::make_heap(queue_.begin(), queue_.end(), std::greater<>());
}

void JitPolicy::MakePlace(const WorkerView& worker, const Queued& newcomer, Time now,
                          BatchDecision* decision) {
  const SequenceView& sequence = worker.waiting[static_cast<size_t>(newcomer.index)];
  const bool slot = worker.free_slots > 0 || !sequence.first_scheduled.is_never();
  if (!options_.preempt || newcomer.rank > 2 || !slot || step_.order().size() < 2) return;
  const int32_t need =
      BlocksFor(sequence.num_tokens, worker.limits.block_tokens) - sequence.shared_blocks + Watermark(worker);
  int32_t now_taken = 0, next_taken = 0;  // by those that run: in this step, until they have run in the next
  for (size_t i = 0; i < step_.order().size(); ++i) {
    now_taken += step_.Claim(worker, i);
    next_taken += TakesUntilNext(worker, step_.view(worker, i));
  }
  if (need + now_taken <= step_.blocks_available()) return;
  std::vector<int32_t>& order = step_.order();
  auto victim = order.end();
  for (auto at = order.begin(); at != order.end(); ++at) {
    if (WaitedTooLong(worker.running[static_cast<size_t>(*at)], now)) continue;
    const double prio = running_[static_cast<size_t>(*at)].prio;
    if (victim == order.end() || prio < running_[static_cast<size_t>(*victim)].prio) victim = at;
  }
  if (victim == order.end()) return;
  const SequenceView& old = worker.running[static_cast<size_t>(*victim)];
  const Rank& gains = waiting_[static_cast<size_t>(newcomer.index)];
  const double gain = gains.prio - running_[static_cast<size_t>(*victim)].prio;
  const double lost = gains.prio * Compute(worker, 0, old.num_tokens) / std::max(gains.left_s, kLeastSeconds);
  // Of the prefix that running sequences hold for the newcomer, what the victim may hold alone goes with it.
  const int32_t unshared = std::max(0, sequence.shared_blocks - old.shared_blocks);
  const int32_t then = step_.blocks_available() + old.num_blocks - old.shared_blocks - next_taken +
                       TakesUntilNext(worker, old);
  if (gain <= lost || need + unshared > then) return;
  std::rotate(victim, victim + 1, order.end());
  step_.PreemptLast(worker, decision);
}

void JitPolicy::Admit(const WorkerView& worker, BatchDecision* decision) {
  while (!queue_.empty()) {
    const SequenceView& sequence = worker.waiting[static_cast<size_t>(queue_.front().index)];
    if (step_.TryAdmit(worker, sequence, Watermark(worker), decision) != AdmitResult::kAdmitted) return;
    std::pop_heap(queue_.begin(), queue_.end(), std::greater<>());
    queue_.pop_back();
  }
}

}  // namespace orrery
