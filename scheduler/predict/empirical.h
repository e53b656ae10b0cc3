// Expects lengths to be distributed as those that finished lately, given what a sequence has generated so far
// (Past-Future, arXiv:2507.10150). One window per tenant (a worker serves one model), and one over all of
// them for tenants of whom too little is known.
//
// With H = the lengths in the window above d = tokens generated, ascending, and the request's own bound at
// the end, the q-quantile is read off L = [d] + H + [bound] at q (|L| - 1), interpolated between neighbours.
// For a sequence that has generated nothing it is the element of the window at q |window|; the bound at
// q = 1. A window starts half filled with "as long as allowed", so that a cold start is cautious.
//
// A finish costs O(window), a question O(log window). At most kMaxTenants windows of at most 2^16 lengths.
#ifndef ORRERY_SCHEDULER_PREDICT_EMPIRICAL_H_
#define ORRERY_SCHEDULER_PREDICT_EMPIRICAL_H_

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "scheduler/base/options.h"
#include "scheduler/predict/length_predictor.h"

namespace orrery {

struct EmpiricalOptions {
  int32_t window = 200;       // finished lengths that count
  int32_t min_own = 50;       // finished lengths before a tenant's own window is believed
  double initial_fill = 0.5;  // share of a new window that holds the longest length allowed
};

class EmpiricalPredictor final : public LengthPredictor {
 public:
  static constexpr size_t kMaxTenants = 1024;
  static absl::Span<const OptionField<EmpiricalOptions>> Fields();

  explicit EmpiricalPredictor(const EmpiricalOptions& options);
  int32_t Quantile(const SequenceView& sequence, double q) const override;
  void OnFinished(const SequenceView& sequence) override;

 private:
  struct Window {
    std::vector<int32_t> sorted;  // ascending
    std::vector<int32_t> ring;    // the same in order of arrival, oldest at `next` once full
    size_t next = 0;
    int32_t finished = 0;  // saturates at min_own
  };
  Window NewWindow() const;
  void Push(int32_t length, Window* window) const;
  const Window& WindowOf(uint32_t tenant) const;

  EmpiricalOptions options_;
  Window all_;
  absl::flat_hash_map<uint32_t, Window> tenants_;  // looked up only
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_PREDICT_EMPIRICAL_H_
