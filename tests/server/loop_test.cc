// The threads of the server without gRPC: front loop, worker loop, journal file and metrics between clients
// that send, read, stall and give up at random. Every call ends exactly once, every request is counted once,
// nothing leaks. ThreadSanitizer runs it (label concurrency): all the code that shares anything here is ours.
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <map>
#include <mutex>
#include <thread>

#include "gtest/gtest.h"
#include "router/policy/registry.h"
#include "scheduler/base/random.h"
#include "scheduler/worker_factory.h"
#include "server/base/errors.h"
#include "server/grpc/write_gate.h"
#include "server/loop/front_loop.h"
#include "server/loop/step_barrier.h"
#include "server/loop/worker_loop.h"
#include "spdlog/spdlog.h"
#include "tests/engine/worker_spec.h"
#include "tests/server/byte_codec.h"
#include "tests/server/eventually.h"
#include "tests/server/fake_engine.h"

namespace orrery::testing {
namespace {

constexpr int32_t kContext = 512;

EngineLimits SmallLimits() {
  EngineLimits limits;
  limits.num_blocks = 64, limits.block_tokens = 16, limits.max_num_seqs = 16, limits.max_step_tokens = 128;
  limits.max_context = kContext, limits.vocab_size = kByteVocab;
  return limits;
}

WorkerSpec SpecOf(const EngineLimits& limits) {
  WorkerSpec spec = testing::WorkerSpecOf(limits);
  spec.options.max_in_flight = 1;
  spec.options.prefix_cache = true;
  return spec;
}

// The front and one worker as the daemon puts them together, with a pool small enough for preemption.
class Loops {
 public:
  // `told_context`: what the front is told that the worker can hold of one sequence, which is kContext.
  explicit Loops(const std::string& journal = "", int32_t told_context = kContext,
                 std::unique_ptr<RoutePolicy> policy = NewRoutePolicy("jsq-tokens").value()) {
    spdlog::set_level(spdlog::level::off);
    const EngineLimits limits = SmallLimits();
    const WorkerSpec spec = SpecOf(limits);
    WorkerLoop::Parts parts;
    parts.core = NewWorkerCore(spec).value();
    parts.executor = std::make_unique<FakeEngine>(limits, control_);
    if (!journal.empty()) {
      parts.journal = std::make_unique<JournalWriter>(spec);
      parts.journal_file = JournalFile::Create(journal).value();
    }
    FrontOptions options;
    options.stream_buffer_bytes = 16 << 10;
    options.plan_interval = Duration::Milliseconds(10);
    front_ = std::make_unique<FrontLoop>(options, std::move(policy), &clock_, &metrics_);
    worker_ = std::make_shared<WorkerLoop>(
        std::move(parts), &clock_, [this](WorkerReport report) { front_->Report(std::move(report)); });
    WorkerInfo info;
    info.worker = spec.options.worker;
    info.kv_capacity_tokens = int64_t{limits.num_blocks} * limits.block_tokens;
    info.max_context = told_context;
    info.slots = limits.max_num_seqs;
    front_->WorkersUp({{worker_, info}});
  }
  ~Loops() { Stop(); }
  void Stop() {
    worker_->Stop();
    front_->Stop();
  }

  RequestId NextId() { return RequestId{next_id_.fetch_add(1)}; }
  double Count(const std::string& outcome) const {
    for (const auto& family : metrics_.registry()->Collect()) {
      if (family.name != "orrery_requests_total") continue;
      for (const auto& metric : family.metric) {
        for (const auto& label : metric.label) {
          if (label.name == "outcome" && label.value == outcome) return metric.counter.value;
        }
      }
    }
    return 0;
  }
  double CountAll() const {
    double sum = 0;
    for (int i = 0; i < kNumOutcomes; ++i) sum += Count(NameOf(static_cast<Outcome>(i)));
    return sum;
  }
  // What a client has seen end may be counted an instant later.
  bool AllCounted(double calls) const {
    return Eventually([&] { return CountAll() >= calls; }) && CountAll() == calls;
  }
  prometheus::ClientMetric::Histogram StepSequences() const {
    for (const auto& family : metrics_.registry()->Collect()) {
      if (family.name == "orrery_step_sequences") return family.metric.at(0).histogram;
    }
    return {};
  }
  bool Idle() const {
    const LoadBoard& load = front_->load();
    return load.live_requests == 0 && load.running == 0 && load.waiting == 0 &&
           load.blocks_free == load.blocks_total;
  }

