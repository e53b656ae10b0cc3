#include "server/cli/plan_json.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/cli/json_fields.h"

namespace orrery::cli {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

// {"uniform_int": [lo, hi]}, {"constant": n}, {"histogram": {"n": weight}} or {"lognormal": [median, sigma]}.
absl::StatusOr<LengthDistribution> ReadDistribution(const std::string& field, const json* value) {
  const auto refuse = [&field](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat(field, why));
  };
  if (value == nullptr) return refuse(" is missing (or give joint)");
  JsonFields fields(*value, field + ".", {"uniform_int", "constant", "histogram", "lognormal"});
  if (!fields.status().ok()) return fields.status();
  if (value->size() != 1) return refuse(" must have one of uniform_int, constant, histogram, lognormal");
  const auto pair = [](const json* array) { return array->is_array() && array->size() == 2; };
  if (fields.Find("constant") != nullptr) {
    const int64_t n = fields.Integer("constant");
    if (!fields.status().ok()) return fields.status();
    return LengthDistribution(UniformLength{n, n});
  }
  if (const json* range = fields.Find("uniform_int")) {
    const auto low = pair(range) ? JsonFields::AsInteger((*range)[0]) : std::nullopt;
    const auto high = pair(range) ? JsonFields::AsInteger((*range)[1]) : std::nullopt;
    if (!low || !high) return refuse(".uniform_int must be [low, high], integers");
    return LengthDistribution(UniformLength{*low, *high});
  }
  if (const json* shape = fields.Find("lognormal")) {
    if (!pair(shape) || !(*shape)[0].is_number() || !(*shape)[1].is_number())
      return refuse(".lognormal must be [median, sigma], numbers");
    return LengthDistribution(LognormalLength{(*shape)[0].get<double>(), (*shape)[1].get<double>()});
  }
  const json* bins = fields.Find("histogram");
  if (bins == nullptr || !bins->is_object()) return refuse(".histogram must be {\"length\": weight, ...}");
  HistogramLength histogram;
  for (const auto& [key, weight] : bins->items()) {
    int64_t length = 0;
    if (!absl::SimpleAtoi(key, &length) || !weight.is_number())
      return refuse(".histogram must be {\"length\": weight, ...}");
    histogram.weights.emplace_back(length, weight.get<double>());
  }
  return LengthDistribution(std::move(histogram));
}

absl::StatusOr<LengthMoments> ReadLengths(const JsonFields& fields, int64_t chunk) {
  const json* joint = fields.Find("joint");
  if (joint == nullptr) {
    const auto prompt = ReadDistribution("prompt_tokens", fields.Find("prompt_tokens"));
    if (!prompt.ok()) return prompt.status();
    const auto output = ReadDistribution("output_tokens", fields.Find("output_tokens"));
    if (!output.ok()) return output.status();
    return IndependentMoments(*prompt, *output, chunk);
  }
  if (!joint->is_array()) return absl::InvalidArgumentError("joint must be an array");
  std::vector<JointLength> rows;
  for (size_t k = 0; k < joint->size(); ++k) {
    const json& row = (*joint)[k];
    const auto s = row.is_array() && row.size() == 3 ? JsonFields::AsInteger(row[0]) : std::nullopt;
    const auto o = s ? JsonFields::AsInteger(row[1]) : std::nullopt;
    if (!o || !row[2].is_number())
      return absl::InvalidArgumentError(absl::StrCat("joint[", k, "] must be [prompt, output, weight]"));
    rows.push_back({*s, *o, row[2].get<double>()});
  }
  return JointMoments(rows, chunk);
}

absl::StatusOr<PoolClass> ReadClass(const json& value, size_t index) {
  JsonFields fields(value, absl::StrCat("classes[", index, "]."),
                    {"name", "prompt_tokens", "output_tokens", "arrival_rate_per_worker_s",
                     "abandon_rate_per_s", "reward"});
  PoolClass c;
  c.name = fields.String("name", "");
  c.prompt_tokens = fields.Number("prompt_tokens");
  c.output_tokens = fields.Number("output_tokens");
  c.arrival_rate_per_worker_s = fields.Number("arrival_rate_per_worker_s");
  c.abandon_rate_per_s = fields.OptionalNumber("abandon_rate_per_s").value_or(0.0);
  c.reward = fields.OptionalNumber("reward");
  if (!fields.status().ok()) return fields.status();
  return c;
}

json Nullable(const auto& optional) { return optional ? json(*optional) : json(); }

}  // namespace

absl::StatusOr<json> ParseDocument(const std::string& source, const std::string& text) {
  try {
    return json::parse(text);
  } catch (const json::parse_error& error) {
    const size_t at = std::min(error.byte, text.size());
    const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n');
    return absl::InvalidArgumentError(absl::StrCat(source, ":", line, ": is not JSON"));
  } catch (const json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(source, ": ", error.what()));
  }
}

absl::StatusOr<CapacityInput> ReadCapacity(const json& document) {
  JsonFields fields(
      document, "",
      {"arrival_rate_per_s", "kv_capacity_tokens", "prefill_chunk_tokens", "mean_step_s", "prompt_tokens",
       "output_tokens", "joint", "max_step_tokens", "max_num_seqs", "full_step_s"});
  CapacityInput input;
  input.arrival_rate_per_s = fields.Number("arrival_rate_per_s");
  input.kv_capacity_tokens = fields.Integer("kv_capacity_tokens");
  input.prefill_chunk_tokens = fields.Integer("prefill_chunk_tokens");
  input.mean_step_s = fields.Number("mean_step_s");
  input.max_step_tokens = fields.OptionalInteger("max_step_tokens");
  input.max_num_seqs = fields.OptionalInteger("max_num_seqs");
  input.full_step_s = fields.OptionalNumber("full_step_s");
  if (fields.status().ok() && input.prefill_chunk_tokens < 1)
    fields.Refuse("prefill_chunk_tokens", "must be at least 1");
  if (!fields.status().ok()) return fields.status();
  auto lengths = ReadLengths(fields, input.prefill_chunk_tokens);
  if (!lengths.ok()) return lengths.status();
  input.lengths = *lengths;
  return input;
}

