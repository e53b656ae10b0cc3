// The driver against a server in virtual time: no threads, no sleeping, every latency exact.
#include "server/bench/load_driver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <map>

#include "server/bench/measurement.h"

namespace orrery::bench {
namespace {

constexpr Duration Ms(int64_t v) { return Duration::Milliseconds(v); }

// A clock and a server on one event queue.
class World : public RunClock, public Transport {
 public:
  // How the server treats a request: first token after `ttft`, then one token every `gap`.
  struct Service {
    Duration ttft = Ms(10);
    Duration gap = Ms(5);
    Outcome outcome = Outcome::kCompleted;
  };
  std::function<Service(const OutgoingRequest&)> service = [](const OutgoingRequest&) { return Service{}; };
  Duration send_cost;  // client time that each Send takes
  std::vector<OutgoingRequest> requests;
  std::vector<Time> send_times;
  int64_t open = 0;
  int64_t most_open = 0;

  Time Now() const override { return now_; }
  void Wake() override { woken_ = true; }
  void WaitUntil(Time deadline) override {
    while (!woken_ && !events_.empty() && events_.begin()->first <= deadline) {
      now_ = std::max(now_, events_.begin()->first);
      auto run = std::move(events_.begin()->second);
      events_.erase(events_.begin());
      run();
    }
    if (!woken_) now_ = std::max(now_, deadline);
    woken_ = false;
  }

  void Send(const OutgoingRequest& request, StreamEvents* events) override {
    requests.push_back(request);
    send_times.push_back(now_);
    most_open = std::max(most_open, ++open);
    streams_[events] = {service(request), request.max_tokens, 0};
    const Service& how = streams_[events].service;
    At(now_ + how.ttft, [this, events] { Step(events); });
    now_ = now_ + send_cost;
  }
  void CancelAll() override {
    cancelled_all = true;
    while (!streams_.empty()) End(streams_.begin()->first, Outcome::kUnfinished);
  }
  void At(Time time, std::function<void()> what) { events_.emplace(time, std::move(what)); }
  bool cancelled_all = false;

 private:
  struct Stream {
    Service service;
    int32_t wanted = 0;
    int32_t given = 0;
  };

  void Step(StreamEvents* events) {
    auto it = streams_.find(events);
    if (it == streams_.end()) return;  // cancelled
    Stream& stream = it->second;
    if (stream.service.outcome != Outcome::kCompleted) return End(events, stream.service.outcome);
    ++stream.given;
    if (!events->OnTokens(1)) return End(events, Outcome::kFailed);
    if (stream.given == stream.wanted) return End(events, Outcome::kCompleted);
    At(now_ + stream.service.gap, [this, events] { Step(events); });
  }
  void End(StreamEvents* events, Outcome outcome) {
    StreamEnd end;
    end.outcome = outcome;
    end.prompt_tokens = 16;
    if (outcome == Outcome::kRejected) end.reason = "queue_full";
    if (outcome == Outcome::kFailed) end.reason = "cancelled";
    streams_.erase(events);
    --open;
    events->OnEnd(end);
  }

