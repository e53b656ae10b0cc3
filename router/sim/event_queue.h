// The future of a simulation: events by time; at equal times by kind, then worker, then order of entry, so
// that a run is a function of its inputs alone.
#ifndef ORRERY_ROUTER_SIM_EVENT_QUEUE_H_
#define ORRERY_ROUTER_SIM_EVENT_QUEUE_H_

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <vector>

#include "scheduler/base/time.h"

namespace orrery::sim {

// In the order in which they take effect at one instant: what ends comes before what begins.
enum class EventKind : uint32_t {
  kWorkerLost,
  kWorkerBack,
  kStepDone,
  kArrival,
  kPatience,
  kWake,
  kRouterWake
};

struct Event {
  Time at;
  EventKind kind{};
  uint32_t worker = 0;
  uint64_t number = 0;   // kStepDone, kWake: the worker's incarnation; kPatience: the request id
  uint64_t entered = 0;  // set by the queue

  friend bool operator<(const Event& a, const Event& b) {
    if (a.at != b.at) return a.at < b.at;
    return std::tie(a.kind, a.worker, a.entered) < std::tie(b.kind, b.worker, b.entered);
  }
};

class EventQueue {
 public:
  bool empty() const { return heap_.empty(); }
  const Event& next() const { return heap_.front(); }
  void Push(Event event) {
    event.entered = entered_++;
    heap_.push_back(event);
    std::push_heap(heap_.begin(), heap_.end(), Later);
  }
  Event Pop() {
    std::pop_heap(heap_.begin(), heap_.end(), Later);
    const Event event = heap_.back();
    heap_.pop_back();
    return event;
  }

 private:
  static bool Later(const Event& a, const Event& b) { return b < a; }
  std::vector<Event> heap_;
  uint64_t entered_ = 0;
};

}  // namespace orrery::sim

#endif  // ORRERY_ROUTER_SIM_EVENT_QUEUE_H_
