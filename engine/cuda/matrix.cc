#include "engine/cuda/matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace orrery::cuda {
namespace {

// Values that are converted at a time: at most 6 bytes of the host's memory each.
constexpr int64_t kConvertedValues = int64_t{4} << 20;

// Of values [first, first + f16.size()) of a part. What f16 does not hold is infinite by now; what was so
// before, and NaN, is refused here because it is on the CPU.
absl::Status CheckFinite(const WeightView& part, int64_t first, absl::Span<const uint16_t> f16) {
  const auto is_finite = [](uint16_t bits) { return (bits & 0x7c00) != 0x7c00; };
  bool finite = true;  // of all, not up to the first: many at a time
  for (const uint16_t bits : f16) finite &= is_finite(bits);
  if (finite) return absl::OkStatus();
  const int64_t at = first + (std::find_if_not(f16.begin(), f16.end(), is_finite) - f16.begin());
  float value = 0.0f;
  CopyToF32(part, at, 1, &value);
  return absl::InvalidArgumentError(absl::StrCat(
      "cannot be packed from ", std::string(NameOf(part.dtype)), " as f16: the value ", value, " in row ",
      at / part.cols, " is not in [-65504, 65504]", std::isfinite(value) ? " (--dtype bf16 holds it)" : ""));
}

absl::Status UploadPart(Device& device, const WeightView& part, DType dtype, std::byte* to) {
  if (part.dtype == dtype && dtype == DType::kBF16) {
    device.Upload(to, part.data, part.num_bytes());
    return device.Synchronize();
  }
  const int64_t size = part.num_elements();
  std::vector<uint16_t> converted(static_cast<size_t>(std::min(size, kConvertedValues)));
  std::vector<float> values(part.dtype == dtype ? 0 : converted.size());
  for (int64_t first = 0; first < size; first += kConvertedValues) {
    const int64_t count = std::min(kConvertedValues, size - first);
    const auto bytes = static_cast<size_t>(count) * sizeof(uint16_t);
    if (part.dtype == dtype) {
      std::memcpy(converted.data(), part.data + static_cast<size_t>(first) * sizeof(uint16_t), bytes);
    } else {
      CopyToF32(part, first, count, values.data());
      std::transform(values.begin(), values.begin() + count, converted.begin(), [dtype](float value) {
        return dtype == DType::kF16 ? F16FromF32(value) : BF16FromF32(value);
      });
    }
    if (dtype == DType::kF16) {
      absl::Status status = CheckFinite(part, first, {converted.data(), static_cast<size_t>(count)});
      if (!status.ok()) return status;
    }
    device.Upload(to, converted.data(), bytes);
    if (absl::Status status = device.Synchronize(); !status.ok()) return status;
    to += bytes;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Matrix>> DeviceMatrix::Pack(Device& device, absl::Span<const WeightView> parts,
                                                           DType dtype, MatrixKind kind) {
  const int64_t k = parts.front().cols;
  if (dtype != DType::kBF16 && dtype != DType::kF16) {
    return absl::InvalidArgumentError(absl::StrCat("cannot be packed as ", std::string(NameOf(dtype)),
                                                   ": CUDA computes with weights of bf16 or f16 (--dtype)"));
  }
  if (k % kColumnStep != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("rows of ", k, " values: CUDA needs a multiple of ", kColumnStep));
  }
  int64_t n = 0;
  for (const WeightView& part : parts) n += part.rows;
  absl::StatusOr<std::unique_ptr<Buffer>> buffer =
      device.Allocate(static_cast<size_t>(n * k) * SizeOf(dtype));
  if (!buffer.ok()) return buffer.status();
  auto* to = static_cast<std::byte*>((*buffer)->data());
  for (const WeightView& part : parts) {
    if (absl::Status status = UploadPart(device, part, dtype, to); !status.ok()) return status;
    to += static_cast<size_t>(part.num_elements()) * SizeOf(dtype);
  }
  return std::unique_ptr<Matrix>(new DeviceMatrix(*std::move(buffer), n, k, dtype, kind));
}

}  // namespace orrery::cuda
