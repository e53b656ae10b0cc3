#include "server/simulate/recorder.h"

#include <algorithm>
#include <cmath>

namespace orrery::simulate {
namespace {

constexpr int64_t kProgressEvery = 1 << 22;  // sequence-steps

}  // namespace

Recorder::Recorder(std::vector<ReportClass> classes, int32_t num_workers, Progress progress)
    : classes_(std::move(classes)), progress_(std::move(progress)), loads_(static_cast<size_t>(num_workers)) {
  if (classes_.size() > 1 || !classes_[0].name.empty()) by_class_.resize(classes_.size());
  for (size_t i = 0; i < classes_.size(); ++i) {
    all_.slo_given |= classes_[i].slo.any();
    if (!by_class_.empty()) by_class_[i].slo_given = classes_[i].slo.any();
  }
}

void Recorder::OnRequestEnd(const sim::SimRequest& request, const sim::RequestEnd& end) {
  ++ended_;
  last_arrival_ = std::max(last_arrival_, request.arrival);
  if (!end.measured) return;
  const ReportClass& its = classes_[static_cast<size_t>(request.class_index)];
  const bench::SloTargets& slo = its.slo;
  first_measured_ = std::min(first_measured_, request.arrival);
  last_measured_ = std::max(last_measured_, request.arrival);
  if (!end.first_token.is_never()) reward_ += its.reward.prefill;
  if (end.outcome == sim::Outcome::kCompleted) reward_ += its.reward.completion;
  Add(request, end, slo, &all_);
  if (!by_class_.empty()) Add(request, end, slo, &by_class_[static_cast<size_t>(request.class_index)]);
  if (end.outcome == sim::Outcome::kCompleted) {
    const double slowness = (end.end - request.arrival).milliseconds() / end.made_tokens;
    slowness_sum_ += slowness;
    slowness_squares_ += slowness * slowness;
    ++slowness_count_;
  }
}

void Recorder::Add(const sim::SimRequest& request, const sim::RequestEnd& end, const bench::SloTargets& slo,
                   Part* part) {
  bench::Measurement& counts = part->counts;
  switch (end.outcome) {
    case sim::Outcome::kRejected:
      ++counts.rejected;
      ++counts.errors[std::string(end.reason)];
      return;
    case sim::Outcome::kFailed:
      ++counts.failed;
      ++counts.errors[std::string(end.reason)];
      return;
    case sim::Outcome::kCancelled:
      ++counts.cancelled;
      return;
    case sim::Outcome::kCompleted:
      break;
  }
  ++counts.completed;
  counts.total_input_tokens += request.prompt_tokens;
  counts.total_output_tokens += end.made_tokens;
  counts.total_cached_tokens += end.cached_tokens;
  const double ttft = (end.first_token - request.arrival).milliseconds();
  const double e2e = (end.end - request.arrival).milliseconds();
  const double tpot = end.made_tokens > 1 ? (e2e - ttft) / (end.made_tokens - 1) : 0;
  part->ttft.Add(ttft);
  part->e2e.Add(e2e);
  if (end.made_tokens > 1) part->tpot.Add(tpot);
  const bool met = (!slo.ttft_ms || ttft <= *slo.ttft_ms) && (!slo.tpot_ms || tpot <= *slo.tpot_ms) &&
                   (!slo.e2e_ms || e2e <= *slo.e2e_ms);
  part->good += met;
  part->good_tokens += met ? end.made_tokens : 0;
}

void Recorder::OnTokenGaps(int32_t class_index, Duration gap, int64_t count) {
  all_.itl.Add(gap.milliseconds(), count);
  if (!by_class_.empty()) by_class_[static_cast<size_t>(class_index)].itl.Add(gap.milliseconds(), count);
}

void Recorder::OnStep(const sim::StepFacts& step) {
  Load& load = loads_[Value(step.worker)];
  const Load now{step.kv_tokens, step.num_running, step.num_waiting};
  total_.kv_tokens += now.kv_tokens - load.kv_tokens;
  total_.running += now.running - load.running;
  total_.waiting += now.waiting - load.waiting;
  load = now;
  waiting_.Add(step.start, static_cast<double>(total_.waiting + step.pooled));
  running_.Add(step.start, static_cast<double>(total_.running));
  kv_tokens_.Add(step.start, static_cast<double>(total_.kv_tokens));
  if (step.measured && step.num_samples > 0) {
    const int64_t at = step.end.ns / 1'000'000'000;
    Second& second = seconds_[static_cast<size_t>(at) % seconds_.size()];
    if (second.at < at) second = {at, 0};
    if (second.at == at) busiest_second_ = std::max(busiest_second_, second.tokens += step.num_samples);
  }
  sequence_steps_ += step.shape.decodes + step.shape.chunks;
  if (progress_ && sequence_steps_ >= until_progress_) {
    until_progress_ = sequence_steps_ + kProgressEvery;
    progress_(ended_, step.start, sequence_steps_);
  }
}

void Recorder::OnDecision(const DecisionRecord& why, int64_t wall_ns) {
  if (wall_ns >= 0) decision_us_.Add(static_cast<double>(wall_ns) * 1e-3);
  if (why.policy.empty()) return;
  if (decisions_.decisions == 0) {
    decisions_.policy = std::string(why.policy);
    decisions_.objective = std::string(why.objective);
  }
  ++decisions_.decisions;
  decisions_.value_sum += why.value;
  decisions_.work += why.work;
  if (std::isfinite(why.bound)) {
    decisions_.bound_sum += why.bound;
    ++decisions_.bounded;
  }
}

bench::Measurement Recorder::Finish(const Part& part, double seconds) {
  bench::Measurement out = part.counts;
  out.duration = seconds;
  const int64_t judged = out.completed + out.failed + out.rejected;
  if (part.slo_given && judged > 0) {
    out.slo_attainment = static_cast<double>(part.good) / static_cast<double>(judged);
  }
  if (seconds > 0) {
    out.request_throughput = static_cast<double>(out.completed) / seconds;
    out.output_throughput = static_cast<double>(out.total_output_tokens) / seconds;
    out.total_token_throughput =
        *out.output_throughput + static_cast<double>(out.total_input_tokens) / seconds;
    if (part.slo_given) {
      out.request_goodput = static_cast<double>(part.good) / seconds;
      out.token_goodput = static_cast<double>(part.good_tokens) / seconds;
    }
  }
  out.ttft_ms = out.ttft_sent_ms = part.ttft.Summarize();
  out.tpot_ms = part.tpot.Summarize();
  out.itl_ms = out.chunk_gap_ms = part.itl.Summarize();  // every token is a message
  out.e2el_ms = out.e2el_sent_ms = part.e2e.Summarize();
  return out;
}

bench::Measurement Recorder::Block(const sim::SimReport& report, bool saturated) const {
  const double seconds = std::max(0.0, (report.end - report.begin).seconds());
  bench::Measurement block = Finish(all_, seconds);
  for (size_t i = 0; i < by_class_.size(); ++i) {
    block.per_class.emplace_back(classes_[i].name, Finish(by_class_[i], seconds));
  }
  if (saturated && seconds > 0) {
    block.total_output_tokens = report.measured_tokens;
    block.output_throughput = static_cast<double>(report.measured_tokens) / seconds;
    block.total_token_throughput =
        *block.output_throughput + static_cast<double>(block.total_input_tokens) / seconds;
  }
  block.max_concurrent_requests = report.max_concurrent;
  block.max_output_tokens_per_s = busiest_second_;
  block.send_lag_p99_ms = 0;
  return block;
}

std::optional<double> Recorder::JainFairness() const {
  if (slowness_count_ == 0 || slowness_squares_ == 0) return std::nullopt;
  return slowness_sum_ * slowness_sum_ / (static_cast<double>(slowness_count_) * slowness_squares_);
}

std::optional<double> Recorder::RewardPerWorker() const {
  const bool earns = std::any_of(classes_.begin(), classes_.end(), [](const ReportClass& one) {
    return one.reward.prefill > 0 || one.reward.completion > 0;
  });
  if (!earns || first_measured_ >= last_measured_) return std::nullopt;
  return reward_ / (last_measured_ - first_measured_).seconds() / static_cast<double>(loads_.size());
}

std::optional<double> Recorder::WaitingGrowth() const {
  constexpr double kFewestPoints = 16;
  const double last = last_arrival_.seconds();
  double n = 0, st = 0, sw = 0, stt = 0, stw = 0;
  for (const auto& [second, waiting] : waiting_.Points()) {
    if (second < last / 2 || second > last) continue;
    n += 1, st += second, sw += waiting, stt += second * second, stw += second * waiting;
  }
  if (n < kFewestPoints) return std::nullopt;
  const double slope = (n * stw - st * sw) / (n * stt - st * st);
  return slope * last / static_cast<double>(ended_);
}

std::vector<Recorder::Latencies> Recorder::latencies() const {
  std::vector<Latencies> out;
  for (size_t i = 0; i < by_class_.size(); ++i) {
    const Part& part = by_class_[i];
    out.push_back({classes_[i].name, &part.ttft, &part.tpot, &part.itl, &part.e2e});
  }
  if (out.empty()) out.push_back({"", &all_.ttft, &all_.tpot, &all_.itl, &all_.e2e});
  return out;
}

}  // namespace orrery::simulate
