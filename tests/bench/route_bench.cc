// Time that a route policy takes to place one request on arrival, at 16 and 256 workers whose loads follow
// the placements, and the same as a multiple of one plain scan of 256 loads. Prompts are of 1,000 tokens,
// seven in eight of them with one of 64 shared beginnings. Aim: jsq-tokens at 256 workers under 2 us.
//   build/bin/route_bench [--requests N]
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <iterator>
#include <numeric>
#include <string>
#include <vector>

#include "router/policy/registry.h"
#include "scheduler/base/random.h"

namespace orrery {
namespace {

constexpr size_t kPrompt = 1000, kShared = 800, kPrefixes = 64;
constexpr size_t kInFlight = 16;  // requests a worker
constexpr size_t kLargest = 256;  // workers

double Microseconds(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
}

double Median(std::vector<double>* times) {
  std::nth_element(times->begin(), times->begin() + static_cast<ptrdiff_t>(times->size() / 2), times->end());
  return (*times)[times->size() / 2];
}

std::vector<WorkerLoad> Workers(size_t count) {
  std::vector<WorkerLoad> workers(count);
  for (uint32_t i = 0; i < count; ++i) {
    workers[i] = {.worker = WorkerId{i},
                  .accepts = true,
                  .free_slots = 256,
                  .kv_capacity_tokens = 1 << 20,
                  .max_context = 1 << 17};
  }
  return workers;
}

std::vector<std::vector<TokenId>> Prompts(size_t count) {
  RandomStream random(3);
  std::vector<std::vector<TokenId>> prompts(count, std::vector<TokenId>(kPrompt));
  for (std::vector<TokenId>& prompt : prompts) {
    const uint64_t of = random.Below(8) > 0 ? 1 + random.Below(kPrefixes) : 0;
    for (size_t i = 0; i < prompt.size(); ++i) {
      const bool shared = of > 0 && i < kShared;
      prompt[i] = static_cast<TokenId>(shared ? of * 7919 + i : random.Below(100'000));
    }
  }
  return prompts;
}

// Median of one Assign with one waiting request; the oldest one in flight ends with each.
double TimePolicy(std::string_view name, size_t num_workers, size_t requests,
                  const std::vector<std::vector<TokenId>>& prompts) {
  auto policy = *NewRoutePolicy(name);
  std::vector<WorkerLoad> workers = Workers(num_workers);
  std::deque<size_t> in_flight;
  std::vector<double> times;
  Assignment assignment;
  for (size_t i = 0; i < requests; ++i) {
    const Waiting request = {.request = RequestId{i},
                             .prompt_tokens = static_cast<int32_t>(kPrompt),
                             .max_new_tokens = 100,
                             .routing_key = 1 + i % 1000,
                             .prompt_ids = prompts[i % prompts.size()]};
    assignment.Clear();
    const auto start = std::chrono::steady_clock::now();
    policy->Assign({workers}, {&request, 1}, Time{}, &assignment);
    times.push_back(Microseconds(start));
    if (assignment.placements.size() != 1) std::abort();
    const auto at = static_cast<size_t>(Value(assignment.placements[0].worker));
    workers[at].kv_tokens += request.prompt_tokens;
    workers[at].num_bound += 1;
    in_flight.push_back(at);
    if (in_flight.size() <= kInFlight * num_workers) continue;
    workers[in_flight.front()].kv_tokens -= request.prompt_tokens;
    workers[in_flight.front()].num_bound -= 1;
    in_flight.pop_front();
  }
  return Median(&times);
}

// The least of 256 loads in a row of memory: what a decision cannot be cheaper than.
double TimeScan(size_t turns) {
  std::vector<int64_t> loads(kLargest);
  std::iota(loads.begin(), loads.end(), 1000);
  std::vector<double> times;
  int64_t sum = 0;
  for (size_t i = 0; i < turns; ++i) {
    constexpr int kScans = 64;  // in one, what the clock takes would show
    const auto start = std::chrono::steady_clock::now();
    for (int k = 0; k < kScans; ++k) {
      const auto least = std::min_element(loads.begin(), loads.end());
      sum += *least;
      *least += 7 + (sum & 3);
    }
    times.push_back(Microseconds(start) / kScans);
  }
  if (sum == 0) std::abort();
  return Median(&times);
}

int Run(int argc, char** argv) {
  size_t requests = 20'000;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--requests") == 0)
      requests = static_cast<size_t>(std::max(1, std::atoi(argv[i + 1])));
  }
  const double scan = TimeScan(2000);
  const auto prompts = Prompts(2000);
  std::printf("median microseconds to place one request; a scan of %zu loads: %.3f\n", kLargest, scan);
  std::printf("%-16s %9s %9s %9s\n", "policy", "G = 16", "G = 256", "scans");
  for (const PolicyInfo& info : RouterPolicies()) {
    const std::string_view pooling[] = {"fcfs", "bf-io", "staggered", "gate-and-route"};
    if (std::find(std::begin(pooling), std::end(pooling), info.name) != std::end(pooling)) continue;
    const double few = TimePolicy(info.name, 16, requests, prompts);
    const double many = TimePolicy(info.name, kLargest, requests, prompts);
    std::printf("%-16s %9.3f %9.3f %9.1f\n", std::string(info.name).c_str(), few, many, many / scan);
  }
  return 0;
}

}  // namespace
}  // namespace orrery

int main(int argc, char** argv) { return orrery::Run(argc, argv); }
