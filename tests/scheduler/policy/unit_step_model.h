// The unit-step model of the papers, driving a batch policy: a round takes one time unit, every running job
// makes a token per round, prefill costs no round, a job with prompt s holds s + j tokens while it makes its
// j-th output token and nothing after its last. Memory is counted in tokens (blocks of one). Start rounds,
// completion rounds and total end-to-end latency come out exactly.
//
// A job of prompt s is a sequence of s + 1 tokens: the step that computes a prompt also makes a token, and
// the KV of a sequence's newest token is not in memory yet.
#ifndef ORRERY_TESTS_SCHEDULER_POLICY_UNIT_STEP_MODEL_H_
#define ORRERY_TESTS_SCHEDULER_POLICY_UNIT_STEP_MODEL_H_

#include <cstdint>
#include <vector>

#include "scheduler/policy/batch_policy.h"
#include "scheduler/predict/length_predictor.h"

namespace orrery {

struct UnitJob {
  int32_t arrival = 0, prompt = 0, output = 0;
};

struct UnitRun {
  std::vector<std::vector<int32_t>> starts;  // by job, ascending; more than one where it was preempted
  std::vector<int32_t> completions;          // by job; 0: never
  std::vector<int32_t> occupancy;            // tokens held in round t..t+1, by t
  int32_t preemptions = 0;
  int64_t total_latency = 0;  // sum of completion - arrival
  bool overflow = false;      // the policy broke its promise about memory
};

struct UnitModel {
  int32_t memory = 0;  // tokens
  // Output tokens that a job may make, as the policy sees it; empty: its true output.
  int32_t bound = 0;
  const LengthPredictor* predictor = nullptr;
  // Preempted jobs start over from nothing (the papers' model) and may come back in the same round.
  bool restart = true;
  int32_t max_rounds = 1000;
};

UnitRun RunUnitSteps(const UnitModel& model, const std::vector<UnitJob>& jobs, BatchPolicy* policy);

// Least total latency over all non-preemptive schedules of jobs that all arrive at 0, by exhaustive search:
// for a handful of jobs.
int64_t OptimalLatency(int32_t memory, const std::vector<UnitJob>& jobs);

}  // namespace orrery

#endif  // ORRERY_TESTS_SCHEDULER_POLICY_UNIT_STEP_MODEL_H_
