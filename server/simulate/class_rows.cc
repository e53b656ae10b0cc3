// The `classes` format.
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_cat.h"
#include "scheduler/base/random.h"
#include "server/simulate/row_generator.h"
#include "server/traces/read_file.h"
#include "server/traces/trace_reader.h"

namespace orrery::simulate {
namespace {

using nlohmann::json;
constexpr size_t kMaxBytes = 1 << 20;
constexpr size_t kMaxClasses = 256;

struct RowClass {
  int32_t prompt_tokens = 0, output_tokens = 0;
  double rate_per_s = 0, abandon_rate_per_s = 0;
};

double Exponential(RandomStream* random, double rate) { return -std::log1p(-random->Uniform()) / rate; }

class ClassStream final : public RowStream {
 public:
  ClassStream(const std::vector<RowClass>& classes, uint64_t seed) : classes_(classes) {
    for (uint32_t i = 0; i < classes.size(); ++i) {
      random_.emplace_back(seed, i);
      next_.push_back(Gap(i));
    }
  }
  void Next(DrawnRow* row) override {
    size_t first = 0;
    for (size_t i = 1; i < next_.size(); ++i) {
      if (next_[i] < next_[first]) first = i;
    }
    const RowClass& c = classes_[first];
    *row = {next_[first], c.prompt_tokens, c.output_tokens, static_cast<int32_t>(first)};
    if (c.abandon_rate_per_s > 0) row->patience_s = Exponential(&random_[first], c.abandon_rate_per_s);
    next_[first] += Gap(first);
  }

 private:
  double Gap(size_t i) {
    return classes_[i].rate_per_s > 0 ? Exponential(&random_[i], classes_[i].rate_per_s) : INFINITY;
  }
  const std::vector<RowClass> classes_;
  std::vector<RandomStream> random_;
  std::vector<double> next_;
};

class ClassGenerator final : public RowGenerator {
 public:
  std::vector<RowClass> classes;
  std::unique_ptr<RowStream> Start(uint64_t seed) const override {
    return std::make_unique<ClassStream>(classes, seed);
  }
};

// A number of a class in [low, high]; `required` or else 0 when absent.
absl::StatusOr<double> Field(const json& object, const std::string& where, const char* key, double low,
                             double high, bool required) {
  const auto value = object.find(key);
  if (value == object.end() && !required) return 0.0;
  if (value == object.end() || !value->is_number() ||
      !(value->get<double>() >= low && value->get<double>() <= high)) {
    return absl::InvalidArgumentError(absl::StrCat(where, ".", key, " must be in [", low, ", ", high, "]"));
  }
  return value->get<double>();
}

// As the objective of planning/mixed_pools.h counts it; nothing where the file names no prices.
absl::StatusOr<ClassReward> Reward(const json& document, const std::string& path, const json& object,
                                   const std::string& where, double prompt, double output) {
  constexpr double kMost = 1e12;
  auto price_prompt = Field(document, path, "price_prompt", 0, kMost, false);
  auto price_output = Field(document, path, "price_output", 0, kMost, false);
  auto own = Field(object, where, "reward", 0, kMost, false);
  for (const auto* field : {&price_prompt, &price_output, &own}) {
    if (!field->ok()) return field->status();
  }
  const double prefill = *price_prompt * prompt, completion = *price_output * output;
  if (object.contains("reward")) return ClassReward{0, *own};
  const auto charging = document.find("charging");
  if (charging != document.end() && *charging == "separate") return ClassReward{prefill, completion};
  return ClassReward{0, prefill + completion};
}

}  // namespace

absl::StatusOr<std::unique_ptr<RowGenerator>> LoadClassRows(const std::string& path, int32_t num_workers) {
  auto text = ReadWholeFile(path, kMaxBytes);
  if (!text.ok()) return text.status();
  const json document = json::parse(*text, nullptr, /*allow_exceptions=*/false);
  const bool listed = document.is_object() && document.contains("classes") && document["classes"].is_array();
  if (!listed || document["classes"].empty() || document["classes"].size() > kMaxClasses) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": 'classes' must list 1 to ", kMaxClasses, " classes"));
  }
  auto generator = std::make_unique<ClassGenerator>();
  for (const json& object : document["classes"]) {
    const std::string where = absl::StrCat(path, ": classes[", generator->classes.size(), "]");
    if (!object.is_object()) return absl::InvalidArgumentError(absl::StrCat(where, " is not an object"));
    const auto longest = static_cast<double>(kMaxTraceTokens);
    auto prompt = Field(object, where, "prompt_tokens", 1, longest, true);
    auto output = Field(object, where, "output_tokens", 1, longest, true);
    auto rate = Field(object, where, "arrival_rate_per_worker_s", 0, 1e9, true);
    auto abandon = Field(object, where, "abandon_rate_per_s", 0, 1e9, false);
    for (const auto* field : {&prompt, &output, &rate, &abandon}) {
      if (!field->ok()) return field->status();
    }
    auto reward = Reward(document, path, object, where, *prompt, *output);
    if (!reward.ok()) return reward.status();
    generator->rewards.push_back(*reward);
    const RowClass one{static_cast<int32_t>(*prompt), static_cast<int32_t>(*output), *rate * num_workers,
                       *abandon};
    const bool named = object.contains("name") && object["name"].is_string();
    generator->class_names.push_back(named ? object["name"].get<std::string>()
                                           : absl::StrCat("class ", generator->classes.size()));
    generator->rate_per_s += one.rate_per_s;
    generator->mean_prompt += one.rate_per_s * one.prompt_tokens;
    generator->mean_output += one.rate_per_s * one.output_tokens;
    generator->classes.push_back(one);
  }
  if (!(generator->rate_per_s > 0)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": every arrival_rate_per_worker_s is 0"));
  }
  generator->mean_prompt /= generator->rate_per_s;
  generator->mean_output /= generator->rate_per_s;
  return generator;
}

}  // namespace orrery::simulate
