#include "engine/checkpoint/checkpoint.h"

#include <cstring>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/checkpoint/json.h"

namespace orrery {
namespace {

using nlohmann::json;

constexpr size_t kMaxShards = 4096;
constexpr JsonLimits kIndexLimits{.max_bytes = int64_t{64} << 20, .max_depth = 8, .max_values = 4'000'000};

// A shard is a plain file of the folder: an index must not lead the reader elsewhere.
bool IsPlainFileName(absl::string_view name) {
  return !name.empty() && name.size() < 256 && name != "." && name != ".." &&
         name.find('/') == absl::string_view::npos && name.find('\0') == absl::string_view::npos;
}

}  // namespace

absl::Status Checkpoint::AddFile(const std::string& model_dir, const std::string& name) {
  const std::string path = absl::StrCat(model_dir, "/", name);
  absl::StatusOr<MappedFile> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<std::vector<StoredTensor>> tensors = ParseSafetensors(file->bytes(), path);
  if (!tensors.ok()) return tensors.status();
  for (StoredTensor& tensor : *tensors) {
    std::string key = tensor.name;
    const auto [it, added] = tensors_.try_emplace(std::move(key), Entry{files_.size(), std::move(tensor)});
    if (!added) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor '", it->first, "' is also in ", paths_[it->second.file]));
    }
  }
  paths_.push_back(path);
  files_.push_back(*std::move(file));
  return absl::OkStatus();
}

absl::Status Checkpoint::AddShards(const std::string& model_dir, const std::string& index_path) {
  absl::StatusOr<json> index = ReadJsonObject(index_path, kIndexLimits);
  if (!index.ok()) return index.status();
  const auto map = index->find("weight_map");
  if (map == index->end() || !map->is_object() || map->empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(index_path, ": weight_map must be an object {tensor: file}"));
  }
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : map->items()) {
    if (!shard.is_string() || !IsPlainFileName(shard.get_ref<const std::string&>())) {
      return absl::InvalidArgumentError(absl::StrCat(index_path, ": weight_map of tensor '",
                                                     tensor.substr(0, 256), "' must be a file name"));
    }
    shards.insert(shard.get<std::string>());
  }
  if (shards.size() > kMaxShards) {
    return absl::InvalidArgumentError(
        absl::StrCat(index_path, ": ", shards.size(), " shards, at most ", kMaxShards));
  }
  for (const std::string& shard : shards) {
    if (absl::Status status = AddFile(model_dir, shard); !status.ok()) return status;
  }
  for (const auto& [tensor, shard] : map->items()) {
    const auto it = tensors_.find(tensor);
    const auto& name = shard.get_ref<const std::string&>();
    if (it == tensors_.end() || !absl::EndsWith(paths_[it->second.file], absl::StrCat("/", name))) {
      return absl::InvalidArgumentError(
          absl::StrCat(index_path, ": tensor '", tensor.substr(0, 256), "' is not in ", name));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& model_dir) {
  Checkpoint checkpoint;
  absl::Status status = checkpoint.AddFile(model_dir, "model.safetensors");
  if (absl::IsNotFound(status)) {
    status = checkpoint.AddShards(model_dir, absl::StrCat(model_dir, "/model.safetensors.index.json"));
    if (absl::IsNotFound(status) && checkpoint.files_.empty()) {
      status = absl::NotFoundError(absl::StrCat(
          model_dir, ": neither model.safetensors nor model.safetensors.index.json and its shards (",
          status.message(), ")"));
    }
  }
  if (!status.ok()) return status;
  return checkpoint;
}

absl::StatusOr<WeightView> Checkpoint::Weight(absl::string_view name,
                                              std::initializer_list<int64_t> shape) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat(absl::StrJoin(paths_, ", "), ": tensor '", name, "' is missing"));
  }
  const StoredTensor& tensor = it->second.tensor;
  const std::string& path = paths_[it->second.file];
  WeightView view;
  if (tensor.dtype == "F32") {
    view.dtype = DType::kF32;
  } else if (tensor.dtype == "F16") {
    view.dtype = DType::kF16;
  } else if (tensor.dtype == "BF16") {
    view.dtype = DType::kBF16;
  } else {
    return absl::InvalidArgumentError(absl::StrCat(path, ": tensor '", name, "': dtype ", tensor.dtype,
                                                   " is not supported (F32, F16, BF16)"));
  }
  if (!std::equal(shape.begin(), shape.end(), tensor.shape.begin(), tensor.shape.end())) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": tensor '", name, "' has shape [", absl::StrJoin(tensor.shape, ", "),
                     "], config.json asks for [", absl::StrJoin(shape, ", "), "]"));
  }
  view.cols = *(shape.end() - 1);
  view.rows = shape.size() == 2 ? *shape.begin() : 1;
  view.data = tensor.data.data();
  return view;
}

void CopyToF32(const WeightView& view, int64_t first, int64_t count, float* out) {
  const std::byte* from = view.data + static_cast<size_t>(first) * SizeOf(view.dtype);
  if (view.dtype == DType::kF32) {
    std::memcpy(out, from, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, from + static_cast<size_t>(i) * sizeof(bits), sizeof(bits));
    out[i] = view.dtype == DType::kBF16 ? F32FromBF16(bits) : F32FromF16(bits);
  }
}

}  // namespace orrery