  Clock clock_;
  ServerMetrics metrics_{MetricsIdentity()};
  std::shared_ptr<EngineControl> control_ = std::make_shared<EngineControl>();
  std::unique_ptr<FrontLoop> front_;
  std::shared_ptr<WorkerLoop> worker_;

 private:
  std::atomic<uint64_t> next_id_{1};
};

// A call as the front sees it: one message at a time is under way until its client has read it.
class Call final : public StreamWriter {
 public:
  bool TryWrite(const orrery::v1::GenerateResponse& message) override { return Take(message, nullptr); }
  bool TryWriteAndFinish(const orrery::v1::GenerateResponse& message, const grpc::Status& status) override {
    return Take(message, &status);
  }
  void Finish(const grpc::Status& status, int64_t) override {
    std::lock_guard lock(mutex_);
    End(status);
  }
  void Abort() override {
    std::lock_guard lock(mutex_);
    aborted_ = true;
    changed_.notify_all();
  }

  // The client: waits for the next message and takes it. False at the end. *notify: the front wants to hear.
  bool Read(bool* notify) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return busy_ || num_ends_ > 0 || aborted_; });
    if (!busy_) return false;
    busy_ = false;
    *notify = std::exchange(notify_, false);
    return true;
  }
  void AwaitEnd() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return num_ends_ > 0; });
  }
  int num_ends() { return Locked(num_ends_); }
  int num_finished() { return Locked(num_finished_); }
  int num_tokens() { return Locked(num_tokens_); }
  grpc::Status status() { return Locked(status_); }

 private:
  template <typename T>
  T Locked(const T& value) {
    std::lock_guard lock(mutex_);
    return value;
  }
  bool Take(const orrery::v1::GenerateResponse& message, const grpc::Status* last) {
    std::lock_guard lock(mutex_);
    if (busy_) {
      notify_ = true;
      return false;
    }
    busy_ = true;
    num_tokens_ += message.delta().token_ids_size();
    num_finished_ += message.has_finished();
    if (last != nullptr) End(*last);
    changed_.notify_all();
    return true;
  }
  void End(const grpc::Status& status) {
    ++num_ends_;
    status_ = status;
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool busy_ = false, notify_ = false, aborted_ = false;
  int num_ends_ = 0, num_finished_ = 0, num_tokens_ = 0;
  grpc::Status status_;
};

struct Wish {
  int32_t prompt = 8, max_tokens = 8;
  uint32_t choices = 1;
  int give_up_after = -1;  // messages; negative: never
  Duration deadline = Duration::Infinite();
  std::string stop;  // a stop string; empty: none
};

GenerationSpec SpecOf(RequestId id, const Wish& wish) {
  GenerationSpec spec;
  spec.request_id = std::to_string(Value(id));
  std::vector<TokenId> prompt(static_cast<size_t>(wish.prompt));
  for (size_t i = 0; i < prompt.size(); ++i)
    prompt[i] = 'a' + static_cast<TokenId>(i % 7);  // shared beginnings
  spec.prompt = std::make_shared<const std::vector<TokenId>>(std::move(prompt));
  spec.sampling.temperature = 0;
  spec.stop.max_tokens = wish.max_tokens;
  spec.num_choices = wish.choices;
  spec.deadline = wish.deadline;
  if (!wish.stop.empty()) spec.stop_strings = *StopStrings::Create({wish.stop});
  return spec;
}

// One request from its arrival to its end, as gRPC's threads would take it through. Returns how it ended.
std::shared_ptr<Call> RunCall(Loops& loops, const Wish& wish) {
  const RequestId id = loops.NextId();
  auto call = std::make_shared<Call>();
  loops.front_->Arrive(
      std::make_unique<Generation>(id, SpecOf(id, wish), ByteCodec(), call, loops.clock_.Now()));
  bool notify = false;
  for (int read = 0;; ++read) {
    if (read == wish.give_up_after) loops.front_->Cancelled(id, false);
    if (!call->Read(&notify)) break;
    if (notify) loops.front_->Writable(id);
  }
  call->AwaitEnd();
  loops.front_->Closed(id);
  return call;
}

