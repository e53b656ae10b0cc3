#include "server/config/option_table.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/config/option_values.h"

namespace orrery {
namespace {

using ::testing::HasSubstr;
using Environment = std::map<std::string, std::string>;

absl::StatusOr<LoadedConfig> Load(std::vector<std::string> arguments, Environment environment = {}) {
  return LoadConfig(arguments, [&](const char* name) -> const char* {
    auto it = environment.find(name);
    return it == environment.end() ? nullptr : it->second.c_str();
  });
}

std::string ErrorOf(std::vector<std::string> arguments, Environment environment = {}) {
  auto loaded = Load(std::move(arguments), std::move(environment));
  return loaded.ok() ? "ok" : std::string(loaded.status().message());
}

class FileOption : public ::testing::Test {
 protected:
  std::string Write(const std::string& text) {
    const std::string path =
        (std::filesystem::temp_directory_path() / ("orrery_options_" + std::to_string(getpid()) + ".yaml"));
    std::ofstream(path) << text;
    written_ = path;
    return path;
  }
  ~FileOption() override { std::filesystem::remove(written_); }
  std::string written_;
};

TEST(OptionTable, NamesAreUniqueAndDocumented) {
  std::map<absl::string_view, int> count;
  for (const Option& option : Options()) {
    EXPECT_EQ(++count[option.name], 1) << option.name;
    EXPECT_FALSE(option.doc.empty()) << option.name;
    EXPECT_THAT(HelpText(), HasSubstr("--" + std::string(option.name) + " "));
  }
}

TEST(OptionTable, EveryDefaultIsInItsOwnRange) {
  const ServerConfig defaults;
  for (const Option& option : Options()) {
    ServerConfig config;
    const std::string text = GetOption(option, defaults);
    EXPECT_TRUE(SetOption(option, text, "default", &config).ok()) << option.name << " = " << text;
    EXPECT_EQ(GetOption(option, config), text);
  }
}

TEST_F(FileOption, FlagBeatsEnvironmentBeatsFileBeatsDefault) {
  const std::string file = Write("max-num-seqs: 1\nmax_step_tokens: 32\nlisten: host:1\nthreads: 1\n");
  auto loaded = Load({"--config", file, "--max-num-seqs", "3"},
                     {{"ORRERY_MAX_NUM_SEQS", "2"}, {"ORRERY_MAX_STEP_TOKENS", "64"}});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->config.max_num_seqs, 3);
  EXPECT_EQ(loaded->config.max_step_tokens, 64);
  EXPECT_EQ(loaded->config.listen, "host:1");
  EXPECT_EQ(loaded->config.max_queue_tokens, ServerConfig().max_queue_tokens);
}

TEST_F(FileOption, PrintedConfigurationReadsBackEqual) {
  auto loaded = Load({"--model", "it's #1: a dir", "--drain-timeout=1500ms", "--kv-cache-bytes", "3GiB",
                      "--batch-invariant", "off", "--scheduler", "fcfs:key=1", "--max-connection-age=5m"});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  auto again = Load({"--config", Write(PrintConfig(loaded->config))});
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(PrintConfig(again->config), PrintConfig(loaded->config));
  EXPECT_EQ(again->config.model, "it's #1: a dir");
  EXPECT_EQ(again->config.kv_cache_bytes.bytes, int64_t{3} << 30);
  EXPECT_EQ(again->config.batch_invariant, "off");
}

TEST_F(FileOption, PolicyOptionsMayBeAMap) {
  auto loaded = Load({"--config", Write("scheduler: {name: fcfs, watermark: 0.1, aging: 5}\n")});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->config.scheduler, "fcfs:watermark=0.1,aging=5");
}

