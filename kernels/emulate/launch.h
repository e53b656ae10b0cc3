// Runs a grid of emulated thread blocks, one after the other in an order drawn from the seed. Like the
// device's runtime, a launch returns nothing: what went wrong is kept until it is asked for.
#ifndef ORRERY_KERNELS_EMULATE_LAUNCH_H_
#define ORRERY_KERNELS_EMULATE_LAUNCH_H_

#include <cstddef>
#include <functional>
#include <optional>
#include <vector>

#include "kernels/emulate/failure.h"
#include "kernels/emulate/thread_block.h"

namespace orrery::emulate {

// How the launches of the calling OS thread run from now on.
void SetOptions(const Options& options);

// The first failure of this OS thread's launches since it was last asked. Launches after it did nothing.
std::optional<Failure> TakeFailure();

// Work of a stream: done at once, or left to whoever defers that stream on the calling OS thread.
using Work = std::vector<std::function<void()>>;
void Enqueue(const void* stream, const std::function<void()>& work);
// From now on work of `stream`, which is not null, goes to the end of *queue; null: done at once again.
void Defer(const void* stream, Work* queue);

void LaunchGrid(Extent grid, int threads, size_t shared_bytes, const std::function<void()>& kernel);

}  // namespace orrery::emulate

#endif  // ORRERY_KERNELS_EMULATE_LAUNCH_H_
