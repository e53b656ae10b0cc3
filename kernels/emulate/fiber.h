// A fiber: a call stack of its own that runs until it hands control back. One OS thread runs a fiber and the
// code that resumed it; a fiber never moves to another thread. AddressSanitizer is told of every switch.
#ifndef ORRERY_KERNELS_EMULATE_FIBER_H_
#define ORRERY_KERNELS_EMULATE_FIBER_H_

#include <cstddef>
#include <memory>

namespace orrery::emulate {

class Fiber {
 public:
  static const size_t kStackBytes;

  Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Prepares a call of entry(argument), which the first Resume begins. A fiber that was left in the middle is
  // forgotten: its objects are not destroyed.
  void Reset(void (*entry)(void*), void* argument);

  // Whether the call since the last Reset used more stack than there is.
  bool overran() const;

  // Runs the fiber until it calls Suspend or Finish.
  void Resume();

  // Inside the fiber: back to the Resume that runs it.
  void Suspend() { SwitchOut(&asan_fake_stack_); }
  // The same for good; the next thing is a Reset.
  [[noreturn]] void Finish();

 private:
  static void Start();
  void SwitchOut(void** keep_fake_stack);

  std::unique_ptr<std::byte[]> stack_;
  void* stack_pointer_ = nullptr;
  void* caller_stack_pointer_ = nullptr;
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
  // What AddressSanitizer keeps of the two stacks.
  void* asan_fake_stack_ = nullptr;
  const void* asan_caller_stack_ = nullptr;
  size_t asan_caller_bytes_ = 0;
};

}  // namespace orrery::emulate

#endif  // ORRERY_KERNELS_EMULATE_FIBER_H_
