// Backend on kernels/cpu: operations are kept and run on a fixed thread pool when they are waited for.
#ifndef ORRERY_ENGINE_BACKEND_CPU_H_
#define ORRERY_ENGINE_BACKEND_CPU_H_

#include <memory>

#include "engine/backend.h"
#include "engine/cpu_stream.h"

namespace orrery {

// `num_threads` >= 1, the caller's thread included. KV blocks hold 16 tokens. `trace`, where there is one,
// is told when kernels run and outlives the backend.
std::unique_ptr<Backend> NewCpuBackend(int num_threads, KernelTrace* trace = nullptr);

// Threads worth having where nobody says a number: the cores this process may use.
int DefaultCpuThreads();

}  // namespace orrery

#endif  // ORRERY_ENGINE_BACKEND_CPU_H_
