// The requests that are in the system, found in O(1) by an id that also orders them by arrival.
#ifndef ORRERY_ROUTER_SIM_LIVE_TABLE_H_
#define ORRERY_ROUTER_SIM_LIVE_TABLE_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "router/sim/workload.h"
#include "scheduler/base/ids.h"
#include "scheduler/base/time.h"

namespace orrery::sim {

struct LiveRequest {
  SimRequest request;
  RequestId id{};
  uint64_t serial = 0;
  bool measured = false;
  bool live = false;
  Time first_scheduled = Time::Never(), first_token = Time::Never();
  Time last_token = Time::Never();  // of those that another worker made
  Time gives_up = Time::Never();    // when its patience ends, should it still wait
  int32_t made = 0;
  bool replayed = false;  // goes on after tokens of a worker that was lost
};

class LiveTable {
 public:
  // The id is (serial, entry): ascending in order of arrival.
  LiveRequest* Add(SimRequest request, uint64_t serial) {
    uint32_t entry = static_cast<uint32_t>(entries_.size());
    if (free_.empty()) {
      entries_.emplace_back();
    } else {
      entry = free_.back();
      free_.pop_back();
    }
    LiveRequest& added = entries_[entry];
    added = LiveRequest{};
    added.request = std::move(request);
    added.id = RequestId{(serial << kEntryBits) | entry};
    added.serial = serial;
    added.live = true;
    return &added;
  }
  // Null once it has left. Valid until the next Add.
  LiveRequest* Find(RequestId id) {
    const uint64_t entry = Value(id) & ((uint64_t{1} << kEntryBits) - 1);
    if (entry >= entries_.size()) return nullptr;
    LiveRequest* found = &entries_[entry];
    return found->live && found->id == id ? found : nullptr;
  }
  void Remove(LiveRequest* request) {
    request->live = false;
    request->request.tokens.reset();
    free_.push_back(static_cast<uint32_t>(request - entries_.data()));
  }
  bool full() const { return free_.empty() && entries_.size() == size_t{1} << kEntryBits; }
  int64_t size() const { return static_cast<int64_t>(entries_.size() - free_.size()); }

 private:
  static constexpr int kEntryBits = 24;
  std::vector<LiveRequest> entries_;
  std::vector<uint32_t> free_;
};

}  // namespace orrery::sim

#endif  // ORRERY_ROUTER_SIM_LIVE_TABLE_H_
