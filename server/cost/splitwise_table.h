// Tables of step times from measurements of whole models in the form of splitwise-sim's perf_model.csv: runs
// of equal prompts with the time of the prompt and of an output token.
//
// A run of `batch_size` prompts of `prompt_size` tokens says how long a step of that many tokens takes, and
// its token_time how long one of batch_size tokens does. Medians over repetitions; where several runs have
// the same number of tokens, those of a single prompt count. Attention is inside and cannot be told apart, so
// the table knows contexts about as long as the measured ones.
#ifndef ORRERY_SERVER_COST_SPLITWISE_TABLE_H_
#define ORRERY_SERVER_COST_SPLITWISE_TABLE_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "scheduler/cost/table_cost.h"

namespace orrery {

// By its header line.
bool IsSplitwiseCsv(std::string_view text);
// `wanted` is HARDWARE/MODEL/tpN (empty: that of the first row). INVALID_ARGUMENT: a row that is no
// measurement, with its line, or a name that is not there, with the nearest one.
absl::StatusOr<CostTable> SplitwiseTable(std::string_view path, std::string_view text,
                                         std::string_view wanted);

}  // namespace orrery

#endif  // ORRERY_SERVER_COST_SPLITWISE_TABLE_H_
