#include "server/cost/model_shape.h"

#include <string_view>
#include <utility>
#include <vector>

#include "scheduler/base/options.h"
#include "scheduler/base/text.h"

namespace orrery {
namespace {

// As published in the configurations of these models.
constexpr std::pair<std::string_view, ModelShape> kPublished[] = {
    {"llama2-7b", {32, 4096, 11008, 32, 32, 128, 32000}},
    {"llama2-70b", {80, 8192, 28672, 64, 8, 128, 32000}},
    {"llama3-8b", {32, 4096, 14336, 32, 8, 128, 128256}},
    {"llama3-70b", {80, 8192, 28672, 64, 8, 128, 128256}},
    {"qwen3-8b", {36, 4096, 12288, 32, 8, 128, 151936}},
    {"qwen3-32b", {64, 5120, 25600, 64, 8, 128, 151936}},
};
constexpr std::string_view kMixtures[] = {"mixtral-8x7b", "qwen3-30b-a3b"};

using S = ModelShape;
const OptionField<S> kFields[] = {
    {"layers", &S::layers, 1, 1024, ""},
    {"hidden", &S::hidden, 64, 65536, ""},
    {"intermediate", &S::intermediate, 64, 262144, ""},
    {"heads", &S::heads, 1, 1024, ""},
    {"kv_heads", &S::kv_heads, 1, 1024, ""},
    {"head_dim", &S::head_dim, 16, 1024, ""},
    {"vocab", &S::vocab, 2, 4194304, ""},
};

absl::StatusOr<ModelShape> Published(const std::string& name) {
  std::vector<std::string_view> known;
  for (const auto& [published, shape] : kPublished) {
    if (published == name) return shape;
    known.push_back(published);
  }
  for (const std::string_view mixture : kMixtures) {
    if (mixture != name) continue;
    return absl::InvalidArgumentError(
        Cat("model '", name, "' is a mixture of experts; tables of kernels are composed for dense ones"));
  }
  return UnknownName("model (or spell its shape out, layers=...)", name, known);
}

}  // namespace

double ModelShape::parameters() const {
  const double attention = double{2} * hidden * head_dim * (heads + kv_heads);
  return layers * (attention + double{3} * hidden * intermediate) + double{2} * vocab * hidden;
}

absl::Status ModelShape::CheckRanks(int32_t ranks) const {
  const auto fits = [&](int32_t count) { return count % ranks == 0; };
  if (fits(heads) && fits(intermediate) && (fits(kv_heads) || ranks % kv_heads == 0)) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat("tp", ranks, " does not divide ", heads, " heads, ", kv_heads,
                                        " kv_heads and intermediate ", intermediate));
}

absl::StatusOr<ModelShape> ParseModelShape(const std::string& text) {
  if (text.find('=') == std::string::npos) return Published(text);
  const auto spec = ParseNamedSpec("model:" + text);
  if (!spec.ok()) return spec.status();
  auto shape = ReadOptions<ModelShape>(*spec, kFields);
  if (!shape.ok()) return shape;
  for (const auto& field : kFields) {
    if ((*shape).*field.whole > 0) continue;
    return absl::InvalidArgumentError(Cat("model: ", field.name, " is missing"));
  }
  if (shape->heads % shape->kv_heads == 0) return shape;
  return absl::InvalidArgumentError(
      Cat("model: ", shape->kv_heads, " kv_heads do not divide ", shape->heads, " heads"));
}

}  // namespace orrery
