// orreryd with every instruction set of this machine: the option and the variable are honoured, and greedy
// tokens are the same on all of them.

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_features.h"
#include "tests/integration/process.h"
#include "tests/places.h"

namespace orrery::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr Isa kAll[] = {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAmx};

TEST(InstructionSets, OptionAndVariableAreHonoured) {
  for (const Isa isa : kAll) {
    const std::string name(NameOf(isa));
    for (const bool variable : {false, true}) {
      std::vector<std::string> arguments = {"--model", DemoModel().string(), "--dry-run"};
      if (variable) {
        setenv("ORRERY_ISA", name.c_str(), 1);
      } else {
        arguments.insert(arguments.end(), {"--isa", name});
      }
      const RunResult run = RunProgram("orreryd", arguments, true);
      unsetenv("ORRERY_ISA");
      const bool possible = isa <= DetectedIsa();
      EXPECT_EQ(run.exit_code, possible ? 0 : 2) << run.output;
      EXPECT_THAT(run.output, HasSubstr(possible ? "instructions: " + name : "--isa: " + name));
    }
  }
  EXPECT_EQ(
      RunProgram("orreryd", {"--model", DemoModel().string(), "--dry-run", "--isa", "sse"}, true).exit_code,
      2);
}

json GreedyTokens(const std::string& isa) {
  Process daemon(BinaryPath("orreryd"),
                 {"--model", DemoModel().string(), "--dtype", "f32", "--isa", isa, "--kv-cache-tokens",
                  "4096", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"},
                 true);
  if (!daemon.ReadUntil("metrics port ") || !daemon.ReadUntil("\n")) return {{"log", daemon.seen()}};
  const std::string& log = daemon.seen();
  const int port = std::atoi(log.c_str() + log.find("grpc port ") + 10);
  const RunResult run =
      RunProgram("orrery", {"generate", "--target", "127.0.0.1:" + std::to_string(port), "--json", "--prompt",
                            "Once upon a time", "--temperature", "0", "--ignore-eos", "--max-tokens", "64"});
  return run.exit_code == 0 ? json::parse(run.output)["token_ids"] : json{{"error", run.output}};
}

TEST(InstructionSets, GreedyTokensAreTheSame) {
  const json scalar = GreedyTokens("scalar");
  ASSERT_EQ(scalar.size(), 64u) << scalar;
  for (const Isa isa : kAll) {
    if (isa == Isa::kScalar || isa > DetectedIsa()) continue;
    EXPECT_EQ(GreedyTokens(std::string(NameOf(isa))), scalar) << NameOf(isa);
  }
}

}  // namespace
}  // namespace orrery::testing
