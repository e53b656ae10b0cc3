#include "server/link/worker_service.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/base/check.h"
#include "server/link/wire.h"
#include "spdlog/spdlog.h"

namespace orrery {
namespace {

namespace v1 = ::orrery::v1;

// A request's number inside the workers: the stream's above, the router's below.
constexpr int kRequestBits = 40;
constexpr uint64_t kRequestMask = (uint64_t{1} << kRequestBits) - 1;
constexpr Duration kShortestHeartbeat = Duration::Milliseconds(10), kLongestHeartbeat = Duration::Seconds(60);
constexpr uint64_t kMostSubmissions = uint64_t{1} << 48;  // of one stream
constexpr size_t kMostReports = 64;                       // of one message
// A router that is so far behind is gone.
constexpr size_t kMostUnsentReports = 1 << 14, kMostUnsentEvents = 1 << 18;
constexpr Duration kHelloTimeout = Duration::Seconds(5);

}  // namespace

// One stream. gRPC's threads react, the workers' threads report; both meet under the mutex, where nothing
// waits. Deletes itself when the call is over and nobody holds it any more.
class WorkerSession final : public grpc::ServerBidiReactor<v1::ToWorker, v1::FromWorker> {
 public:
  static std::shared_ptr<WorkerSession> Create(WorkerService* service, grpc::CallbackServerContext* context) {
    std::shared_ptr<WorkerSession> session(new WorkerSession(service, context));
    session->self_ = session;
    session->StartRead(&session->in_);
    return session;
  }

  // By the service, before it hands out reports.
  void Open(uint64_t number, std::vector<uint64_t> bases, Duration heartbeat, v1::WorkerHello hello) {
    number_ = number;
    bases_ = std::move(bases);
    last_submissions_ = bases_;
    alive_.resize(bases_.size());
    heartbeat_ = heartbeat;
    hello_ = std::move(hello);
  }

  void Send(WorkerReport report) {
    Translate(&report);
    {
      std::lock_guard lock(mutex_);
      if (ending_) return;
      unsent_events_ += report.events.size();
      if (unsent_.size() >= kMostUnsentReports || unsent_events_ > kMostUnsentEvents) return Cut();
      const bool wait = report.more_follow || writing_;
      unsent_.push_back(std::move(report));
      if (wait) return;
      writing_ = true;
    }
    WriteNext();
  }

  // Signs of life both ways. On the service's thread.
  void Beat(Time now) {
    if (now.ns - heard_ns_.load() > kSilentHeartbeats * heartbeat_.ns) {
      return Cancel();
    }
    if (now.ns - said_ns_.load() < heartbeat_.ns) return;
    {
      std::lock_guard lock(mutex_);
      if (ending_ || std::exchange(writing_, true)) return;
    }
    WriteNext();
  }
  Duration heartbeat() const { return heartbeat_; }
  // Under the service's mutex.
  bool greeted() const { return number_ != 0; }
  Time heard() const { return Time{heard_ns_.load()}; }

  // The end comes as the end of the reads.
  void Cancel() {
    std::lock_guard lock(mutex_);
    Cut();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return EndWith(grpc::Status::OK);  // or cancelled: then nobody reads this
    const Time now = service_->parts_.clock->Now();
    heard_ns_.store(now.ns);
    const absl::Status status = number_ == 0 ? TakeHello() : TakeCommands(now);
    if (!status.ok()) {
      return EndWith({static_cast<grpc::StatusCode>(status.code()), std::string(status.message())});
    }
    StartRead(&in_);
  }
  void OnWriteDone(bool ok) override {
    grpc::Status status;
    {
      std::lock_guard lock(mutex_);
      if (!ending_ && ok && !unsent_.empty()) {
        // goes on below
      } else {
        writing_ = false;
        if (!ending_) return;
        status = status_;
        ok = false;
      }
    }
    ok ? WriteNext() : Finish(status);
  }
  void OnDone() override {
    {
      std::lock_guard lock(mutex_);
      over_ = true;
    }
    CancelAll();
    service_->End(this);
    const auto self = std::move(self_);
  }
  // Of each rank; the last that this stream or an earlier one has sent.
  const std::vector<uint64_t>& last_submissions() const { return last_submissions_; }

 private:
  static constexpr int64_t kSilentHeartbeats = 5;

  WorkerSession(WorkerService* service, grpc::CallbackServerContext* context)
      : service_(service), context_(context) {
    heard_ns_ = said_ns_ = service->parts_.clock->Now().ns;
  }

  absl::Status TakeHello() {
    if (!in_.has_router()) return absl::InvalidArgumentError("the first message must be the router's hello");
    if (absl::Status status = service_->Begin(in_.router(), self_); !status.ok()) return status;
    {
      std::lock_guard lock(mutex_);
      if (std::exchange(writing_, true)) return absl::OkStatus();
    }
    WriteNext();
    return absl::OkStatus();
  }

