// Workers that lie behind get nothing new for a while; what runs there stays. This is outlier ejection as
// service proxies do it (Envoy: consecutive failures, an ejection time that grows, a panic threshold), with
// a measure of slowness that a worker cannot owe to its load:
//
// Slow. Every step's time is held against what a model, learnt from the steps of all its peers, expects for
// the same shape of step. A worker's score is the mean logarithm of that ratio over some 32 steps; who lies
// above the median of three or more peers by a factor of `slow`, and by four median absolute deviations, is
// out. Peers are those that say so themselves (WorkerInfo::peers): what is slower by its build, waits at a
// barrier or shares its cores is not compared. Nor is a step far larger than any of another worker's, about
// which the model can only guess.
// Failing. So many failures in a row without a token between them; those of one request or of one step count
// as one.
//
// Each ejection lasts twice as long as the one before; time without one makes it shorter again. Nobody is out
// while more than a share of all would be (panic: then something else is wrong), nor a worker that alone
// could hold what it holds. After its time a worker is judged anew. A new incarnation has a clean record.
#ifndef ORRERY_ROUTER_OUTLIERS_H_
#define ORRERY_ROUTER_OUTLIERS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "router/worker_info.h"
#include "scheduler/base/ids.h"
#include "scheduler/base/time.h"
#include "scheduler/cost/online_cost.h"
#include "scheduler/types/step_shape.h"

namespace orrery {

struct OutlierOptions {
  double slow = 2;         // times its peers; 0: never
  int32_t failures = 5;    // in a row; 0: never
  double max_share = 0.5;  // of the workers that do not drain
  Duration first = Duration::Seconds(10);
  Duration most = Duration::Seconds(300);  // of an ejection; so long without one halves the next
};

// Workers are named by their place in ascending id, as in RouterCore.
class Outliers {
 public:
  explicit Outliers(const OutlierOptions& options) : options_(options) {}

  void Insert(size_t place, const WorkerInfo& info, Time now);
  void Erase(size_t place);
  void SetDraining(size_t place, bool draining) { records_[place].draining = draining; }

  // True: it is to be out, which Update then decides.
  bool OnStep(size_t place, const StepShape& shape, Duration took, Time now);
  bool OnFailure(size_t place, RequestId request, Time at, Time now);
  void OnToken(size_t place) { records_[place].failures = 0; }

  // After any of the above, and at NextWake(): who is out.
  void Update(Time now);
  bool out(size_t place) const { return records_[place].out; }
  // When somebody comes back.
  Time NextWake() const { return wake_; }
  uint64_t ejections() const { return ejections_; }

 private:
  static constexpr size_t kSizes = 3;
  // The largest step known, and the largest of another worker.
  struct Reach {
    double most = 0, next = 0;
    WorkerId by{};
  };
  struct Peers {
    uint64_t number = 0;
    OnlineStepCost cost;
    int64_t steps = 0;
    std::array<Reach, kSizes> reach{};  // decodes, their context, prompt tokens
  };
  struct Record {
    WorkerInfo info;
    Peers* peers = nullptr;
    bool draining = false, out = false;
    double score = 0;
    int64_t compared = 0;  // steps since it was let in
    int32_t failures = 0;
    RequestId failed_request{};
    Time failed_at = Time::Never();
    int32_t level = 0;  // ejections not forgotten
    Time until{};       // it should be out
    Time back{};        // since when it is not
  };

  Peers* PeersOf(const WorkerInfo& info);
  static bool Comparable(const Peers& peers, WorkerId worker, const StepShape& shape);
  static void Extend(Peers* peers, WorkerId worker, const StepShape& shape);
  bool Behind(const Record& record);
  void Eject(Record* record, Time now);
  bool Needed(const Record& record) const;

  OutlierOptions options_;
  std::vector<Record> records_;
  std::vector<std::unique_ptr<Peers>> peers_;
  std::vector<double> scores_;  // scratch
  Time wake_ = Time::Never();
  uint64_t ejections_ = 0;
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_OUTLIERS_H_
