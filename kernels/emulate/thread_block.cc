#include "kernels/emulate/thread_block.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace orrery::emulate {
namespace {

constexpr size_t kSharedAlignment = 128;
constexpr size_t kGuardBytes = 128;
constexpr std::byte kPoison{0xff};

std::string NameOf(const Extent& extent) {
  std::string text("(");
  text += std::to_string(extent.x);
  text += ", ";
  text += std::to_string(extent.y);
  text += ", ";
  text += std::to_string(extent.z);
  text += ")";
  return text;
}

}  // namespace

thread_local ThreadBlock* ThreadBlock::current_ = nullptr;

ThreadBlock::ThreadBlock() = default;

std::optional<Failure> ThreadBlock::Run(Extent grid, Extent index, int threads, size_t shared_bytes,
                                        const Options& options, const std::function<void()>& kernel) {
  grid_ = grid;
  index_ = index;
  num_threads_ = live_ = threads;
  arrived_in_block_ = 0;
  options_ = options;
  random_ = options.seed * 0x9e3779b97f4a7c15u + index.x + index.y * 0x10001u + 1;
  kernel_ = &kernel;
  failure_.reset();

  const size_t padded = shared_bytes + kGuardBytes;
  shared_memory_ = std::make_unique_for_overwrite<std::byte[]>(padded + kSharedAlignment);
  const uintptr_t address = reinterpret_cast<uintptr_t>(shared_memory_.get());
  shared_ = shared_memory_.get() + (kSharedAlignment - address % kSharedAlignment) % kSharedAlignment;
  shared_bytes_ = shared_bytes;
  std::fill_n(shared_, padded, kPoison);

  while (static_cast<int>(threads_.size()) < threads) threads_.push_back(std::make_unique<Thread>());
  runnable_.clear();
  for (int i = 0; i < threads; ++i) {
    Thread& thread = *threads_[i];
    thread.fiber.Reset(&ThreadMain, this);
    thread.state = State::kRunnable;
    thread.phase = 0;
    thread.instruction = nullptr;
    thread.uncommitted.clear();
    thread.committed.clear();
    runnable_.push_back(i);
  }
  warps_.resize((threads + kWarpThreads - 1) / kWarpThreads);
  for (size_t w = 0; w < warps_.size(); ++w) {
    warps_[w].live = std::min(kWarpThreads, threads - static_cast<int>(w) * kWarpThreads);
    warps_[w].arrived = 0;
    std::memset(warps_[w].slots, 0xff, sizeof(warps_[w].slots));
  }

  current_ = this;
  while (live_ > 0 && !failure_) {
    if (runnable_.empty()) {
      failure_ = Failure{FailureKind::kDeadlock, Describe()};
      break;
    }
    std::swap(runnable_[Draw() % runnable_.size()], runnable_.back());
    running_ = runnable_.back();
    runnable_.pop_back();
    threads_[running_]->fiber.Resume();
  }
  current_ = nullptr;
  const auto is_poison = [](std::byte b) { return b == kPoison; };
  if (!failure_ && !std::all_of(shared_ + shared_bytes, shared_ + padded, is_poison)) {
    failure_ =
        Failure{FailureKind::kSharedOverrun, "block " + NameOf(index_) + " wrote behind its " +
                                                 std::to_string(shared_bytes) + " bytes of shared memory"};
  }
  for (int i = 0; i < threads && !failure_; ++i) {
    if (threads_[i]->fiber.overran()) {
      failure_ = Failure{FailureKind::kStackOverrun,
                         "block " + NameOf(index_) + ", thread " + std::to_string(i) + " ran out of stack"};
    }
  }
  return std::exchange(failure_, std::nullopt);
}

void ThreadBlock::ThreadMain(void* block) {
  auto* self = static_cast<ThreadBlock*>(block);
  (*self->kernel_)();
  self->Leave();
}

// A thread that returns no longer counts at barriers, which may be complete without it.
void ThreadBlock::Leave() {
  threads_[running_]->state = State::kDone;
  const int warp = running_ / kWarpThreads;
  --live_;
  --warps_[warp].live;
  CompleteWarpIfAllArrived(warp);
  CompleteBlockIfAllArrived();
}

void ThreadBlock::Wait(State state) {
  const int self = running_;
  threads_[self]->state = state;
  threads_[self]->fiber.Suspend();
}

void ThreadBlock::Release(State state, int begin, int end) {
  for (int i = begin; i < end; ++i) {
    if (threads_[i]->state != state) continue;
    threads_[i]->state = State::kRunnable;
    runnable_.push_back(i);
  }
}

void ThreadBlock::CompleteWarpIfAllArrived(int warp) {
  Warp& w = warps_[warp];
  if (w.arrived == 0 || w.arrived < w.live) return;
  w.arrived = 0;
  Release(State::kInWarpCollective, warp * kWarpThreads, std::min(num_threads_, (warp + 1) * kWarpThreads));
}

