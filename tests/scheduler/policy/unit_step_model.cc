#include "tests/scheduler/policy/unit_step_model.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

namespace orrery {
namespace {

constexpr Duration kRound = Duration::Milliseconds(1);

Time At(int32_t round) { return Time{} + Duration::Nanoseconds(round * kRound.ns); }

class Model {
 public:
  Model(const UnitModel& model, const std::vector<UnitJob>& jobs, BatchPolicy* policy)
      : model_(model), jobs_(jobs), policy_(policy), made_(jobs.size(), 0) {
    run_.starts.resize(jobs.size());
    run_.completions.resize(jobs.size(), 0);
    for (size_t i = 0; i < jobs.size(); ++i) unborn_.push_back(i);
    std::stable_sort(unborn_.begin(), unborn_.end(),
                     [&](size_t a, size_t b) { return jobs[a].arrival < jobs[b].arrival; });
  }

  UnitRun Run() {
    for (round_ = 0; round_ < model_.max_rounds && done_ < jobs_.size() && !run_.overflow; ++round_) {
      while (!unborn_.empty() && jobs_[unborn_.front()].arrival <= round_) {
        waiting_.insert(unborn_.front());
        unborn_.erase(unborn_.begin());
      }
      // After a preemption the policy is asked again, as the papers evict and admit in one round.
      while (Decide()) {
      }
      Step();
    }
    return std::move(run_);
  }

 private:
  SequenceView ViewOf(size_t job, bool running) const {
    SequenceView view;
    view.id = SequenceId{job + 1};
    view.arrival = At(jobs_[job].arrival);
    if (!run_.starts[job].empty()) view.first_scheduled = At(run_.starts[job].front());
    view.num_prompt = jobs_[job].prompt + 1;
    view.num_generated = made_[job];
    view.num_tokens = view.num_prompt + made_[job];
    if (running) view.num_computed = view.num_blocks = view.num_tokens - 1;
    view.max_new_tokens = model_.bound > 0 ? model_.bound : jobs_[job].output;
    view.num_preemptions = static_cast<int32_t>(run_.starts[job].size()) - running;
    return view;
  }

  // True: it preempted.
  bool Decide() {
    std::vector<SequenceView> waiting, running;
    WorkerView view;
    view.blocks_free = view.blocks_total = model_.memory;
    for (const size_t job : waiting_) waiting.push_back(ViewOf(job, false));
    for (const size_t job : running_) {
      running.push_back(ViewOf(job, true));
      view.blocks_free -= running.back().num_blocks;
    }
    view.waiting = waiting;
    view.running = running;
    view.free_slots = 1 << 20;
    view.limits = {.max_step_tokens = 1 << 20, .max_num_seqs = 1 << 20, .block_tokens = 1};
    view.predictor = model_.predictor;
    BatchDecision decision;
    policy_->Plan(view, At(round_), &decision);
    for (const SequenceId id : decision.preempt) {
      const size_t job = Value(id) - 1;
      running_.erase(std::find(running_.begin(), running_.end(), job));
      if (model_.restart) made_[job] = 0;
      waiting_.insert(job);
      ++run_.preemptions;
    }
    if (!decision.preempt.empty()) return true;
    for (const Grant& grant : decision.admit) {
      const size_t job = Value(grant.sequence) - 1;
      waiting_.erase(job);
      running_.push_back(job);
      run_.starts[job].push_back(round_);
    }
    return false;
  }

  void Step() {
    int32_t occupancy = 0;
    for (const size_t job : running_) occupancy += jobs_[job].prompt + ++made_[job];
    run_.occupancy.push_back(occupancy);
    run_.overflow = occupancy > model_.memory;
    std::erase_if(running_, [&](size_t job) {
      if (made_[job] < jobs_[job].output) return false;
      run_.completions[job] = round_ + 1;
      run_.total_latency += round_ + 1 - jobs_[job].arrival;
      ++done_;
      return true;
    });
  }

  const UnitModel& model_;
  const std::vector<UnitJob>& jobs_;
  BatchPolicy* policy_;
  UnitRun run_;
  std::vector<int32_t> made_;  // output tokens so far
  std::vector<size_t> unborn_, running_;
  std::set<size_t> waiting_;
  int32_t round_ = 0;
  size_t done_ = 0;
};

using Held = std::pair<int32_t, int32_t>;  // tokens now, rounds to go

// Exhaustive search with memory: the state is what waits and what runs, however it came about.
class Optimum {
 public:
  explicit Optimum(int32_t memory) : memory_(memory) {}

  // Least sum over rounds to come of the number of jobs not done.
  int64_t Solve(const std::vector<Held>& waiting, const std::vector<Held>& running) {
    if (waiting.empty() && running.empty()) return 0;
    const auto key = std::make_pair(waiting, running);
    if (const auto found = known_.find(key); found != known_.end()) return found->second;
    std::set<std::pair<std::vector<Held>, std::vector<Held>>> options;
    Start(waiting, 0, {}, running, &options);
    int64_t best = INT64_MAX;
    for (const auto& [left, started] : options) {
      if (started.empty()) continue;
      std::vector<Held> next;
      for (const auto& [held, rounds] : started) {
        if (rounds > 1) next.emplace_back(held + 1, rounds - 1);
      }
      const auto unfinished = static_cast<int64_t>(left.size() + started.size());
      best = std::min(best, unfinished + Solve(left, next));
    }
    return known_[key] = best;
  }

 private:
  bool Fits(const std::vector<Held>& running) const {
    for (const auto& [ignored, at] : running) {
      int32_t total = 0;
      for (const auto& [held, rounds] : running) total += rounds >= at ? held + at : 0;
      if (total > memory_) return false;
    }
    return true;
  }

  void Start(const std::vector<Held>& waiting, size_t i, std::vector<Held> left, std::vector<Held> running,
             std::set<std::pair<std::vector<Held>, std::vector<Held>>>* options) const {
    if (i == waiting.size()) {
      options->emplace(std::move(left), std::move(running));
      return;
    }
    std::vector<Held> with = running;
    with.insert(std::upper_bound(with.begin(), with.end(), waiting[i]), waiting[i]);
    if (Fits(with)) Start(waiting, i + 1, left, std::move(with), options);
    left.push_back(waiting[i]);
    Start(waiting, i + 1, std::move(left), std::move(running), options);
  }

  int32_t memory_;
  std::map<std::pair<std::vector<Held>, std::vector<Held>>, int64_t> known_;
};

}  // namespace

UnitRun RunUnitSteps(const UnitModel& model, const std::vector<UnitJob>& jobs, BatchPolicy* policy) {
  return Model(model, jobs, policy).Run();
}

int64_t OptimalLatency(int32_t memory, const std::vector<UnitJob>& jobs) {
  std::vector<Held> waiting;
  for (const UnitJob& job : jobs) waiting.emplace_back(job.prompt, job.output);
  std::sort(waiting.begin(), waiting.end());
  return Optimum(memory).Solve(waiting, {});
}

}  // namespace orrery
