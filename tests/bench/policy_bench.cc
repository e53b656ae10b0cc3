// Time of one Plan of every registered batch policy: 256 sequences that run and 1,024 that wait, where rows
// are what is short (every fourth step has a free one) and where memory is (rows are free, so that a policy
// has to look at the queue in every step). Aims: under 50 us for the policies that are linear in the number
// of sequences, under 200 us for all. Every tenth step a sequence ends before its time.
//   build/bin/policy_bench [--waiting N] [--running N] [--steps N]
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "scheduler/base/random.h"
#include "scheduler/cost/step_cost.h"
#include "scheduler/kv/block_ledger.h"
#include "scheduler/policy/future_peak.h"
#include "scheduler/policy/registry.h"

namespace orrery {
namespace {

constexpr int32_t kBlock = 16;

// A worker reduced to the views of its sequences, which grow as granted.
class Worker {
 public:
  Worker(int32_t running, int32_t waiting, bool room) : random_(1), rows_(room ? running : 4 * running) {
    predictor_ = *NewLengthPredictor("empirical");
    for (int i = 0; i < 200; ++i) {
      SequenceView finished = NewSequence();
      finished.num_generated = static_cast<int32_t>(1 + random_.Below(800));
      predictor_->OnFinished(finished);
    }
    for (int32_t i = 0; i < running; ++i) {
      SequenceView view = NewSequence();
      view.num_generated =
          static_cast<int32_t>(1 + random_.Below(static_cast<uint64_t>(view.max_new_tokens / 2)));
      view.first_scheduled = view.last_token = now_;
      view.num_tokens = view.num_prompt + view.num_generated;
      view.num_computed = view.num_tokens - 1;
      view.num_blocks = BlocksFor(view.num_computed, kBlock);
      running_.push_back(view);
      used_ += view.num_blocks;
    }
    for (int32_t i = 0; i < waiting; ++i) waiting_.push_back(NewSequence());
    total_ = room ? 4 * used_ : used_ + running;
    cost_ = *ParseStepCost(
        "linear:alpha_decode=5,per_seq=0.02,per_kv_token=0.0001,alpha_prefill=5,per_token=0.03,per_token_sq="
        "0");
  }

  WorkerView View() {
    WorkerView view;
    view.waiting = waiting_;
    view.running = running_;
    view.blocks_total = total_;
    view.blocks_free = total_ - used_;
    view.free_slots = std::max(0, rows_ - static_cast<int32_t>(running_.size()));
    view.limits = {.max_step_tokens = 2048, .max_num_seqs = rows_, .block_tokens = kBlock};
    view.cost = cost_.get();
    view.predictor = predictor_.get();
    return view;
  }

  Time now() const { return now_; }

  void Commit(const BatchDecision& decision) {
    now_ = now_ + Duration::Milliseconds(20);
    for (const SequenceId id : decision.preempt) Preempt(id);
    for (const Grant& grant : decision.run) Grow(grant);
    for (const Grant& grant : decision.admit) {
      const auto at = Find(&waiting_, grant.sequence);
      SequenceView view = *at;
      waiting_.erase(at);
      view.first_scheduled = now_;
      running_.push_back(view);
      Grow(grant);
      waiting_.push_back(NewSequence());
    }
    std::erase_if(running_, [&](const SequenceView& view) {
      if (view.num_generated < view.max_new_tokens) return false;
      used_ -= view.num_blocks;
      return true;
    });
    if (++steps_ % 10 == 0 && !running_.empty()) {
      const size_t at = random_.Below(running_.size());
      used_ -= running_[at].num_blocks;
      running_.erase(running_.begin() + static_cast<ptrdiff_t>(at));
    }
  }

 private:
  SequenceView NewSequence() {
    SequenceView view;
    view.id = SequenceId{++last_id_};
    view.arrival = now_;
    view.first_token_deadline = now_ + Duration::Seconds(1);
    view.next_token_deadline = now_ + Duration::Milliseconds(50);
    view.deadline = Time::Never();
    view.num_prompt = view.num_tokens = static_cast<int32_t>(16 + random_.Below(1000));
    view.max_new_tokens = static_cast<int32_t>(64 + random_.Below(1500));
    view.tenant = static_cast<uint32_t>(random_.Below(8));
    return view;
  }

  static std::vector<SequenceView>::iterator Find(std::vector<SequenceView>* views, SequenceId id) {
    return std::find_if(views->begin(), views->end(),
                        [id](const SequenceView& view) { return view.id == id; });
  }

