#include "server/bench/load_driver.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/base/random.h"

namespace orrery::bench {
namespace {

constexpr Duration kProgressPeriod = Duration::Milliseconds(200);
// Room for the token times of one stream that is taken ahead; longer streams grow.
constexpr int32_t kReservedChunks = 1024;
constexpr uint32_t kSamplingStream = 32;

}  // namespace

// One stream: writes its record, on the transport's threads.
class LoadDriver::Flight : public StreamEvents {
 public:
  Flight(LoadDriver* driver, const RequestSpec& spec, RequestRecord* record)
      : driver_(driver), spec_(spec), record_(record) {}

  bool OnTokens(int32_t count) override {
    record_->chunks.push_back({driver_->clock_->Now(), count});
    driver_->tokens_.fetch_add(count, std::memory_order_relaxed);
    received_ += count;
    cancelled_ = spec_.cancel_after_tokens > 0 && received_ >= spec_.cancel_after_tokens;
    return !cancelled_;
  }

  void OnEnd(const StreamEnd& end) override {
    const Time now = driver_->clock_->Now();
    record_->result = end;
    // A cancel that came after the last token was there changes nothing for the server; the plan still
    // counts it as cancelled, so that the same schedule gives the same counts.
    if (cancelled_ && end.outcome != Outcome::kRejected) record_->result.outcome = Outcome::kCancelled;
    record_->end = now;
    const Outcome outcome = record_->result.outcome;
    driver_->OnFlightEnd(now, outcome == Outcome::kFailed || outcome == Outcome::kRejected);
  }

 private:
  LoadDriver* const driver_;
  const RequestSpec& spec_;
  RequestRecord* const record_;
  int32_t received_ = 0;
  bool cancelled_ = false;
};

LoadDriver::LoadDriver(const Schedule& schedule, const PromptBuilder& prompts, Transport* transport,
                       RunClock* clock, DriverOptions options)
    : schedule_(schedule),
      prompts_(prompts),
      transport_(transport),
      clock_(clock),
      options_(std::move(options)),
      records_(schedule.requests.size()),
      flights_(schedule.requests.size()) {
  if (schedule_.mode == LoadMode::kClosedLoop) freed_.assign(schedule_.concurrency, Time{});
}

LoadDriver::~LoadDriver() = default;

std::vector<RequestRecord> LoadDriver::Run(const std::atomic<bool>& stop,
                                           const std::function<void(const DriverProgress&)>& progress) {
  const size_t total = schedule_.requests.size();
  if (schedule_.mode == LoadMode::kClosedLoop) {
    const Time start = clock_->Now();
    std::fill(freed_.begin(), freed_.end(), start);
  }
  Prepare();
  while (!stop.load(std::memory_order_relaxed)) {
    Time now = clock_->Now();
    while (next_ < total && !stop.load(std::memory_order_relaxed) && MaySend(now)) {
      Send(now);
      Prepare();
      now = clock_->Now();
    }
    if (ended_.load(std::memory_order_acquire) == static_cast<int64_t>(total)) break;
    if (now >= next_progress_) {
      progress(Progress(now));
      next_progress_ = now + kProgressPeriod;
    }
    clock_->WaitUntil(NextWake(now));
  }
  // Stopped early: a cancelled stream still ends, and until then its record is its own.
  if (ended_.load(std::memory_order_acquire) < static_cast<int64_t>(next_)) transport_->CancelAll();
  while (ended_.load(std::memory_order_acquire) < static_cast<int64_t>(next_)) {
    clock_->WaitUntil(clock_->Now() + kProgressPeriod);
  }
  progress(Progress(clock_->Now()));
  return std::move(records_);
}

bool LoadDriver::MaySend(Time now) {
  const int64_t in_flight = static_cast<int64_t>(next_) - ended_.load(std::memory_order_acquire);
  if (options_.max_in_flight > 0 && in_flight >= options_.max_in_flight) return false;
  if (schedule_.mode == LoadMode::kClosedLoop) {
    std::lock_guard lock(mutex_);
    return !freed_.empty();
  }
  return schedule_.requests[next_].intended <= now;
}

void LoadDriver::Send(Time now) {
  const RequestSpec& spec = schedule_.requests[next_];
  RequestRecord& record = records_[next_];
  record.intended = spec.intended;
  if (schedule_.mode == LoadMode::kClosedLoop) {
    std::lock_guard lock(mutex_);
    record.intended = freed_.front();
    freed_.pop_front();
  }
  record.sent = now;
  record.chunks.reserve(std::clamp(spec.shape.output_tokens + 1, 16, kReservedChunks));
  flights_[next_] = std::make_unique<Flight>(this, spec, &record);
  Flight* flight = flights_[next_].get();
  ++next_;
  prepared_ = false;
  transport_->Send(message_, flight);
}

void LoadDriver::Prepare() {
  if (prepared_ || next_ == schedule_.requests.size()) return;
  const RequestSpec& spec = schedule_.requests[next_];
  const TrafficClass& traffic = schedule_.classes[spec.class_index];
  message_.request_id = absl::StrCat(options_.id_prefix, next_);
  message_.kind = spec.shape.kind;
  message_.text = spec.shape.text;
  message_.token_ids.clear();
  if (spec.shape.kind == PromptKind::kTokens) prompts_.Build(spec, &message_.token_ids);
  message_.max_tokens = spec.shape.output_tokens;
  message_.ignore_eos = spec.shape.fixed_output;
  message_.temperature = options_.temperature;
  message_.seed = RandomStream(options_.seed ^ (static_cast<uint64_t>(next_) << 24), kSamplingStream).Bits();
  message_.priority = traffic.priority;
  message_.tenant = traffic.tenant;
  message_.slo_class = traffic.name;
  message_.slo = traffic.slo;
  prepared_ = true;
}

Time LoadDriver::NextWake(Time now) const {
  const Time tick = std::max(next_progress_, now);
  if (next_ == schedule_.requests.size() || schedule_.mode == LoadMode::kClosedLoop) return tick;
  const Time intended = schedule_.requests[next_].intended;
  // Already due means held back by the cap: the next end wakes us.
  return intended <= now ? tick : std::min(tick, intended);
}

void LoadDriver::OnFlightEnd(Time at, bool bad) {
  if (bad) bad_.fetch_add(1, std::memory_order_relaxed);
  if (schedule_.mode == LoadMode::kClosedLoop) {
    std::lock_guard lock(mutex_);
    freed_.push_back(at);
  }
  // The driver may be gone as soon as the last end is counted and its loop has seen it; the wake-up must not
  // touch it, so the clock is read first.
  RunClock* const clock = clock_;
  ended_.fetch_add(1, std::memory_order_acq_rel);
  clock->Wake();
}

DriverProgress LoadDriver::Progress(Time now) const {
  DriverProgress progress;
  progress.now = now;
  progress.sent = static_cast<int64_t>(next_);
  progress.ended = ended_.load(std::memory_order_acquire);
  progress.in_flight = progress.sent - progress.ended;
  progress.bad = bad_.load(std::memory_order_relaxed);
  progress.tokens = tokens_.load(std::memory_order_relaxed);
  return progress;
}

}  // namespace orrery::bench