void ExpectWhole(Call& call, const Wish& wish) {
  EXPECT_EQ(call.num_ends(), 1);
  if (!call.status().ok()) return;
  EXPECT_EQ(call.num_finished(), static_cast<int>(wish.choices));
  EXPECT_EQ(call.num_tokens(), wish.max_tokens * static_cast<int>(wish.choices));
}

Wish RandomWish(RandomStream& random) {
  Wish wish;
  wish.prompt = 1 + static_cast<int32_t>(random.Below(200));
  wish.max_tokens = 1 + static_cast<int32_t>(random.Below(60));
  wish.choices = 1 + static_cast<uint32_t>(random.Below(3));
  if (random.Below(4) == 0) wish.give_up_after = static_cast<int>(random.Below(6));
  if (random.Below(8) == 0) wish.deadline = Duration::Milliseconds(static_cast<int64_t>(random.Below(5)));
  return wish;
}

// Looks at everything that other threads may look at, until told to stop.
class Onlooker {
 public:
  explicit Onlooker(Loops& loops)
      : thread_([this, &loops] {
          while (!stop_.load()) {
            EXPECT_GE(loops.worker_->StepAge().ns, 0);
            EXPECT_GE(loops.front_->load().queue_tokens.load(), 0);
            EXPECT_GE(loops.CountAll(), 0);
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
          }
        }) {}
  ~Onlooker() {
    stop_.store(true);
    thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

constexpr int kClients = 6;

// Every client runs `each` calls one after the other; returns when all are through.
void RunClients(
    Loops& loops, int each, const std::function<void(Call&)>& ended = [](Call&) {}) {
  std::vector<std::thread> clients;
  for (int c = 0; c < kClients; ++c) {
    clients.emplace_back([&, c] {
      RandomStream random(static_cast<uint64_t>(c) + 1);
      for (int i = 0; i < each; ++i) {
        const Wish wish = RandomWish(random);
        const auto call = RunCall(loops, wish);
        ExpectWhole(*call, wish);
        ended(*call);
      }
    });
  }
  for (std::thread& client : clients) client.join();
}

TEST(Loops, ClientsOfAllKindsAndAnEngineThatFails) {
  constexpr int kEach = 60;
  Loops loops;
  {
    Onlooker onlooker(loops);
    std::atomic<bool> over{false};
    std::thread saboteur([&] {
      while (!over.load()) {
        loops.control_->fail_next = true;
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
    });
    RunClients(loops, kEach);
    over.store(true);
    saboteur.join();
    loops.control_->fail_next = false;
  }
  EXPECT_TRUE(loops.AllCounted(kClients * kEach));
  EXPECT_TRUE(Eventually([&] { return loops.Idle(); }));
  EXPECT_GT(loops.Count("failed"), 0);
  EXPECT_GT(loops.Count("cancelled") + loops.Count("deadline"), 0);
  const auto call = RunCall(loops, Wish());  // and it still serves
  EXPECT_TRUE(call->status().ok());
  EXPECT_TRUE(Eventually([&] { return loops.control_->num_released == loops.control_->num_admitted; }));
}

TEST(Loops, DrainLetsRunWhatRunsAndRefusesTheRest) {
  Loops loops;
  std::promise<void> drained;
  std::atomic<int> good{0}, refused{0};
  std::atomic<bool> asked{false};
  RunClients(loops, 40, [&](Call& call) {
    const grpc::StatusCode code = call.status().error_code();
    if (code == grpc::UNAVAILABLE) ++refused;
    if (code == grpc::OK && ++good == 30 && !asked.exchange(true)) {
      loops.front_->Drain([&] { drained.set_value(); });
    }
  });
  drained.get_future().wait();
  EXPECT_GE(good, 30);
  EXPECT_GT(refused, 0);
  EXPECT_TRUE(loops.AllCounted(kClients * 40));
  EXPECT_EQ(loops.Count("rejected"), refused);
  EXPECT_TRUE(Eventually([&] { return loops.Idle(); }));
}

TEST(Loops, AbortEndsAllOfThemAtOnce) {
  Loops loops;
  loops.control_->Hold();
  Wish wish;
  wish.max_tokens = 400;
  std::vector<std::future<std::shared_ptr<Call>>> calls;
  for (int c = 0; c < kClients; ++c) {
    calls.push_back(std::async(std::launch::async, [&] { return RunCall(loops, wish); }));
  }
  EXPECT_TRUE(Eventually([&] { return loops.front_->load().live_requests == kClients; }));
  loops.front_->AbortAll();
  EXPECT_TRUE(Eventually([&] { return loops.Count("failed") == kClients; })) << "the engine does not move";
  loops.control_->Release();
  for (auto& call : calls) {
    EXPECT_EQ(call.get()->status().error_code(), grpc::UNAVAILABLE);
  }
  EXPECT_TRUE(loops.AllCounted(kClients));
  EXPECT_TRUE(Eventually([&] { return loops.Idle(); }));
}

TEST(Loops, AbortsAmongClientsOfAllKinds) {
  Loops loops;
  loops.control_->step_us = 500;
  std::thread aborter([&] {
    for (int i = 0; i < 20; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      loops.front_->AbortAll();
    }
  });
  RunClients(loops, 15);
  aborter.join();
  EXPECT_TRUE(loops.AllCounted(kClients * 15));
  EXPECT_TRUE(Eventually([&] { return loops.Idle(); }));
}

TEST(Loops, TheAgeOfAHungStepGrowsUntilItEnds) {
  Loops loops;
  loops.control_->Hold();
  auto call = std::async(std::launch::async, [&] { return RunCall(loops, Wish()); });
  EXPECT_TRUE(Eventually([&] { return loops.worker_->StepAge() >= Duration::Milliseconds(20); }));
  loops.control_->Release();
  EXPECT_TRUE(call.get()->status().ok());
  EXPECT_TRUE(Eventually([&] { return loops.worker_->StepAge() == Duration{}; }));
}

TEST(Loops, AHungStepHoldsUpTheEndForNoLongerThanAsked) {
  Loops loops;
  loops.control_->Hold();
  auto call = std::async(std::launch::async, [&] { return RunCall(loops, Wish()); });
  EXPECT_TRUE(Eventually([&] { return loops.worker_->StepAge().ns > 0; }));
  EXPECT_FALSE(loops.worker_->StopWithin(Duration::Milliseconds(20)));
  loops.front_->AbortAll();
  loops.control_->Release();
  EXPECT_TRUE(loops.worker_->StopWithin(Duration::Seconds(30)));
  EXPECT_EQ(call.get()->status().error_code(), grpc::UNAVAILABLE);
}

TEST(Loops, AStepThatOnlyReleasesSlotsIsNotMeasured) {
  Loops loops;
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(RunCall(loops, Wish())->status().ok());
    EXPECT_TRUE(Eventually([&] { return loops.control_->num_released == i + 1; }));
  }
  const auto sequences = loops.StepSequences();
  EXPECT_GT(sequences.sample_count, 0u);
  EXPECT_EQ(sequences.sample_sum, static_cast<double>(sequences.sample_count)) << "one sequence in each";
}

// The reports of two requests, of 200 and 230 tokens, where every step is predicted to take `cost`.
std::vector<WorkerReport> ReportsOf(const std::string& cost) {
  WorkerSpec spec = SpecOf(SmallLimits());
  spec.cost = cost;
  WorkerLoop::Parts parts;
  parts.core = NewWorkerCore(spec).value();
  parts.executor = std::make_unique<FakeEngine>(SmallLimits(), std::make_shared<EngineControl>());
  const Clock clock;
  std::mutex mutex;
  std::vector<WorkerReport> reports;
  size_t num_ends = 0;
  std::promise<void> ended;
  WorkerLoop worker(std::move(parts), &clock, [&](WorkerReport report) {
    std::lock_guard lock(mutex);
    for (const TokenEvent& event : report.events) num_ends += event.finish != FinishReason::kNone;
    const bool last = num_ends == 2 && !report.events.empty();
    reports.push_back(std::move(report));
    if (last) ended.set_value();
  });
  for (uint64_t request = 1; request <= 2; ++request) {
    Submit submit;
    submit.key = {RequestId{request}, 0, 0};
    submit.tokens = std::make_shared<std::vector<TokenId>>(20, 'x');
    submit.num_prompt = 20;
    submit.stop.max_tokens = request == 1 ? 200 : 230;
    worker.Submit(std::move(submit));
  }
  EXPECT_EQ(ended.get_future().wait_for(std::chrono::seconds(30)), std::future_status::ready);
  worker.Stop();
  return reports;
}

// The most steps in one report; what they say is the same however they are cut.
size_t MostStepsInAReport(const std::string& cost) {
  size_t most = 0, num_facts = 0;
  std::map<RequestId, int32_t> next;
  for (const WorkerReport& report : ReportsOf(cost)) {
    most = std::max(most, report.steps.size());
    num_facts += report.ended.size();
    for (size_t i = 0; i < report.events.size(); ++i) {
      const TokenEvent& event = report.events[i];
      // Who waits for the first token does not wait for the second.
      EXPECT_FALSE(event.index == 1 && next[event.key.request] == 1 && report.events.front().index == 0 &&
                   report.events.front().key == event.key);
      EXPECT_EQ(event.token, FakeToken(event.index));
      EXPECT_EQ(event.index, next[event.key.request]++);
    }
  }
  EXPECT_EQ(next[RequestId{1}], 200);
  EXPECT_EQ(next[RequestId{2}], 230);
  EXPECT_EQ(num_facts, 2u) << "the core forgets them when it plans again";
  return most;
}

TEST(WorkerLoop, ShortStepsShareAReportAndLongOnesDoNot) {
  // On a machine that stalls, even short steps may each be late.
  EXPECT_TRUE(Eventually([] { return MostStepsInAReport("constant:0.001") > 1; }));
  EXPECT_EQ(MostStepsInAReport("constant:1000"), 1u);
  EXPECT_EQ(MostStepsInAReport(""), 1u) << "nobody knows how long they are";
}

// The stop string is complete, the worker does not know it yet and hangs: the deadline still holds.
TEST(Loops, ADeadlineEndsWhatOnlyTheReportIsMissingOf) {
  Loops loops;
  loops.control_->hold_at = 3;
  Wish wish;
  wish.max_tokens = 100;
  wish.stop = "abc";
  wish.deadline = Duration::Milliseconds(300);
  auto call = std::async(std::launch::async, [&] { return RunCall(loops, wish); });
  EXPECT_TRUE(loops.AllCounted(1)) << "the engine does not move";
  loops.control_->Release();
  EXPECT_EQ(call.get()->num_ends(), 1);
  EXPECT_TRUE(Eventually([&] { return loops.Idle(); }));
}

TEST(Loops, WhatTheWorkerRefusesEndsWithItsReason) {
  Loops loops("", 2 * kContext);
  Wish wish;
  wish.prompt = kContext + 1;
  wish.choices = 3;
  const auto call = RunCall(loops, wish);
  EXPECT_EQ(call->num_ends(), 1);
  EXPECT_EQ(call->status().error_code(), grpc::INVALID_ARGUMENT) << call->status().error_message();
  EXPECT_EQ(loops.Count("invalid") + loops.Count("rejected"), 1);
  EXPECT_TRUE(RunCall(loops, Wish())->status().ok());
  EXPECT_TRUE(Eventually([&] { return loops.Idle(); }));
}

// Sheds every other request, and every other of those as soon as it comes: the others when it is woken.
class SheddingPolicy final : public RoutePolicy {
 public:
  void Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time now,
              Assignment* assignment) override {
    wake_ = Time::Never();
    for (const Waiting& request : waiting) {
      const uint64_t kind = Value(request.request) % 4;
      if (kind >= 2) {
        assignment->placements.push_back({request.request, cluster.workers[0].worker});
      } else if (kind == 1 || now >= request.arrival + kKept) {
        assignment->shed.push_back({.request = request.request,
                                    .target = Duration::Milliseconds(100),
                                    .predicted = Duration::Milliseconds(900),
                                    .wait = Duration::Milliseconds(800)});
      } else {
        wake_ = std::min(wake_, request.arrival + kKept);
      }
    }
  }
  Time NextWake() const override { return wake_; }

 private:
  static constexpr Duration kKept = Duration::Milliseconds(2);
  Time wake_ = Time::Never();
};

TEST(Loops, WhatIsShedIsToldThePredictedWait) {
  Loops loops("", kContext, std::make_unique<SheddingPolicy>());
  Wish wish;
  wish.choices = 3;
  for (int i = 1; i <= 16; ++i) {
    const auto call = RunCall(loops, wish);
    EXPECT_EQ(call->num_ends(), 1);
    if (i % 4 >= 2) {
      EXPECT_TRUE(call->status().ok()) << call->status().error_message();
      continue;
    }
    EXPECT_EQ(call->status().error_code(), grpc::RESOURCE_EXHAUSTED);
    const auto info = ErrorInfoOf(call->status());
    ASSERT_TRUE(info.has_value());
    EXPECT_EQ(info->reason(), "shed");
    EXPECT_EQ(info->field(), "slo.ttft");
    EXPECT_EQ(info->predicted_wait_ms(), 800);
  }
  EXPECT_TRUE(loops.AllCounted(16));
  EXPECT_EQ(loops.Count("rejected"), 8);
  EXPECT_TRUE(Eventually([&] { return loops.Idle(); }));
}

TEST(Loops, StoppedInTheMiddle) {
  Loops loops;
  loops.control_->step_us = 200;
  std::vector<std::shared_ptr<Call>> calls;
  for (int i = 0; i < 20; ++i) {
    const RequestId id = loops.NextId();
    calls.push_back(std::make_shared<Call>());
    Wish wish;
    wish.max_tokens = 400;
    loops.front_->Arrive(
        std::make_unique<Generation>(id, SpecOf(id, wish), ByteCodec(), calls.back(), loops.clock_.Now()));
  }
  EXPECT_TRUE(Eventually([&] { return loops.worker_->num_steps() > 5; }));
  loops.Stop();
}

TEST(Loops, JournalOfALiveRunReplays) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("orrery_loops_" + std::to_string(getpid()))).string();
  {
    Loops loops(path);
    RunClients(loops, 20);
    EXPECT_TRUE(Eventually([&] { return loops.Idle(); }));
  }
  std::ifstream file(path, std::ios::binary);
  const std::string journal((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::filesystem::remove(path);
  const auto replayed = Replay(journal);
  ASSERT_TRUE(replayed.ok()) << replayed.status();
  EXPECT_EQ(replayed->difference, "");
  EXPECT_FALSE(replayed->summary.truncated);
}

// What gRPC is to a call: a thread on which things happen in their order, some time later.
class Transport {
 public:
  Transport() : thread_([this] { Run(); }) {}
  ~Transport() {
    Push(nullptr);
    thread_.join();
  }
  void Push(std::function<void()> job) {
    std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
    changed_.notify_all();
  }

 private:
  void Run() {
    for (;;) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return !jobs_.empty(); });
      const std::function<void()> job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      if (job == nullptr) return;
      job();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;  // guarded by mutex_
  std::thread thread_;
};

