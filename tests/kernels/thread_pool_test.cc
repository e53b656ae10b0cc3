#include "kernels/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

namespace orrery {
namespace {

TEST(ThreadPoolTest, RunEntersOncePerThreadAndPublishesWhatWasWritten) {
  for (int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    ASSERT_EQ(pool.num_threads(), threads);
    std::vector<int> plain(threads);  // not atomic: the sanitizer sees a missing edge
    for (int round = 0; round < 300; ++round) {
      pool.Run([&](int thread, int num_threads) {
        ASSERT_EQ(num_threads, threads);
        ++plain[thread];
      });
      ASSERT_EQ(std::accumulate(plain.begin(), plain.end(), 0), (round + 1) * threads);
    }
  }
}

TEST(ThreadPoolTest, ThreadsWakeAfterSleeping) {
  ThreadPool pool(3);
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::atomic<int> entered{0};
    pool.Run([&](int, int) { ++entered; });
    ASSERT_EQ(entered.load(), 3);
  }
}

TEST(ThreadPoolTest, BarrierSeparatesPhases) {
  constexpr int kThreads = 4;
  ThreadPool pool(kThreads);
  std::vector<int64_t> value(kThreads, 1);
  pool.Run([&](int thread, int num_threads) {
    for (int phase = 0; phase < 200; ++phase) {
      const int64_t left = value[(thread + 1) % num_threads];
      pool.Barrier();
      value[thread] = (value[thread] + left) % 1000003;
      pool.Barrier();
    }
  });
  for (int64_t v : value) EXPECT_EQ(v, value[0]);  // equal starts stay equal only if no phase was torn
  int64_t expected = 1;
  for (int phase = 0; phase < 200; ++phase) expected = 2 * expected % 1000003;
  EXPECT_EQ(value[0], expected);
}

TEST(ThreadPoolTest, ParallelForCoversEveryItemOnceInPiecesOfGrain) {
  std::mt19937 random(7);
  ThreadPool pool(3);
  for (int round = 0; round < 200; ++round) {
    const int64_t count = random() % 1000;
    const int64_t grain = 1 + random() % 70;
    std::vector<int> seen(count, 0);
    pool.ParallelFor(count, grain, [&](int64_t begin, int64_t end, int thread) {
      ASSERT_EQ(begin % grain, 0);
      ASSERT_LE(end - begin, grain);
      ASSERT_LT(thread, 3);
      for (int64_t i = begin; i < end; ++i) ++seen[i];
    });
    ASSERT_EQ(std::count(seen.begin(), seen.end(), 1), count);
  }
}

TEST(ThreadPoolTest, SizeIsClamped) {
  EXPECT_EQ(ThreadPool(0).num_threads(), 1);
  EXPECT_EQ(ThreadPool(-3).num_threads(), 1);
}

TEST(ThreadPoolTest, IdlePoolUsesNoProcessorTime) {
  ThreadPool pool(2);
  pool.Run([](int, int) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const std::clock_t before = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const double used_s = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  EXPECT_LT(used_s, 0.1);  // a spinning thread would use the whole 0.2 s
}

}  // namespace
}  // namespace orrery
