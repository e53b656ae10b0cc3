// A Hugging Face checkpoint folder: model.safetensors, or the shards that model.safetensors.index.json names.
// Tensors are views into mapped files: valid as long as the checkpoint lives.
#ifndef ORRERY_ENGINE_CHECKPOINT_CHECKPOINT_H_
#define ORRERY_ENGINE_CHECKPOINT_CHECKPOINT_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/checkpoint/mapped_file.h"
#include "engine/checkpoint/safetensors.h"
#include "kernels/dtype.h"

namespace orrery {

// A tensor checked against what the model needs. `data` may lie at an odd address.
struct WeightView {
  DType dtype = DType::kF32;  // kF32, kF16 or kBF16
  int64_t rows = 0;           // 1 for a vector
  int64_t cols = 0;
  const std::byte* data = nullptr;  // [rows, cols]

  int64_t num_elements() const { return rows * cols; }
  size_t num_bytes() const { return static_cast<size_t>(num_elements()) * SizeOf(dtype); }
};

class Checkpoint {
 public:
  // Maps every file and checks every tensor's entry. Errors name file and tensor.
  static absl::StatusOr<Checkpoint> Open(const std::string& model_dir);

  bool Has(absl::string_view name) const { return tensors_.contains(name); }
  // The named tensor, which must be f32, f16 or bf16 and have exactly this shape ([n] or [rows, cols]).
  absl::StatusOr<WeightView> Weight(absl::string_view name, std::initializer_list<int64_t> shape) const;
  int64_t num_tensors() const { return static_cast<int64_t>(tensors_.size()); }

 private:
  struct Entry {
    size_t file = 0;  // index into paths_
    StoredTensor tensor;
  };
  absl::Status AddFile(const std::string& model_dir, const std::string& name);
  absl::Status AddShards(const std::string& model_dir, const std::string& index_path);

  std::vector<std::string> paths_;
  std::vector<MappedFile> files_;  // parallel to paths_
  absl::flat_hash_map<std::string, Entry> tensors_;
};

// Copies or converts `count` elements from `first` on to f32.
void CopyToF32(const WeightView& view, int64_t first, int64_t count, float* out);

}  // namespace orrery

#endif  // ORRERY_ENGINE_CHECKPOINT_CHECKPOINT_H_