TEST_F(FileOption, ErrorsNameFileAndLine) {
  EXPECT_THAT(ErrorOf({"--config", Write("listen: a:1\nmax-num-sequs: 4\n")}),
              HasSubstr(".yaml:2: unknown key 'max-num-sequs'; did you mean 'max-num-seqs'?"));
  EXPECT_THAT(ErrorOf({"--config", Write("\nthreads: many\n")}),
              HasSubstr(".yaml:2: threads = 'many' expected an integer"));
  EXPECT_THAT(ErrorOf({"--config", Write("threads: [1, 2]\n")}), HasSubstr("threads must be a plain value"));
  EXPECT_THAT(ErrorOf({"--config", Write("threads: 1\nthreads: 2\n")}), HasSubstr("given twice"));
  EXPECT_THAT(ErrorOf({"--config", Write("threads: {1\n")}), HasSubstr(".yaml:"));
  EXPECT_THAT(ErrorOf({"--config", Write("- a\n")}), HasSubstr("expected `name: value` lines"));
  EXPECT_THAT(ErrorOf({"--config", Write(std::string(2 << 20, '#'))}), HasSubstr("larger than 1 MiB"));
  EXPECT_THAT(ErrorOf({"--config", "/nonexistent/file"}), HasSubstr("cannot read '/nonexistent/file'"));
}

TEST(OptionTable, BadFlagsAndVariables) {
  EXPECT_THAT(ErrorOf({"--modle", "x"}), HasSubstr("unknown flag 'modle'; did you mean 'model'?"));
  EXPECT_THAT(ErrorOf({"--max-num-seqs", "513"}),
              HasSubstr("--max-num-seqs: max-num-seqs = '513' must be in [1, 512]"));
  EXPECT_THAT(ErrorOf({"--max-num-seqs"}), HasSubstr("--max-num-seqs: needs a value"));
  EXPECT_THAT(ErrorOf({"--dtype", "fp4"}), HasSubstr("must be one of auto, f32, bf16, f16"));
  EXPECT_THAT(ErrorOf({"serve"}), HasSubstr("unexpected 'serve'"));
  EXPECT_THAT(ErrorOf({}, {{"ORRERY_THREADS", "-1"}}),
              HasSubstr("ORRERY_THREADS: threads = '-1' must be in [0, 1024]"));
  EXPECT_THAT(ErrorOf({"--drain-timeout", "soon"}), HasSubstr("expected a time such as"));
  EXPECT_THAT(ErrorOf({"--max-text-bytes", "9999999999T"}), HasSubstr("expected a size"));
}

TEST(OptionTable, SwitchesStandAloneOrTakeAWord) {
  EXPECT_TRUE(Load({"--log-prompts"})->config.log_prompts);
  EXPECT_FALSE(Load({"--log-prompts", "off"})->config.log_prompts);
  EXPECT_TRUE(Load({"--log-prompts", "--threads", "2"})->config.log_prompts);
  EXPECT_EQ(Load({"--help", "--nonsense"})->action, ConfigAction::kHelp);
  EXPECT_EQ(Load({"--dry-run"})->action, ConfigAction::kDryRun);
}

TEST(OptionValues, SizesAndTimes) {
  EXPECT_EQ(ParseByteSize("4096")->bytes, 4096);
  EXPECT_EQ(ParseByteSize("64k")->bytes, 65536);
  EXPECT_EQ(ParseByteSize("1.5 GiB")->bytes, 1610612736);
  EXPECT_EQ(ParseByteSize("2MB")->bytes, 2 << 20);
  EXPECT_FALSE(ParseByteSize("-1").ok());
  EXPECT_FALSE(ParseByteSize("").ok());
  EXPECT_EQ(ParseDuration("30")->ns, 30'000'000'000);
  EXPECT_EQ(ParseDuration("250ms")->ns, 250'000'000);
  EXPECT_TRUE(ParseDuration("inf")->is_infinite());
  EXPECT_FALSE(ParseDuration("1e9").ok());
  EXPECT_FALSE(ParseDuration("nan").ok());
  EXPECT_FALSE(ParseDuration("-5s").ok());
}

}  // namespace
}  // namespace orrery
