// The emulator itself: instructions against what the PTX ISA says they do, and one small kernel for each
// mistake that it must report.
#include <alloca.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tile.cuh"

namespace orrery::cuda {
namespace {

using emulate::AsyncCopies;
using emulate::FailureKind;
using emulate::TakeFailure;
using testing::HasSubstr;

class EmulatorTest : public testing::Test {
 protected:
  void TearDown() override {
    emulate::SetOptions({});
    TakeFailure();
  }

  // Runs a lambda that takes no arguments as a kernel of one block.
  template <typename Kernel>
  static std::optional<emulate::Failure> RunBlock(int threads, size_t shared_bytes, const Kernel& kernel) {
    emulate::LaunchGrid({}, threads, shared_bytes, kernel);
    return TakeFailure();
  }

  static void ExpectFailure(const std::optional<emulate::Failure>& failure, FailureKind kind,
                            const std::string& part) {
    ASSERT_TRUE(failure.has_value());
    EXPECT_EQ(NameOf(failure->kind), NameOf(kind));
    EXPECT_THAT(failure->message, HasSubstr(part));
  }

  std::mt19937 random_{7};
};

TEST_F(EmulatorTest, MatrixProductFollowsTheFragmentMaps) {
  std::uniform_int_distribution<int> digit(-8, 8);  // exact in bfloat16, products exact in f32
  for (int round = 0; round < 20; ++round) {
    int a[16][16], b[16][8], c[16][8], result[16][8];
    for (auto& row : a) std::generate(row, row + 16, [&] { return digit(random_); });
    for (auto& row : b) std::generate(row, row + 8, [&] { return digit(random_); });
    for (auto& row : c) std::generate(row, row + 8, [&] { return digit(random_); });
    const auto failure = RunBlock(32, 0, [&] {
      const int g = ThreadX() / 4, t = ThreadX() % 4;
      const auto pack = [](int low, int high) {
        return PackBF16(static_cast<float>(low), static_cast<float>(high));
      };
      const uint32_t left[4] = {
          pack(a[g][2 * t], a[g][2 * t + 1]), pack(a[g + 8][2 * t], a[g + 8][2 * t + 1]),
          pack(a[g][2 * t + 8], a[g][2 * t + 9]), pack(a[g + 8][2 * t + 8], a[g + 8][2 * t + 9])};
      float sums[4];
      for (int i = 0; i < 4; ++i) sums[i] = static_cast<float>(c[g + i / 2 * 8][2 * t + i % 2]);
      MultiplyAdd(sums, left, pack(b[2 * t][g], b[2 * t + 1][g]), pack(b[2 * t + 8][g], b[2 * t + 9][g]));
      for (int i = 0; i < 4; ++i) result[g + i / 2 * 8][2 * t + i % 2] = static_cast<int>(sums[i]);
    });
    ASSERT_FALSE(failure);
    for (int i = 0; i < 16; ++i) {
      for (int j = 0; j < 8; ++j) {
        int expected = c[i][j];
        for (int k = 0; k < 16; ++k) expected += a[i][k] * b[k][j];
        ASSERT_EQ(result[i][j], expected) << i << " " << j;
      }
    }
  }
}

// All codes in all four bytes, against the definition: sign, four bits of exponent, three of mantissa; a NaN
// is to become infinite.
TEST(TileTest, E4M3IsWidenedExactly) {
  const auto value = [](uint32_t code) {
    const int exponent = static_cast<int>(code >> 3 & 15u), mantissa = static_cast<int>(code & 7u);
    const float magnitude = (code & 0x7fu) == 0x7fu ? HUGE_VALF  // the NaN
                            : exponent == 0         ? std::ldexp(static_cast<float>(mantissa), -9)
                                            : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
    return code & 0x80u ? -magnitude : magnitude;
  };
  for (uint32_t code = 0; code < 256; ++code) {
    const uint32_t codes[4] = {code, 255 - code, code ^ 0x55u, (code + 77) % 256};
    uint32_t even = 0, odd = 0;
    WidenE4M3(codes[0] | codes[1] << 8 | codes[2] << 16 | codes[3] << 24, even, odd);
    const float got[4] = {LowBF16(even), LowBF16(odd), HighBF16(even), HighBF16(odd)};
    for (int byte = 0; byte < 4; ++byte) {
      ASSERT_EQ(BitsOf(got[byte]), BitsOf(value(codes[byte]))) << codes[byte];
    }
  }
}

TEST_F(EmulatorTest, MatricesAreLoadedAndTransposed) {
  std::array<std::array<uint32_t, 4>, 32> plain, transposed;
  std::array<uint32_t, 32> moved;
  const auto failure = RunBlock(32, 4 * 8 * 8 * 2, [&] {
    ORRERY_SHARED_MEMORY(memory);
    auto* values = reinterpret_cast<uint16_t*>(memory);
    for (int i = ThreadX(); i < 256; i += 32) values[i] = static_cast<uint16_t>(i);
    SyncBlock();
    LoadMatrix4(plain[ThreadX()].data(), values + 8 * ThreadX());
    LoadMatrix4Transposed(transposed[ThreadX()].data(), values + 8 * ThreadX());
    moved[ThreadX()] = TransposeMatrix(plain[ThreadX()][0]);
  });
  ASSERT_FALSE(failure);
  for (uint32_t lane = 0; lane < 32; ++lane) {
    const uint32_t g = lane / 4, t = lane % 4;
    for (uint32_t m = 0; m < 4; ++m) {
      EXPECT_EQ(plain[lane][m], (64 * m + 8 * g + 2 * t) | (64 * m + 8 * g + 2 * t + 1) << 16);
      EXPECT_EQ(transposed[lane][m], (64 * m + 16 * t + g) | (64 * m + 16 * t + 8 + g) << 16);
    }
    EXPECT_EQ(moved[lane], transposed[lane][0]);
  }
}

TEST_F(EmulatorTest, LanesExchangeAndVote) {
  std::array<int, 64> from_next, from_neighbour;
  std::array<uint32_t, 64> votes;
  const auto failure = RunBlock(64, 0, [&] {
    const int i = ThreadX();
    from_next[i] = Shuffle(i, i + 1);
    from_neighbour[i] = ShuffleXor(i, 1);
    votes[i] = Ballot(i % 3 == 0);
  });
  ASSERT_FALSE(failure);
  for (int i = 0; i < 64; ++i) {
    EXPECT_EQ(from_next[i], i / 32 * 32 + (i + 1) % 32);
    EXPECT_EQ(from_neighbour[i], i ^ 1);
    for (int lane = 0; lane < 32; ++lane) EXPECT_EQ(votes[i] >> lane & 1, (i / 32 * 32 + lane) % 3 == 0);
  }
}

TEST_F(EmulatorTest, CopiesArriveAtOnceOrAtTheWait) {
  alignas(16) std::array<float, 8> source{1, 2, 3, 4, 5, 6, 7, 8};
  for (const AsyncCopies mode : {AsyncCopies::kEarly, AsyncCopies::kLate}) {
    emulate::SetOptions({.async_copies = mode});
    std::array<float, 3> seen;
    const auto failure = RunBlock(1, 48, [&] {
      ORRERY_SHARED_MEMORY(memory);
      auto* values = reinterpret_cast<float*>(memory);
      CopyAsync16(values, source.data(), true);
      CommitCopies();
      CopyAsync16(values + 4, source.data() + 4, false);
      CommitCopies();
      seen[0] = values[0];
      WaitCopies<1>();
      seen[1] = values[0];
      const float second = values[4];
      WaitCopies<0>();
      seen[2] = values[4];
      EXPECT_EQ(std::isnan(second), mode == AsyncCopies::kLate);
    });
    ASSERT_FALSE(failure);
    EXPECT_EQ(std::isnan(seen[0]), mode == AsyncCopies::kLate);
    EXPECT_EQ(seen[1], 1.0f);
    EXPECT_EQ(seen[2], 0.0f);  // what is not valid is zero
  }
}

TEST_F(EmulatorTest, BarriersWaitForThreadsThatHaveNotReturned) {
  std::atomic<int> after = 0;
  const auto failure = RunBlock(100, 4, [&] {
    if (ThreadX() % 3 == 0) return;
    ORRERY_SHARED_MEMORY(memory);
    if (ThreadX() == 1) *reinterpret_cast<int*>(memory) = 5;
    SyncBlock();
    SyncWarp();
    after += *reinterpret_cast<int*>(memory);
  });
  EXPECT_FALSE(failure);
  EXPECT_EQ(after, 5 * 66);
}

TEST_F(EmulatorTest, EveryBlockRunsOnceInAnOrderOfTheSeed) {
  const auto order_of = [](uint64_t seed) {
    emulate::SetOptions({.seed = seed});
    std::vector<int> order;
    emulate::LaunchGrid({7, 3, 1}, 1, 0, [&] { order.push_back(BlockY() * 7 + BlockX()); });
    return order;
  };
  std::vector<int> first = order_of(1);
  EXPECT_EQ(first, order_of(1));
  EXPECT_NE(first, order_of(2));
  std::sort(first.begin(), first.end());
  std::vector<int> all(21);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(first, all);
}

TEST_F(EmulatorTest, AtomicsAddUpAndOrderVaries) {
  const auto tickets_of = [](uint64_t seed) {
    emulate::SetOptions({.seed = seed});
    int counter = 0;
    std::vector<int> tickets(128);
    emulate::LaunchGrid({2, 1, 1}, 64, 0,
                        [&] { tickets[BlockX() * 64 + ThreadX()] = AtomicAdd(&counter, 1); });
    EXPECT_EQ(counter, 128);
    return tickets;
  };
  EXPECT_NE(tickets_of(1), tickets_of(2));
}

TEST_F(EmulatorTest, SharedMemoryStartsAsNaN) {
  float seen = 0;
  ASSERT_FALSE(RunBlock(1, 4, [&] {
    ORRERY_SHARED_MEMORY(memory);
    std::memcpy(&seen, memory, 4);
  }));
  EXPECT_TRUE(std::isnan(seen));
}

TEST_F(EmulatorTest, ReportsABarrierThatSomeNeverReach) {
  const auto failure = RunBlock(64, 0, [] {
    if (ThreadX() < 32) {
      SyncBlock();
    } else if (ThreadX() < 40) {
      SyncWarp();
    } else {
      SyncBlock();
    }
  });
  ExpectFailure(
      failure, FailureKind::kDeadlock,
      "block (0, 0, 0): threads 0-31 in __syncthreads, 32-39 in __syncwarp, 40-63 in __syncthreads");
}

TEST_F(EmulatorTest, ReportsLanesInDifferentCollectives) {
  const auto failure = RunBlock(32, 0, [] {
    if (ThreadX() % 2 == 0) {
      ShuffleXor(1, 1);
    } else {
      Ballot(true);
    }
  });
  ExpectFailure(failure, FailureKind::kDivergence, "vote.ballot");
}

TEST_F(EmulatorTest, ReportsAddressesThatInstructionsCannotTake) {
  alignas(16) std::array<std::byte, 32> global{};
  ExpectFailure(RunBlock(1, 32, [&] { LoadVector<std::array<float, 4>>(global.data() + 4); }),
                FailureKind::kMisaligned, "ld.v4");
  ExpectFailure(RunBlock(32, 512,
                         [&] {
                           ORRERY_SHARED_MEMORY(memory);
                           uint32_t registers[4];
                           LoadMatrix4(registers, memory + 2);
                         }),
                FailureKind::kMisaligned, "ldmatrix");
  ExpectFailure(RunBlock(32, 512,
                         [&] {
                           uint32_t registers[4];
                           LoadMatrix4(registers, global.data());
                         }),
                FailureKind::kNotShared, "ldmatrix");
  ExpectFailure(RunBlock(1, 16,
                         [&] {
                           ORRERY_SHARED_MEMORY(memory);
                           CopyAsync16(memory + 16, global.data(), true);
                         }),
                FailureKind::kNotShared, "cp.async");
}

TEST_F(EmulatorTest, ReportsWritesBehindSharedMemory) {
  ExpectFailure(RunBlock(1, 16,
                         [&] {
                           ORRERY_SHARED_MEMORY(memory);
                           memory[16] = std::byte{0};
                         }),
                FailureKind::kSharedOverrun, "16 bytes");
}

TEST_F(EmulatorTest, ReportsAStackThatIsTooSmall) {
  ExpectFailure(RunBlock(1, 0,
                         [] {
                           auto* variables = static_cast<volatile char*>(alloca(emulate::Fiber::kStackBytes));
                           for (size_t i = 0; i < emulate::Fiber::kStackBytes; ++i) variables[i] = 1;
                         }),
                FailureKind::kStackOverrun, "thread 0");
}

TEST_F(EmulatorTest, ReportsLaunchesThatNoDeviceTakes) {
  ExpectFailure(RunBlock(1025, 0, [] {}), FailureKind::kBadLaunch, "1025 threads (1 to 1024)");
  ExpectFailure(RunBlock(1, 228 * 1024, [] {}), FailureKind::kBadLaunch, "shared memory (at most 232448)");
}

TEST_F(EmulatorTest, NothingRunsAfterAFailureUntilItIsTaken) {
  int runs = 0;
  emulate::LaunchGrid({}, 2000, 0, [&] { ++runs; });
  emulate::LaunchGrid({}, 1, 0, [&] { ++runs; });
  EXPECT_EQ(runs, 0);
  EXPECT_TRUE(TakeFailure());
  emulate::LaunchGrid({}, 1, 0, [&] { ++runs; });
  EXPECT_EQ(runs, 1);
}

__global__ void AddKernel(int* target, int value) {
  if (ThreadX() == 0) *target += value;
}

TEST_F(EmulatorTest, DeferredLaunchesRunWhenTheyAreCalled) {
  int target = 0;
  int name = 0;
  const auto deferred = reinterpret_cast<Stream>(&name);
  std::vector<std::function<void()>> work, other;
  emulate::Defer(deferred, &work);
  emulate::Defer(&target, &other);
  for (int value : {1, 10}) Launch(&AddKernel, {}, 32, 0, deferred, &target, value);
  EXPECT_EQ(target, 0);
  Launch(&AddKernel, {}, 32, 0, nullptr, &target, 100);
  EXPECT_EQ(target, 100) << "another stream runs on";
  emulate::Defer(deferred, nullptr);
  emulate::Defer(&target, nullptr);
  EXPECT_TRUE(other.empty());
  ASSERT_EQ(work.size(), 2u);
  for (int i = 0; i < 2; ++i) {
    for (const auto& launch : work) launch();
  }
  EXPECT_EQ(target, 122);
  Launch(&AddKernel, {}, 32, 0, deferred, &target, 1000);
  EXPECT_EQ(target, 1122) << "nothing is deferred any more";
}

}  // namespace
}  // namespace orrery::cuda
