// Checkpoint folders made for tests: any family, any switch, random weights, any stored dtype, one file or
// shards; and the raw container for files that lie.
#ifndef ORRERY_TESTS_ENGINE_TEST_MODEL_H_
#define ORRERY_TESTS_ENGINE_TEST_MODEL_H_

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/dtype.h"

namespace orrery::testing {

// A folder that is removed with the object.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

void WriteFile(const std::string& path, const std::string& bytes);
std::string ReadFile(const std::string& path);

// 8 bytes of length, the header, the data.
std::string SafetensorsImage(const std::string& header, const std::string& data);

struct NamedTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<float> values;
};
std::string SafetensorsImage(const std::vector<NamedTensor>& tensors, DType dtype);

// A valid config.json of a tiny model; tests change what they like before writing it.
nlohmann::json TinyConfig(const std::string& family);

// Random weights for a config: the tensors its family's checkpoints have. Matrices have standard deviation
// `deviation`, biases 0.2, norm gains lie around 1.
std::vector<NamedTensor> RandomTensors(const nlohmann::json& config, uint64_t seed, float deviation = 0.15f);

// Writes config.json and model.safetensors.
void WriteModel(const std::string& dir, const nlohmann::json& config, const std::vector<NamedTensor>& tensors,
                DType dtype = DType::kF32);
// The same over `shards` files and an index.
void WriteShardedModel(const std::string& dir, const nlohmann::json& config,
                       const std::vector<NamedTensor>& tensors, DType dtype, int shards);

// ${ORRERY_SHARED} or ${ORRERY_SOURCE_DIR}/../shared joined with `relative`; empty when it is not there.
std::string SharedData(const std::string& relative);
// A file beside the sources, under ${ORRERY_SOURCE_DIR}; empty when the variable is not set.
std::string SourcePath(const std::string& relative);

}  // namespace orrery::testing

#endif  // ORRERY_TESTS_ENGINE_TEST_MODEL_H_
