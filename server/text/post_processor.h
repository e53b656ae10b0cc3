#ifndef ORRERY_SERVER_TEXT_POST_PROCESSOR_H_
#define ORRERY_SERVER_TEXT_POST_PROCESSOR_H_

// The `post_processor` of tokenizer.json: the ids around a text, such as BOS. Supported: TemplateProcessing
// (its "single" form), ByteLevel (which moves offsets only), and Sequence of them.

#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"
#include "scheduler/base/ids.h"

namespace orrery {

struct PostProcessor {
  std::vector<TokenId> prefix, suffix;

  // `json` is the value of "post_processor"; null adds nothing. Ids must be below `vocab_size`.
  static absl::StatusOr<PostProcessor> FromJson(const nlohmann::json& json, int32_t vocab_size);
};

}  // namespace orrery

#endif  // ORRERY_SERVER_TEXT_POST_PROCESSOR_H_
