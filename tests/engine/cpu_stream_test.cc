// Order, copies and bounds of the stream that the CPU backend runs.
#include "engine/cpu_stream.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

namespace orrery {
namespace {

TEST(CpuStreamTest, RunsInOrderAndOnlyOnce) {
  ThreadPool threads(2);
  CpuStream stream(threads, nullptr);
  std::vector<int> order;
  for (int i = 0; i < 5; ++i) stream.Enqueue("push", [i, &order] { order.push_back(i); });
  EXPECT_TRUE(order.empty());
  stream.Run();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4}));
  stream.Run();
  EXPECT_EQ(order.size(), 5u);
}

TEST(CpuStreamTest, AFullStreamRunsWhatItHas) {
  ThreadPool threads(1);
  CpuStream stream(threads, nullptr);
  std::vector<int> order, expected(3000);
  std::iota(expected.begin(), expected.end(), 0);
  for (const int i : expected) stream.Enqueue("push", [i, &order] { order.push_back(i); });
  EXPECT_GT(order.size(), 0u);
  stream.Run();
  EXPECT_EQ(order, expected);
}

TEST(CpuStreamTest, TracedSpansFollowEachOther) {
  ThreadPool threads(2);
  KernelTrace trace;
  CpuStream stream(threads, &trace);
  std::vector<uint64_t> inside;
  for (int run = 0; run < 2; ++run) {
    stream.Enqueue("a", [&] { inside.push_back(Ticks()); });
    stream.Enqueue("b", [&] {
      threads.Run([&](int thread, int) {
        if (thread == 0) inside.push_back(Ticks());
      });
    });
    stream.Run();
  }
  ASSERT_EQ(trace.spans.size(), 4u);
  uint64_t last = 0;
  for (size_t i = 0; i < trace.spans.size(); ++i) {
    const KernelTrace::Span& span = trace.spans[i];
    EXPECT_EQ(span.name, std::string(i % 2 == 0 ? "a" : "b"));
    EXPECT_LE(last, span.begin);
    EXPECT_LE(span.begin, inside[i]);
    EXPECT_LE(inside[i], span.end);
    last = span.end;
  }
}

}  // namespace
}  // namespace orrery
