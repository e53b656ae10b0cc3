// `orrery plan` as people call it: documents in, documents and exit codes out.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/process.h"

namespace orrery::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class PlanTest : public ::testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }

  RunResult Plan(const std::string& kind, const std::string& input,
                 std::vector<std::string> more = {"--json"}, bool with_errors = false) {
    std::ofstream(path_) << input;
    more.insert(more.begin(), {"plan", kind, "--input", path_});
    return RunProgram("orrery", more, with_errors);
  }
  // The one line that a bad question gets.
  std::string Complaint(const std::string& kind, const std::string& input, int exit_code) {
    const RunResult run = Plan(kind, input, {}, true);
    EXPECT_EQ(run.exit_code, exit_code) << run.output;
    EXPECT_EQ(std::count(run.output.begin(), run.output.end(), '\n'), 1) << run.output;
    const RunResult document = Plan(kind, input);
    EXPECT_EQ(document.exit_code, exit_code);
    EXPECT_TRUE(json::parse(document.output)["error"].contains("message")) << document.output;
    return run.output;
  }

  const std::string path_ =
      (std::filesystem::temp_directory_path() / ("orrery_plan_" + std::to_string(getpid()) + ".json"))
          .string();
};

std::string Capacity(const std::string& prompt, const std::string& output, const std::string& step_s) {
  return R"({"arrival_rate_per_s": 20, "kv_capacity_tokens": 131000, "prefill_chunk_tokens": 512, "mean_step_s": )" +
         step_s + R"(, "prompt_tokens": )" + prompt + R"(, "output_tokens": )" + output + "}";
}

TEST_F(PlanTest, CapacityOfThePublishedRows) {
  const auto rate = [this](const char* s, const char* o, const char* step_s) {
    const RunResult run =
        Plan("capacity", Capacity(std::string(R"({"uniform_int": [10, )") + s + "]}",
                                  std::string(R"({"uniform_int": [10, )") + o + "]}", step_s));
    EXPECT_EQ(run.exit_code, 0) << run.output;
    return json::parse(run.output)["memory_rate_per_s"].get<double>();
  };
  EXPECT_NEAR(rate("1600", "1600", "0.0372"), 3.2632, 5e-5);
  EXPECT_NEAR(rate("2133", "1066", "0.0430"), 3.9563, 5e-5);
  EXPECT_NEAR(rate("1066", "2133", "0.0337"), 2.9016, 5e-5);
}

TEST_F(PlanTest, CapacityInEveryFormOfLengths) {
  const RunResult constant =
      Plan("capacity", Capacity(R"({"constant": 1000})", R"({"constant": 500})", "0.0372"));
  const json plan = json::parse(constant.output);
  EXPECT_EQ(plan["workers_sufficient"], 4);
  EXPECT_EQ(plan["binding"], "memory");
  EXPECT_TRUE(plan["token_rate_per_s"].is_null());
  const RunResult histogram =
      Plan("capacity", Capacity(R"({"histogram": {"1000": 2}})", R"({"constant": 500.0})", "0.0372"));
  EXPECT_EQ(json::parse(histogram.output), plan);
  const RunResult joint = Plan("capacity", R"({"arrival_rate_per_s": 20, "kv_capacity_tokens": 131000,
      "prefill_chunk_tokens": 512, "mean_step_s": 0.0372, "joint": [[1000, 500, 1]]})");
  EXPECT_EQ(json::parse(joint.output), plan);
  const RunResult tail =
      Plan("capacity", Capacity(R"({"lognormal": [500, 1.2]})", R"({"constant": 500})", "0.0372"));
  EXPECT_EQ(tail.exit_code, 0);
  EXPECT_TRUE(json::parse(tail.output)["delta"].is_null());
  EXPECT_TRUE(json::parse(tail.output)["workers_sufficient"].is_null());
  const RunResult lines =
      Plan("capacity", Capacity(R"({"constant": 1000})", R"({"constant": 500})", "0.0372"), {});
  EXPECT_THAT(lines.output, HasSubstr("workers_sufficient"));
}

constexpr char kPools[] = R"({"classes": [
    {"prompt_tokens": 300, "output_tokens": 1000, "arrival_rate_per_worker_s": 0.5, "abandon_rate_per_s": PATIENCE},
    {"prompt_tokens": 3000, "output_tokens": 400, "arrival_rate_per_worker_s": 0.5, "abandon_rate_per_s": PATIENCE}],
  "alpha_s": 0.0174, "beta_s_per_token": 6.2e-5, "solo_decode_rate_per_s": 45.45, "slots": 16,
  "prefill_chunk_tokens": 256, "price_prompt": 0.1, "price_output": 0.2, "fleet_sizes": [5, 20, 50, 200, 500]})";

std::string Pools(const std::string& abandon_rate) {
  std::string text = kPools;
  for (size_t at; (at = text.find("PATIENCE")) != std::string::npos;) text.replace(at, 8, abandon_rate);
  return text;
}

