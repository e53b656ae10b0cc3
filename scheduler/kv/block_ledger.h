// What a plan may still promise of the KV pool: numbers only, so that planning never touches the pool.
#ifndef ORRERY_SCHEDULER_KV_BLOCK_LEDGER_H_
#define ORRERY_SCHEDULER_KV_BLOCK_LEDGER_H_

#include <cstdint>

namespace orrery {

// Blocks that `tokens` tokens occupy.
constexpr int32_t BlocksFor(int32_t tokens, int32_t block_tokens) {
  return static_cast<int32_t>((int64_t{tokens} + block_tokens - 1) / block_tokens);
}

class BlockLedger {
 public:
  explicit BlockLedger(int32_t available) : available_(available) {}
  // May be negative after Owe: then nothing can be reserved until that much came back.
  int32_t available() const { return available_; }
  // Sets `count` blocks aside, or nothing and returns false.
  [[nodiscard]] bool Reserve(int32_t count) {
    if (count > available_) return false;
    available_ -= count;
    return true;
  }
  // Sets blocks aside that are owed in any case.
  void Owe(int32_t count) { available_ -= count; }
  void Return(int32_t count) { available_ += count; }

 private:
  int32_t available_;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_KV_BLOCK_LEDGER_H_
