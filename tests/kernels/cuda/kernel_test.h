// What the tests of CUDA kernels share, on the emulator and on a device: random values in any element type,
// relative errors, and a fixture that asks after every test what went wrong.
#ifndef ORRERY_TESTS_KERNELS_CUDA_KERNEL_TEST_H_
#define ORRERY_TESTS_KERNELS_CUDA_KERNEL_TEST_H_

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/dtype.h"
#include "tests/kernels/cuda/test_device.h"

namespace orrery::cuda {

// Elements of f32, bf16, f16 or e4m3 as a kernel reads and writes them.
class Elements {
 public:
  Elements(DType dtype, size_t size) : dtype_(dtype), bytes_(size * SizeOf(dtype), 0xff) {}
  Elements(DType dtype, const std::vector<float>& values) : Elements(dtype, values.size()) {
    for (size_t i = 0; i < values.size(); ++i) Set(i, values[i]);
  }

  DType dtype() const { return dtype_; }
  size_t size() const { return bytes_.size() / SizeOf(dtype_); }
  void* data() { return bytes_.data(); }
  template <typename T>
  T* as() {
    return reinterpret_cast<T*>(bytes_.data());
  }

  float operator[](size_t i) const {
    if (dtype_ == DType::kF32) return Bits<float>(i);
    if (dtype_ == DType::kE4M3) return F32FromE4M3(bytes_[i]);
    return dtype_ == DType::kBF16 ? F32FromBF16(Bits<uint16_t>(i)) : F32FromF16(Bits<uint16_t>(i));
  }
  void Set(size_t i, float value) {
    const uint16_t narrow = dtype_ == DType::kBF16 ? BF16FromF32(value) : F16FromF32(value);
    if (dtype_ == DType::kF32) {
      std::memcpy(bytes_.data() + i * 4, &value, 4);
    } else if (dtype_ == DType::kE4M3) {
      bytes_[i] = E4M3FromF32(value);
    } else {
      std::memcpy(bytes_.data() + i * 2, &narrow, 2);
    }
  }
  bool operator==(const Elements& other) const = default;

 private:
  template <typename T>
  T Bits(size_t i) const {
    T value;
    std::memcpy(&value, bytes_.data() + i * sizeof(T), sizeof(T));
    return value;
  }
  DType dtype_;
  std::vector<uint8_t> bytes_;  // all bits set at first: NaNs
};

// ||values - reference|| / ||reference||; NaN where a value is.
inline double RelativeError(const Elements& values, const std::vector<double>& reference) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    difference += (values[i] - reference[i]) * (values[i] - reference[i]);
    norm += reference[i] * reference[i];
  }
  return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

class KernelTest : public testing::Test {
 protected:
  void TearDown() override {
    test_device::Vary(0);
    ExpectNoFailure();
  }

  static void ExpectNoFailure() { EXPECT_EQ(test_device::TakeFailure(), ""); }

  void NextCase() { test_device::Vary(++case_); }

  std::vector<float> Normal(size_t n, float scale = 1.0f) {
    std::normal_distribution<float> normal(0.0f, scale);
    std::vector<float> x(n);
    for (float& v : x) v = normal(random_);
    return x;
  }
  int Uniform(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  DType Activation() { return std::array{DType::kF32, DType::kBF16, DType::kF16}[Uniform(0, 2)]; }
  // Of attention's input.
  DType QueryType() { return Uniform(0, 1) == 0 ? DType::kF32 : DType::kBF16; }
  static double Tolerance(DType dtype) {
    return dtype == DType::kF32 ? 1e-6 : dtype == DType::kBF16 ? 3e-3 : 3.75e-4;
  }

  std::mt19937 random_{20};
  uint64_t case_ = 0;
};

}  // namespace orrery::cuda

#endif  // ORRERY_TESTS_KERNELS_CUDA_KERNEL_TEST_H_
