#include "engine/cuda/matrix.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace orrery::cuda {
namespace {

// Values that are converted at a time: 12 bytes of the host's memory each.
constexpr int64_t kConvertedValues = int64_t{4} << 20;

absl::Status UploadPart(Device& device, const WeightView& part, std::byte* to) {
  if (part.dtype == DType::kBF16) {
    device.Upload(to, part.data, part.num_bytes());
    return device.Synchronize();
  }
  const int64_t size = part.num_elements();
  std::vector<float> values(static_cast<size_t>(std::min(size, kConvertedValues)));
  std::vector<uint16_t> converted(values.size());
  for (int64_t first = 0; first < size; first += kConvertedValues) {
    const int64_t count = std::min(kConvertedValues, size - first);
    CopyToF32(part, first, count, values.data());
    std::transform(values.begin(), values.begin() + count, converted.begin(),
                   [](float value) { return BF16FromF32(value); });
    const auto bytes = static_cast<size_t>(count) * sizeof(uint16_t);
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
  if (dtype != DType::kBF16) {
    return absl::InvalidArgumentError(absl::StrCat("cannot be packed as ", std::string(NameOf(dtype)),
                                                   ": CUDA computes with bf16 weights (--dtype bf16)"));
  }
  if (k % kColumnStep != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("rows of ", k, " values: CUDA needs a multiple of ", kColumnStep));
  }
  int64_t n = 0;
  for (const WeightView& part : parts) n += part.rows;
  absl::StatusOr<std::unique_ptr<Buffer>> buffer =
      device.Allocate(static_cast<size_t>(n * k) * SizeOf(DType::kBF16));
  if (!buffer.ok()) return buffer.status();
  auto* to = static_cast<std::byte*>((*buffer)->data());
  for (const WeightView& part : parts) {
    if (absl::Status status = UploadPart(device, part, to); !status.ok()) return status;
    to += static_cast<size_t>(part.num_elements()) * SizeOf(DType::kBF16);
  }
  return std::unique_ptr<Matrix>(new DeviceMatrix(*std::move(buffer), n, k, kind));
}

}  // namespace orrery::cuda
