#include "scheduler/policy/wait.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "scheduler/policy/peak_admission.h"

namespace orrery {
namespace {

// Since when a sequence has made no progress.
Time IdleSince(const SequenceView& sequence) {
  return sequence.last_token.is_never() ? sequence.arrival : sequence.last_token;
}

}  // namespace

absl::Span<const OptionField<WaitOptions>> WaitPolicy::Fields() {
  static constexpr OptionField<WaitOptions> kFields[] = {
      {"token_budget", &WaitOptions::token_budget, 0, 1 << 20, "tokens of a step; 0: --max-step-tokens"},
      {"total", &WaitOptions::total, 0, 1 << 20, "bookings over all classes; 0: what the pool holds"},
      {"quantile", &WaitOptions::quantile, 0, 1, "of the predicted length, which makes the class"},
      {"all", &WaitOptions::all, "wait until every class has enough, not just one"},
      {"timeout_ms", &WaitOptions::timeout_ms, 0, 1e6, "longest idle time of a sequence"},
      {"horizon_s", &WaitOptions::horizon_s, 0.001, 1e6, "time over which rates are learnt"},
      {"watermark", &WaitOptions::watermark, 0, 0.5, "share of the pool that admission leaves free"},
  };
  return kFields;
}

void WaitPolicy::Plan(const WorkerView& worker, Time now, BatchDecision* decision) {
  Count(worker);
  Learn(worker, now);
  Trigger(worker, now);
  step_.Begin(worker, options_.token_budget);
  const size_t active = OrderActiveFirst(worker);
  step_.GrantRunning(worker, decision, active);
  if (decision->preempt.empty()) {
    const auto watermark = static_cast<int32_t>(options_.watermark * worker.blocks_total);
    for (size_t i = 0; i < worker.waiting.size(); ++i) {
      Class& c = classes_[waiting_class_[i]];
      if (c.quota <= 0) continue;
      if (step_.TryAdmit(worker, worker.waiting[i], watermark, decision) != AdmitResult::kAdmitted) break;
      --c.quota;
    }
  }
  for (const Class& c : classes_) {
    if (c.overdue > now) decision->wake = std::min(decision->wake, c.overdue);
  }
  decision->why = {.policy = "wait",
                   .objective = "sequences that wait for company",
                   .value = static_cast<double>(worker.waiting.size() + worker.running.size() -
                                                decision->admit.size() - decision->run.size()),
                   .work = static_cast<int64_t>(worker.running.size() + worker.waiting.size())};
}

size_t WaitPolicy::ClassOf(const WorkerView& worker, const SequenceView& sequence) {
  if (const uint8_t* known = class_of_.Find(sequence.id)) return *known;
  const int32_t output = PredictedOutput(worker, sequence, options_.quantile, 1);
  const size_t of = static_cast<size_t>(std::bit_width(static_cast<uint32_t>(output))) - 1;
  class_of_.Set(sequence.id, static_cast<uint8_t>(of));
  return of;
}

void WaitPolicy::Count(const WorkerView& worker) {
  for (Class& c : classes_) {
    c.waiting = c.resident = 0;
    c.overdue = Time::Never();
  }
  const Duration timeout = Duration::Seconds(options_.timeout_ms * 1e-3);
  const auto count = [&](absl::Span<const SequenceView> views, int32_t Class::*counter,
                         std::vector<uint8_t>* of) {
    of->clear();
    for (const SequenceView& sequence : views) {
      of->push_back(static_cast<uint8_t>(ClassOf(worker, sequence)));
      Class& c = classes_[of->back()];
      ++(c.*counter);
      c.overdue = std::min(c.overdue, IdleSince(sequence) + timeout);
    }
  };
  count(worker.running, &Class::resident, &running_class_);
  count(worker.waiting, &Class::waiting, &waiting_class_);
  class_of_.ForgetAbsent(worker);
}

void WaitPolicy::Learn(const WorkerView& worker, Time now) {
  const double decay = std::exp(-(now - learnt_at_).seconds() / options_.horizon_s);
  learnt_at_ = now;
  for (Class& c : classes_) {
    c.weight *= decay;
    c.prompts *= decay;
    c.outputs *= decay;
  }
  // Arrivals are at the end.
  const SequenceId known = last_seen_;
  for (size_t i = worker.waiting.size(); i-- > 0 && worker.waiting[i].id > known;) {
    const SequenceView& sequence = worker.waiting[i];
    Class& c = classes_[waiting_class_[i]];
    c.weight += 1;
    c.prompts += sequence.num_prompt;
    c.outputs += 1.5 * std::exp2(waiting_class_[i]);
    last_seen_ = std::max(last_seen_, sequence.id);
  }
}

// What the pool holds when residents are on average halfway through their output.
double WaitPolicy::Total(const WorkerView& worker) const {
  if (options_.total > 0) return options_.total;
  double residents = 0, tokens = 0;
  for (const LengthClass& c : mix_) {
    residents += c.rate * (c.output + 1);
    tokens += c.rate * (c.output + 1) * (c.prompt + c.output / 2);
  }
  const double pool =
      (1 - options_.watermark) * worker.blocks_total * static_cast<double>(worker.limits.block_tokens);
  const double rows = worker.limits.max_num_seqs;
  return tokens > 0 ? std::clamp(pool * residents / tokens, 1.0, rows) : rows;
}

void WaitPolicy::Trigger(const WorkerView& worker, Time now) {
  mix_.clear();
  for (const Class& c : classes_) {
    const double arrivals = std::max(c.weight, 1e-9);
    mix_.push_back({c.prompts / arrivals, c.outputs / arrivals, c.weight});
  }
  BookingLimits(mix_, Total(worker), &limits_);
  bool every = true;
  for (size_t j = 0; j < kClasses; ++j) {
    Class& c = classes_[j];
    if (c.waiting + c.resident == 0) {
      c.advances = false;
      c.quota = 0;
      continue;
    }
    const int32_t share = std::max(1, static_cast<int32_t>(limits_[j].share));
    c.quota = std::min(limits_[j].per_stage, share - c.resident);
    c.advances = c.waiting >= c.quota;
    every &= c.advances;
  }
  for (Class& c : classes_) {
    if (options_.all && !every) c.advances = false;
    if (c.overdue <= now) {
      c.advances = true;
      if (c.resident == 0) c.quota = std::max(c.quota, 1);  // else bookings still bound it
    }
    if (!c.advances) c.quota = 0;
  }
}

// Prompts once begun go on: their class was ready when they were admitted.
size_t WaitPolicy::OrderActiveFirst(const WorkerView& worker) {
  std::vector<int32_t>& order = step_.order();
  paused_.clear();
  size_t active = 0;
  for (size_t i = 0; i < worker.running.size(); ++i) {
    if (classes_[running_class_[i]].advances || worker.running[i].tokens_to_compute() > 1) {
      order[active++] = static_cast<int32_t>(i);
    } else {
      paused_.push_back(static_cast<int32_t>(i));
    }
  }
  std::copy(paused_.begin(), paused_.end(), order.begin() + static_cast<ptrdiff_t>(active));
  return active;
}

}  // namespace orrery
