// Which ids are ordinary text, read from a checkpoint folder.
#ifndef ORRERY_SERVER_BENCH_MODEL_TOKENS_H_
#define ORRERY_SERVER_BENCH_MODEL_TOKENS_H_

#include <string>

#include "absl/status/statusor.h"
#include "server/bench/token_space.h"

namespace orrery::bench {

// The vocabulary of config.json (vocab_size) without the added tokens of tokenizer.json. NotFound or
// InvalidArgument names the file.
absl::StatusOr<TokenSpace> LoadTokenSpace(const std::string& model_folder);

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_MODEL_TOKENS_H_
