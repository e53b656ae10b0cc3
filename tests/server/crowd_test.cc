// Many at once: thousands of open streams, ten thousand requests in a burst.
#include <atomic>
#include <condition_variable>
#include <mutex>

#include "gtest/gtest.h"
#include "tests/server/server_harness.h"

namespace orrery::testing {
namespace {

// A client of many calls on gRPC's own threads.
class Crowd {
 public:
  explicit Crowd(v1::Inference::Stub* stub) : stub_(stub) {}
  ~Crowd() { Wait(); }

  void Start(const v1::GenerateRequest& request) {
    {
      std::lock_guard lock(mutex_);
      ++open_;
    }
    (new Call(this, request))->Begin();
  }
  void Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return open_ == 0; });
  }

  std::atomic<int64_t> started{0}, completed{0}, refused{0}, other{0}, tokens{0};

 private:
  class Call final : public grpc::ClientReadReactor<v1::GenerateResponse> {
   public:
    Call(Crowd* crowd, const v1::GenerateRequest& request) : crowd_(crowd), request_(request) {}
    void Begin() {
      crowd_->stub_->async()->Generate(&context_, &request_, this);
      StartRead(&message_);
      StartCall();
    }
    void OnReadDone(bool ok) override {
      if (!ok) return;
      if (message_.has_started()) ++crowd_->started;
      crowd_->tokens += message_.delta().token_ids_size();
      StartRead(&message_);
    }
    void OnDone(const grpc::Status& status) override {
      if (status.ok()) {
        ++crowd_->completed;
      } else if (IsLoadRefusal(status)) {
        ++crowd_->refused;
      } else {
        ++crowd_->other;
      }
      Crowd* crowd = crowd_;
      delete this;
      std::lock_guard lock(crowd->mutex_);
      --crowd->open_;
      crowd->changed_.notify_all();
    }

   private:
    bool IsLoadRefusal(const grpc::Status& status) const {
      const auto info = ErrorInfoOf(status);
      const auto& trailers = context_.GetServerTrailingMetadata();
      return status.error_code() == grpc::RESOURCE_EXHAUSTED && info && info->reason() == "queue_full" &&
             trailers.find("grpc-retry-pushback-ms") != trailers.end();
    }

    Crowd* crowd_;
    const v1::GenerateRequest request_;
    grpc::ClientContext context_;
    v1::GenerateResponse message_;
  };

  v1::Inference::Stub* stub_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t open_ = 0;  // guarded by mutex_
};

TEST(Crowd, TwoThousandStreamsAreOpenAtOnceAndAllComplete) {
  constexpr int kStreams = 2000;
  Harness harness;
  harness.engine().Hold();
  Crowd crowd(&harness.stub());
  for (int i = 0; i < kStreams; ++i) crowd.Start(Harness::Request("hello", 5));
  EXPECT_TRUE(Eventually([&] { return crowd.started == kStreams; }));
  EXPECT_EQ(harness.Load().open_streams(), static_cast<uint32_t>(kStreams));
  harness.engine().Release();
  crowd.Wait();
  EXPECT_EQ(crowd.completed, kStreams);
  EXPECT_EQ(crowd.tokens, kStreams * 5);
  EXPECT_TRUE(Eventually([&] { return harness.IsIdle(); }));
}

TEST(Crowd, TenThousandRequestsAtOnceAreServedOrRefusedWithAReason) {
  constexpr int kRequests = 10'000;
  Harness::Setup setup;
  setup.config.max_open_requests = 3000;
  Harness harness(setup);
  harness.engine().Hold();  // nothing ends, so whoever finds the house full is refused
  Crowd crowd(&harness.stub());
  for (int i = 0; i < kRequests; ++i) crowd.Start(Harness::Request("hello", 3));
  EXPECT_TRUE(Eventually([&] { return crowd.started + crowd.refused + crowd.other == kRequests; }));
  harness.engine().Release();
  crowd.Wait();
  EXPECT_GE(crowd.refused, kRequests - 3000) << "with the reason queue_full and a pushback";
  EXPECT_EQ(crowd.completed + crowd.refused, kRequests);
  EXPECT_EQ(crowd.other, 0);
  EXPECT_GT(crowd.completed, 0);
  EXPECT_EQ(crowd.tokens, crowd.completed * 3);
  EXPECT_TRUE(Eventually([&] {
    return harness.Metric("orrery_requests_total", {{"outcome", "rejected"}}) == crowd.refused &&
           harness.Metric("orrery_requests_total", {{"outcome", "length"}}) == crowd.completed;
  }));
  EXPECT_TRUE(Eventually([&] { return harness.IsIdle(); }));
}

}  // namespace
}  // namespace orrery::testing
