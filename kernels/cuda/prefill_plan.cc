#include <algorithm>

#include "kernels/cuda/prefill_attention.h"

namespace orrery::cuda {

void PlanPrefill(std::span<const PrefillSlice> slices, std::vector<PrefillTile>& tiles) {
  tiles.clear();
  for (int32_t s = 0; s < static_cast<int32_t>(slices.size()); ++s) {
    for (int32_t first = 0; first < slices[s].count; first += kPrefillTile) tiles.push_back({s, first});
  }
  std::sort(tiles.begin(), tiles.end(), [slices](const PrefillTile& a, const PrefillTile& b) {
    const int64_t from_a = int64_t{slices[a.slice].position} + a.first;
    const int64_t from_b = int64_t{slices[b.slice].position} + b.first;
    if (from_a != from_b) return from_a > from_b;
    return a.slice != b.slice ? a.slice < b.slice : a.first < b.first;
  });
}

}  // namespace orrery::cuda