TEST_F(PlanTest, MixedPoolsOfTheConvergenceInstance) {
  const RunResult run = Plan("mixed-pools", Pools("0.1"));
  ASSERT_EQ(run.exit_code, 0) << run.output;
  const json plan = json::parse(run.output);
  EXPECT_NEAR(plan["objective"].get<double>(), 297.7032, 5e-5);
  EXPECT_EQ(plan["mixed_workers"], json::parse(R"({"5": 2, "20": 5, "50": 11, "200": 43, "500": 107})"));
  EXPECT_NEAR(plan["x"][1].get<double>(), 0.19495, 5e-6);
  EXPECT_GT(plan["shadow_prices"]["solo_slot"].get<double>(), 0);
}

TEST_F(PlanTest, HindsightOfASmallInstance) {
  const RunResult run = Plan("hindsight", R"({"kv_capacity_tokens": 10, "requests": [
      {"arrival": 0, "prompt_tokens": 2, "output_tokens": 4}, {"arrival": 0, "prompt_tokens": 2, "output_tokens": 2},
      {"arrival": 0, "prompt_tokens": 3, "output_tokens": 3}, {"arrival": 0, "prompt_tokens": 1, "output_tokens": 6},
      {"arrival": 2, "prompt_tokens": 2, "output_tokens": 1}]})");
  ASSERT_EQ(run.exit_code, 0) << run.output;
  const json plan = json::parse(run.output);
  EXPECT_EQ(plan["optimum"], 22);
  EXPECT_NEAR(plan["lp_bound"].get<double>(), 20.7957, 5e-5);
  EXPECT_EQ(plan["policies"], json::parse(R"({"mc-sf": 23, "fcfs": 25})"));
  EXPECT_EQ(plan["starts"]["mc-sf"], json::parse("[3, 0, 0, 4, 2]"));
}

TEST_F(PlanTest, PastTheExactSolverTheBoundsComeWithExitCode4) {
  json question = {{"kv_capacity_tokens", 40}, {"requests", json::array()}};
  for (int i = 0; i < 70; ++i)
    question["requests"].push_back(
        {{"arrival", i / 4}, {"prompt_tokens", 1 + i % 3}, {"output_tokens", 1 + i % 5}});
  RunResult run = Plan("hindsight", question.dump());
  EXPECT_EQ(run.exit_code, 4);
  json plan = json::parse(run.output);
  EXPECT_TRUE(plan["optimum"].is_null());
  EXPECT_LE(plan["lp_bound"].get<double>(), plan["policies"]["mc-sf"].get<double>());
  EXPECT_THAT(plan["error"]["message"].get<std::string>(), HasSubstr("70 requests, at most 64"));
  run = Plan("hindsight", question.dump(), {"--json", "--bounds-only"});
  EXPECT_EQ(run.exit_code, 0);
  EXPECT_EQ(json::parse(run.output)["lp_bound"], plan["lp_bound"]);
}

TEST_F(PlanTest, BadQuestionsGetOneLineAndTheirExitCode) {
  EXPECT_THAT(Complaint("capacty", "{}", 2), HasSubstr("did you mean 'capacity'"));
  EXPECT_THAT(Complaint("capacity", "{\"arrival_rate_per_s\": 1,\n nonsense}", 2), HasSubstr(".json:2:"));
  EXPECT_THAT(Complaint("capacity", "[]", 2), HasSubstr("must be an object"));
  EXPECT_THAT(Complaint("capacity", R"({"mean_step": 1})", 2), HasSubstr("did you mean 'mean_step_s'"));
  EXPECT_THAT(Complaint("capacity", Capacity(R"({"constant": "x"})", R"({"constant": 5})", "0.01"), 2),
              HasSubstr("prompt_tokens.constant must be an integer"));
  EXPECT_THAT(Complaint("capacity", Capacity(R"({"constant": 5})", R"({"uniform_int": [5]})", "0.01"), 2),
              HasSubstr("output_tokens.uniform_int"));
  EXPECT_THAT(Complaint("capacity", Capacity(R"({"constant": 5})", R"({"constant": 5})", "0"), 2),
              HasSubstr("mean_step_s"));
  EXPECT_THAT(Complaint("capacity", Capacity(R"({"constant": 140000})", R"({"constant": 5})", "0.01"), 3),
              HasSubstr("kv_capacity_tokens"));
  EXPECT_THAT(Complaint("mixed-pools", Pools("0"), 3), HasSubstr("flow of class"));
  EXPECT_THAT(Complaint("mixed-pools", Pools("\"often\""), 2), HasSubstr("classes[0].abandon_rate_per_s"));
  EXPECT_THAT(Complaint("hindsight", R"({"kv_capacity_tokens": 5, "requests": [
                {"arrival": 0, "prompt_tokens": 3, "output_tokens": 3}]})",
                        3),
              HasSubstr("requests[0]"));
  EXPECT_THAT(Complaint("hindsight", R"({"kv_capacity_tokens": 5, "requests": [{"arrival": 0.5}]})", 2),
              HasSubstr("requests[0].arrival"));
  EXPECT_EQ(RunProgram("orrery", {"plan", "capacity", "--input", "/nonexistent", "--json"}).exit_code, 2);
  EXPECT_EQ(RunProgram("orrery", {"plan", "capacity", "--json"}).exit_code, 2);
}

}  // namespace
}  // namespace orrery::testing
