// Steps that compute nothing of use, so that what an engine does at the first step of a size is done before
// it serves: algorithms of products are searched for, records of decode steps made, code loaded.
#ifndef ORRERY_ENGINE_WARM_UP_H_
#define ORRERY_ENGINE_WARM_UP_H_

#include "absl/status/status.h"
#include "engine/executor.h"

namespace orrery {

// Decode steps, each twice, and prompts of 1, 2, 4, ... rows up to the limits. Leaves no sequence behind; what
// it writes to the KV pool is nobody's. Before the first step of serving.
absl::Status WarmUp(Executor& executor);

}  // namespace orrery

#endif  // ORRERY_ENGINE_WARM_UP_H_
