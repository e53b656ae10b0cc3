#include "kernels/emulate/fiber.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__SANITIZE_ADDRESS__)
#define ORRERY_FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ORRERY_FIBER_ASAN 1
#endif
#endif
#ifdef ORRERY_FIBER_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifndef __x86_64__
#error "Fibers switch stacks in assembly, which is written for x86-64 only"
#endif

// Saves the registers that a call preserves on the stack, stores its pointer in *save, goes on with the stack
// `next`.
extern "C" void OrrerySwitchStack(void** save, void* next);

asm(R"(
.text
.globl OrrerySwitchStack
.type OrrerySwitchStack, @function
OrrerySwitchStack:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size OrrerySwitchStack, .-OrrerySwitchStack
)");

namespace orrery::emulate {
namespace {

constexpr int kSavedRegisters = 6;
// Behind the stack: a margin that may be overrun without harm, its first bytes marked.
constexpr size_t kMarginBytes = 8192;
constexpr size_t kMarkBytes = 64;
constexpr int kMark = 0x5a;

thread_local Fiber* starting = nullptr;

void AnnounceSwitch([[maybe_unused]] void** keep_fake_stack, [[maybe_unused]] const void* bottom,
                    [[maybe_unused]] size_t bytes) {
#ifdef ORRERY_FIBER_ASAN
  __sanitizer_start_switch_fiber(keep_fake_stack, bottom, bytes);
#endif
}

void CompleteSwitch([[maybe_unused]] void* fake_stack, [[maybe_unused]] const void** from_bottom,
                    [[maybe_unused]] size_t* from_bytes) {
#ifdef ORRERY_FIBER_ASAN
  __sanitizer_finish_switch_fiber(fake_stack, from_bottom, from_bytes);
#endif
}

}  // namespace

#ifdef ORRERY_FIBER_ASAN
const size_t Fiber::kStackBytes = 256 * 1024;
#else
const size_t Fiber::kStackBytes = 64 * 1024;
#endif

Fiber::Fiber() : stack_(std::make_unique_for_overwrite<std::byte[]>(kMarginBytes + kStackBytes)) {}

void Fiber::Reset(void (*entry)(void*), void* argument) {
  entry_ = entry;
  argument_ = argument;
  asan_fake_stack_ = nullptr;
#ifdef ORRERY_FIBER_ASAN
  __asan_unpoison_memory_region(stack_.get(), kMarginBytes + kStackBytes);
#endif
  std::memset(stack_.get() + kMarginBytes - kMarkBytes, kMark, kMarkBytes);
  // As if Start had been called and had then switched away: a return address of none, Start, the registers.
  const uintptr_t end = reinterpret_cast<uintptr_t>(stack_.get()) + kMarginBytes + kStackBytes;
  void** top = reinterpret_cast<void**>(end / 64 * 64);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&Fiber::Start);
  for (int i = 0; i < kSavedRegisters; ++i) *--top = nullptr;
  stack_pointer_ = top;
}

bool Fiber::overran() const {
  const std::byte* mark = stack_.get() + kMarginBytes - kMarkBytes;
  return std::any_of(mark, mark + kMarkBytes, [](std::byte b) { return b != std::byte{kMark}; });
}

void Fiber::Start() {
  Fiber* self = starting;
  CompleteSwitch(nullptr, &self->asan_caller_stack_, &self->asan_caller_bytes_);
  self->entry_(self->argument_);
  self->Finish();
}

void Fiber::Resume() {
  void* fake_stack = nullptr;
  starting = this;
  AnnounceSwitch(&fake_stack, stack_.get(), kMarginBytes + kStackBytes);
  OrrerySwitchStack(&caller_stack_pointer_, stack_pointer_);
  CompleteSwitch(fake_stack, nullptr, nullptr);
}

void Fiber::SwitchOut(void** keep_fake_stack) {
  AnnounceSwitch(keep_fake_stack, asan_caller_stack_, asan_caller_bytes_);
  OrrerySwitchStack(&stack_pointer_, caller_stack_pointer_);
  CompleteSwitch(asan_fake_stack_, &asan_caller_stack_, &asan_caller_bytes_);
}

void Fiber::Finish() {
  SwitchOut(nullptr);
  std::abort();  // a finished fiber was resumed
}

}  // namespace orrery::emulate
