#include "scheduler/policy/rad.h"

#include <algorithm>
#include <numeric>

namespace orrery {

absl::Span<const OptionField<RadOptions>> RadPolicy::Fields() {
  static constexpr OptionField<RadOptions> kFields[] = {
      {"tile", &RadOptions::tile, 1, 1 << 14, "tokens of a column tile, and decodes that fill a step"},
      {"tile_rows", &RadOptions::tile_rows, 1, 1 << 14, "tokens of a row tile"},
      {"tile_reduction", &RadOptions::tile_reduction, 1, 1 << 14, "tokens of a reduction tile"},
      {"units", &RadOptions::units, 0, 1 << 10,
       "common multiples of the tiles in a prefill step; 0: as many as fit"},
      {"cycle", &RadOptions::cycle, 0, 1 << 20,
       "admissions between two times of finishing all; 0: no cycles"},
      {"patience_ms", &RadOptions::patience_ms, 0, 1e9, "age of the last token that makes decodes run"},
      {"watermark", &RadOptions::watermark, 0, 0.5, "share of the pool that admission leaves free"},
  };
  return kFields;
}

int32_t RadUnit(const RadOptions& options) {
  const int64_t unit = std::lcm(std::lcm(int64_t{options.tile_rows}, options.tile), options.tile_reduction);
  return static_cast<int32_t>(std::min<int64_t>(unit, 1 << 20));
}

void RadPolicy::Plan(const WorkerView& worker, Time now, BatchDecision* decision) {
  const int32_t unit = RadUnit(options_);
  const int32_t units =
      options_.units > 0 ? options_.units : std::max(1, worker.limits.max_step_tokens / unit);
  const int64_t tokens = int64_t{unit} * units;
  step_.Begin(worker, static_cast<int32_t>(std::min<int64_t>(tokens, 1 << 30)));
  const bool overdue = Arrange(worker, now);
  const bool full = num_decodes_ >= static_cast<size_t>(std::min(options_.tile, worker.limits.max_num_seqs));
  if (!overdue && !full) Prefill(worker, decision);
  if (decision->run.empty() && decision->admit.empty()) {
    step_.GrantDecodes(worker, 0, num_decodes_, decision);
  }
  // Neither decodes nor the oldest prompt: blocks are short, and the latest prompt gives its own back.
  if (decision->run.empty() && decision->admit.empty() && (overdue || full)) Prefill(worker, decision);
  decision->why = {
      .policy = "rad",
      .objective = "decodes short of a tile",
      .value = std::max(0.0, static_cast<double>(options_.tile) - static_cast<double>(num_decodes_)),
      .work = static_cast<int64_t>(worker.running.size() + decision->admit.size())};
}

bool RadPolicy::Arrange(const WorkerView& worker, Time now) {
  std::vector<int32_t>& order = step_.order();
  const auto is_decode = [&](int32_t i) {
    return worker.running[static_cast<size_t>(i)].tokens_to_compute() == 1;
  };
  num_decodes_ =
      static_cast<size_t>(std::stable_partition(order.begin(), order.end(), is_decode) - order.begin());
  const Duration patience = Duration::Seconds(options_.patience_ms * 1e-3);
  for (size_t i = 0; i < num_decodes_; ++i) {
    const SequenceView& sequence = step_.view(worker, i);
    if (!sequence.last_token.is_never() && now - sequence.last_token >= patience) return true;
  }
  return false;
}

void RadPolicy::Prefill(const WorkerView& worker, BatchDecision* decision) {
  for (size_t i = num_decodes_; i < step_.order().size(); ++i) step_.GrantPrefill(worker, i, decision);
  if (!decision->preempt.empty()) return;
  if (worker.running.empty()) admitted_ = 0;
  const auto watermark = static_cast<int32_t>(options_.watermark * worker.blocks_total);
  for (const SequenceView& sequence : worker.waiting) {
    const bool fresh = sequence.first_scheduled.is_never();
    if (fresh && options_.cycle > 0 && admitted_ >= options_.cycle) continue;
    if (step_.TryAdmit(worker, sequence, watermark, decision) != AdmitResult::kAdmitted) return;
    admitted_ += fresh;
  }
}

}  // namespace orrery
