#include "tests/scheduler/shadow_engine.h"

#include <algorithm>

#include "scheduler/base/text.h"

namespace orrery {
namespace {

// A plain 64-bit mixer, unrelated to the hashes under test.
uint64_t Mix(uint64_t state, uint64_t value) {
  uint64_t x = state ^ (value + 0x9E3779B97F4A7C15u + (state << 6) + (state >> 2));
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

uint64_t KvOf(const std::vector<TokenId>& tokens, size_t position) {
  uint64_t state = 1;
  for (size_t i = 0; i <= position; ++i) state = Mix(state, static_cast<uint32_t>(tokens[i]));
  return state;
}

TokenId TokenOf(const SampleKey& key, uint64_t kv, int32_t vocab) {
  const uint64_t mixed = Mix(Mix(kv, Value(key.request)), key.sample);
  return static_cast<TokenId>(mixed % static_cast<uint64_t>(vocab));
}

}  // namespace

TokenId ReferenceToken(const SampleKey& key, const std::vector<TokenId>& tokens, int32_t vocab) {
  return TokenOf(key, KvOf(tokens, tokens.size() - 1), vocab);
}

ReferenceOutput ReferenceRun(const Submit& submit, int32_t vocab) {
  ReferenceOutput output;
  std::vector<TokenId> tokens = *submit.tokens;
  uint64_t kv = KvOf(tokens, tokens.size() - 1);
  for (int32_t count = submit.num_emitted + 1;; ++count) {
    const TokenId token = TokenOf(submit.key, kv, vocab);
    output.tokens.push_back(token);
    kv = Mix(kv, static_cast<uint32_t>(token));
    const auto& stops = submit.stop.stop_ids;
    if (count > submit.stop.min_tokens && std::count(stops.begin(), stops.end(), token) > 0) {
      output.finish = FinishReason::kStop;
      return output;
    }
    if (count == submit.stop.max_tokens) {
      output.finish = FinishReason::kLength;
      return output;
    }
  }
}

ShadowEngine::ShadowEngine(int32_t num_blocks, int32_t block_tokens, int32_t num_slots, int32_t vocab)
    : num_blocks_(num_blocks),
      block_tokens_(block_tokens),
      vocab_(vocab),
      kv_(static_cast<size_t>(num_blocks) * block_tokens),
      slots_(num_slots) {}

int32_t ShadowEngine::occupied_slots() const {
  return static_cast<int32_t>(
      std::count_if(slots_.begin(), slots_.end(), [](const Slot& slot) { return slot.used; }));
}

void ShadowEngine::Prepare(const StepPlan& plan) {
  for (const uint32_t slot : plan.released_slots) {
    if (slot >= slots_.size() || !slots_[slot].used) {
      Fail(Cat("step ", Value(plan.step), " releases slot ", slot, " that nobody has"));
      continue;
    }
    slots_[slot] = Slot();
  }
  for (const AdmittedSequence& admitted : plan.admitted) {
    if (admitted.slot >= slots_.size() || slots_[admitted.slot].used) {
      Fail(Cat("step ", Value(plan.step), " admits into slot ", admitted.slot, " that is taken"));
      continue;
    }
    const auto& given = *admitted.submit->tokens;
    slots_[admitted.slot] = {true, admitted.sequence, admitted.submit, given, given.size(), 0};
  }
  for (const BlockCopy& copy : plan.copies) {
    for (int32_t i = 0; i < block_tokens_; ++i) Entry(copy.to, i) = Entry(copy.from, i);
  }
}

void ShadowEngine::CheckInput(const Slot& slot, const Slice& slice) {
  const auto end = static_cast<size_t>(slice.begin + slice.count);
  const std::string where =
      Cat("sequence ", Value(slice.sequence), " tokens ", slice.begin, "+", slice.count);
  if (!slot.used || slot.sequence != slice.sequence) {
    Fail(where + ": its slot is not its own");
  } else if (slice.begin < 0 || slice.count < 1 || end > slot.tokens.size()) {
    Fail(where + ": asks for tokens that do not exist");
  } else if (slice.sample != (end == slot.tokens.size())) {
    Fail(where + ": samples at the wrong place");
  } else if (slice.input == InputSource::kHost && end > slot.delivered) {
    Fail(where + ": the host does not know this token yet");
  } else if (slice.input == InputSource::kPreviousStep && (slice.count != 1 || end != slot.delivered + 1)) {
    Fail(where + ": is not the token of the step in flight");
  } else if (slice.input == InputSource::kPreviousStep && slot.submit->sampling.has_penalties()) {
    Fail(where + ": its penalties depend on the token of the step in flight");
  } else if (slice.sample && slice.output_index != static_cast<int32_t>(end) - slot.submit->num_prompt) {
    Fail(where + ": wrong output index");
  }
}

bool ShadowEngine::TakePoison(const SampleKey& key) {
  const auto poisoned = std::find(poisoned_.begin(), poisoned_.end(), key);
  if (poisoned == poisoned_.end()) return false;
  poisoned_.erase(poisoned);
  return true;
}

// The log-probability of a prompt token is minus its id.
void ShadowEngine::Score(const Slice& slice, Slot& slot, StepResult* result) {
  const Submit& submit = *slot.submit;
  const bool wanted = submit.sampling.num_prompt_logprobs >= 0 && submit.num_emitted == 0;
  const int32_t first = slice.ScoredBegin(submit.num_prompt);
  const std::string where =
      Cat("sequence ", Value(slice.sequence), " tokens ", slice.begin, "+", slice.count);
  if (slice.num_scored < 0 || (slice.num_scored > 0 && !wanted)) return Fail(where + ": scored for nobody");
  if (slice.num_scored > 0) {
    if (first != slot.scored || first < slice.begin) Fail(where + ": scores the wrong rows");
    slot.scored += slice.num_scored;
    auto logprobs = std::make_shared<PromptLogprobs>();
    logprobs->begin = first + 1;
    for (int32_t i = 0; i < slice.num_scored; ++i) {
      logprobs->chosen.push_back(-static_cast<float>(slot.tokens[first + 1 + i]));
    }
    ScoredPrompt& scored = result->scored.emplace_back();
    scored.sequence = slice.sequence;
    if (TakePoison(submit.key)) {
      scored.status = SampleStatus::kNumericalError;
    } else {
      scored.logprobs = std::move(logprobs);
    }
  }
  if (wanted && slice.sample && slot.scored != submit.num_prompt - 1) Fail(where + ": left rows unscored");
}

void ShadowEngine::RunSlice(const StepPlan& plan, size_t index, StepResult* result) {
  const Slice& slice = plan.slices[index];
  const size_t errors_before = errors_.size();
  if (slice.slot >= slots_.size()) {
    Fail(Cat("slot ", slice.slot, " does not exist"));
    return;
  }
  Slot& slot = slots_[slice.slot];
  CheckInput(slot, slice);
  const int32_t end = slice.begin + slice.count;
  const int32_t num_blocks = plan.block_begin[index + 1] - plan.block_begin[index];
  if (num_blocks != (end + block_tokens_ - 1) / block_tokens_) {
    Fail(Cat("sequence ", Value(slice.sequence), ": block table of ", num_blocks, " blocks for ", end,
             " tokens"));
  }
  if (errors_.size() != errors_before) return;
  const BlockId* table = &plan.blocks[plan.block_begin[index]];
  uint64_t kv = 1;
  for (int32_t i = 0; i < end; ++i) {
    const BlockId block = table[i / block_tokens_];
    if (Value(block) < 0 || Value(block) >= num_blocks_) return Fail("block id outside the pool");
    kv = Mix(kv, static_cast<uint32_t>(slot.tokens[i]));
    uint64_t& entry = Entry(block, i % block_tokens_);
    if (i >= slice.begin) {
      entry = kv;
    } else if (entry != kv) {
      return Fail(Cat("step ", Value(plan.step), ", sequence ", Value(slice.sequence), ": block ",
                      Value(block), " does not hold its token ", i));
    }
  }
  Score(slice, slot, result);
  if (!slice.sample) return;
  const SampleKey& key = slot.submit->key;
  SampledToken sampled{.sequence = slice.sequence, .token = TokenOf(key, kv, vocab_), .logprobs = nullptr};
  if (TakePoison(key)) sampled.status = SampleStatus::kNumericalError;
  slot.tokens.push_back(sampled.token);
  result->sampled.push_back(sampled);
}

void ShadowEngine::Launch(const StepPlan& plan) {
  if (plan.slices.size() + 1 != plan.block_begin.size() && !plan.slices.empty())
    Fail("block_begin has a wrong size");
  Prepare(plan);
  Pending pending;
  pending.result.step = plan.step;
  int32_t tokens = 0, samples = 0, scoring = 0;
  for (size_t i = 0; i < plan.slices.size(); ++i) {
    tokens += plan.slices[i].count;
    samples += plan.slices[i].sample;
    scoring += plan.slices[i].num_scored > 0;
    for (size_t j = 0; j < i; ++j) {
      if (plan.slices[j].sequence == plan.slices[i].sequence) Fail("a sequence has two slices in one step");
    }
    RunSlice(plan, i, &pending.result);
    if (plan.slices[i].sample) pending.slot_of_sample.push_back(plan.slices[i].slot);
  }
  if (tokens != plan.num_tokens || samples != plan.num_samples || scoring != plan.num_scoring)
    Fail("sums of the plan are wrong");
  results_.push_back(std::move(pending));
}

StepResult ShadowEngine::Finish() {
  Pending pending = std::move(results_.front());
  results_.pop_front();
  for (const uint32_t slot : pending.slot_of_sample) ++slots_[slot].delivered;
  return std::move(pending.result);
}

StepId ShadowEngine::FinishFailed() {
  const StepId step = results_.front().result.step;
  results_.pop_front();
  return step;
}

}  // namespace orrery