  absl::Status TakeCommands(Time now) {
    SharedTokens tokens;
    for (const v1::WireCommand& command : in_.commands()) {
      if (command.rank() >= service_->parts_.ranks.size()) return absl::InvalidArgumentError("no such rank");
      WorkerLink& link = *service_->parts_.ranks[command.rank()];
      if (command.has_submit()) {
        auto submit = FromWire(command.submit(), now, &tokens);
        if (!submit.ok()) return submit.status();
        if (Value(submit->key.request) > kRequestMask) return absl::InvalidArgumentError("no such request");
        submit->key.request = Inside(submit->key.request);
        const uint64_t last = last_submissions_[command.rank()] - bases_[command.rank()];
        if (submit->submission <= last || submit->submission > kMostSubmissions) {
          return absl::InvalidArgumentError("submissions must ascend");
        }
        submit->submission += bases_[command.rank()];
        last_submissions_[command.rank()] = submit->submission;
        {
          std::lock_guard lock(mutex_);
          alive_[command.rank()].insert(submit->key);
        }
        link.Submit(*std::move(submit));
      } else if (command.has_cancel_sample()) {
        SampleKey key = FromWire(command.cancel_sample());
        key.request = Inside(key.request);
        link.CancelSample(key);
      } else if (command.has_tell_prefixes()) {
        link.TellPrefixes();
      } else {
        link.CancelRequest(Inside(RequestId{command.cancel_request()}));
      }
    }
    return absl::OkStatus();
  }

  RequestId Inside(RequestId request) const {
    return RequestId{(Value(request) & kRequestMask) | (number_ << kRequestBits)};
  }
  // Of this stream's requests? Then as the router knows it.
  bool Outside(SampleKey* key) const {
    if (Value(key->request) >> kRequestBits != number_) return false;
    key->request = RequestId{Value(key->request) & kRequestMask};
    return true;
  }

  void Translate(WorkerReport* report) {
    const size_t rank = Value(report->state.worker);
    {
      std::lock_guard lock(mutex_);
      for (const SampleEnd& end : report->ended) alive_[rank].erase(end.key);
      for (const RefusedSample& refused : report->refused) alive_[rank].erase(refused.key);
    }
    std::erase_if(report->events, [this](TokenEvent& event) { return !Outside(&event.key); });
    std::erase_if(report->ended, [this](SampleEnd& end) { return !Outside(&end.key); });
    std::erase_if(report->refused, [this](RefusedSample& refused) { return !Outside(&refused.key); });
    uint64_t& last = report->state.last_submission;
    last -= std::min(last, bases_[rank]);
  }

  // REQUIRES: the reads have ended, and nobody was told so.
  void EndWith(const grpc::Status& status) {
    {
      std::lock_guard lock(mutex_);
      ending_ = true;
      status_ = status;
      if (writing_) return;  // OnWriteDone goes on
    }
    Finish(status);
  }

  // REQUIRES: mutex_.
  void Cut() {
    if (!over_) context_->TryCancel();
  }

  // REQUIRES: writing_, which this call holds.
  void WriteNext() {
    std::vector<WorkerReport> reports;
    out_.Clear();
    {
      std::lock_guard lock(mutex_);
      if (hello_.protocol_version() != 0) *out_.mutable_worker() = std::exchange(hello_, {});
      const size_t count = std::min(unsent_.size(), kMostReports);
      const auto end = unsent_.begin() + static_cast<std::ptrdiff_t>(count);
      reports.assign(std::make_move_iterator(unsent_.begin()), std::make_move_iterator(end));
      unsent_.erase(unsent_.begin(), end);
      for (const WorkerReport& report : reports) unsent_events_ -= report.events.size();
    }
    const Time now = service_->parts_.clock->Now();
    for (const WorkerReport& report : reports)
      ToWire(report, Value(report.state.worker), now, out_.add_reports());
    said_ns_.store(now.ns);
    StartWrite(&out_);
  }

  void CancelAll() {
    // Reports still come in meanwhile.
    std::vector<std::set<SampleKey>> alive;
    {
      std::lock_guard lock(mutex_);
      for (std::set<SampleKey>& keys : alive_) alive.push_back(std::exchange(keys, {}));
    }
    for (size_t rank = 0; rank < alive.size(); ++rank) {
      for (const SampleKey& key : alive[rank]) service_->parts_.ranks[rank]->CancelSample(key);
    }
  }

  WorkerService* const service_;
  grpc::CallbackServerContext* const context_;
  // Set once, before the first report is taken.
  uint64_t number_ = 0;
  std::vector<uint64_t> bases_;  // of the ranks' submissions
  Duration heartbeat_ = Duration::Seconds(1);
  std::atomic<int64_t> heard_ns_{0}, said_ns_{0};
  v1::ToWorker in_;                         // of the reads
  std::vector<uint64_t> last_submissions_;  // of the reads
  v1::FromWorker out_;                      // of the message in flight