  void Preempt(SequenceId id) {
    const auto at = Find(&running_, id);
    SequenceView view = *at;
    running_.erase(at);
    used_ -= view.num_blocks;
    view.num_computed = view.num_blocks = 0;
    ++view.num_preemptions;
    waiting_.insert(std::upper_bound(waiting_.begin(), waiting_.end(), view,
                                     [](const auto& a, const auto& b) { return a.id < b.id; }),
                    view);
  }

  void Grow(const Grant& grant) {
    SequenceView& view = *Find(&running_, grant.sequence);
    view.num_computed += grant.count;
    used_ += BlocksFor(view.num_computed, kBlock) - view.num_blocks;
    view.num_blocks = BlocksFor(view.num_computed, kBlock);
    if (view.num_computed < view.num_tokens) return;
    ++view.num_tokens;
    ++view.num_generated;
    view.last_token = now_;
    view.next_token_deadline = now_ + Duration::Milliseconds(50);
  }

  RandomStream random_;
  int32_t rows_, total_ = 0, used_ = 0;
  uint64_t last_id_ = 0;
  int steps_ = 0;
  Time now_;
  std::vector<SequenceView> running_, waiting_;
  std::unique_ptr<LengthPredictor> predictor_;
  std::unique_ptr<StepCostModel> cost_;
};

double Microseconds(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
}

void TimePolicy(std::string_view name, int32_t running, int32_t waiting, int steps, bool room) {
  auto policy = *NewBatchPolicy(name);
  Worker worker(running, waiting, room);
  std::vector<double> times;
  BatchDecision decision;
  size_t admitted = 0;
  for (int step = 0; step < steps; ++step) {
    decision.Clear();
    const WorkerView view = worker.View();
    const auto start = std::chrono::steady_clock::now();
    policy->Plan(view, worker.now(), &decision);
    times.push_back(Microseconds(start));
    worker.Commit(decision);
    admitted += decision.admit.size();
  }
  std::sort(times.begin(), times.end());
  std::printf("%-14s %-7s %9.1f %9.1f %9.1f %9.2f\n", std::string(name).c_str(), room ? "rows" : "memory",
              times.front(), times[times.size() / 2], times[times.size() * 99 / 100],
              static_cast<double>(admitted) / steps);
}

void TimeFuturePeak(size_t n) {
  RandomStream random(2);
  FuturePeak peak(kBlock);
  for (size_t i = 0; i < n; ++i) {
    peak.Add(SequenceId{i + 1}, static_cast<int64_t>(random.Below(4000)),
             static_cast<int64_t>(random.Below(2000)));
  }
  constexpr int kTurns = 2000;
  int64_t sum = peak.Peak();
  auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kTurns; ++i) sum += peak.PeakWith(i, i % 1999);
  const double question = Microseconds(start) / kTurns;
  start = std::chrono::steady_clock::now();
  for (int i = 0; i < kTurns; ++i) {
    const SequenceId id{1 + static_cast<uint64_t>(i) % n};
    peak.Remove(id);
    peak.Add(id, i, i % 1999);
    sum += peak.Peak();
  }
  const double change = Microseconds(start) / kTurns;
  std::printf(
      "future peak, n = %5zu: %.3f us a question, %.2f us a changed prediction and its question (%lld)\n", n,
      question, change, static_cast<long long>(sum));
}

int Run(int argc, char** argv) {
  int32_t running = 256, waiting = 1024;
  int steps = 300;
  for (int i = 1; i + 1 < argc; i += 2) {
    const int value = std::max(1, std::atoi(argv[i + 1]));
    if (std::strcmp(argv[i], "--running") == 0) running = value;
    if (std::strcmp(argv[i], "--waiting") == 0) waiting = value;
    if (std::strcmp(argv[i], "--steps") == 0) steps = value;
  }
  std::printf("%d running, %d waiting, %d steps; microseconds of Plan\n", running, waiting, steps);
  std::printf("%-14s %-7s %9s %9s %9s %9s\n", "policy", "short", "best", "median", "p99", "admitted");
  for (const PolicyInfo& info : SchedulerPolicies()) {
    if (info.kind != "batch") continue;
    for (const bool room : {true, false}) TimePolicy(info.name, running, waiting, steps, room);
  }
  for (const size_t n : {256, 1024, 4096}) TimeFuturePeak(n);
  return 0;
}

}  // namespace
}  // namespace orrery

int main(int argc, char** argv) { return orrery::Run(argc, argv); }