// A call whose two sides meet in a WriteGate, as those of GenerateReactor do: nothing else orders the buffer
// and the context between them. The front's thread aborts a third of the calls, some of them after their end.
class GatedCall final : public StreamWriter, public std::enable_shared_from_this<GatedCall> {
 public:
  GatedCall(RequestId id, Loops* loops, Transport* transport, std::atomic<int>* ended)
      : id_(id), loops_(loops), transport_(transport), ended_(ended) {}

  bool TryWrite(const orrery::v1::GenerateResponse& message) override {
    if (!gate_.TryEnter()) return false;
    message.SerializeToString(&buffer_);
    gate_.Close();
    transport_->Push([self = shared_from_this()] { self->Written(); });
    if (Value(id_) % 6 == 1 && ++num_written_ == 2) Abort();
    return true;
  }
  bool TryWriteAndFinish(const orrery::v1::GenerateResponse& message, const grpc::Status& status) override {
    if (!TryWrite(message)) return false;
    Finish(status, -1);
    if (Value(id_) % 6 == 2) Abort();
    return true;
  }
  void Finish(const grpc::Status&, int64_t) override {
    transport_->Push([self = shared_from_this()] { self->Done(); });
  }
  void Abort() override {
    if (gate_.BeginAbort()) {
      ++*context_;
      transport_->Push([self = shared_from_this()] { self->loops_->front_->Cancelled(self->id_, false); });
    }
    gate_.EndAbort();
  }

