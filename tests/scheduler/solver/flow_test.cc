// Both flow algorithms against the linear program of the same network, and against their own certificates.
#include "scheduler/solver/flow.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scheduler/base/random.h"
#include "scheduler/solver/solver.h"

namespace orrery {
namespace {

constexpr int64_t kMost = 20;

FlowNetwork RandomNetwork(RandomStream& random, int nodes, int arcs, bool negative_costs) {
  FlowNetwork network;
  network.nodes = nodes;
  for (int a = 0; a < arcs; ++a) {
    Arc arc;
    arc.from = static_cast<NodeId>(random.Below(static_cast<uint64_t>(nodes)));
    arc.to = static_cast<NodeId>(random.Below(static_cast<uint64_t>(nodes)));  // loops and twins too
    arc.capacity = static_cast<int64_t>(random.Below(kMost));
    arc.cost = static_cast<int64_t>(random.Below(30)) - (negative_costs ? 10 : 0);
    network.arcs.push_back(arc);
  }
  return network;
}

// Variables: arcs. Rows: what a node sends minus what it gets is its supply.
LinearProgram AsProgram(const FlowNetwork& network, const std::vector<int64_t>& supply) {
  LinearProgram program(Sense::kMinimize);
  for (const int64_t s : supply)
    program.Add(Constraint{"node", static_cast<double>(s), static_cast<double>(s)});
  for (const Arc& arc : network.arcs) {
    const VariableId x =
        program.Add(Variable{"arc", 0, static_cast<double>(arc.capacity), static_cast<double>(arc.cost)});
    program.AddTerm(static_cast<ConstraintId>(arc.from), x, 1);
    program.AddTerm(static_cast<ConstraintId>(arc.to), x, -1);
  }
  return program;
}

std::vector<int64_t> Balance(const FlowNetwork& network, const std::vector<int64_t>& flow) {
  std::vector<int64_t> balance(static_cast<size_t>(network.nodes), 0);
  for (size_t a = 0; a < flow.size(); ++a) {
    balance[static_cast<size_t>(network.arcs[a].from)] += flow[a];
    balance[static_cast<size_t>(network.arcs[a].to)] -= flow[a];
  }
  return balance;
}

void ExpectWithinCapacity(const FlowNetwork& network, const std::vector<int64_t>& flow) {
  ASSERT_EQ(flow.size(), network.arcs.size());
  for (size_t a = 0; a < flow.size(); ++a) {
    EXPECT_GE(flow[a], 0);
    EXPECT_LE(flow[a], network.arcs[a].capacity);
  }
}

TEST(MaxFlow, RandomNetworksAgreeWithTheProgramAndTheCut) {
  RandomStream random(1);
  int positive = 0;
  for (int trial = 0; trial < 300; ++trial) {
    const int nodes = 2 + static_cast<int>(random.Below(9));
    const FlowNetwork network = RandomNetwork(random, nodes, static_cast<int>(random.Below(40)), false);
    const auto source = static_cast<NodeId>(0), sink = static_cast<NodeId>(nodes - 1);
    const auto result = MaxFlow(network, source, sink);
    ASSERT_TRUE(result.ok()) << result.status();
    SCOPED_TRACE(trial);
    ExpectWithinCapacity(network, result->flow);
    std::vector<int64_t> expected(static_cast<size_t>(nodes), 0);
    expected.front() = result->value;
    expected.back() = -result->value;
    EXPECT_EQ(Balance(network, result->flow), expected);
    int64_t cut = 0;
    for (const Arc& arc : network.arcs) {
      if (result->source_side[static_cast<size_t>(arc.from)] &&
          !result->source_side[static_cast<size_t>(arc.to)])
        cut += arc.capacity;
    }
    EXPECT_EQ(cut, result->value);
    EXPECT_TRUE(result->source_side.front());
    EXPECT_FALSE(result->source_side.back());

    // The program: an arc back from sink to source that pays 1 a unit.
    FlowNetwork loop = network;
    for (Arc& arc : loop.arcs) arc.cost = 0;
    loop.arcs.push_back({sink, source, kMost * 40, -1});
    const auto lp = SolveLp(AsProgram(loop, std::vector<int64_t>(static_cast<size_t>(nodes), 0)));
    ASSERT_EQ(lp->status, SolveStatus::kOptimal);
    EXPECT_NEAR(-lp->objective, static_cast<double>(result->value), 1e-6);
    positive += result->value > 0;
  }
  EXPECT_GT(positive, 100);
}

TEST(MinCostFlow, RandomNetworksAgreeWithTheProgramAndThePrices) {
  RandomStream random(2);
  int feasible = 0, infeasible = 0;
  for (int trial = 0; trial < 400; ++trial) {
    const int nodes = 2 + static_cast<int>(random.Below(7));
    const FlowNetwork network =
        RandomNetwork(random, nodes, static_cast<int>(random.Below(30)), trial % 2 == 0);
    std::vector<int64_t> supply(static_cast<size_t>(nodes), 0);
    for (int pair = 0; pair < 2; ++pair) {
      const auto units = static_cast<int64_t>(random.Below(12));
      supply[random.Below(static_cast<uint64_t>(nodes))] += units;
      supply[random.Below(static_cast<uint64_t>(nodes))] -= units;
    }
    const auto result = MinCostFlow(network, supply);
    ASSERT_TRUE(result.ok()) << result.status();
    const auto lp = SolveLp(AsProgram(network, supply));
    ASSERT_TRUE(lp.ok()) << lp.status();
    SCOPED_TRACE(trial);
    ASSERT_EQ(result->feasible, lp->status == SolveStatus::kOptimal);
    if (!result->feasible) {
      ++infeasible;
      EXPECT_GT(result->unmet, 0);
      continue;
    }
    ++feasible;
    EXPECT_NEAR(lp->objective, static_cast<double>(result->cost), 1e-6);
    ExpectWithinCapacity(network, result->flow);
    EXPECT_EQ(Balance(network, result->flow), supply);
    for (size_t a = 0; a < network.arcs.size(); ++a) {
      const Arc& arc = network.arcs[a];
      const int64_t reduced = arc.cost + result->price[static_cast<size_t>(arc.from)] -
                              result->price[static_cast<size_t>(arc.to)];
      if (result->flow[a] < arc.capacity) {
        EXPECT_GE(reduced, 0);
      }
      if (result->flow[a] > 0) {
        EXPECT_LE(reduced, 0);
      }
    }
  }
  EXPECT_GT(feasible, 100);
  EXPECT_GT(infeasible, 50);
}

TEST(Flow, ALongPathNeedsNoStack) {
  constexpr int kNodes = 50'000;
  FlowNetwork network;
  network.nodes = kNodes;
  for (int n = 0; n + 1 < kNodes; ++n)
    network.arcs.push_back({static_cast<NodeId>(n), static_cast<NodeId>(n + 1), 5 + n % 3, 2});
  EXPECT_EQ(MaxFlow(network, static_cast<NodeId>(0), static_cast<NodeId>(kNodes - 1))->value, 5);
  std::vector<int64_t> supply(kNodes, 0);
  supply.front() = 3;
  supply.back() = -3;
  EXPECT_EQ(MinCostFlow(network, supply)->cost, int64_t{3} * 2 * (kNodes - 1));
}

TEST(Flow, BadNetworksAreNamed) {
  const auto node = [](int n) { return static_cast<NodeId>(n); };
  FlowNetwork network;
  network.nodes = 2;
  network.arcs = {{node(0), node(2), 1, 0}};
  EXPECT_EQ(MaxFlow(network, node(0), node(1)).status().code(), absl::StatusCode::kInvalidArgument);
  network.arcs = {{node(0), node(1), -1, 0}};
  EXPECT_EQ(MinCostFlow(network, {0, 0}).status().code(), absl::StatusCode::kInvalidArgument);
  network.arcs = {{node(0), node(1), int64_t{1} << 61, 0}, {node(0), node(1), int64_t{1} << 61, 0}};
  EXPECT_EQ(MaxFlow(network, node(0), node(1)).status().code(), absl::StatusCode::kResourceExhausted);
  network.arcs = {{node(0), node(1), 3, 1}};
  EXPECT_EQ(MaxFlow(network, node(0), node(0)).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MinCostFlow(network, {1, 0}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MinCostFlow(network, {1}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MinCostFlow(network, {4, -4})->unmet, 1);
}

}  // namespace
}  // namespace orrery
