// Checkpoint folders: good ones in every form, and ones that are cut off or lie. Every bad one is a typed
// error that names the file and, where there is one, the tensor.
#include "engine/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "scheduler/base/random.h"
#include "tests/engine/test_model.h"
#include "tests/fuzz/safetensors_entry.h"

namespace orrery {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using testing::SafetensorsImage;

std::span<const std::byte> Bytes(const std::string& image) {
  return {reinterpret_cast<const std::byte*>(image.data()), image.size()};
}

// A header of two tensors over 32 bytes of data, with a change.
std::string TwoTensors(const std::function<void(json&)>& change, size_t data_bytes = 32) {
  json header = {{"a", {{"dtype", "F32"}, {"shape", {2, 2}}, {"data_offsets", {0, 16}}}},
                 {"b", {{"dtype", "BF16"}, {"shape", {8}}, {"data_offsets", {16, 32}}}},
                 {"__metadata__", {{"format", "pt"}}}};
  change(header);
  return SafetensorsImage(header.dump(), std::string(data_bytes, 'x'));
}

TEST(Safetensors, ReadsEveryTensorInOrderOfData) {
  const std::string image = TwoTensors([](json&) {});
  const auto tensors = ParseSafetensors(Bytes(image), "f");
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 2u);
  EXPECT_EQ((*tensors)[0].name, "a");
  EXPECT_EQ((*tensors)[1].dtype, "BF16");
  EXPECT_EQ((*tensors)[1].shape, std::vector<int64_t>{8});
  EXPECT_EQ((*tensors)[1].data.size(), 16u);
}

TEST(Safetensors, EmptyTensorsAndScalarsAreLegal) {
  const std::string image = SafetensorsImage(
      R"({"e":{"dtype":"F32","shape":[0,5],"data_offsets":[0,0]},"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})",
      "abcd");
  EXPECT_TRUE(ParseSafetensors(Bytes(image), "f").ok());
}

struct BadImage {
  std::string name, image, message;
};

void PrintTo(const BadImage& bad, std::ostream* out) { *out << bad.name; }

std::vector<BadImage> BadImages() {
  const auto tensor = [](const char* field, json value) {
    return TwoTensors([&](json& h) { h["b"][field] = value; });
  };
  const std::string good = TwoTensors([](json&) {});
  std::string huge_header = good;
  for (int i = 0; i < 8; ++i) huge_header[static_cast<size_t>(i)] = '\xff';
  std::string long_header = good;
  long_header[2] = 1;
  return {
      {"Empty", "", "too short"},
      {"SevenBytes", "1234567", "too short"},
      {"HeaderOf2To64", huge_header, "header of 18446744073709551615 bytes"},
      {"HeaderPastTheEnd", long_header, "header of"},
      {"CutInHeader", good.substr(0, 40), "header of"},
      {"CutInData", good.substr(0, good.size() - 1), "'b'"},
      {"ByteTooMany", good + "x", "belong to none"},
      {"NotJson", SafetensorsImage("{\"a\":", ""), "f: "},
      {"Array", SafetensorsImage("[]", ""), "not a JSON object"},
      {"InvalidUtf8", SafetensorsImage("{\"\xff\":1}", ""), "f: "},
      {"HugeNumber",
       SafetensorsImage(R"({"a":{"dtype":"F32","shape":[1e999999],"data_offsets":[0,4]}})", "abcd"), "f: "},
      {"DeepNesting", SafetensorsImage(std::string(100000, '['), ""), "nested deeper"},
      {"TwiceTheSameName",
       SafetensorsImage(
           R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
           "ab"),
       "occurs twice"},
      {"EmptyName", SafetensorsImage(R"({"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "a"),
       "name of 0"},
      {"EntryIsNumber", TwoTensors([](json& h) { h["b"] = 5; }), "'b'"},
      {"NoDtype", TwoTensors([](json& h) { h["b"].erase("dtype"); }), "dtype"},
      {"UnknownDtype", tensor("dtype", "F31"), "'F31'"},
      {"DtypeIsNumber", tensor("dtype", 3), "dtype"},
      {"NoShape", TwoTensors([](json& h) { h["b"].erase("shape"); }), "shape"},
      {"NegativeDim", tensor("shape", {-8}), "shape"},
      {"FractionDim", tensor("shape", {8.0}), "shape"},
      {"RankOfNine", tensor("shape", {1, 1, 1, 1, 1, 1, 1, 1, 8}), "shape"},
      {"ShapeTooSmall", tensor("shape", {7}), "does not take"},
      {"ShapeOverflows", tensor("shape", {int64_t{1} << 62, 4}), "does not take"},
      {"OffsetsReversed", tensor("data_offsets", {32, 16}), "data_offsets"},
      {"OffsetsPastTheEnd", tensor("data_offsets", {16, 48}), "do not lie"},
      {"OffsetsNegative", tensor("data_offsets", {-16, 0}), "data_offsets"},
      {"OffsetsOverflow", tensor("data_offsets", {uint64_t{1} << 63, (uint64_t{1} << 63) + 16}),
       "data_offsets"},
      {"ThreeOffsets", tensor("data_offsets", {16, 24, 32}), "data_offsets"},
      {"Overlap",
       TwoTensors(
           [](json& h) {
             h["b"]["data_offsets"] = {8, 24};
           },
           24),
       "overlaps"},
      {"SameBytesTwice",
       TwoTensors(
           [](json& h) {
             h["b"]["data_offsets"] = {0, 16};
           },
           16),
       "overlaps"},
      {"Hole",
       TwoTensors(
           [](json& h) {
             h["b"]["data_offsets"] = {20, 36};
           },
           36),
       "no tensor"},
  };
}

