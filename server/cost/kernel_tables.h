// Times of single kernels as measured by aiconfigurator: a folder of files
// GPU_FRAMEWORK-VERSION_TABLE.csv[.xz|.gz], a row per measurement with its latency in ms
// (../shared/data/profiles/aiconfigurator).
#ifndef ORRERY_SERVER_COST_KERNEL_TABLES_H_
#define ORRERY_SERVER_COST_KERNEL_TABLES_H_

#include <array>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace orrery {

// Paths of a GPU's tables by their names, those of the highest version measured with `gemm`. INVALID_ARGUMENT
// for a GPU without any (the nearest is suggested).
absl::StatusOr<std::map<std::string, std::string>> FindKernelTables(const std::string& folder,
                                                                    const std::string& gpu);

// A column and the text that rows of interest have there. A column whose name ends in '?' may be missing,
// and then every row is of interest.
struct KernelFilter {
  std::string_view column;
  std::string wanted;
};

// ms by up to three numbers; the least where several kernels were measured.
using KernelTimes = std::map<std::array<double, 3>, double>;

// INVALID_ARGUMENT, with path and line or column: what cannot be read, and filters that leave nothing.
absl::StatusOr<KernelTimes> ReadKernelTimes(const std::string& path, const std::vector<KernelFilter>& filters,
                                            const std::vector<std::string_view>& keys);

}  // namespace orrery

#endif  // ORRERY_SERVER_COST_KERNEL_TABLES_H_
