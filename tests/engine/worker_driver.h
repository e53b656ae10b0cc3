// A worker as a server's loop drives it: WorkerCore plans, an executor over the CUDA backend computes, and
// what every request got is kept.
#ifndef ORRERY_TESTS_ENGINE_WORKER_DRIVER_H_
#define ORRERY_TESTS_ENGINE_WORKER_DRIVER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "engine/cuda_engine.h"
#include "scheduler/worker_core.h"

namespace orrery::testing {

// The least model that the CUDA kernels take.
nlohmann::json OneLayer();

struct Answer {
  std::vector<TokenId> tokens;
  std::vector<float> logprobs;         // of the tokens, where asked for
  std::vector<float> prompt_logprobs;  // likewise
  FinishReason finish = FinishReason::kNone;
};

using Answers = std::map<SampleKey, Answer>;

class WorkerDriver {
 public:
  // At most `depth` steps are in flight.
  WorkerDriver(const EngineOptions& options, const OpenCuda& open, int depth);

  void Arrive(Submit submit);
  void Cancel(const SampleKey& key);
  // Launches what can be and waits for the oldest step.
  void Turn();
  // Until nothing is left.
  void Finish();
  // Called before every Launch.
  void set_before_launch(std::function<void()> call) { before_launch_ = std::move(call); }

  const Answers& answers() const { return answers_; }
  const WorkerCounters& counters() const { return core_->counters(); }
  // Rows whose token the host had not seen.
  int64_t rows_ahead() const { return rows_ahead_; }
  ModelExecutor& executor() { return *executor_; }

 private:
  void Receive();

  std::unique_ptr<ModelExecutor> executor_;
  std::unique_ptr<WorkerCore> core_;
  std::deque<StepId> flying_;
  std::vector<TokenEvent> events_;
  Answers answers_;
  std::function<void()> before_launch_;
  int64_t rows_ahead_ = 0;
  Time now_;
};

// Of a request that was cancelled as much as both have: it is cancelled by the clock. Of a prompt that is
// broken likewise: a chunk with logits that are not finite tells nothing, and the clock says what is a chunk.
void ExpectTheSame(const Answers& ours, const Answers& expected);

}  // namespace orrery::testing

#endif  // ORRERY_TESTS_ENGINE_WORKER_DRIVER_H_