  Time now_;
  bool woken_ = false;
  std::multimap<Time, std::function<void()>> events_;
  std::map<StreamEvents*, Stream> streams_;
};

Schedule MakeSchedule(LoadMode mode, std::vector<int64_t> at_ms, int32_t output_tokens = 4) {
  Schedule schedule;
  schedule.mode = mode;
  schedule.concurrency = 1;
  schedule.classes.resize(1);
  for (const int64_t at : at_ms) {
    RequestSpec spec;
    spec.shape.prompt_tokens = 16;
    spec.shape.output_tokens = output_tokens;
    spec.shape.fixed_output = true;
    spec.intended = Time{} + Ms(at);
    schedule.requests.push_back(spec);
  }
  return schedule;
}

struct Outcomes {
  std::vector<RequestRecord> records;
  Measurement block;
};

Outcomes Drive(const Schedule& schedule, World* world, DriverOptions options = {}) {
  auto space = TokenSpace::Create(1000, {});
  const PromptBuilder prompts(*space, 1);
  LoadDriver driver(schedule, prompts, world, world, options);
  std::atomic<bool> stop{false};
  Outcomes out;
  out.records = driver.Run(stop, [](const DriverProgress&) {});
  out.block = Measure(schedule, out.records);
  return out;
}

TEST(LoadDriver, OpenLoopSendsOnTimeWhateverTheServerDoes) {
  World world;
  // A server that gives nothing for a minute: all sends must be long over by then.
  world.service = [](const OutgoingRequest&) { return World::Service{Ms(60'000), Ms(5)}; };
  const Schedule schedule = MakeSchedule(LoadMode::kOpenLoop, {5, 7, 7, 100, 2500});
  const Outcomes out = Drive(schedule, &world);
  ASSERT_EQ(world.send_times.size(), 5u);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(world.send_times[i], schedule.requests[i].intended);
    EXPECT_EQ(out.records[i].sent, out.records[i].intended);
    EXPECT_EQ(out.records[i].chunks.front().at - out.records[i].sent, Ms(60'000));
  }
  EXPECT_EQ(out.block.completed, 5);
  EXPECT_EQ(out.block.max_concurrent_requests, 5);
  EXPECT_EQ(*out.block.send_lag_p99_ms, 0);
  EXPECT_DOUBLE_EQ(out.block.duration, 62.515);
}

TEST(LoadDriver, RequestsCarryWhatTheScheduleSays) {
  World world;
  Schedule schedule = MakeSchedule(LoadMode::kOpenLoop, {0, 1}, 3);
  schedule.classes[0].tenant = "acme";
  schedule.classes[0].priority = 4;
  schedule.classes[0].name = "chat";
  schedule.classes[0].slo.ttft_ms = 50;
  schedule.requests[1].shape.kind = PromptKind::kChat;
  schedule.requests[1].shape.text = "hello";
  schedule.requests[1].shape.fixed_output = false;
  DriverOptions options;
  options.id_prefix = "run-";
  options.temperature = 0.5;
  Drive(schedule, &world, options);
  ASSERT_EQ(world.requests.size(), 2u);
  EXPECT_EQ(world.requests[0].request_id, "run-0");
  EXPECT_EQ(world.requests[0].token_ids.size(), 16u);
  EXPECT_EQ(world.requests[0].max_tokens, 3);
  EXPECT_TRUE(world.requests[0].ignore_eos);
  EXPECT_EQ(world.requests[0].temperature, 0.5);
  EXPECT_EQ(world.requests[0].tenant, "acme");
  EXPECT_EQ(world.requests[0].priority, 4);
  EXPECT_EQ(world.requests[0].slo_class, "chat");
  EXPECT_EQ(*world.requests[0].slo.ttft_ms, 50);
  EXPECT_EQ(world.requests[1].request_id, "run-1");
  EXPECT_TRUE(world.requests[1].token_ids.empty());
  EXPECT_EQ(world.requests[1].text, "hello");
  EXPECT_FALSE(world.requests[1].ignore_eos);
  EXPECT_NE(world.requests[0].seed, world.requests[1].seed);
}

// A client that is slow to send must not hide it: latency counts from the intended time.
TEST(LoadDriver, LatencyIncludesTheClientsOwnLag) {
  World world;
  world.send_cost = Ms(20);
  const Outcomes out = Drive(MakeSchedule(LoadMode::kOpenLoop, {0, 0, 0}, 1), &world);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(out.records[i].intended, Time{});
    EXPECT_EQ(out.records[i].sent, Time{} + Ms(20 * i));
  }
  // The second waited 20 ms for the client and 10 ms for the server; its token could only be seen when the
  // client was free again.
  EXPECT_DOUBLE_EQ(out.block.ttft_ms->mean - out.block.ttft_sent_ms->mean, 20);
  EXPECT_DOUBLE_EQ(*out.block.send_lag_p99_ms, 39.6);
}

TEST(LoadDriver, ClosedLoopKeepsItsConcurrency) {
  World world;
  Schedule schedule = MakeSchedule(LoadMode::kClosedLoop, std::vector<int64_t>(10, 0));
  schedule.concurrency = 3;
  const Outcomes out = Drive(schedule, &world);
  EXPECT_EQ(world.most_open, 3);
  EXPECT_EQ(out.block.max_concurrent_requests, 3);
  // Each takes 10 + 3 * 5 ms; ten requests by three users are four rounds.
  EXPECT_DOUBLE_EQ(out.block.duration, 0.1);
  EXPECT_EQ(out.records[3].intended, Time{} + Ms(25));
  EXPECT_EQ(out.records[9].end, Time{} + Ms(100));
  EXPECT_DOUBLE_EQ(out.block.ttft_ms->mean, 10);
  EXPECT_DOUBLE_EQ(out.block.tpot_ms->mean, 5);
}

TEST(LoadDriver, MaxInFlightHoldsSendsBackAndShowsIt) {
  World world;
  DriverOptions options;
  options.max_in_flight = 2;
  const Outcomes out = Drive(MakeSchedule(LoadMode::kOpenLoop, {0, 0, 0, 1}), &world, options);
  EXPECT_EQ(world.most_open, 2);
  EXPECT_EQ(out.records[2].sent, Time{} + Ms(25));
  EXPECT_EQ(out.records[2].intended, Time{});
  EXPECT_DOUBLE_EQ(*TtftMs(out.records[2]), 35);
  EXPECT_DOUBLE_EQ(*TtftMs(out.records[3]), 34);
}

TEST(LoadDriver, CancelsAtThePlannedToken) {
  World world;
  Schedule schedule = MakeSchedule(LoadMode::kOpenLoop, {0, 0, 0}, 4);
  schedule.requests[0].cancel_after_tokens = 2;
  schedule.requests[1].cancel_after_tokens = 4;  // with the last token
  const Outcomes out = Drive(schedule, &world);
  EXPECT_EQ(out.records[0].chunks.size(), 2u);
  EXPECT_EQ(out.records[0].result.outcome, Outcome::kCancelled);
  EXPECT_EQ(out.records[1].result.outcome, Outcome::kCancelled);
  EXPECT_EQ(out.block.cancelled, 2);
  EXPECT_EQ(out.block.failed, 0);
  EXPECT_EQ(out.block.completed, 1);
  EXPECT_TRUE(out.block.errors.empty());
}

TEST(LoadDriver, RefusalsAreNotFailures) {
  World world;
  int n = 0;
  world.service = [&](const OutgoingRequest&) {
    const Outcome outcomes[] = {Outcome::kCompleted, Outcome::kRejected, Outcome::kFailed};
    return World::Service{Ms(10), Ms(5), outcomes[n++ % 3]};
  };
  const Outcomes out = Drive(MakeSchedule(LoadMode::kOpenLoop, {0, 1, 2, 3}), &world);
  EXPECT_EQ(out.block.completed, 2);
  EXPECT_EQ(out.block.rejected, 1);
  EXPECT_EQ(out.block.failed, 1);
  EXPECT_EQ(out.block.errors.at("queue_full"), 1);
  EXPECT_EQ(out.block.errors.at("cancelled"), 1);
}

TEST(LoadDriver, AStopGivesPartialResults) {
  World world;
  const Schedule schedule = MakeSchedule(LoadMode::kOpenLoop, {0, 1000, 2000, 3000}, 200);
  auto space = TokenSpace::Create(1000, {});
  const PromptBuilder prompts(*space, 1);
  LoadDriver driver(schedule, prompts, &world, &world, {});
  std::atomic<bool> stop{false};
  world.At(Time{} + Ms(1500), [&] { stop = true; });
  DriverProgress last;
  const auto records = driver.Run(stop, [&](const DriverProgress& progress) { last = progress; });
  EXPECT_TRUE(world.cancelled_all);
  const Measurement block = Measure(schedule, records);
  EXPECT_EQ(block.completed, 1);
  EXPECT_EQ(block.unfinished, 3);
  EXPECT_EQ(block.failed, 0);
  EXPECT_EQ(last.sent, 2);
  EXPECT_EQ(last.in_flight, 0);
  EXPECT_FALSE(records[2].was_sent());
}

TEST(LoadDriver, AStopEndsABurst) {
  World world;
  const Schedule schedule = MakeSchedule(LoadMode::kOpenLoop, std::vector<int64_t>(100, 0));
  auto space = TokenSpace::Create(1000, {});
  const PromptBuilder prompts(*space, 1);
  LoadDriver driver(schedule, prompts, &world, &world, {});
  std::atomic<bool> stop{false};
  world.service = [&](const OutgoingRequest&) {
    stop = world.requests.size() == 7;
    return World::Service{};
  };
  const auto records = driver.Run(stop, [](const DriverProgress&) {});
  EXPECT_EQ(world.requests.size(), 7u);
  EXPECT_FALSE(records[7].was_sent());
}

TEST(LoadDriver, WarmupIsSentButNotMeasured) {
  World world;
  Schedule schedule = MakeSchedule(LoadMode::kOpenLoop, {0, 1000, 1500, 2000}, 2);
  schedule.warmup = 2;
  world.service = [&](const OutgoingRequest&) {
    return World::Service{world.send_times.size() <= 2 ? Ms(700) : Ms(10), Ms(5)};
  };
  const Outcomes out = Drive(schedule, &world);
  EXPECT_EQ(world.requests.size(), 4u);
  EXPECT_EQ(out.block.completed, 2);
  EXPECT_EQ(out.block.total_output_tokens, 4);
  EXPECT_DOUBLE_EQ(out.block.ttft_ms->percentiles[4], 10);
  // From the last warm-up send at 1000 ms to the last token at 2015 ms: two gaps, two requests.
  EXPECT_DOUBLE_EQ(out.block.duration, 1.015);
  EXPECT_EQ(out.block.max_concurrent_requests, 2);  // load of the warm-up is load all the same
}

TEST(LoadDriver, TenThousandAtOnce) {
  World world;
  const Outcomes out = Drive(MakeSchedule(LoadMode::kOpenLoop, std::vector<int64_t>(10'000, 0), 2), &world);
  EXPECT_EQ(out.block.completed, 10'000);
  EXPECT_EQ(out.block.max_concurrent_requests, 10'000);
  EXPECT_EQ(out.block.max_output_tokens_per_s, 20'000);
}

}  // namespace
}  // namespace orrery::bench
