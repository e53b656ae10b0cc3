#ifndef ORRERY_KERNELS_CPU_THREAD_POOL_H_
#define ORRERY_KERNELS_CPU_THREAD_POOL_H_

// The fixed threads of the CPU engine. Created once; the thread that calls Run is thread 0, so a pool of
// one creates none. Entering a region costs well under a microsecond while the threads are warm: they wait
// by spinning for at most kSpin, then sleep in the kernel, so an idle pool uses no CPU.
//
// One owner at a time: Run and ParallelFor are called by one thread, never from inside a region.
// Nothing here allocates after the constructor.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace orrery {

template <typename Signature>
class FunctionRef;

// A view of a callable that outlives the call; never allocates.
template <typename Result, typename... Args>
class FunctionRef<Result(Args...)> {
 public:
  template <typename F, typename = std::enable_if_t<!std::is_same_v<std::decay_t<F>, FunctionRef>>>
  FunctionRef(F&& f)  // NOLINT: implicit on purpose, lambdas are passed in place
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
        call_([](void* object, Args... args) -> Result {
          return (*static_cast<std::remove_reference_t<F>*>(object))(std::forward<Args>(args)...);
        }) {}
  Result operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  Result (*call_)(void*, Args...);
};

class ThreadPool {
 public:
  static constexpr int kMaxThreads = 512;

  // `num_threads` in [1, kMaxThreads] (clamped). When the system refuses a thread the pool is smaller:
  // num_threads() says how many there are.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Calls fn(thread, num_threads) once on every thread and returns when all have returned. What a thread
  // wrote is visible to the caller afterwards. `fn` must not throw.
  void Run(FunctionRef<void(int thread, int num_threads)> fn);

  // The two cache lines that the caller reads first behind the next regions. They are asked for, with the
  // caller's stack, while the last thread finishes: a region that streams more than the caches hold leaves
  // neither there.
  void ReadNext(const void* data) { next_ = static_cast<const std::byte*>(data); }

  // Inside a region: returns when every thread of the pool has called it; orders memory as Run does.
  void Barrier();

  // Calls fn(begin, end, thread) for pieces of [0, count) of at most `grain` (>= 1) items, handed out as
  // threads become free. Which thread gets a piece is not deterministic; the pieces are.
  void ParallelFor(int64_t count, int64_t grain,
                   FunctionRef<void(int64_t begin, int64_t end, int thread)> fn);

 private:
  void Loop(int thread);

  int num_threads_ = 1;
  std::vector<std::thread> threads_;
  const FunctionRef<void(int, int)>* region_ = nullptr;               // null: stop
  const std::byte* next_ = reinterpret_cast<const std::byte*>(this);  // anything
  // On cache lines of their own: each is written by one side and polled by the other.
  alignas(64) std::atomic<uint32_t> epoch_{0};    // regions started
  alignas(64) std::atomic<uint32_t> running_{0};  // workers still inside the region
  alignas(64) std::atomic<uint32_t> arrived_{0};  // threads at the barrier
  alignas(64) std::atomic<uint32_t> phase_{0};    // barriers passed
};

}  // namespace orrery

#endif  // ORRERY_KERNELS_CPU_THREAD_POOL_H_
