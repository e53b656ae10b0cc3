// Linked into engine tests: the variable ORRERY_ISA (scalar, avx2, avx512, amx) limits the instruction set of
// the whole run, so that ctest runs the same cases on every path. A machine that lacks it skips them.

#include <cstdlib>

#include "gtest/gtest.h"
#include "kernels/cpu/cpu_features.h"

namespace orrery {
namespace {

class IsaEnvironment final : public ::testing::Environment {
 public:
  void SetUp() override {
    const char* name = std::getenv("ORRERY_ISA");
    if (name == nullptr) return;
    const auto isa = IsaFromName(name);
    ASSERT_TRUE(isa.has_value()) << "ORRERY_ISA: " << name;
    if (*isa > DetectedIsa()) GTEST_SKIP() << "this machine lacks " << name;
    LimitIsa(*isa);
  }
};

const auto* const kEnvironment = ::testing::AddGlobalTestEnvironment(new IsaEnvironment);

}  // namespace
}  // namespace orrery
