// Sizes of a dense transformer with grouped-query attention and a gated MLP: all that the times of its
// matrix products and attention depend on.
#ifndef ORRERY_SERVER_COST_MODEL_SHAPE_H_
#define ORRERY_SERVER_COST_MODEL_SHAPE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace orrery {

struct ModelShape {
  int32_t layers = 0, hidden = 0, intermediate = 0, heads = 0, kv_heads = 0, head_dim = 0, vocab = 0;

  // Of all weights: embedding and output head are counted apart, norms not at all.
  double parameters() const;
  // INVALID_ARGUMENT when `ranks` do not divide heads, KV heads (or these the ranks) and intermediate.
  absl::Status CheckRanks(int32_t ranks) const;
};

// The name of a published shape (llama3-8b, ...) or "layers=32,hidden=4096,intermediate=14336,heads=32,
// kv_heads=8,head_dim=128,vocab=128256", each of them in any order. INVALID_ARGUMENT names what is missing,
// out of range or unknown (with the nearest), and that mixtures of experts are not composed.
absl::StatusOr<ModelShape> ParseModelShape(const std::string& text);

}  // namespace orrery

#endif  // ORRERY_SERVER_COST_MODEL_SHAPE_H_
