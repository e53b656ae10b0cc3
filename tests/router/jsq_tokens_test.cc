#include "router/policy/jsq_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "router/policy/registry.h"

namespace orrery {
namespace {

using ::testing::ElementsAre;

WorkerLoad Load(uint32_t id, int64_t kv, int64_t waiting, int64_t sent, bool accepts = true) {
  return {.worker = WorkerId{id},
          .accepts = accepts,
          .kv_tokens = kv,
          .waiting_tokens = waiting,
          .sent_tokens = sent,
          .kv_capacity_tokens = 1000,
          .max_context = 1000};
}

Waiting Queued(uint64_t id, int32_t prompt) {
  return {.request = RequestId{id}, .prompt_tokens = prompt, .max_new_tokens = 10};
}

std::vector<uint32_t> Workers(std::vector<WorkerLoad> loads, std::vector<Waiting> waiting) {
  JsqTokensPolicy policy;
  Assignment assignment;
  policy.Assign({loads}, waiting, Time{}, &assignment);
  std::vector<uint32_t> workers;
  for (const Placement& placement : assignment.placements) workers.push_back(Value(placement.worker));
  return workers;
}

TEST(JsqTokens, CountsResidentQueuedAndSentTokens) {
  EXPECT_THAT(Workers({Load(0, 10, 5, 5), Load(1, 0, 19, 0), Load(2, 0, 0, 21)}, {Queued(1, 8)}),
              ElementsAre(1));
}

TEST(JsqTokens, CountsItsOwnPlacements) {
  EXPECT_THAT(Workers({Load(0, 10, 0, 0), Load(1, 0, 0, 0)}, {Queued(1, 8), Queued(2, 8), Queued(3, 8)}),
              ElementsAre(1, 1, 0));
}

TEST(JsqTokens, LowerIdWinsATie) {
  EXPECT_THAT(Workers({Load(3, 5, 0, 0), Load(7, 5, 0, 0)}, {Queued(1, 1)}), ElementsAre(3));
}

TEST(JsqTokens, PassesByWhoDoesNotAcceptOrIsTooSmall) {
  std::vector<WorkerLoad> loads = {Load(0, 0, 0, 0, false), Load(1, 1, 0, 0), Load(2, 500, 0, 0)};
  loads[1].kv_capacity_tokens = 50;
  EXPECT_THAT(Workers(loads, {Queued(1, 40), Queued(2, 42), Queued(3, 2000)}), ElementsAre(1, 2))
      << "42 + 10 - 1 tokens do not fit worker 1; nobody has 2000";
}

TEST(RouteRegistry, KnowsItsNames) {
  EXPECT_TRUE(NewRoutePolicy("jsq-tokens").ok());
  EXPECT_THAT(std::string(NewRoutePolicy("jsq-token").status().message()),
              ::testing::HasSubstr("jsq-tokens"));
  EXPECT_FALSE(NewRoutePolicy("jsq-tokens:a=1").ok());
  const std::vector<PolicyInfo> infos = RouterPolicies();
  ASSERT_GE(infos.size(), 3u);
  for (const PolicyInfo& info : infos) EXPECT_EQ(info.kind, "route") << info.name;
}

}  // namespace
}  // namespace orrery
