// The JSON documents of `orrery plan`: questions read into the planners' types, answers written from them.
// Errors are INVALID_ARGUMENT and name the line (text that is no JSON) or the field; an unknown field is one.
#ifndef ORRERY_SERVER_CLI_PLAN_JSON_H_
#define ORRERY_SERVER_CLI_PLAN_JSON_H_

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "scheduler/planning/capacity.h"
#include "scheduler/planning/hindsight.h"
#include "scheduler/planning/mixed_pools.h"

namespace orrery::cli {

// `source` opens the error: "plan.json:3: ...".
absl::StatusOr<nlohmann::json> ParseDocument(const std::string& source, const std::string& text);

absl::StatusOr<CapacityInput> ReadCapacity(const nlohmann::json& document);
absl::StatusOr<MixedPoolsInput> ReadMixedPools(const nlohmann::json& document);
absl::StatusOr<UnitInstance> ReadHindsight(const nlohmann::json& document);

nlohmann::ordered_json ToJson(const CapacityPlan& plan);
nlohmann::ordered_json ToJson(const MixedPoolsInput& input, const MixedPoolsPlan& plan);
nlohmann::ordered_json ToJson(const HindsightPlan& plan);

}  // namespace orrery::cli

#endif  // ORRERY_SERVER_CLI_PLAN_JSON_H_
