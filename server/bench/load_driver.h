// Sends a schedule through a transport and records what comes back. The sending loop never waits for a
// response: in an open loop a request goes out at its intended time whatever the server does, and when the
// client is late the lag is recorded and counted into the latency.
#ifndef ORRERY_SERVER_BENCH_LOAD_DRIVER_H_
#define ORRERY_SERVER_BENCH_LOAD_DRIVER_H_

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "server/bench/prompt_builder.h"
#include "server/bench/request_record.h"
#include "server/bench/run_clock.h"
#include "server/bench/schedule.h"
#include "server/bench/transport.h"

namespace orrery::bench {

struct DriverOptions {
  int64_t max_in_flight = 0;  // 0: no cap. At the cap a send is held back, and its lag shows it
  std::optional<double> temperature;
  std::string id_prefix;  // of request ids
  uint64_t seed = 0;      // of the requests' sampling
};

struct DriverProgress {
  Time now;
  int64_t sent = 0;
  int64_t in_flight = 0;
  int64_t ended = 0;
  int64_t bad = 0;     // failed or rejected
  int64_t tokens = 0;  // received
};

class LoadDriver {
 public:
  // All referents must outlive the driver; the schedule must not change. One run per driver.
  LoadDriver(const Schedule& schedule, const PromptBuilder& prompts, Transport* transport, RunClock* clock,
             DriverOptions options);
  ~LoadDriver();

  // Runs to the end of the schedule, or until *stop: then sends no more and cancels what is open. Calls
  // `progress` a few times a second. Returns one record per request of the schedule, in its order.
  std::vector<RequestRecord> Run(const std::atomic<bool>& stop,
                                 const std::function<void(const DriverProgress&)>& progress);

 private:
  class Flight;

  bool MaySend(Time now);
  void Send(Time now);
  // Builds the message of the next request ahead of its time.
  void Prepare();
  Time NextWake(Time now) const;
  void OnFlightEnd(Time at, bool bad);
  DriverProgress Progress(Time now) const;

  const Schedule& schedule_;
  const PromptBuilder& prompts_;
  Transport* const transport_;
  RunClock* const clock_;
  const DriverOptions options_;

  std::vector<RequestRecord> records_;  // a record belongs to its stream from Send to OnEnd
  std::vector<std::unique_ptr<Flight>> flights_;
  size_t next_ = 0;
  bool prepared_ = false;
  OutgoingRequest message_;  // of schedule_.requests[next_], when prepared_
  Time next_progress_;

  std::atomic<int64_t> tokens_{0};
  std::atomic<int64_t> ended_{0};
  std::atomic<int64_t> bad_{0};
  std::mutex mutex_;
  std::deque<Time> freed_;  // guarded by mutex_; closed loop: when each free user became free
};

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_LOAD_DRIVER_H_