class BadSafetensors : public ::testing::TestWithParam<BadImage> {};
INSTANTIATE_TEST_SUITE_P(All, BadSafetensors, ::testing::ValuesIn(BadImages()),
                         [](const auto& info) { return info.param.name; });

TEST_P(BadSafetensors, IsRefusedByName) {
  const auto result = ParseSafetensors(Bytes(GetParam().image), "f");
  ASSERT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message(result.status().message());
  EXPECT_THAT(message, HasSubstr("f: "));
  EXPECT_THAT(message, HasSubstr(GetParam().message));
}

// Random damage to a good file either is refused or leaves every tensor inside the file (the fuzzer's entry
// checks that and aborts otherwise).
TEST(Safetensors, MutationsNeverLeaveTheFile) {
  const std::string good =
      SafetensorsImage(testing::RandomTensors(testing::TinyConfig("qwen3"), 1), DType::kBF16);
  const std::string small = TwoTensors([](json&) {});
  RandomStream random(99);
  for (int round = 0; round < 3000; ++round) {
    std::string image = round % 50 == 0 ? good : small;
    const size_t head = std::min<size_t>(image.size(), 600);
    for (uint64_t i = 0, count = 1 + random.Below(6); i < count; ++i) {
      switch (random.Below(4)) {
        case 0:
          image[random.Below(head)] = static_cast<char>(random.Below(256));
          break;
        case 1:
          image.resize(random.Below(image.size() + 1));
          break;
        case 2:
          image.insert(random.Below(image.size() + 1), 1, "0123456789[]{},:\""[random.Below(17)]);
          break;
        default:
          image.erase(random.Below(image.size() + 1), 1);
      }
      if (image.empty()) image = "x";
    }
    EXPECT_EQ(SafetensorsFuzzEntry(reinterpret_cast<const uint8_t*>(image.data()), image.size()), 0);
  }
}

TEST(Checkpoint, WeightsAreConvertedFromEveryDtype) {
  const json config = testing::TinyConfig("llama");
  const auto tensors = testing::RandomTensors(config, 3);
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    testing::TempDir dir;
    testing::WriteModel(dir.path(), config, tensors, dtype);
    const auto checkpoint = Checkpoint::Open(dir.path());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    EXPECT_EQ(checkpoint->num_tensors(), static_cast<int64_t>(tensors.size()));
    const auto view = checkpoint->Weight("model.layers.1.mlp.up_proj.weight", {80, 48});
    ASSERT_TRUE(view.ok()) << view.status();
    EXPECT_EQ(view->dtype, dtype);
    std::vector<float> values(80 * 48);
    CopyToF32(*view, 0, view->num_elements(), values.data());
    for (const auto& tensor : tensors) {
      if (tensor.name != "model.layers.1.mlp.up_proj.weight") continue;
      for (size_t i = 0; i < values.size(); ++i) {
        ASSERT_NEAR(values[i], tensor.values[i],
                    dtype == DType::kF32 ? 0.0 : 4e-3 * std::abs(tensor.values[i]) + 1e-7);
      }
    }
  }
}

