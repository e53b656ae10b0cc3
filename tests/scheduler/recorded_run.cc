#include "tests/scheduler/recorded_run.h"

#include <memory>
#include <vector>

#include "scheduler/base/check.h"
#include "scheduler/base/random.h"
#include "scheduler/journal.h"
#include "tests/scheduler/shadow_engine.h"

namespace orrery {

WorkerSpec SmallWorker(int depth) {
  WorkerSpec spec;
  spec.options.num_blocks = 14;
  spec.options.block_tokens = 4;
  spec.options.max_num_seqs = 6;
  spec.options.max_step_tokens = 16;
  spec.options.max_context = 64;
  spec.options.vocab_size = 11;
  spec.options.max_in_flight = depth;
  spec.options.hash_key = 42;
  spec.cost = "constant:5";
  return spec;
}

std::string RecordRun(const WorkerSpec& spec, const WorkerSpec& header) {
  auto core = NewWorkerCore(spec);
  ORRERY_CHECK(core.ok());
  JournalWriter journal(header);
  (*core)->set_journal(&journal);
  ShadowEngine engine(spec.options.num_blocks, spec.options.block_tokens, spec.options.max_num_seqs,
                      spec.options.vocab_size);
  RandomStream random(17);
  std::vector<TokenEvent> events;
  Time now;
  for (int turn = 0; turn < 120 || !(*core)->idle(); ++turn) {
    now = now + Duration::Microseconds(250);
    if (turn < 80 && turn % 2 == 0) {
      Submit submit;
      submit.key.request = RequestId{static_cast<uint64_t>(turn)};
      submit.num_prompt = static_cast<int32_t>(3 + random.Below(14));
      submit.stop.max_tokens = static_cast<int32_t>(2 + random.Below(20));
      if (turn % 6 == 0) submit.stop.stop_ids = {3};
      submit.sampling.logit_bias = {{2, 0.5f}};
      if (turn == 12) submit.deadline = now + Duration::Milliseconds(2);
      if (turn % 10 == 4) submit.sampling.num_prompt_logprobs = 2;
      if (turn == 20) submit.kv_source = KvSource{WorkerId{3}, TransferId{9}, 4};
      std::vector<TokenId> tokens(static_cast<size_t>(submit.num_prompt));
      for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<TokenId>(i % 5);
      submit.tokens = std::make_shared<const std::vector<TokenId>>(std::move(tokens));
      (void)(*core)->OnArrival(submit, now);
      if (turn == 40) (void)(*core)->OnArrival(submit, now);  // refused: it is here already
    }
    if (turn == 30) (*core)->OnCancel({RequestId{28}, 0, 0}, now, &events);
    if (turn == 50) (*core)->OnCancelRequest(RequestId{48}, now, &events);
    if (turn == 100) (*core)->Drain(now);
    if ((*core)->NextWake() <= now) (*core)->OnTimer(now, &events);
    if ((*core)->can_plan()) {
      const StepPlan& plan = (*core)->Plan(now);
      if (!plan.empty()) engine.Launch(plan);
    }
    if (!engine.busy() || ((*core)->can_plan() && turn % 3 != 0)) continue;
    if (turn == 60) {
      ORRERY_CHECK((*core)->OnStepFailed(engine.FinishFailed(), "lost", now, &events).ok());
      continue;
    }
    StepResult result = engine.Finish();
    result.start = now;
    result.end = now + Duration::Microseconds(100);
    result.expert_tokens = {1, 2, 3};
    ORRERY_CHECK((*core)->OnStepDone(result, now, &events).ok());
  }
  ORRERY_CHECK(engine.errors().empty());
  return journal.TakeBytes();
}

}  // namespace orrery
