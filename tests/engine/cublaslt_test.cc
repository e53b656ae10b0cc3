#include "engine/cuda/cublaslt.h"

#include <gtest/gtest.h>

namespace orrery::cuda {
namespace {

// The library that this was built with has every function by its name, driver or not.
TEST(CublasLtTest, LoadsWithoutADriver) {
  const auto library = LoadCublasLt();
  if (!library.ok()) {
    ASSERT_EQ(library.status().message().substr(0, 11), "cannot load") << library.status();
    GTEST_SKIP() << library.status();
  }
  EXPECT_EQ((*library)->GetVersion() / 10000, static_cast<size_t>(CUBLAS_VER_MAJOR));
  EXPECT_STRNE((*library)->GetStatusString(CUBLAS_STATUS_NOT_SUPPORTED), "");
}

}  // namespace
}  // namespace orrery::cuda
