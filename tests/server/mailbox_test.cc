#include "server/loop/mailbox.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace orrery {
namespace {

TEST(Mailbox, KeepsOrderAndDrainsAtOnce) {
  Mailbox<int> mailbox(10);
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(mailbox.TryPush(i));
  std::vector<int> out;
  mailbox.Drain(&out);
  EXPECT_EQ(out, (std::vector<int>{0, 1, 2, 3, 4}));
  out.clear();
  mailbox.Drain(&out);
  EXPECT_TRUE(out.empty());
}

TEST(Mailbox, FullLeavesTheItemWithTheSender) {
  Mailbox<std::unique_ptr<int>> mailbox(1);
  auto first = std::make_unique<int>(1), second = std::make_unique<int>(2);
  EXPECT_TRUE(mailbox.TryPush(first));
  EXPECT_FALSE(mailbox.TryPush(second));
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(*second, 2);
  std::vector<std::unique_ptr<int>> out;
  mailbox.Drain(&out);
  EXPECT_TRUE(mailbox.TryPush(second));
}

TEST(Mailbox, InterruptWakesAnEmptyReceiverOnce) {
  Mailbox<int> mailbox(1);
  Clock clock;
  mailbox.Interrupt();
  mailbox.Wait(clock, Time::Never());  // returns at once
  std::thread later([&] { mailbox.Interrupt(); });
  mailbox.Wait(clock, Time::Never());
  later.join();
}

TEST(Mailbox, WaitEndsAtItsTime) {
  Mailbox<int> mailbox(1);
  Clock clock;
  const Time until = clock.Now() + Duration::Milliseconds(5);
  mailbox.Wait(clock, until);
  EXPECT_GE(clock.Now(), until);
}

TEST(Mailbox, QuietItemsComeWithTheNextLoudOne) {
  Mailbox<int> mailbox(10);
  mailbox.PushQuietly(1);
  mailbox.Push(2);
  std::vector<int> out;
  mailbox.Drain(&out);
  EXPECT_EQ(out, (std::vector<int>{1, 2}));
}

// Nothing is lost, doubled or reordered within a sender, and no wake-up is missed (or this hangs).
TEST(Mailbox, ManySendersOneSleepyReceiver) {
  constexpr int kSenders = 4, kEach = 20'000;
  Mailbox<std::pair<int, int>> mailbox(64);
  Clock clock;
  std::vector<std::thread> senders;
  for (int s = 0; s < kSenders; ++s) {
    senders.emplace_back([&, s] {
      for (int i = 0; i < kEach; ++i) {
        std::pair<int, int> item{s, i};
        if (i % 3 == 0) {
          mailbox.Push(item);
          continue;
        }
        while (!mailbox.TryPush(item)) std::this_thread::yield();
      }
    });
  }
  std::vector<int> next(kSenders, 0);
  std::vector<std::pair<int, int>> batch;
  for (int received = 0; received < kSenders * kEach;) {
    mailbox.Wait(clock, Time::Never());
    mailbox.Drain(&batch);
    for (const auto& [sender, index] : batch) ASSERT_EQ(index, next[static_cast<size_t>(sender)]++);
    received += static_cast<int>(batch.size());
    batch.clear();
  }
  for (std::thread& sender : senders) sender.join();
}

}  // namespace
}  // namespace orrery
