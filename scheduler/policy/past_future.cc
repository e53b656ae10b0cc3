#include "scheduler/policy/past_future.h"

#include <algorithm>

#include "scheduler/base/random.h"

namespace orrery {
namespace {

constexpr size_t kDrawsPerList = 200;

}  // namespace

absl::Span<const OptionField<PastFutureOptions>> PastFuturePolicy::Fields() {
  static constexpr OptionField<PastFutureOptions> kFields[] = {
      {"token_budget", &PastFutureOptions::token_budget, 0, 1 << 20,
       "tokens of a step; 0: --max-step-tokens"},
      {"reserve", &PastFutureOptions::reserve, 0, 0.9, "share of the pool that predictions may not fill"},
      {"max_lists", &PastFutureOptions::max_lists, 1, 64, "draws of all lengths, of which the worst counts"},
      {"seed", &PastFutureOptions::seed, 0, 1 << 30, "of the draws"},
  };
  return kFields;
}

void PastFuturePolicy::Plan(const WorkerView& worker, Time, BatchDecision* decision) {
  ++plans_;
  num_lists_ = 0;
  step_.Begin(worker, options_.token_budget);
  step_.GrantRunning(worker, decision);
  const int64_t room = step_.room(worker);
  if (decision->preempt.empty() && !worker.waiting.empty() && !step_.full(worker)) Admit(worker, decision);
  decision->why = AdmissionRecord("past-future", worker.waiting.size(), decision->admit.size(), room,
                                  static_cast<int64_t>(worker.running.size() * (num_lists_ + 1)));
}

int64_t PastFuturePolicy::Draw(const WorkerView& worker, const SequenceView& sequence, size_t list) const {
  const uint64_t seed = static_cast<uint64_t>(options_.seed) << 48 ^ Value(sequence.id);
  const double u = UniformAt(seed, plans_, static_cast<uint32_t>(list));
  return PredictedOutput(worker, sequence, u, 1) - sequence.num_generated;
}

void PastFuturePolicy::DrawLists(const WorkerView& worker) {
  const size_t running = worker.running.size();
  num_lists_ =
      std::min(static_cast<size_t>(options_.max_lists), kDrawsPerList / std::max<size_t>(1, running) + 1);
  while (lists_.size() < num_lists_) lists_.emplace_back(worker.limits.block_tokens);
  entries_.resize(running);
  const int64_t shared = SharedBlocks(worker);
  for (size_t list = 0; list < num_lists_; ++list) {
    if (lists_[list].block_tokens() != worker.limits.block_tokens) {
      lists_[list] = FuturePeak(worker.limits.block_tokens);
    }
    prefills_ = PrefillQueue(worker, options_.token_budget);
    for (size_t i = 0; i < running; ++i) {
      const SequenceView& sequence = worker.running[i];
      entries_[i] = {sequence.id, PrivateTokens(sequence, worker.limits.block_tokens),
                     Draw(worker, sequence, list) + prefills_.Delay(sequence)};
      prefills_.Join(sequence);
    }
    lists_[list].Assign(entries_);
    lists_[list].set_shared_blocks(shared);
  }
}

int64_t PastFuturePolicy::WorstPeakWith(const WorkerView& worker, const SequenceView& candidate) {
  const int64_t held = PrivateTokens(candidate, worker.limits.block_tokens);
  int64_t worst = 0;
  drawn_.resize(num_lists_);
  for (size_t list = 0; list < num_lists_; ++list) {
    drawn_[list] = Draw(worker, candidate, list) + prefills_.Delay(candidate);
    worst = std::max(worst, lists_[list].PeakWith(held, drawn_[list]));
  }
  return worst;
}

void PastFuturePolicy::Admit(const WorkerView& worker, BatchDecision* decision) {
  const auto limit = static_cast<int64_t>((1 - options_.reserve) * worker.blocks_total);
  DrawLists(worker);
  for (const SequenceView& sequence : worker.waiting) {
    const int64_t peak = WorstPeakWith(worker, sequence);
    if (step_.num_running() > 0 && peak > limit) return;
    if (step_.TryAdmit(worker, sequence, 0, decision) != AdmitResult::kAdmitted) return;
    for (size_t list = 0; list < num_lists_; ++list) {
      lists_[list].Add(sequence.id, PrivateTokens(sequence, worker.limits.block_tokens), drawn_[list]);
    }
    prefills_.Join(sequence);
  }
}

}  // namespace orrery