  std::mutex mutex_;
  v1::WorkerHello hello_;  // to be written
  std::vector<WorkerReport> unsent_;
  size_t unsent_events_ = 0;
  std::vector<std::set<SampleKey>> alive_;  // by rank: submitted and not over
  bool writing_ = false, ending_ = false, over_ = false;
  grpc::Status status_;
  std::shared_ptr<WorkerSession> self_;
};

WorkerService::WorkerService(Parts parts)
    : parts_(std::move(parts)), last_submissions_(parts_.ranks.size(), 0), beat_([this] { Beat(); }) {
  ORRERY_CHECK(parts_.ranks.size() == static_cast<size_t>(parts_.hello.ranks_size()));
}

WorkerService::~WorkerService() {
  Close();
  beat_.join();
}

grpc::ServerBidiReactor<v1::ToWorker, v1::FromWorker>* WorkerService::Connect(
    grpc::CallbackServerContext* context) {
  const std::shared_ptr<WorkerSession> session = WorkerSession::Create(this, context);
  std::lock_guard lock(mutex_);
  greeting_.push_back(session);
  wake_.notify_all();
  return session.get();
}

absl::Status WorkerService::Begin(const v1::RouterHello& hello,
                                  const std::shared_ptr<WorkerSession>& session) {
  const v1::WorkerHello& own = parts_.hello;
  const auto differs = [](const char* what, const auto& theirs, const auto& ours) {
    return absl::FailedPreconditionError(
        absl::StrCat("the router's ", what, " is '", theirs, "', this worker's '", ours, "'"));
  };
  if (hello.protocol_version() != own.protocol_version()) {
    return differs("protocol version", hello.protocol_version(), own.protocol_version());
  }
  if (hello.config_digest() != own.config_digest()) {
    return differs("model configuration", hello.config_digest(), own.config_digest());
  }
  if (hello.tokenizer_digest() != own.tokenizer_digest()) {
    return differs("tokenizer", hello.tokenizer_digest(), own.tokenizer_digest());
  }
  if (!parts_.ready()) return absl::UnavailableError("the worker is not ready");
  const Duration heartbeat{
      std::clamp<int64_t>(static_cast<int64_t>(hello.heartbeat_ns() & ~(uint64_t{1} << 63)),
                          kShortestHeartbeat.ns, kLongestHeartbeat.ns)};
  std::lock_guard lock(mutex_);
  if (closed_) return absl::UnavailableError("the worker is draining");
  if (session_ != nullptr) return absl::UnavailableError("the worker serves another router");
  ++num_sessions_;
  v1::WorkerHello answer = own;
  for (v1::RankHello& rank : *answer.mutable_ranks())
    rank.set_incarnation(rank.incarnation() + num_sessions_);
  session->Open(num_sessions_, last_submissions_, heartbeat, std::move(answer));
  session_ = session;
  wake_.notify_all();
  spdlog::info("a router has connected");
  return absl::OkStatus();
}

void WorkerService::End(const WorkerSession* session) {
  std::lock_guard lock(mutex_);
  if (session_.get() != session) return;
  last_submissions_ = session->last_submissions();
  session_.reset();
  spdlog::warn("the router is gone");
}

void WorkerService::Report(WorkerReport report) {
  std::shared_ptr<WorkerSession> session;
  {
    std::lock_guard lock(mutex_);
    session = session_;
  }
  if (session != nullptr) session->Send(std::move(report));
}

void WorkerService::Close() {
  std::shared_ptr<WorkerSession> session;
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    session = session_;
  }
  wake_.notify_all();
  if (session != nullptr) session->Cancel();
}

std::vector<std::shared_ptr<WorkerSession>> WorkerService::TakeSilent(Time now) {
  std::vector<std::shared_ptr<WorkerSession>> silent;
  std::erase_if(greeting_, [&](const std::weak_ptr<WorkerSession>& one) {
    std::shared_ptr<WorkerSession> session = one.lock();
    if (session == nullptr || session->greeted()) return true;
    if (now - session->heard() < kHelloTimeout) return false;
    silent.push_back(std::move(session));
    return true;
  });
  return silent;
}

void WorkerService::Beat() {
  pthread_setname_np(pthread_self(), "heartbeat");
  std::unique_lock lock(mutex_);
  while (!closed_) {
    if (session_ == nullptr && greeting_.empty()) {
      wake_.wait(lock);
      continue;
    }
    const Time now = parts_.clock->Now();
    const std::shared_ptr<WorkerSession> session = session_;
    const std::vector<std::shared_ptr<WorkerSession>> silent = TakeSilent(now);
    lock.unlock();
    if (session != nullptr) session->Beat(now);
    for (const auto& one : silent) one->Cancel();
    lock.lock();
    const Duration pause = session != nullptr ? session->heartbeat() : kHelloTimeout;
    wake_.wait_for(lock, std::chrono::nanoseconds(pause.ns / 4));
  }
}

}  // namespace orrery
