#include "engine/cpu_stream.h"

namespace orrery {

void CpuStream::Run() {
  const Slot* const end = slots_.data() + size_;
  size_ = 0;
  if (trace_ != nullptr) return RunTraced(end);
  for (const Slot* slot = slots_.data(); slot != end; ++slot) {
    threads_.ReadNext(slot + 1);
    slot->call(slot->kernel);
  }
}

void CpuStream::RunTraced(const Slot* end) {
  const size_t known = trace_->spans.size();
  trace_->spans.resize(known + static_cast<size_t>(end - slots_.data()));
  KernelTrace::Span* span = trace_->spans.data() + known;
  for (const Slot* slot = slots_.data(); slot != end; ++slot, ++span) {
    threads_.ReadNext(slot + 1);
    // Waiting for the operation to come from memory is not the kernel's time.
    static_cast<void>(*static_cast<const volatile std::byte*>(slot->kernel + sizeof(slot->kernel) - 1));
    span->name = slot->name;
    span->begin = Ticks();
    slot->call(slot->kernel);
    span->end = Ticks();
  }
}

}  // namespace orrery
