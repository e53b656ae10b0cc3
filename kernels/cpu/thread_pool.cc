#include "kernels/cpu/thread_pool.h"

#include <algorithm>
#include <chrono>
#include <system_error>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace orrery {
namespace {

// Long enough to bridge the serial work between two operations of a step, short enough that a machine
// with fewer free cores than threads loses little.
constexpr std::chrono::microseconds kSpin{40};

void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// Returns the value of `word` once it differs from `old`.
uint32_t AwaitChange(std::atomic<uint32_t>& word, uint32_t old) {
  const auto give_up = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      const uint32_t value = word.load(std::memory_order_acquire);
      if (value != old) return value;
      Pause();
    }
  } while (std::chrono::steady_clock::now() < give_up);
  word.wait(old, std::memory_order_acquire);
  return word.load(std::memory_order_acquire);
}

// What the thread goes on with behind a region.
[[gnu::always_inline]] inline void FetchForCaller(const std::byte* next) {
  constexpr int kLine = 64, kStackLines = 12;
  const auto* frame = static_cast<const std::byte*>(__builtin_frame_address(0));
  for (int i = 0; i < kStackLines; ++i) __builtin_prefetch(frame + i * kLine, 1);
  __builtin_prefetch(next);
  __builtin_prefetch(next + kLine);
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  const int wanted = std::clamp(num_threads, 1, kMaxThreads);
  threads_.reserve(wanted - 1);
  for (int i = 1; i < wanted; ++i) {
    try {
      threads_.emplace_back([this, i] { Loop(i); });
    } catch (const std::system_error&) {
      break;
    }
  }
  num_threads_ = static_cast<int>(threads_.size()) + 1;
}

ThreadPool::~ThreadPool() {
  region_ = nullptr;
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::Loop(int thread) {
  uint32_t seen = 0;
  while (true) {
    seen = AwaitChange(epoch_, seen);
    if (region_ == nullptr) return;
    (*region_)(thread, num_threads_);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.notify_one();
  }
}

void ThreadPool::Run(FunctionRef<void(int thread, int num_threads)> fn) {
  if (num_threads_ == 1) return fn(0, 1);
  region_ = &fn;
  running_.store(static_cast<uint32_t>(num_threads_ - 1), std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  fn(0, num_threads_);
  FetchForCaller(next_);
  for (uint32_t left = running_.load(std::memory_order_acquire); left != 0;) {
    left = AwaitChange(running_, left);
  }
}

void ThreadPool::Barrier() {
  if (num_threads_ == 1) return;
  const uint32_t phase = phase_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(num_threads_)) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.fetch_add(1, std::memory_order_release);
    phase_.notify_all();
    return;
  }
  AwaitChange(phase_, phase);
}

void ThreadPool::ParallelFor(int64_t count, int64_t grain,
                             FunctionRef<void(int64_t begin, int64_t end, int thread)> fn) {
  if (count <= grain || num_threads_ == 1) {
    for (int64_t begin = 0; begin < count; begin += grain) fn(begin, std::min(count, begin + grain), 0);
    return;
  }
  std::atomic<int64_t> next{0};
  Run([&](int thread, int) {
    while (true) {
      const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= count) return;
      fn(begin, std::min(count, begin + grain), thread);
    }
  });
}

}  // namespace orrery
