#include "engine/cuda/algorithm_cache.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "tests/engine/test_model.h"

namespace orrery::cuda {
namespace {

constexpr GemmShape kShape{.rows = 64,
                           .n = 4096,
                           .k = 14336,
                           .dtype = DType::kBF16,
                           .narrow_out = false,
                           .bias = false,
                           .residual = true};
constexpr AlgorithmBits kBits = {0, 1, ~uint64_t{0}, 0x123456789abcdef0, 4, 5, 6, uint64_t{1} << 63};

class AlgorithmCacheTest : public ::testing::Test {
 protected:
  orrery::testing::TempDir dir_;
  const std::string path_ = dir_.path() + "/not/there/yet/gemm.txt";
};

TEST_F(AlgorithmCacheTest, WhatWasPutIsFoundByTheNextProcess) {
  GemmShape other = kShape;
  other.dtype = DType::kF16;
  {
    AlgorithmCache cache(path_, "device, library 1");
    EXPECT_FALSE(cache.Find(kShape).has_value());
    cache.Put(kShape, kBits);
    EXPECT_EQ(cache.Find(kShape), kBits);
    EXPECT_FALSE(cache.Find(other).has_value());
    cache.Put(other, {});
  }
  const AlgorithmCache again(path_, "device, library 1");
  EXPECT_EQ(again.Find(kShape), kBits);
  EXPECT_EQ(again.Find(other), AlgorithmBits{});
  EXPECT_FALSE(AlgorithmCache(path_, "device, library 2").Find(kShape).has_value());
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir_.path() + "/not/there/yet"), {}), 1)
      << "a draft was left behind";
}

TEST_F(AlgorithmCacheTest, AFileThatIsNoneCountsAsEmpty) {
  AlgorithmCache(path_, "title").Put(kShape, kBits);
  const std::string good = orrery::testing::ReadFile(path_);
  for (size_t length = 0; length + 1 < good.size(); ++length) {
    orrery::testing::WriteFile(path_, good.substr(0, length));
    EXPECT_FALSE(AlgorithmCache(path_, "title").Find(kShape).has_value()) << length;
  }
  std::string bits;
  for (int i = 0; i < 8; ++i) bits += " 0000000000000007";
  const auto found_beside = [&](const std::string& line) {
    orrery::testing::WriteFile(path_, good + line + "\n");
    return AlgorithmCache(path_, "title").Find(kShape).has_value();
  };
  ASSERT_TRUE(found_beside("32 4096 14336 f16 0 0 1" + bits));
  for (const std::string& line :
       {std::string("1 2 3"), std::string("a b c d e f"), "32 4096 14336 0 0 1" + bits,
        "32 4096 14336 f32 0 0 1" + bits, "32 4096 14336 f16 2 0 1" + bits,
        "32 4096 14336 f16 0 0 1" + bits + " 9"}) {
    EXPECT_FALSE(found_beside(line)) << line;
  }
}

TEST_F(AlgorithmCacheTest, WithoutAPathOrAFolderNothingIsKept) {
  AlgorithmCache none("", "title");
  none.Put(kShape, kBits);
  EXPECT_EQ(none.Find(kShape), kBits);
  AlgorithmCache nowhere("/proc/orrery/gemm.txt", "title");
  nowhere.Put(kShape, kBits);
  EXPECT_EQ(nowhere.Find(kShape), kBits);
}

}  // namespace
}  // namespace orrery::cuda
