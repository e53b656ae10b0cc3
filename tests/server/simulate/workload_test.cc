#include "server/simulate/workload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include "server/simulate/row_generator.h"
#include "tests/server/traces/temp_file.h"

namespace orrery::simulate {
namespace {

constexpr char kTimed[] = "num_prefill_tokens,num_decode_tokens,arrived_at\n10,1,0\n20,2,1\n30,3,2\n40,4,3\n";

WorkloadOptions Options(const std::string& path, Arrival arrival) {
  WorkloadOptions options;
  options.path = path;
  options.format = "lengths";
  options.arrival = arrival;
  options.max_tokens = 100;
  options.max_context = 1000;
  return options;
}

std::vector<sim::SimRequest> DrawAll(const Workload& workload, uint64_t seed, size_t most = 1'000'000) {
  auto source = workload.Draw(seed);
  EXPECT_TRUE(source.ok()) << source.status();
  std::vector<sim::SimRequest> out;
  sim::SimRequest request;
  while (out.size() < most && *(*source)->Next(&request)) out.push_back(request);
  return out;
}

TEST(Workload, TraceTimesAreKeptScaledAndContinued) {
  const TempFile file(kTimed);
  WorkloadOptions options = Options(file.path(), Arrival::kTrace);
  const auto plain = *Workload::Open(options);
  EXPECT_DOUBLE_EQ(*plain.rate(), 1.0);
  EXPECT_DOUBLE_EQ(plain.mean_output_tokens(), 2.5);
  const auto rows = DrawAll(plain, 7);
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[2].arrival.ns, 2'000'000'000);
  EXPECT_EQ(rows[2].prompt_tokens, 30);
  EXPECT_EQ(rows[2].output_tokens, 3);
  EXPECT_EQ(rows[2].max_tokens, 100);  // the bound, not the truth
  options.rate = 4;
  options.num_requests = 6;
  const auto fast = DrawAll(*Workload::Open(options), 7);
  ASSERT_EQ(fast.size(), 6u);
  EXPECT_EQ(fast[3].arrival.ns, 750'000'000);
  EXPECT_GT(fast[4].arrival, fast[3].arrival);
  EXPECT_EQ(fast[4].prompt_tokens, 10);
}

TEST(Workload, BoundsNeverCutAnOutputNorLeaveTheContext) {
  const TempFile file("num_prefill_tokens,num_decode_tokens\n950,60\n10,500\n");
  WorkloadOptions options = Options(file.path(), Arrival::kPoisson);
  options.rate = 1;
  for (const auto& row : DrawAll(*Workload::Open(options), 0)) {
    EXPECT_EQ(row.max_tokens, row.output_tokens == 60 ? 60 : 500);
  }
  options.max_tokens = 0;  // exact
  for (const auto& row : DrawAll(*Workload::Open(options), 0)) EXPECT_EQ(row.max_tokens, row.output_tokens);
}

TEST(Workload, ArrivalProcessesHaveTheirRateAndSeed) {
  const TempFile file(kTimed);
  for (const Arrival arrival : {Arrival::kPoisson, Arrival::kGamma}) {
    WorkloadOptions options = Options(file.path(), arrival);
    options.rate = 50;
    options.shape = 0.5;
    options.num_requests = 20'000;
    const auto workload = *Workload::Open(options);
    const auto one = DrawAll(workload, 1), same = DrawAll(workload, 1), other = DrawAll(workload, 2);
    EXPECT_NEAR(one.back().arrival.seconds(), 400, 400 * 0.05);
    EXPECT_EQ(one.back().arrival, same.back().arrival);
    EXPECT_NE(one.back().arrival, other.back().arrival);
  }
}

TEST(Workload, SaturatedRowsAreDrawnUniformlyForEver) {
  const TempFile file(kTimed);
  const auto workload = *Workload::Open(Options(file.path(), Arrival::kSaturated));
  int counts[5] = {};
  for (const auto& row : DrawAll(workload, 3, 8000)) ++counts[row.output_tokens];
  for (int o = 1; o <= 4; ++o) EXPECT_NEAR(counts[o], 2000, 200);
}

TEST(Workload, MooncakeHashesBecomeSharedPrefixes) {
  const TempFile file(R"({"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [7, 8]})"
                      "\n"
                      R"({"timestamp": 3000, "input_length": 700, "output_length": 5, "hash_ids": [7, 9]})"
                      "\n");
  WorkloadOptions options = Options(file.path(), Arrival::kTrace);
  options.format = "mooncake";
  const auto rows = DrawAll(*Workload::Open(options), 0);
  ASSERT_EQ(rows.size(), 2u);
  ASSERT_EQ(rows[0].tokens->size(), 600u);
  const auto& a = *rows[0].tokens;
  const auto& b = *rows[1].tokens;
  EXPECT_TRUE(std::equal(a.begin(), a.begin() + 512, b.begin()));
  EXPECT_FALSE(std::equal(a.begin() + 512, a.end(), b.begin() + 512));
  for (const TokenId id : a) ASSERT_GT(id, 0);
}

