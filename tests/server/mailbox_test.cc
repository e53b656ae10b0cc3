#include "server/loop/mailbox.h"

#include <atomic>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace orrery {
namespace {

TEST(Mailbox, KeepsOrderAndDrainsAtOnce) {
  Mailbox<int> mailbox;
  for (int i = 0; i < 5; ++i) mailbox.Push(i);
  std::vector<int> out;
  mailbox.Drain(&out);
  EXPECT_EQ(out, (std::vector<int>{0, 1, 2, 3, 4}));
  out.clear();
  mailbox.Drain(&out);
  EXPECT_TRUE(out.empty());
}

TEST(Mailbox, InterruptWakesAnEmptyReceiverOnce) {
  Mailbox<int> mailbox;
  Clock clock;
  mailbox.Interrupt();
  mailbox.Wait(clock, Time::Never());  // returns at once
  std::thread later([&] { mailbox.Interrupt(); });
  mailbox.Wait(clock, Time::Never());
  later.join();
}

TEST(Mailbox, WaitEndsAtItsTime) {
  Mailbox<int> mailbox;
  Clock clock;
  const Time until = clock.Now() + Duration::Milliseconds(5);
  mailbox.Wait(clock, until);
  EXPECT_GE(clock.Now(), until);
}

TEST(Mailbox, QuietItemsComeWithTheNextLoudOne) {
  Mailbox<int> mailbox;
  mailbox.PushQuietly(1);
  mailbox.Push(2);
  std::vector<int> out;
  mailbox.Drain(&out);
  EXPECT_EQ(out, (std::vector<int>{1, 2}));
}

// Nothing is lost, doubled or reordered within a sender, and no wake-up is missed (or this hangs).
TEST(Mailbox, ManySendersOneSleepyReceiver) {
  constexpr int kSenders = 4, kEach = 20'000;
  Mailbox<std::pair<int, int>> mailbox;
  Clock clock;
  std::vector<std::thread> senders;
  for (int s = 0; s < kSenders; ++s) {
    senders.emplace_back([&, s] {
      for (int i = 0; i < kEach; ++i) mailbox.Push({s, i});
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