 private:
  void Written() {
    EXPECT_TRUE(read_.ParseFromString(buffer_));
    buffer_.clear();
    if (gate_.Leave()) loops_->front_->Writable(id_);
  }
  void Done() {
    gate_.Finish();
    context_.reset();
    loops_->front_->Closed(id_);
    ++*ended_;
  }

  const RequestId id_;
  Loops* loops_;
  Transport* transport_;
  std::atomic<int>* ended_;
  WriteGate gate_;
  int num_written_ = 0;
  std::string buffer_;
  std::unique_ptr<int> context_ = std::make_unique<int>(0);
  orrery::v1::GenerateResponse read_;
};

TEST(Loops, CallsMeetTheirTransportInTheGateAlone) {
  constexpr int kCalls = 300;
  Loops loops;
  std::atomic<int> ended{0};
  {
    Transport transport;
    for (int i = 0; i < kCalls; ++i) {
      const RequestId id = loops.NextId();
      Wish wish;
      wish.choices = 1 + static_cast<uint32_t>(i) % 2;
      loops.front_->Arrive(std::make_unique<Generation>(
          id, SpecOf(id, wish), ByteCodec(), std::make_shared<GatedCall>(id, &loops, &transport, &ended),
          loops.clock_.Now()));
    }
    EXPECT_TRUE(Eventually([&] { return ended == kCalls; }));
    EXPECT_TRUE(Eventually([&] { return loops.Idle(); }));
  }
  EXPECT_TRUE(loops.AllCounted(kCalls));
  EXPECT_GE(loops.Count("length"), kCalls / 2);
  loops.Stop();
}

