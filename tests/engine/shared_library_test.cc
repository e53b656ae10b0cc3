#include "engine/cuda/shared_library.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace orrery::cuda {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST(SharedLibraryTest, AnAbsentLibraryIsOneLine) {
  const absl::Status status = SharedLibrary::Load("libnccl.so.99", "NCCL 99").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  const std::string message(status.message());
  EXPECT_THAT(message, StartsWith("cannot load libnccl.so.99 of NCCL 99: "));
  EXPECT_THAT(message, Not(HasSubstr("\n")));
}

TEST(SharedLibraryTest, TheFirstMissingFunctionIsNamed) {
  auto library = SharedLibrary::Load("libm.so.6", "the C library");
  ASSERT_TRUE(library.ok()) << library.status();
  double (*cosine)(double) = nullptr;
  library->Find("cos", &cosine);
  ASSERT_TRUE(library->status().ok()) << library->status();
  EXPECT_EQ(cosine(0.0), 1.0);
  void (*missing)() = nullptr;
  library->Find("no_such_function", &missing);
  library->Find("nor_such_a_function", &missing);
  library->Find("cos", &cosine);
  EXPECT_EQ(missing, nullptr);
  EXPECT_EQ(library->status().message(), "libm.so.6 has no no_such_function");
}

}  // namespace
}  // namespace orrery::cuda
