// BF-IO, Balance-Future with integer optimisation (arXiv:2601.17855): which of the pooled requests take the
// free slots of workers that step behind one barrier, such that nobody waits long for the most loaded one.
// With L_g the tokens worker g holds h steps ahead and G workers, every call makes
//
//   J = sum_{h=0..H} w_h (G max_g L_g(h) - sum_g L_g(h))        tokens of idle attention at the barrier
//
// small, under: each request at most once, no worker over its free slots, no free slot left while somebody
// waits whom it fits. The integer program is not solved; two heuristics take its place, and a bound says how
// far from it they can be (DecisionRecord::bound: no choice among the same candidates is better).
//
//   Greedy      lightest worker first; it takes the size that lowers J most, which is the largest one that
//   stays
//               under the envelope or the smallest that does not (policy/balance_score.h).
//   Two levels  where greedy misses the bound: the same with a fixed envelope, for a few heights of it,
//   taking
//               the largest that stays under it, else the smallest. The best J counts; of equal ones the
//               lower envelope.
//
// Candidates are the oldest `pool` requests, at least as many as there are free slots. Pure BF-IO leaves
// sizes that never fit waiting for ever; a candidate of more than `age` steps is therefore placed before the
// others, on the fullest worker under the envelope, else on the lightest. `age` has to be above the steps
// that a pool takes to pass through the slots first come, first served, or everybody is due and nothing is
// left to choose. One that is due and fits nowhere yet keeps a worker to itself until it does.
//
// Arrivals: while every worker has a free slot they are placed at once, which keeps loads as even as
// jsq-tokens does. From then on slots are what restricts the choice, and who arrives during a step is a
// candidate from its end on (two steps after the last one ended at the latest): together they are placed far
// better than one by one, and among workers whose departures are known.
//
// Lookahead: L_g(h) leaves out what the workers' predictors expect to have ended, w_h is decay^h or, with
// `survival`, the share of outputs that were longer than h tokens (the survival-weighted cost of
// BalanceRoute's replication). All samples grow alike, so growth is left out. With outputs of equal length it
// makes things worse.
//
// A single worker has nothing to balance and takes the oldest. The load of a worker is everything that it has
// or will have to hold of the prompts sent to it. Candidates sorted once, then O(log candidates + H log H)
// for each request placed and each envelope tried; O(workers) where no slot is free. Memory is kept between
// calls.
#ifndef ORRERY_ROUTER_POLICY_BF_IO_H_
#define ORRERY_ROUTER_POLICY_BF_IO_H_

#include <cstdint>
#include <vector>

#include "router/policy/route_policy.h"
#include "router/policy/size_index.h"
#include "scheduler/base/options.h"

namespace orrery {

struct BfIoOptions {
  int32_t age = 50;       // steps; 0: no bound
  int32_t pool = 0;       // candidates; 0: four for each worker
  bool refine = true;     // two levels
  double beta = 0;        // price of a token above the envelope; 0: the number of workers
  int32_t lookahead = 0;  // H, steps
  double decay = 0.86;    // of w_h
  bool survival = false;  // w_h from the lengths of the outputs that ended
};

class BfIoPolicy final : public RoutePolicy {
 public:
  static absl::Span<const OptionField<BfIoOptions>> Fields();
  explicit BfIoPolicy(const BfIoOptions& options);

  void Assign(const ClusterView& cluster, absl::Span<const Waiting> waiting, Time now,
              Assignment* assignment) override;
  Time NextWake() const override { return wake_; }
  void OnFinished(int32_t output_tokens) override;
  RouteNeeds needs() const override { return {.lookahead = options_.lookahead}; }

 private:
  // A worker that accepts.
  struct Room {
    const WorkerLoad* worker = nullptr;
    int32_t slots = 0;
    int64_t kv_tokens = 0;  // free
    double weight = 0;      // sum_h w_h L(h)
  };
  struct Pick {
    int32_t rank = 0;  // in index_
    uint32_t room = 0;
  };
  struct Result {
    std::vector<Pick> picks;
    std::vector<int64_t> peaks;  // by h: max_g L_g(h)
    double objective = 0;
  };
  struct Candidate {
    RequestId request{};
    Time arrival{};
    int64_t since = 0;  // step of the first choice it was a candidate for
  };

  // Returns the free slots.
  int64_t ReadWorkers(const ClusterView& cluster);
  // Whether those that arrive during a step wait for its end.
  void ReadStep(const ClusterView& cluster, Time now);
  void ReadPool(absl::Span<const Waiting> waiting, int64_t slots);
  // Who was a candidate before keeps the step since which it is one.
  void UpdateAges();
  // The oldest of those due, as many as there are slots.
  void FindDue(int64_t slots);

  void Solve(int64_t slots);
  // Fills the slots into *result, under an envelope `raise` above today's: a fixed one, or one that `follows`
  // what is placed.
  void Fill(int64_t raise, bool follows, Result* result);
  void PlaceDue(bool follows, Result* result);
  // The candidate to take next for this room; kNone: nobody fits.
  int32_t Choose(size_t room, bool follows) const;
  int32_t LargestUpTo(int64_t size, const Room& room) const;
  int32_t SmallestAbove(int64_t size, const Room& room) const;
  bool Fits(int32_t rank, const Room& room) const;
  void Put(int32_t rank, size_t room, bool follows, Result* result);
  // Of a due candidate that fits nowhere yet: the worker where it will fit first takes nobody else.
  void KeepRoomFor(const Waiting& request);
  double Objective(absl::Span<const int64_t> peaks, int64_t placed_tokens) const;
  // Below any objective that places as many; NaN where requests are not all alike but for their size.
  double LowerBound(int64_t slots, size_t placed) const;
  const Waiting& request(int32_t rank) const { return *candidates_[index_.position(rank)]; }
  void PushRoom(uint32_t room);
  bool Heavier(uint32_t a, uint32_t b) const {
    return open_[a].weight != open_[b].weight ? open_[a].weight > open_[b].weight : a > b;
  }

  const BfIoOptions options_;
  const size_t width_;  // H + 1

  // What is known of the outputs that ended, newer ones counting more: all, and those of at most h tokens.
  double ended_ = 0;
  std::vector<double> ended_within_;  // [width_]

  // Of this call.
  std::vector<double> weights_;  // [width_]
  double beta_ = 0;
  int64_t num_workers_ = 0, step_ = 0;
  Time taken_until_ = Time::Never();        // arrivals; later ones are no candidates before late_
  Time late_{}, wake_ = Time::Never();      // wake_: late_ where somebody waits for it
  bool alike_ = true;                       // every candidate has one sample
  std::vector<Room> rooms_;                 // as the workers are
  std::vector<int64_t> loads_;              // [rooms_, width_]
  std::vector<int64_t> peaks_, sums_;       // [width_] over all workers
  std::vector<const Waiting*> candidates_;  // by position
  std::vector<Candidate> ages_, former_ages_;
  std::vector<bool> due_;           // [candidates_]
  std::vector<int32_t> due_ranks_;  // largest first
  SizeIndex index_;

  // Of one filling.
  std::vector<Room> open_;           // rooms_ as they are by now
  std::vector<int64_t> open_loads_;  // likewise
  std::vector<int64_t> envelope_;    // [width_]
  std::vector<uint32_t> heap_;       // open rooms, the lightest first
  int64_t work_ = 0;
  Result best_, trial_;
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_POLICY_BF_IO_H_