TEST(Workload, ClassesCarryPatienceAndRatesPerWorker) {
  const TempFile file(R"({"classes": [
    {"name": "chat", "prompt_tokens": 300, "output_tokens": 1000, "arrival_rate_per_worker_s": 0.5, "abandon_rate_per_s": 0.1},
    {"prompt_tokens": 3000, "output_tokens": 400, "arrival_rate_per_worker_s": 1.5, "reward": 7}],
    "price_prompt": 0.1, "price_output": 0.2, "charging": "separate"})");
  WorkloadOptions options = Options(file.path(), Arrival::kTrace);
  options.format = "classes";
  options.num_workers = 10;
  options.num_requests = 40'000;
  const auto workload = *Workload::Open(options);
  EXPECT_DOUBLE_EQ(*workload.rate(), 20);
  ASSERT_EQ(workload.classes().size(), 2u);
  EXPECT_EQ(workload.classes()[0].name, "chat");
  EXPECT_DOUBLE_EQ(workload.classes()[0].reward.prefill, 30);
  EXPECT_DOUBLE_EQ(workload.classes()[0].reward.completion, 200);
  EXPECT_DOUBLE_EQ(workload.classes()[1].reward.completion, 7);
  double patience = 0, chats = 0;
  const auto rows = DrawAll(workload, 5);
  for (const auto& row : rows) {
    ASSERT_EQ(row.patience.is_infinite(), row.class_index == 1);
    if (row.class_index == 0) patience += row.patience.seconds(), ++chats;
  }
  EXPECT_NEAR(chats, 10'000, 400);
  EXPECT_NEAR(patience / chats, 10, 0.5);
  EXPECT_NEAR(rows.back().arrival.seconds(), 2000, 60);
}

TEST(Workload, ServeGenMixesItsClientsByTheirRates) {
  const std::string base = ::testing::TempDir() + "orrery_mix_" + std::to_string(::getpid());
  const std::string rates = base + "_rates.csv", lengths = base + "_lengths.jsonl";
  std::ofstream(rates)
      << "client,start_s,rate_per_s,cv,pattern,param1,param2\n"
         "0,0,3,1,Gamma,1,1\n0,600,1,1,Weibull,0.8,1\n1,0,1,1,Gamma,0.5,1\n9,0,100,1,Gamma,1,1\n";
  std::ofstream(lengths)
      << R"({"client":0,"start_s":0,"input_tokens":{"10":1.0},"output_tokens":{"1":0.5,"3":0.5}})"
      << "\n"
      << R"({"client":1,"start_s":0,"input_tokens":{"99":1.0},"output_tokens":{"0":1.0}})"
      << "\n";
  auto generator = LoadServeGen(rates);
  ASSERT_TRUE(generator.ok()) << generator.status();
  EXPECT_NEAR((*generator)->rate_per_s, 2.5, 1e-9);  // client 9 has no lengths
  EXPECT_NEAR((*generator)->mean_output, (4 * 2.0 + 1 * 1.0) / 5, 1e-9);
  int first = 0, second = 0;
  double last = 0;
  auto stream = (*generator)->Start(1);
  for (DrawnRow row;;) {
    stream->Next(&row);
    ASSERT_GE(row.arrival_s, last);
    last = row.arrival_s;
    if (row.arrival_s >= 120'000) break;  // 100 laps
    ++(row.prompt_tokens == 10 ? first : second);
    ASSERT_GE(row.output_tokens, 1);
  }
  EXPECT_NEAR(first, 240'000, 12'000);
  EXPECT_NEAR(second, 60'000, 6'000);
  std::ofstream(rates) << "client,start_s,rate_per_s,cv,pattern,param1,param2\n0,0,3,1,Pareto,1,1\n";
  EXPECT_THAT(std::string(LoadServeGen(rates).status().message()),
              ::testing::HasSubstr("_rates.csv:2: pattern"));
  std::remove(rates.c_str());
  std::remove(lengths.c_str());
}

TEST(Workload, SaysWhatIsWrong) {
  const TempFile file("num_prefill_tokens,num_decode_tokens\n5,5\n"),
      back("num_prefill_tokens,num_decode_tokens,arrived_at\n5,5,3\n5,5,2\n");
  const auto message = [](const WorkloadOptions& options) {
    const auto workload = Workload::Open(options);
    return std::string(workload.ok() ? workload->Draw(0).status().message() : workload.status().message());
  };
  WorkloadOptions options = Options(file.path(), Arrival::kTrace);
  EXPECT_THAT(message(options), ::testing::HasSubstr("has no times"));
  options.arrival = Arrival::kPoisson;
  EXPECT_THAT(message(options), ::testing::HasSubstr("--rate"));
  options.format = "lenghts";
  EXPECT_THAT(message(options), ::testing::HasSubstr("did you mean 'lengths'"));
  EXPECT_THAT(message(Options(back.path(), Arrival::kTrace)), ::testing::HasSubstr(":3: arrives before"));
}

}  // namespace
}  // namespace orrery::simulate