void ThreadBlock::CompleteBlockIfAllArrived() {
  if (arrived_in_block_ == 0 || arrived_in_block_ < live_) return;
  arrived_in_block_ = 0;
  Release(State::kInBlockBarrier, 0, num_threads_);
}

void ThreadBlock::SyncBlock() {
  threads_[running_]->state = State::kInBlockBarrier;
  threads_[running_]->instruction = "__syncthreads";
  ++arrived_in_block_;
  CompleteBlockIfAllArrived();
  threads_[running_]->fiber.Suspend();
}

void ThreadBlock::Yield() {
  runnable_.push_back(running_);
  Wait(State::kRunnable);
}

const std::byte* ThreadBlock::Exchange(const char* instruction, const void* data, size_t bytes) {
  Thread& self = *threads_[running_];
  const int number = running_ / kWarpThreads;
  Warp& warp = warps_[number];
  const int phase = self.phase;
  self.phase ^= 1;
  self.instruction = instruction;
  if (bytes > 0) std::memcpy(warp.slots[phase][lane()], data, bytes);
  if (warp.arrived == 0) {
    warp.instruction = instruction;
  } else if (std::strcmp(warp.instruction, instruction) != 0) {
    Fail(FailureKind::kDivergence, "block " + NameOf(index_) + ": thread " + std::to_string(running_) +
                                       " is in " + instruction + ", others of its warp in " +
                                       warp.instruction);
  }
  self.state = State::kInWarpCollective;
  ++warp.arrived;
  CompleteWarpIfAllArrived(number);
  self.fiber.Suspend();
  return warp.slots[phase][0];
}

void ThreadBlock::CopyAsync(void* shared_target, const void* source) {
  CheckAligned(shared_target, 16, "cp.async");
  CheckAligned(source, 16, "cp.async");
  CheckShared(shared_target, 16, "cp.async");
  const Copy copy{shared_target, source};
  if (options_.async_copies == AsyncCopies::kLate) {
    threads_[running_]->uncommitted.push_back(copy);
  } else if (source != nullptr) {
    std::memcpy(shared_target, source, 16);
  } else {
    std::memset(shared_target, 0, 16);
  }
}

void ThreadBlock::CommitCopies() {
  Thread& self = *threads_[running_];
  self.committed.push_back(std::exchange(self.uncommitted, {}));
}

void ThreadBlock::WaitCopies(int groups_in_flight) {
  auto& groups = threads_[running_]->committed;
  while (static_cast<int>(groups.size()) > groups_in_flight) {
    for (const Copy& copy : groups.front()) {
      if (copy.source != nullptr) {
        std::memcpy(copy.target, copy.source, 16);
      } else {
        std::memset(copy.target, 0, 16);
      }
    }
    groups.erase(groups.begin());
  }
}

void ThreadBlock::CheckAligned(const void* address, size_t alignment, const char* instruction) {
  if (reinterpret_cast<uintptr_t>(address) % alignment == 0) return;
  Fail(FailureKind::kMisaligned, "block " + NameOf(index_) + ", thread " + std::to_string(running_) + ": " +
                                     instruction + " wants an address aligned to " +
                                     std::to_string(alignment) + " bytes");
}

void ThreadBlock::CheckShared(const void* address, size_t bytes, const char* instruction) {
  const auto* begin = static_cast<const std::byte*>(address);
  if (begin >= shared_ && begin + bytes <= shared_ + shared_bytes_) return;
  Fail(FailureKind::kNotShared, "block " + NameOf(index_) + ", thread " + std::to_string(running_) + ": " +
                                    instruction + " wants shared memory");
}

void ThreadBlock::Fail(FailureKind kind, std::string message) {
  failure_ = Failure{kind, std::move(message)};
  threads_[running_]->fiber.Finish();
}

// Who waits where, as ranges of threads: "threads 0-31 in mma, 32-127 in __syncthreads".
std::string ThreadBlock::Describe() const {
  std::string text = "block " + NameOf(index_) + ": threads";
  const auto place = [this](int i) {
    return threads_[i]->state == State::kDone ? "returned" : threads_[i]->instruction;
  };
  for (int begin = 0, end; begin < num_threads_; begin = end) {
    end = begin + 1;
    while (end < num_threads_ && std::strcmp(place(begin), place(end)) == 0) ++end;
    text += begin > 0 ? ", " : " ";
    text += std::to_string(begin);
    if (end > begin + 1) {
      text += "-";
      text += std::to_string(end - 1);
    }
    if (threads_[begin]->state != State::kDone) text += " in";
    text += " ";
    text += place(begin);
  }
  return text;
}

// SplitMix64.
uint64_t ThreadBlock::Draw() {
  uint64_t z = (random_ += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

}  // namespace orrery::emulate
