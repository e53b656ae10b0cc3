// A CUDA device as the backend uses it: memory, and copies on the one stream that kernels run on too. The
// runtime's device and an emulated one for tests are behind it.
#ifndef ORRERY_ENGINE_CUDA_DEVICE_H_
#define ORRERY_ENGINE_CUDA_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/backend.h"
#include "kernels/cuda/stream.h"

namespace orrery::cuda {

// Launches that were recorded, in their order.
class Graph {
 public:
  virtual ~Graph() = default;
};

// A place in the order of what was enqueued, where Record put it.
class Event {
 public:
  virtual ~Event() = default;
};

// Copies run in the order of their calls and of the launches between them, at any time until Synchronize, or
// Wait for an event behind them, returns; till then what they copy must stay. What went wrong is told there.
// Buffers may outlive the device.
class Device {
 public:
  virtual ~Device() = default;

  // Bytes of the device that nobody has taken.
  virtual absl::StatusOr<int64_t> FreeBytes() = 0;
  // Memory of the device; zero at first. ResourceExhausted says how much was asked for and how much is free.
  virtual absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes) = 0;
  // Memory of the host that copies reach directly.
  virtual absl::StatusOr<std::unique_ptr<Buffer>> AllocateHost(size_t bytes) = 0;

  virtual void Upload(void* device, const void* host, size_t bytes) = 0;
  virtual void Download(void* host, const void* device, size_t bytes) = 0;
  virtual void Copy(void* to, const void* from, size_t bytes) = 0;

  // Launches on the stream that BeginRecording returns are recorded and not run; those on stream() run as
  // ever. What was recorded runs, as often as Launch is called, on stream().
  virtual absl::StatusOr<Stream> BeginRecording() = 0;
  virtual absl::StatusOr<std::unique_ptr<Graph>> EndRecording() = 0;
  virtual void Launch(const Graph& graph) = 0;

  virtual absl::StatusOr<std::unique_ptr<Event>> NewEvent() = 0;
  // Everything so far is before the event.
  virtual void Record(Event& event) = 0;
  // Waits for that and returns the first error, of launches and copies, since the Record or Synchronize
  // before. DataLoss: the device will run nothing any more for this process.
  virtual absl::Status Wait(Event& event) = 0;
  // The same for everything so far.
  virtual absl::Status Synchronize() = 0;

  virtual Stream stream() const = 0;
  virtual int multiprocessors() const = 0;
};

}  // namespace orrery::cuda

#endif  // ORRERY_ENGINE_CUDA_DEVICE_H_