TEST(Checkpoint, DataAtOddAddressesIsRead) {
  testing::TempDir dir;
  std::string data = "!";
  const float values[3] = {1.5f, -2.25f, 1e-3f};
  data.append(reinterpret_cast<const char*>(values), sizeof(values));
  testing::WriteFile(dir.path() + "/model.safetensors",
                     SafetensorsImage(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                      R"("b":{"dtype":"F32","shape":[3],"data_offsets":[1,13]}})",
                                      data));
  const auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  float read[3] = {};
  CopyToF32(*checkpoint->Weight("b", {3}), 0, 3, read);
  EXPECT_EQ(std::vector<float>(read, read + 3), std::vector<float>(values, values + 3));
}

TEST(Checkpoint, ShardsAreOneCheckpoint) {
  testing::TempDir dir;
  const json config = testing::TinyConfig("qwen2");
  const auto tensors = testing::RandomTensors(config, 3);
  testing::WriteShardedModel(dir.path(), config, tensors, DType::kBF16, 3);
  const auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->num_tensors(), static_cast<int64_t>(tensors.size()));
  EXPECT_TRUE(checkpoint->Has("model.layers.2.self_attn.k_proj.bias"));
}

TEST(Checkpoint, WrongTensorsAreNamedWithWhatConfigAsksFor) {
  testing::TempDir dir;
  const json config = testing::TinyConfig("llama");
  testing::WriteModel(dir.path(), config, testing::RandomTensors(config, 3));
  const auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok());
  EXPECT_THAT(std::string(checkpoint->Weight("model.norm.weight", {49}).status().message()),
              HasSubstr("'model.norm.weight' has shape [48], config.json asks for [49]"));
  EXPECT_THAT(std::string(checkpoint->Weight("model.norm.bias", {48}).status().message()),
              HasSubstr("'model.norm.bias' is missing"));
  testing::WriteFile(
      dir.path() + "/model.safetensors",
      SafetensorsImage(R"({"w":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})", "12345678"));
  EXPECT_THAT(std::string(Checkpoint::Open(dir.path())->Weight("w", {1}).status().message()),
              HasSubstr("dtype I64 is not supported"));
}

class BadShards : public ::testing::Test {
 protected:
  void SetUp() override {
    const json config = testing::TinyConfig("llama");
    testing::WriteShardedModel(dir_.path(), config, testing::RandomTensors(config, 3), DType::kF32, 2);
    index_ = json::parse(testing::ReadFile(dir_.path() + "/model.safetensors.index.json"));
  }
  std::string Message() {
    testing::WriteFile(dir_.path() + "/model.safetensors.index.json", index_.dump());
    const auto checkpoint = Checkpoint::Open(dir_.path());
    EXPECT_FALSE(checkpoint.ok());
    return std::string(checkpoint.status().message());
  }
  testing::TempDir dir_;
  json index_;
};

TEST_F(BadShards, NoMap) {
  index_.erase("weight_map");
  EXPECT_THAT(Message(), HasSubstr("weight_map"));
}
TEST_F(BadShards, PathOutOfTheFolder) {
  index_["weight_map"]["model.norm.weight"] = "../part-0.safetensors";
  EXPECT_THAT(Message(), HasSubstr("must be a file name"));
}
TEST_F(BadShards, ShardIsNotThere) {
  index_["weight_map"]["model.norm.weight"] = "part-9.safetensors";
  EXPECT_THAT(Message(), HasSubstr("part-9.safetensors"));
}
TEST_F(BadShards, TensorIsElsewhere) {
  auto& map = index_["weight_map"];
  map["model.norm.weight"] =
      map["model.norm.weight"] == "part-0.safetensors" ? "part-1.safetensors" : "part-0.safetensors";
  EXPECT_THAT(Message(), HasSubstr("'model.norm.weight' is not in"));
}
TEST_F(BadShards, TensorInTwoShards) {
  std::filesystem::copy_file(dir_.path() + "/part-0.safetensors", dir_.path() + "/part-2.safetensors");
  index_["weight_map"]["extra"] = "part-2.safetensors";
  EXPECT_THAT(Message(), HasSubstr("is also in"));
}
TEST_F(BadShards, ShardIsADirectory) {
  std::filesystem::create_directory(dir_.path() + "/part-7.safetensors");
  index_["weight_map"]["extra"] = "part-7.safetensors";
  EXPECT_THAT(Message(), HasSubstr("not a regular file"));
}

TEST(Checkpoint, AFolderWithoutWeightsSaysWhatIsMissing) {
  testing::TempDir dir;
  EXPECT_THAT(std::string(Checkpoint::Open(dir.path()).status().message()), HasSubstr("model.safetensors"));
  EXPECT_FALSE(Checkpoint::Open(dir.path() + "/nowhere").ok());
}

}  // namespace
}  // namespace orrery
