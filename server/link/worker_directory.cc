#include "server/link/worker_directory.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/base/hash.h"
#include "server/base/client_channel.h"
#include "server/link/wire.h"
#include "spdlog/spdlog.h"

namespace orrery {
namespace {

namespace v1 = ::orrery::v1;

constexpr Duration kFirstRetry = Duration::Milliseconds(100), kLastRetry = Duration::Seconds(5);
constexpr auto kLeaveInterval = std::chrono::milliseconds(1);
constexpr int kMostRanks = 64;
constexpr int64_t kMostBlockTokens = 1024;

// One rank at the end of one stream.
class RankLink final : public WorkerLink {
 public:
  RankLink(std::shared_ptr<WorkerStream> stream, uint32_t rank) : stream_(std::move(stream)), rank_(rank) {}
  void Submit(orrery::Submit submit) override { stream_->Send(rank_, std::move(submit)); }
  void CancelRequest(RequestId request) override { stream_->Send(rank_, request); }
  void CancelSample(const SampleKey& key) override { stream_->Send(rank_, key); }
  void TellPrefixes() override { stream_->Send(rank_, WorkerStream::TellPrefixes{}); }
  void Reset() override { stream_->Cut(); }

 private:
  const std::shared_ptr<WorkerStream> stream_;
  const uint32_t rank_;
};

uint64_t HashOf(const std::string& text) { return SipHash13(0, 0).FinishWith(text).low; }

// gRPC's own patience with an address that nobody listens at is longer than ours.
std::shared_ptr<grpc::Channel> NewChannel(const std::string& address) {
  grpc::ChannelArguments arguments = ClientChannelArguments();
  arguments.SetMaxReceiveMessageSize(kMostWireBytes);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, static_cast<int>(kFirstRetry.milliseconds()));
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, static_cast<int>(kFirstRetry.milliseconds()));
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, static_cast<int>(kLastRetry.milliseconds()));
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

// What must be equal for a request to go from one worker to another.
std::string WeightsOf(const v1::WorkerHello& hello) {
  return absl::StrCat(hello.model_digest(), " in ", hello.dtype(), ", ", hello.weights(), ", KV ",
                      hello.kv_dtype());
}

int32_t Bounded(uint32_t value) {
  return static_cast<int32_t>(std::min<uint32_t>(value, std::numeric_limits<int32_t>::max()));
}

absl::StatusOr<WorkerInfo> InfoOf(const v1::RankHello& hello) {
  if (hello.role() > static_cast<uint32_t>(WorkerRole::kDecode))
    return absl::InvalidArgumentError("no such role");
  if (hello.block_tokens() < 1 || hello.block_tokens() > kMostBlockTokens || hello.slots() < 1 ||
      hello.max_step_tokens() < 1) {
    return absl::InvalidArgumentError("a rank without blocks, slots or steps");
  }
  WorkerInfo info;
  info.incarnation = hello.incarnation();
  info.role = static_cast<WorkerRole>(hello.role());
  info.kv_capacity_tokens = int64_t{hello.num_blocks()} * hello.block_tokens();
  info.max_context = Bounded(hello.max_context());
  info.slots = Bounded(hello.slots());
  info.max_step_tokens = Bounded(hello.max_step_tokens());
  info.block_tokens = Bounded(hello.block_tokens());
  info.hash_key_id = hello.hash_key_id();
  return info;
}

}  // namespace

// One address and the stream to it, if there is one.
class WorkerDirectory::Process : public std::enable_shared_from_this<WorkerDirectory::Process> {
 public:
  Process(WorkerDirectory* directory, std::string address)
      : directory_(directory),
        address_(std::move(address)),
        stub_(v1::Worker::NewStub(NewChannel(address_))) {}

  // Opens a stream when it is time, looks after the one that is open.
  void Tend(Time now, bool member) {
    leaves_.store(!member);
    std::shared_ptr<WorkerStream> stream;
    {
      std::lock_guard lock(mutex_);
      if (stream_ == nullptr && member && now >= retry_at_) Open();
      stream = stream_;
    }
    if (stream != nullptr) stream->Beat(now);
  }
  void Cut() {
    std::lock_guard lock(mutex_);
    if (stream_ != nullptr) stream_->Cut();
  }
  bool open() const {
    std::lock_guard lock(mutex_);
    return stream_ != nullptr;
  }
  // When no stream is open.
  const std::vector<WorkerId>& ids() const { return ids_; }