absl::StatusOr<MixedPoolsInput> ReadMixedPools(const json& document) {
  JsonFields fields(document, "",
                    {"classes", "alpha_s", "beta_s_per_token", "solo_decode_rate_per_s", "slots",
                     "prefill_chunk_tokens", "price_prompt", "price_output", "fleet_sizes", "charging"});
  MixedPoolsInput input;
  input.alpha_s = fields.Number("alpha_s");
  input.beta_s_per_token = fields.Number("beta_s_per_token");
  input.solo_decode_rate_per_s = fields.Number("solo_decode_rate_per_s");
  input.slots = fields.Integer("slots");
  input.prefill_chunk_tokens = fields.Integer("prefill_chunk_tokens");
  input.price_prompt = fields.OptionalNumber("price_prompt").value_or(0.0);
  input.price_output = fields.OptionalNumber("price_output").value_or(0.0);
  const std::string charging = fields.String("charging", "bundled");
  if (charging != "bundled" && charging != "separate")
    fields.Refuse("charging", "must be \"bundled\" or \"separate\"");
  input.charge_separately = charging == "separate";
  const json& sizes = fields.Array("fleet_sizes", false);
  for (size_t k = 0; k < sizes.size() && fields.status().ok(); ++k) {
    const auto size = JsonFields::AsInteger(sizes[k]);
    if (!size) fields.Refuse(absl::StrCat("fleet_sizes[", k, "]"), "must be an integer");
    input.fleet_sizes.push_back(size.value_or(0));
  }
  const json& classes = fields.Array("classes", true);
  if (!fields.status().ok()) return fields.status();
  for (size_t i = 0; i < classes.size(); ++i) {
    auto c = ReadClass(classes[i], i);
    if (!c.ok()) return c.status();
    input.classes.push_back(*std::move(c));
  }
  return input;
}

absl::StatusOr<UnitInstance> ReadHindsight(const json& document) {
  JsonFields fields(document, "", {"kv_capacity_tokens", "requests"});
  UnitInstance instance;
  instance.kv_capacity_tokens = fields.Integer("kv_capacity_tokens");
  const json& requests = fields.Array("requests", true);
  if (!fields.status().ok()) return fields.status();
  for (size_t i = 0; i < requests.size(); ++i) {
    JsonFields row(requests[i], absl::StrCat("requests[", i, "]."),
                   {"arrival", "prompt_tokens", "output_tokens"});
    UnitRequest r;
    r.arrival = row.Integer("arrival");
    r.prompt_tokens = row.Integer("prompt_tokens");
    r.output_tokens = row.Integer("output_tokens");
    if (!row.status().ok()) return row.status();
    instance.requests.push_back(r);
  }
  return instance;
}

ordered_json ToJson(const CapacityPlan& plan) {
  return {{"memory_rate_per_s", plan.memory_rate_per_s},
          {"delta", plan.delta},  // infinite is written as null
          {"sufficient_rate_per_s", plan.sufficient_rate_per_s},
          {"token_rate_per_s", Nullable(plan.token_rate_per_s)},
          {"slot_rate_per_s", Nullable(plan.slot_rate_per_s)},
          {"rate_per_worker_limit_per_s", plan.rate_per_worker_limit_per_s},
          {"workers_necessary", plan.workers_necessary},
          {"workers_sufficient", Nullable(plan.workers_sufficient)},
          {"binding", std::string(plan.binding)}};
}

ordered_json ToJson(const MixedPoolsInput& input, const MixedPoolsPlan& plan) {
  ordered_json workers = ordered_json::object();
  for (size_t k = 0; k < plan.mixed_workers.size(); ++k)
    workers[absl::StrCat(input.fleet_sizes[k])] = plan.mixed_workers[k];
  return {{"objective", plan.objective},
          {"x", plan.x},
          {"y_mixed", plan.y_mixed},
          {"y_solo", plan.y_solo},
          {"q_prefill", plan.q_prefill},
          {"q_decode", plan.q_decode},
          {"solo_probability", plan.solo_probability},
          {"mixed_workers", std::move(workers)},
          {"shadow_prices",
           {{"worker", plan.price_worker},
            {"mixed_slot", plan.price_mixed_slot},
            {"solo_slot", plan.price_solo_slot},
            {"prefill", plan.price_prefill},
            {"decode", plan.price_decode}}}};
}

ordered_json ToJson(const HindsightPlan& plan) {
  ordered_json starts = {
      {"mc-sf", plan.mc_sf.starts}, {"fcfs", plan.fcfs.starts}, {"best", plan.best.starts}};
  if (plan.optimum) starts["optimum"] = plan.optimum->starts;
  return {{"optimum", plan.optimum ? ordered_json(plan.optimum->total_latency) : ordered_json()},
          {"lp_bound", Nullable(plan.lp_bound)},
          {"dual_bound", Nullable(plan.dual_bound)},
          {"area_bound", plan.area_bound},
          {"lower_bound", plan.lower_bound},
          {"best", plan.best.total_latency},
          {"policies", {{"mc-sf", plan.mc_sf.total_latency}, {"fcfs", plan.fcfs.total_latency}}},
          {"nodes", plan.nodes},
          {"starts", std::move(starts)}};
}

}  // namespace orrery::cli
