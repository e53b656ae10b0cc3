#include "kernels/emulate/launch.h"

#include <cstdint>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace orrery::emulate {
namespace {

thread_local Options options;
thread_local std::optional<Failure> failure;
thread_local ThreadBlock block;
thread_local std::vector<std::pair<const void*, Work*>> deferred;  // a few streams

}  // namespace

void SetOptions(const Options& new_options) { options = new_options; }

std::optional<Failure> TakeFailure() { return std::exchange(failure, std::nullopt); }

void Enqueue(const void* stream, const std::function<void()>& work) {
  for (const auto& [name, queue] : deferred) {
    if (name == stream) return queue->push_back(work);
  }
  work();
}

void Defer(const void* stream, Work* queue) {
  std::erase_if(deferred, [&](const auto& entry) { return entry.first == stream; });
  if (queue != nullptr) deferred.emplace_back(stream, queue);
}

void LaunchGrid(Extent grid, int threads, size_t shared_bytes, const std::function<void()>& kernel) {
  if (failure) return;
  const int64_t blocks = int64_t{grid.x} * grid.y * grid.z;
  if (blocks == 0 || grid.y > 65535 || grid.z > 65535 || threads < 1 || threads > kMaxBlockThreads ||
      shared_bytes > kMaxSharedBytes) {
    failure = Failure{FailureKind::kBadLaunch,
                      "grid " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " +
                          std::to_string(grid.z) + " (at least 1, y and z at most 65535), " +
                          std::to_string(threads) + " threads (1 to " + std::to_string(kMaxBlockThreads) +
                          "), " + std::to_string(shared_bytes) + " bytes of shared memory (at most " +
                          std::to_string(kMaxSharedBytes) + ")"};
    return;
  }
  std::vector<int64_t> order(blocks);
  std::iota(order.begin(), order.end(), 0);
  std::mt19937_64 random(options.seed);
  for (int64_t i = blocks - 1; i > 0; --i) std::swap(order[i], order[random() % (i + 1)]);
  for (const int64_t i : order) {
    const Extent index{static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                       static_cast<unsigned>(i / grid.x / grid.y)};
    failure = block.Run(grid, index, threads, shared_bytes, options, kernel);
    if (failure) return;
  }
}

}  // namespace orrery::emulate
