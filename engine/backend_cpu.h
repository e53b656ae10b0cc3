// Backend on kernels/cpu: every operation runs on a fixed thread pool before the call returns.
#ifndef ORRERY_ENGINE_BACKEND_CPU_H_
#define ORRERY_ENGINE_BACKEND_CPU_H_

#include <memory>

#include "engine/backend.h"

namespace orrery {

// `num_threads` >= 1, the caller's thread included. KV blocks hold 16 tokens.
std::unique_ptr<Backend> NewCpuBackend(int num_threads);

// What Prepare of such a backend allocates, but for a few kilobytes.
int64_t CpuWorkspaceBytes(const BackendLimits& limits, int num_threads);

// Threads worth having where nobody says a number: the cores this process may use.
int DefaultCpuThreads();

}  // namespace orrery

#endif  // ORRERY_ENGINE_BACKEND_CPU_H_
