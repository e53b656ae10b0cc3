// What the device has of the block tables is what was put, whatever else was sent, and no more is sent than
// what differs.
#include "engine/cuda/page_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "tests/engine/emulated_device.h"

namespace orrery {
namespace {

TEST(PageTable, FollowsItsSequences) {
  std::mt19937 random(3);
  const auto uniform = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  for (int history = 0; history < 40; ++history) {
    const std::unique_ptr<cuda::Device> device = testing::NewEmulatedDevice({.lazy = history % 2 == 1});
    const int slots = uniform(1, 6), pages = uniform(1, 20);
    cuda::PageTable table(slots, pages);
    cuda::Staging staging;
    ASSERT_TRUE(table.Allocate(*device).ok());
    ASSERT_TRUE(staging.Allocate(*device, table.StagingBytes()).ok());
    std::vector<std::vector<int32_t>> sequences(slots), arrived(slots);
    std::vector<int32_t> seen(slots * pages);
    for (int step = 0; step < 60; ++step) {
      staging.BeginStep();
      std::vector<bool> put(slots);
      for (int slot = 0; slot < slots; ++slot) {
        std::vector<int32_t>& sequence = sequences[slot];
        switch (uniform(0, 5)) {
          case 0:  // another one
            sequence.assign(uniform(1, pages), 0);
            std::generate(sequence.begin(), sequence.end(), [&] { return uniform(0, 9); });
            break;
          case 1:
          case 2:  // it grows
            if (static_cast<int>(sequence.size()) < pages) sequence.push_back(uniform(0, 9));
            break;
          case 3:  // it rests
            continue;
          default:
            break;
        }
        table.Put(slot, sequence);
        put[slot] = true;
      }
      table.Stage(staging);
      if (uniform(0, 9) == 0) {  // the step fails, and nothing of it arrives
        table.Forget();
        continue;
      }
      staging.Upload();
      table.Update(device->stream());
      for (int slot = 0; slot < slots; ++slot) {
        if (put[slot]) arrived[slot] = sequences[slot];
      }
      device->Download(seen.data(), table.data(), table.bytes());
      ASSERT_TRUE(device->Synchronize().ok());
      ASSERT_EQ(table.stride(), pages);
      for (int slot = 0; slot < slots; ++slot) {
        const auto first = seen.begin() + slot * pages;
        ASSERT_TRUE(std::equal(arrived[slot].begin(), arrived[slot].end(), first)) << history << ' ' << step;
      }
    }
  }
}

// 16 bytes of a run and one page for what has grown; nothing where nothing has.
TEST(PageTable, SendsWhatDiffers) {
  const std::unique_ptr<cuda::Device> device = testing::NewEmulatedDevice();
  cuda::PageTable table(2, 8);
  cuda::Staging staging;
  ASSERT_TRUE(table.Allocate(*device).ok());
  ASSERT_TRUE(staging.Allocate(*device, table.StagingBytes()).ok());
  const auto sent = [&](std::vector<int32_t> first, std::vector<int32_t> second) {
    staging.BeginStep();
    table.Put(0, first);
    table.Put(1, second);
    table.Stage(staging);
    size_t used = 0;
    while (!staging.HasRoom(table.StagingBytes() - used)) ++used;
    return used;
  };
  EXPECT_EQ(sent({1, 2, 3}, {4, 5, 6, 7, 8}), 2 * 16 + 2 * 16u);
  EXPECT_EQ(sent({1, 2, 3}, {4, 5, 6, 7, 8}), 0u);
  EXPECT_EQ(sent({1, 2, 3, 9}, {4, 5, 6, 7, 8}), 16 + 16u);
  EXPECT_EQ(sent({1, 2}, {4, 5}), 0u);
  EXPECT_EQ(sent({1, 2, 3, 9}, {4, 0, 6, 7, 8}), 16 + 16u);
  table.Forget();
  EXPECT_EQ(sent({1, 2, 3, 9}, {4, 0, 6, 7, 8}), 2 * 16 + 3 * 16u);
}

}  // namespace
}  // namespace orrery