// Ranks with and without work, in any order: nobody begins a step before all have ended the one before, and
// the reports of a step are handed out together, in the order of the ranks.
TEST(StepBarrier, NobodyIsAheadOfAnybody) {
  constexpr size_t kRanks = 4;
  constexpr int kSteps = 2000;
  std::atomic<int> num_steps{0}, ahead{0}, disorder{0};
  std::array<std::atomic<int>, kRanks> ended{};
  std::array<Mailbox<int>, kRanks> boxes;
  std::vector<uint32_t> handed_out;  // under the barrier's lock
  StepBarrier barrier(kRanks, [&](const GroupStep& step) {
    ++num_steps;
    const bool sums = step.idle.ns >= 0 && step.idle.ns <= step.longest.ns * 3 && step.imbalance_tokens == 6;
    if (!sums || handed_out.size() % kRanks != 0) ++disorder;
  });
  for (size_t rank = 0; rank < kRanks; ++rank) {
    const auto sink = [&, rank](const WorkerReport& report) {
      const bool last = rank + 1 == kRanks;
      if (Value(report.state.worker) != rank || report.more_follow == last) ++disorder;
      if (handed_out.size() % kRanks != rank) ++disorder;
      handed_out.push_back(static_cast<uint32_t>(rank));
    };
    barrier.Join(rank, sink, [&boxes, rank] { boxes[rank].Interrupt(); });
  }
  const Clock clock;
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < kRanks; ++rank) {
    threads.emplace_back([&, rank] {
      RandomStream random(rank);
      while (!stop) {
        const bool work = random.Below(3) == 0;
        if (work) {
          barrier.Want(rank);
          for (const auto& other : ended) ahead += other < ended[rank];
        } else if (!barrier.wanted()) {
          boxes[rank].Wait(clock, clock.Now() + Duration::Microseconds(100));
          continue;
        }
        ++ended[rank];
        WorkerReport report;
        report.state.worker = WorkerId{static_cast<uint32_t>(rank)};
        report.state.kv_tokens = static_cast<int64_t>(rank);  // 0 + 1 + 2 + 3, at most 3
        barrier.Arrive(rank, std::move(report), work ? Duration::Microseconds(5) : Duration{});
      }
    });
  }
  EXPECT_TRUE(Eventually([&] { return num_steps >= kSteps; }));
  stop = true;
  barrier.Stop();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ahead, 0);
  EXPECT_EQ(disorder, 0);
  EXPECT_EQ(handed_out.size(), static_cast<size_t>(num_steps) * kRanks);
}

