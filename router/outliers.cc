#include "router/outliers.h"

#include <algorithm>
#include <cmath>

namespace orrery {
namespace {

constexpr int64_t kMemory = 32;      // steps of one worker
constexpr int64_t kJudgeEvery = 16;  // of those
constexpr int64_t kKnown = 16;       // after so many it is one of the peers
constexpr int64_t kTrusted = 64;     // steps of all peers before any is compared
// Learning costs microseconds: beyond so many steps, from one in eight.
constexpr int64_t kLearnAll = 1024, kLearnEvery = 8;
constexpr double kFarthest = 2.1;  // of one step's logarithm: a factor of 8
constexpr size_t kFewestPeers = 3;
constexpr double kDeviations = 4;
constexpr double kBeyond = 1.5;  // times the largest step of another

std::array<double, 3> SizesOf(const StepShape& shape) {
  return {static_cast<double>(shape.decodes), static_cast<double>(shape.decode_context),
          static_cast<double>(shape.prefill_tokens)};
}

double Median(std::vector<double>* values) {
  const auto middle = values->begin() + static_cast<ptrdiff_t>(values->size() / 2);
  std::nth_element(values->begin(), middle, values->end());
  return values->size() % 2 == 1 ? *middle : (*middle + *std::max_element(values->begin(), middle)) / 2;
}

}  // namespace

void Outliers::Insert(size_t place, const WorkerInfo& info, Time now) {
  Record record{.info = info, .peers = PeersOf(info), .back = now};
  records_.insert(records_.begin() + static_cast<ptrdiff_t>(place), record);
}

void Outliers::Erase(size_t place) {
  Peers* const peers = records_[place].peers;
  records_.erase(records_.begin() + static_cast<ptrdiff_t>(place));
  const auto has = [&](const Record& record) { return record.peers == peers; };
  if (peers == nullptr || std::any_of(records_.begin(), records_.end(), has)) return;
  std::erase_if(peers_, [&](const std::unique_ptr<Peers>& other) { return other.get() == peers; });
}

Outliers::Peers* Outliers::PeersOf(const WorkerInfo& info) {
  if (info.peers == 0 || options_.slow <= 0) return nullptr;
  for (const auto& peers : peers_) {
    if (peers->number == info.peers) return peers.get();
  }
  peers_.push_back(std::make_unique<Peers>());
  peers_.back()->number = info.peers;
  return peers_.back().get();
}

bool Outliers::Comparable(const Peers& peers, WorkerId worker, const StepShape& shape) {
  const std::array<double, kSizes> sizes = SizesOf(shape);
  for (size_t i = 0; i < kSizes; ++i) {
    const Reach& reach = peers.reach[i];
    if (sizes[i] > kBeyond * (reach.by == worker ? reach.next : reach.most)) return false;
  }
  return true;
}

void Outliers::Extend(Peers* peers, WorkerId worker, const StepShape& shape) {
  const std::array<double, kSizes> sizes = SizesOf(shape);
  for (size_t i = 0; i < kSizes; ++i) {
    Reach& reach = peers->reach[i];
    if (reach.by == worker) {
      reach.most = std::max(reach.most, sizes[i]);
    } else if (sizes[i] > reach.most) {
      reach = {.most = sizes[i], .next = reach.most, .by = worker};
    } else {
      reach.next = std::max(reach.next, sizes[i]);
    }
  }
}

bool Outliers::OnStep(size_t place, const StepShape& shape, Duration took, Time now) {
  Record& record = records_[place];
  Peers* const peers = record.peers;
  if (peers == nullptr || record.until > now || shape.tokens() == 0 || took.ns <= 0) return false;
  ++peers->steps;
  bool judge = false;
  if (peers->steps > kTrusted && Comparable(*peers, record.info.worker, shape)) {
    const double ratio = took.milliseconds() / peers->cost.Predict(shape).milliseconds();
    const double off = std::clamp(std::log(ratio), -kFarthest, kFarthest);
    ++record.compared;
    record.score += (off - record.score) / static_cast<double>(std::min(record.compared, kMemory));
    judge = record.compared >= kMemory && record.compared % kJudgeEvery == 0;
  }
  Extend(peers, record.info.worker, shape);
  if (peers->steps <= kLearnAll || peers->steps % kLearnEvery == 0) peers->cost.Observe(shape, took);
  if (!judge || !Behind(record)) return false;
  Eject(&record, now);
  return true;
}

bool Outliers::Behind(const Record& record) {
  scores_.clear();
  for (const Record& other : records_) {
    if (other.peers == record.peers && other.compared >= kKnown) scores_.push_back(other.score);
  }
  if (scores_.size() < kFewestPeers) return false;
  const double median = Median(&scores_), behind = record.score - median;
  if (behind < std::log(options_.slow)) return false;
  for (double& score : scores_) score = std::abs(score - median);
  return behind > kDeviations * Median(&scores_);
}

bool Outliers::OnFailure(size_t place, RequestId request, Time at, Time now) {
  Record& record = records_[place];
  const bool same = record.failures > 0 && (record.failed_request == request || record.failed_at == at);
  record.failed_request = request;
  record.failed_at = at;
  if (same || ++record.failures < options_.failures || options_.failures == 0 || record.until > now) {
    return false;
  }
  Eject(&record, now);
  return true;
}

void Outliers::Eject(Record* record, Time now) {
  ++ejections_;
  const auto forgotten = (now - record->back).ns / std::max<int64_t>(1, options_.most.ns);
  record->level = static_cast<int32_t>(std::max<int64_t>(0, record->level - forgotten));
  Duration lasts = options_.first;
  for (int32_t i = 0; i < record->level && lasts < options_.most; ++i) lasts.ns *= 2;
  ++record->level;
  record->until = now + std::min(lasts, options_.most);
}

void Outliers::Update(Time now) {
  wake_ = Time::Never();
  size_t num_out = 0, num_all = 0;
  for (Record& record : records_) {
    if (record.until > Time{} && record.until <= now) {
      record.back = std::exchange(record.until, Time{});
      record.compared = record.failures = 0;
    }
    if (record.until > now) wake_ = std::min(wake_, record.until);
    record.out = record.until > now && !record.draining;
    num_out += record.out;
    num_all += !record.draining;
  }
  if (num_out == 0) return;
  const bool panic = static_cast<double>(num_out) > options_.max_share * static_cast<double>(num_all);
  for (Record& record : records_) {
    if (record.out && (panic || Needed(record))) record.out = false;
  }
}

bool Outliers::Needed(const Record& record) const {
  const WorkerInfo& needed = record.info;
  return std::none_of(records_.begin(), records_.end(), [&](const Record& other) {
    return !other.out && !other.draining && other.info.role == needed.role &&
           other.info.max_context >= needed.max_context &&
           other.info.kv_capacity_tokens >= needed.kv_capacity_tokens;
  });
}

}  // namespace orrery
