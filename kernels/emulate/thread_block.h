// One thread block on the CPU: every thread is a fiber that runs until it waits. Barriers and collectives
// wait for the threads that have not returned, as the hardware does since sm_70. Which thread runs next is
// drawn from a seed, so that an order which a kernel does not enforce is not there by luck.
//
// Not modelled: weak memory order, what lanes of a warp see of each other between two collectives, bank
// conflicts, time.
#ifndef ORRERY_KERNELS_EMULATE_THREAD_BLOCK_H_
#define ORRERY_KERNELS_EMULATE_THREAD_BLOCK_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/emulate/failure.h"
#include "kernels/emulate/fiber.h"

namespace orrery::emulate {

inline constexpr int kWarpThreads = 32;
inline constexpr int kMaxBlockThreads = 1024;
inline constexpr size_t kMaxSharedBytes = 227 * 1024;  // of a block, sm_90
inline constexpr int kExchangeBytes = 32;              // what a lane can show its warp in one collective

struct Extent {
  unsigned x = 1, y = 1, z = 1;
};

// When the bytes of an asynchronous copy arrive: the two ends of what the hardware may do. Late finds a wait
// that is missing, early a buffer that is refilled while it is read.
enum class AsyncCopies : uint8_t { kEarly, kLate };

struct Options {
  AsyncCopies async_copies = AsyncCopies::kLate;
  uint64_t seed = 1;  // of the order of blocks and threads
};

class ThreadBlock {
 public:
  ThreadBlock();

  // The block that the calling thread is in; only inside a kernel.
  static ThreadBlock& Current() { return *current_; }

  // Runs one block to its end or its first failure. Shared memory starts as NaNs (all bits set).
  std::optional<Failure> Run(Extent grid, Extent index, int threads, size_t shared_bytes,
                             const Options& options, const std::function<void()>& kernel);

  // For the thread that runs.
  int thread() const { return running_; }
  int lane() const { return running_ % kWarpThreads; }
  int num_threads() const { return num_threads_; }
  const Extent& index() const { return index_; }
  const Extent& grid() const { return grid_; }
  std::byte* shared() { return shared_; }

  void SyncBlock();
  // Lets the others go first, perhaps.
  void Yield();

  // A collective of the warp: shows `bytes` of `data` to the other lanes, waits for them, and returns what
  // all of them showed, [32][kExchangeBytes], good until the next but one collective. `instruction`, a
  // literal, must be the same in all lanes.
  const std::byte* Exchange(const char* instruction, const void* data, size_t bytes);

  // cp.async: 16 bytes, or zeros where `source` is null; groups complete in the order of their commits.
  void CopyAsync(void* shared_target, const void* source);
  void CommitCopies();
  void WaitCopies(int groups_in_flight);

  // Reports an address that an instruction cannot take; does not return in that case.
  void CheckAligned(const void* address, size_t alignment, const char* instruction);
  void CheckShared(const void* address, size_t bytes, const char* instruction);

 private:
  enum class State : uint8_t { kRunnable, kInWarpCollective, kInBlockBarrier, kDone };
  struct Copy {
    void* target;
    const void* source;
  };
  struct Thread {
    Fiber fiber;
    State state = State::kDone;
    int phase = 0;  // which of the two sets of slots its next exchange uses
    const char* instruction = nullptr;
    std::vector<Copy> uncommitted;
    std::vector<std::vector<Copy>> committed;
  };
  struct Warp {
    int live = 0;
    int arrived = 0;
    const char* instruction = nullptr;  // of the first that arrived
    alignas(16) std::byte slots[2][kWarpThreads][kExchangeBytes];
  };

  static void ThreadMain(void* block);
  void Leave();
  void Wait(State state);
  void Release(State state, int begin, int end);
  void ArriveInWarp();
  void CompleteWarpIfAllArrived(int warp);
  void CompleteBlockIfAllArrived();
  void Fail(FailureKind kind, std::string message);
  std::string Describe() const;
  uint64_t Draw();

  static thread_local ThreadBlock* current_;

  std::vector<std::unique_ptr<Thread>> threads_;  // as many as any block so far had
  std::vector<Warp> warps_;
  std::vector<int> runnable_;
  std::unique_ptr<std::byte[]> shared_memory_;  // exactly what was asked for, so that a sanitizer sees more
  std::byte* shared_ = nullptr;
  size_t shared_bytes_ = 0;
  Extent grid_, index_;
  int num_threads_ = 0;
  int live_ = 0;
  int arrived_in_block_ = 0;
  int running_ = 0;
  Options options_;
  uint64_t random_ = 0;
  const std::function<void()>* kernel_ = nullptr;
  std::optional<Failure> failure_;
};

}  // namespace orrery::emulate

#endif  // ORRERY_KERNELS_EMULATE_THREAD_BLOCK_H_
