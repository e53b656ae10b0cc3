// The operations of a step on the CPU, kept until they are run together. A kernel that streams weights leaves
// nothing else in the caches; so the model's code runs once, as a whole, before the first of them, and
// between two kernels there is a loop over an array whose next element is asked for in time.
#ifndef ORRERY_ENGINE_CPU_STREAM_H_
#define ORRERY_ENGINE_CPU_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <vector>

#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/ticks.h"

namespace orrery {

// When the kernels of a stream ran; Ticks() before and behind each.
struct KernelTrace {
  struct Span {
    const char* name;
    uint64_t begin, end;
  };
  std::vector<Span> spans;
};

class CpuStream {
 public:
  // `trace`, where there is one, outlives the stream.
  CpuStream(ThreadPool& threads, KernelTrace* trace) : threads_(threads), trace_(trace), slots_(kCapacity) {}

  // `name` outlives the trace; what `kernel` refers to is there until the next Run has returned. A stream
  // that is full runs what it has.
  template <typename F>
  void Enqueue(const char* name, const F& kernel) {
    static_assert(sizeof(F) <= sizeof(Slot::kernel) && std::is_trivially_copyable_v<F>);
    if (size_ == kCapacity) Run();
    Slot& slot = slots_[size_++];
    // A whole step is written at once, into memory that is in no cache any more.
    __builtin_prefetch(&slot + kAhead, 1);
    __builtin_prefetch(slot.kernel + sizeof(slot.kernel) - 1 + kAhead * sizeof(Slot), 1);
    slot.name = name;
    slot.call = [](const std::byte* bytes) { (*std::launder(reinterpret_cast<const F*>(bytes)))(); };
    new (slot.kernel) F(kernel);
  }
  void Run();

 private:
  static constexpr size_t kCapacity = 512, kAhead = 8;
  struct alignas(64) Slot {
    void (*call)(const std::byte* kernel);
    const char* name;
    alignas(16) std::byte kernel[112];
  };

  void RunTraced(const Slot* end);

  ThreadPool& threads_;
  KernelTrace* const trace_;
  std::vector<Slot> slots_;
  size_t size_ = 0;
};

}  // namespace orrery

#endif  // ORRERY_ENGINE_CPU_STREAM_H_