// Traffic of one kind on one worker: its price is that of the resource that runs out.
TEST(PricePlanner, PricesWhatIsShortAndForgets) {
  WorkerInfo worker;
  worker.kv_capacity_tokens = 16'000;
  worker.slots = 64;
  worker.max_step_tokens = 512;
  std::mutex mutex;
  std::vector<ResourcePrices> plans;
  PricePlanner planner(Duration::Seconds(10), Time{}, [&](ResourcePrices prices) {
    std::lock_guard lock(mutex);
    plans.push_back(std::move(prices));
  });
  planner.SetWorkers(worker, 1);
  auto next_plan = [&, seen = size_t{0}](Time now) mutable {
    planner.Tick(now);
    ++seen;
    EXPECT_TRUE(Eventually([&] {
      std::lock_guard lock(mutex);
      return plans.size() == seen;
    }));
    return plans.back();
  };
  RequestTimes times;
  times.prompt_tokens = 500;
  times.output_tokens = 500;
  StepStats step;
  for (int i = 0; i < 20; ++i) step.shape.AddDecode(750);
  step.num_decodes = step.num_sequences = 20;
  step.engine = Duration::Milliseconds(20);
  for (int i = 0; i < 500; ++i) planner.OnStep(step);
  for (int i = 0; i < 20; ++i) planner.OnEnd(times, 1);
  for (int i = 0; i < 100; ++i) planner.OnArrival(1);  // ten a second, and memory for two
  planner.Tick(Time{} + Duration::Seconds(5));         // not yet
  const ResourcePrices full = next_plan(Time{} + Duration::Seconds(10));
  const RequestUse use = UseOf(500, 0, 500, 512, 16);
  const double blocks = 16'000 / 16.0;
  EXPECT_NEAR(full.kv_block_second, 500 / (0.02 * use.block_steps), 1e-6);
  EXPECT_NEAR(full.output_tokens_per_s, full.kv_block_second * blocks, 1e-6);
  EXPECT_EQ(full.prefill_token, 0);
  EXPECT_EQ(full.slot_second, 0);
  // Two samples share a prompt that the second finds in the cache: the same tokens are computed as of one
  // request, and each is there for its own steps.
  RequestTimes two = times;
  two.prompt_tokens = 512;
  two.cached_tokens = 496;
  two.output_tokens = 1000;
  for (int i = 0; i < 500; ++i) planner.OnStep(step);
  for (int i = 0; i < 100'000; ++i) planner.OnEnd(two, 2);
  planner.OnArrival(1000);
  const ResourcePrices pairs = next_plan(planner.next());
  const double block_steps = UseOf(512, 248, 500, 512, 16).block_steps;
  EXPECT_NEAR(pairs.kv_block_second, 500 / (0.02 * block_steps), 1e-2);
  // Nobody comes any more: the prices fall to nothing, and then nobody has to be woken.
  double last = 1;
  int rounds = 1;
  for (; !planner.next().is_never() && rounds < 64; ++rounds)
    last = next_plan(planner.next()).kv_block_second;
  EXPECT_EQ(last, 0);
  EXPECT_LT(rounds, 64);
  EXPECT_TRUE(plans.back().served_rate_per_s.empty());
}

}  // namespace
}  // namespace orrery::testing
