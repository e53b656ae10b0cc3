// Waiting for something that another thread brings about.
#ifndef ORRERY_TESTS_SERVER_EVENTUALLY_H_
#define ORRERY_TESTS_SERVER_EVENTUALLY_H_

#include <chrono>
#include <functional>
#include <thread>

namespace orrery::testing {

// Polls until `what` holds; half a minute is the bound of a hang, not of a time that is asserted.
inline bool Eventually(const std::function<bool()>& what) {
  for (int i = 0; i < 30'000; ++i) {
    if (what()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

}  // namespace orrery::testing

#endif  // ORRERY_TESTS_SERVER_EVENTUALLY_H_