 private:
  void Open() {
    WorkerStream::Events events;
    events.hello = [self = shared_from_this()](const v1::WorkerHello& hello) { return self->OnHello(hello); };
    events.report = [this](uint32_t rank, WorkerReport report) { OnReport(rank, std::move(report)); };
    events.end = [self = shared_from_this()](const absl::Status& why) { self->OnEnd(why); };
    stream_ =
        WorkerStream::Open(stub_.get(), directory_->options_.hello, directory_->clock_, std::move(events));
  }

  // Open holds the mutex until stream_ is there.
  std::shared_ptr<WorkerStream> Stream() const {
    std::lock_guard lock(mutex_);
    return stream_;
  }

  absl::Status OnHello(const v1::WorkerHello& hello) {
    const WorkerDirectory::Options& options = directory_->options_;
    if (hello.protocol_version() != kWorkerProtocol) {
      return absl::FailedPreconditionError(absl::StrCat("the worker's protocol version is ",
                                                        hello.protocol_version(), ", this router's ",
                                                        kWorkerProtocol));
    }
    if (hello.config_digest() != options.hello.config_digest() ||
        hello.tokenizer_digest() != options.hello.tokenizer_digest() ||
        hello.vocab_size() != options.vocab_size) {
      return absl::FailedPreconditionError("the worker serves another model");
    }
    if (hello.ranks_size() < 1 || hello.ranks_size() > kMostRanks) {
      return absl::InvalidArgumentError(absl::StrCat("the worker has ", hello.ranks_size(), " ranks"));
    }
    std::vector<WorkerInfo> infos;
    // Ranks of one process share its machine.
    const bool comparable = hello.ranks_size() == 1 && !hello.hardware().empty();
    for (const v1::RankHello& rank : hello.ranks()) {
      auto info = InfoOf(rank);
      if (!info.ok()) return info.status();
      if (comparable) info->peers = std::max<uint64_t>(1, HashOf(hello.hardware()));
      infos.push_back(*info);
    }
    if (absl::Status status = directory_->Join(WeightsOf(hello), infos.size(), &ids_); !status.ok())
      return status;
    infos_ = std::move(infos);
    {
      std::lock_guard lock(mutex_);
      retry_ = kFirstRetry;
    }
    const std::shared_ptr<WorkerStream> stream = Stream();
    std::vector<AttachedWorker> workers;
    for (size_t rank = 0; rank < infos_.size(); ++rank) {
      infos_[rank].worker = ids_[rank];
      workers.push_back({std::make_shared<RankLink>(stream, static_cast<uint32_t>(rank)), infos_[rank]});
    }
    directory_->events_.up(std::move(workers));
    spdlog::info("worker {} is up, ranks: {}", address_, infos_.size());
    return absl::OkStatus();
  }

  void OnReport(uint32_t rank, WorkerReport report) {
    if (rank >= infos_.size()) return;
    // One that the membership no longer names gets nothing new, and goes when it is done.
    if (leaves_.load()) {
      report.state.draining = true;
      if (infos_.size() == 1 && report.state.num_running + report.state.num_waiting == 0) Cut();
    }
    report.state.worker = infos_[rank].worker;
    report.state.incarnation = infos_[rank].incarnation;
    directory_->events_.report(std::move(report));
  }

  void OnEnd(const absl::Status& why) {
    const std::string reason(why.message());
    if (!infos_.empty()) {
      spdlog::warn("worker {} is gone: {}", address_, reason);
    } else if (reason != last_reason_) {
      spdlog::warn("worker {}: {}", address_, reason);  // once: it is tried again and again
    }
    last_reason_ = infos_.empty() ? reason : "";
    if (!infos_.empty()) directory_->events_.down(std::exchange(infos_, {}));
    {
      std::lock_guard lock(mutex_);
      stream_ = nullptr;
      retry_at_ = directory_->clock_->Now() + retry_;
      retry_ = std::min(kLastRetry, retry_ + retry_);
    }
  }

