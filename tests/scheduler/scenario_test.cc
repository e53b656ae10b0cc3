// Runs the stories of tests/scenarios; the format is described there.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "scheduler/base/text.h"
#include "scheduler/types/refusal.h"
#include "scheduler/worker_factory.h"
#include "tests/scheduler/shadow_engine.h"

namespace orrery {
namespace {

constexpr int32_t kVocab = 50000;

std::string_view FinishName(FinishReason reason) {
  constexpr std::string_view kNames[] = {"none", "stop", "length", "cancelled", "deadline", "error"};
  return kNames[static_cast<size_t>(reason)];
}

std::vector<std::string> Words(const std::string& line) {
  std::istringstream in(line.substr(0, line.find('#')));
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

class Story {
 public:
  void Run(const std::string& path) {
    std::ifstream file(path);
    ASSERT_TRUE(file.is_open()) << path;
    int number = 0;
    for (std::string line; std::getline(file, line);) {
      SCOPED_TRACE(Cat(path, ":", ++number, ": ", line));
      const std::vector<std::string> words = Words(line);
      if (!words.empty()) Line(words);
      if (::testing::Test::HasFailure()) return;
    }
  }

 private:
  struct Named {
    SampleKey key;
    Submit submit;
  };

  void Line(std::vector<std::string> words) {
    if (words[0] == "at") {
      now_ = Time{} + Duration::Milliseconds(std::atoi(words.at(1).c_str()));
      words.erase(words.begin(), words.begin() + 2);
    }
    const auto expect = std::find(words.begin(), words.end(), "expect");
    const bool checked = expect != words.end();
    const std::vector<std::string> command(words.begin(), expect);
    const std::vector<std::string> expected(checked ? expect + 1 : expect, words.end());
    seen_.clear();
    Command(command, expected);
    for (const TokenEvent& event : events_) {
      if (event.finish != FinishReason::kNone) {
        seen_.push_back(Cat("end ", NameOf(event.key), "=", FinishName(event.finish)));
      }
    }
    events_.clear();
    ASSERT_TRUE(core_->CheckInvariants().ok()) << core_->CheckInvariants();
    ASSERT_TRUE(engine_->errors().empty()) << engine_->errors().front();
    if (checked && command[0] != "add") Compare(expected);
  }

  void Command(const std::vector<std::string>& words, const std::vector<std::string>& expected) {
    const std::string& verb = words[0];
    if (verb == "worker") return Build(words);
    if (verb == "add") return Add(words, expected);
    if (verb == "cancel") return core_->OnCancel(named_.at(words.at(1)).key, now_, &events_);
    if (verb == "drain") return core_->Drain(now_);
    if (verb == "timer") return core_->OnTimer(now_, &events_);
    if (verb == "plan") return Plan();
    if (verb == "done") return Done();
    if (verb == "fail") {
      ASSERT_TRUE(core_->OnStepFailed(engine_->FinishFailed(), "lost", now_, &events_).ok());
      return;
    }
    if (verb == "idle") {
      EXPECT_TRUE(core_->idle());
      return;
    }
    if (verb == "free") {
      WorkerState state;
      core_->State(now_, &state);
      EXPECT_EQ(state.blocks_free + state.blocks_cached, std::atoi(words.at(1).c_str()));
      return;
    }
    ASSERT_EQ(verb.substr(0, 4), "step") << "unknown command";
    const int times = verb.size() > 5 ? std::atoi(verb.c_str() + 5) : 1;
    for (int i = 0; i < times; ++i) {
      seen_.clear();
      Plan();
      if (engine_->busy()) Done();
    }
  }

  // key=value words into a map.
  static std::map<std::string, std::string> Options(const std::vector<std::string>& words, size_t first) {
    std::map<std::string, std::string> options;
    for (size_t i = first; i < words.size(); ++i) {
      const size_t equals = words[i].find('=');
      EXPECT_NE(equals, std::string::npos) << words[i];
      options[words[i].substr(0, equals)] = words[i].substr(equals + 1);
    }
    return options;
  }

  void Build(const std::vector<std::string>& words) {
    WorkerSpec spec;
    spec.options.vocab_size = kVocab;
    for (const auto& [key, value] : Options(words, 1)) {
      const int32_t number = std::atoi(value.c_str());
      if (key == "blocks")
        spec.options.num_blocks = number;
      else if (key == "block_tokens")
        spec.options.block_tokens = number;
      else if (key == "max_step_tokens")
        spec.options.max_step_tokens = number;
      else if (key == "max_num_seqs")
        spec.options.max_num_seqs = number;
      else if (key == "max_context")
        spec.options.max_context = number;
      else if (key == "max_waiting")
        spec.options.max_waiting = number;
      else if (key == "depth")
        spec.options.max_in_flight = number;
      else if (key == "prefix_cache")
        spec.options.prefix_cache = value == "on";
      else if (key == "policy")
        spec.scheduler = value;
      else
        ADD_FAILURE() << "unknown key " << key;
    }
    auto core = NewWorkerCore(spec);
    ASSERT_TRUE(core.ok()) << core.status();
    core_ = *std::move(core);
    engine_ = std::make_unique<ShadowEngine>(spec.options.num_blocks, spec.options.block_tokens,
                                             spec.options.max_num_seqs, kVocab);
  }

  void Add(const std::vector<std::string>& words, const std::vector<std::string>& expected) {
    const std::string& name = words.at(1);
    auto options = Options(words, 2);
    Named added;
    if (options.contains("sample_of")) {
      added = named_.at(options["sample_of"]);
      added.key.sample = ++samples_[added.key.request];
    } else {
      added.key.request = RequestId{named_.contains(name) ? Value(named_[name].key.request) : ++requests_};
      FillRequest(options, &added);
    }
    added.submit.key = added.key;
    const absl::Status status = core_->OnArrival(added.submit, now_);
    if (expected.empty()) {
      ASSERT_TRUE(status.ok()) << status;
      named_[name] = added;
      return;
    }
    ASSERT_EQ(expected.size(), 2u);
    ASSERT_FALSE(status.ok()) << "it was accepted";
    EXPECT_EQ(ReasonName(RefusalOf(status).value_or(Refusal{}).reason), expected[1]) << status;
  }

  void FillRequest(std::map<std::string, std::string>& options, Named* added) {
    Submit& submit = added->submit;
    submit.key = added->key;
    submit.num_prompt = std::atoi(options.at("prompt").c_str());
    submit.stop.max_tokens = std::atoi(options.at("new").c_str());
    std::vector<TokenId> tokens(static_cast<size_t>(submit.num_prompt));
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = static_cast<TokenId>((Value(added->key.request) * 977 + i) % kVocab);
    }
    if (options.contains("like")) {
      const std::string& like = options["like"];
      const Named& other = named_.at(like.substr(0, like.find(':')));
      std::vector<TokenId> source = *other.submit.tokens;
      const ReferenceOutput output = ReferenceRun(other.submit, kVocab);
      source.insert(source.end(), output.tokens.begin(), output.tokens.end());
      const int count = std::atoi(like.c_str() + like.find(':') + 1);
      std::copy_n(source.begin(), count, tokens.begin());
    }
    submit.tokens = std::make_shared<const std::vector<TokenId>>(std::move(tokens));
    if (options.contains("deadline")) {
      submit.deadline = Time{} + Duration::Milliseconds(std::atoi(options["deadline"].c_str()));
    }
    if (options.contains("stop_after")) {
      const auto index = static_cast<size_t>(std::atoi(options["stop_after"].c_str())) - 1;
      submit.stop.stop_ids = {ReferenceRun(submit, kVocab).tokens.at(index)};
    }
  }

  void Plan() {
    const StepPlan& plan = core_->Plan(now_);
    for (const AdmittedSequence& admitted : plan.admitted) {
      sequences_[admitted.sequence] = NameOf(admitted.submit->key);
    }
    for (const Slice& slice : plan.slices) {
      const std::string& name = sequences_[slice.sequence];
      const bool decode = slice.sample && slice.count == 1 && decoding_.contains(slice.sequence);
      const bool previous = slice.input == InputSource::kPreviousStep;
      seen_.push_back(previous ? name + ":prev+1"
                      : decode ? name + ":+1"
                               : Cat(name, ":", slice.begin, "+", slice.count));
      if (slice.sample) decoding_.insert(slice.sequence);
    }
    for (const SequenceId preempted : plan.preempted) {
      seen_.push_back("preempt " + sequences_[preempted]);
      decoding_.erase(preempted);
    }
    if (!plan.empty()) engine_->Launch(plan);
  }

  void Done() {
    const absl::Status status = core_->OnStepDone(engine_->Finish(), now_, &events_);
    ASSERT_TRUE(status.ok()) << status;
  }

  void Compare(const std::vector<std::string>& words) {
    std::vector<std::string> expected;
    for (size_t i = 0; i < words.size(); ++i) {
      if (words[i] == "nothing") continue;
      if (words[i] == "cached") {
        const std::string& what = words.at(++i);
        const size_t equals = what.find('=');
        const auto report = core_->Report(named_.at(what.substr(0, equals)).key);
        ASSERT_TRUE(report.has_value());
        EXPECT_EQ(report->cached_tokens, std::atoi(what.c_str() + equals + 1));
      } else if (words[i] == "preempt" || words[i] == "end") {
        expected.push_back(words[i] + " " + words.at(i + 1));
        ++i;
      } else {
        expected.push_back(words[i]);
      }
    }
    std::vector<std::string> seen = seen_;
    std::sort(seen.begin(), seen.end());
    std::sort(expected.begin(), expected.end());
    EXPECT_EQ(seen, expected);
  }

  std::string NameOf(const SampleKey& key) const {
    for (const auto& [name, named] : named_) {
      if (named.key == key) return name;
    }
    return "?";
  }

  std::unique_ptr<WorkerCore> core_;
  std::unique_ptr<ShadowEngine> engine_;
  std::map<std::string, Named> named_;
  std::map<RequestId, uint32_t> samples_;
  std::map<SequenceId, std::string> sequences_;
  std::set<SequenceId> decoding_;
  std::vector<std::string> seen_;
  std::vector<TokenEvent> events_;
  uint64_t requests_ = 0;
  Time now_;
};

std::string ScenarioFolder() {
  const char* root = std::getenv("ORRERY_SOURCE_DIR");
  return std::string(root == nullptr ? "." : root) + "/tests/scenarios";
}

std::vector<std::string> ScenarioPaths() {
  std::vector<std::string> paths;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(ScenarioFolder(), error)) {
    if (entry.path().extension() == ".txt") paths.push_back(entry.path().string());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

class Scenario : public ::testing::TestWithParam<std::string> {};

TEST_P(Scenario, Holds) { Story().Run(GetParam()); }

INSTANTIATE_TEST_SUITE_P(Stories, Scenario, ::testing::ValuesIn(ScenarioPaths()),
                         [](const auto& info) { return std::filesystem::path(info.param).stem().string(); });

TEST(Scenarios, AreFound) { EXPECT_GE(ScenarioPaths().size(), 10u); }

}  // namespace
}  // namespace orrery