  WorkerDirectory* const directory_;
  const std::string address_;
  const std::unique_ptr<v1::Worker::Stub> stub_;
  std::atomic<bool> leaves_{false};
  mutable std::mutex mutex_;
  std::shared_ptr<WorkerStream> stream_;
  Time retry_at_;
  Duration retry_ = kFirstRetry;
  // Of the stream's events.
  std::vector<WorkerId> ids_;
  std::vector<WorkerInfo> infos_;  // up; empty before the hello
  std::string last_reason_;
};

WorkerDirectory::Options WorkerDirectory::WithProtocol(Options options) {
  options.hello.set_protocol_version(kWorkerProtocol);
  options.hello.set_heartbeat_ns(static_cast<uint64_t>(options.heartbeat.ns));
  return options;
}

WorkerDirectory::WorkerDirectory(Options options, std::unique_ptr<Membership> membership, const Clock* clock,
                                 Events events)
    : options_(WithProtocol(std::move(options))),
      membership_(std::move(membership)),
      clock_(clock),
      events_(std::move(events)),
      resolver_([this] { Resolve(); }),
      thread_([this] { Run(); }) {}

WorkerDirectory::~WorkerDirectory() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
  resolver_.join();
}

void WorkerDirectory::Run() {
  pthread_setname_np(pthread_self(), "directory");
  const auto pause = std::chrono::nanoseconds(std::min(options_.heartbeat, kFirstRetry).ns / 2);
  std::unique_lock lock(mutex_);
  while (!stop_) {
    const std::set<std::string> members = members_;
    lock.unlock();
    for (const std::string& address : members) {
      auto& process = processes_[address];
      if (process == nullptr) process = std::make_shared<Process>(this, address);
    }
    const Time now = clock_->Now();
    for (const auto& [address, process] : processes_) process->Tend(now, members.contains(address));
    // Who is no member any more may finish what it has, then it is forgotten.
    std::erase_if(processes_, [&](const auto& entry) {
      if (members.contains(entry.first) || entry.second->open()) return false;
      Forget(entry.second->ids());
      return true;
    });
    lock.lock();
    wake_.wait_for(lock, pause, [this] { return stop_; });
  }
  lock.unlock();
  for (const auto& [address, process] : processes_) process->Cut();
  const auto open = [](const auto& entry) { return entry.second->open(); };
  while (std::any_of(processes_.begin(), processes_.end(), open)) std::this_thread::sleep_for(kLeaveInterval);
}

void WorkerDirectory::Resolve() {
  pthread_setname_np(pthread_self(), "membership");
  std::unique_lock lock(mutex_);
  while (!stop_) {
    lock.unlock();
    std::vector<std::string> members = membership_->Resolve();
    if (members.size() > options_.max_workers) {
      spdlog::warn("more than {} workers: {} of them are left out", options_.max_workers,
                   members.size() - options_.max_workers);
      members.resize(options_.max_workers);
    }
    lock.lock();
    members_ = {members.begin(), members.end()};
    wake_.wait_for(lock, std::chrono::nanoseconds(options_.resolve_interval.ns), [this] { return stop_; });
  }
}

absl::Status WorkerDirectory::Join(const std::string& weights, size_t num_ranks, std::vector<WorkerId>* ids) {
  std::lock_guard lock(mutex_);
  if (!weights_.empty() && weights != weights_) {
    return absl::FailedPreconditionError(
        absl::StrCat("the worker's weights are ", weights, ", those of the others ", weights_));
  }
  weights_ = weights;
  while (ids->size() > num_ranks) {
    free_ids_.insert(ids->back());
    ids->pop_back();
  }
  while (ids->size() < num_ranks) {
    if (free_ids_.empty()) free_ids_.insert(WorkerId{next_id_++});
    ids->push_back(free_ids_.extract(free_ids_.begin()).value());
  }
  return absl::OkStatus();
}

void WorkerDirectory::Forget(const std::vector<WorkerId>& ids) {
  std::lock_guard lock(mutex_);
  free_ids_.insert(ids.begin(), ids.end());
}

}  // namespace orrery
