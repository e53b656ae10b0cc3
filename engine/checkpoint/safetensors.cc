#include "engine/checkpoint/safetensors.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/checkpoint/json.h"

namespace orrery {
namespace {

using nlohmann::json;

constexpr int64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr int64_t kMaxRank = 8;
constexpr size_t kMaxNameBytes = 1024;
constexpr JsonLimits kHeaderLimits{.max_bytes = kMaxHeaderBytes, .max_depth = 4, .max_values = 4'000'000};

absl::Status TensorError(absl::string_view what, absl::string_view name, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(what, ": tensor '", name, "': ", problem));
}

// Product of the shape times the element size; -1 when it does not fit 63 bits.
int64_t ByteSize(const std::vector<int64_t>& shape, int64_t element_bytes) {
  int64_t bytes = element_bytes;
  for (const int64_t dim : shape) {
    if (__builtin_mul_overflow(bytes, dim, &bytes)) return -1;
  }
  return bytes;
}

bool IsNonNegativeInt(const json& value) {
  return value.is_number_unsigned() && value.get<uint64_t>() <= uint64_t{INT64_MAX};
}

absl::StatusOr<StoredTensor> ParseEntry(const std::string& name, const json& entry,
                                        std::span<const std::byte> data, absl::string_view what) {
  if (!entry.is_object()) return TensorError(what, name, "entry is not an object");
  StoredTensor tensor{.name = name, .dtype = {}, .shape = {}, .data = {}};

  const auto dtype = entry.find("dtype");
  if (dtype == entry.end() || !dtype->is_string()) return TensorError(what, name, "dtype must be a string");
  tensor.dtype = dtype->get<std::string>();
  const int64_t element_bytes = StoredElementBytes(tensor.dtype);
  if (element_bytes == 0) {
    return TensorError(what, name, absl::StrCat("unknown dtype '", tensor.dtype.substr(0, 32), "'"));
  }

  const auto shape = entry.find("shape");
  if (shape == entry.end() || !shape->is_array() || shape->size() > kMaxRank ||
      !std::all_of(shape->begin(), shape->end(), IsNonNegativeInt)) {
    return TensorError(what, name, absl::StrCat("shape must be at most ", kMaxRank, " integers >= 0"));
  }
  for (const json& dim : *shape) tensor.shape.push_back(dim.get<int64_t>());

  const auto offsets = entry.find("data_offsets");
  if (offsets == entry.end() || !offsets->is_array() || offsets->size() != 2 ||
      !std::all_of(offsets->begin(), offsets->end(), IsNonNegativeInt)) {
    return TensorError(what, name, "data_offsets must be two integers >= 0");
  }
  const auto begin = (*offsets)[0].get<int64_t>();
  const auto end = (*offsets)[1].get<int64_t>();
  if (begin > end || end > static_cast<int64_t>(data.size())) {
    return TensorError(what, name,
                       absl::StrCat("data_offsets [", begin, ", ", end, ") do not lie in the file's ",
                                    data.size(), " bytes of data"));
  }
  if (const int64_t bytes = ByteSize(tensor.shape, element_bytes); bytes != end - begin) {
    return TensorError(what, name,
                       absl::StrCat("shape [", absl::StrJoin(tensor.shape, ", "), "] of ", tensor.dtype,
                                    " does not take the ", end - begin, " bytes of its data_offsets"));
  }
  tensor.data = data.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
  return tensor;
}

// Tensors, sorted by address, must tile the data exactly: no byte twice, none unaccounted for.
absl::Status CheckCoverage(const std::vector<StoredTensor>& tensors, std::span<const std::byte> data,
                           absl::string_view what) {
  const std::byte* next = data.data();
  for (const StoredTensor& tensor : tensors) {
    if (tensor.data.data() < next) return TensorError(what, tensor.name, "overlaps another tensor");
    if (tensor.data.data() > next) {
      return TensorError(what, tensor.name, "is preceded by bytes of no tensor");
    }
    next = tensor.data.data() + tensor.data.size();
  }
  if (next != data.data() + data.size()) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": ", data.data() + data.size() - next,
                                                   " bytes after the last tensor belong to none"));
  }
  return absl::OkStatus();
}

}  // namespace

int64_t StoredElementBytes(absl::string_view dtype) {
  static constexpr std::array<std::pair<absl::string_view, int64_t>, 14> kSizes = {{
      {"F64", 8},
      {"F32", 4},
      {"F16", 2},
      {"BF16", 2},
      {"F8_E4M3", 1},
      {"F8_E5M2", 1},
      {"I64", 8},
      {"I32", 4},
      {"I16", 2},
      {"I8", 1},
      {"U64", 8},
      {"U32", 4},
      {"U8", 1},
      {"BOOL", 1},
  }};
  for (const auto& [name, bytes] : kSizes) {
    if (name == dtype) return bytes;
  }
  return 0;
}

absl::StatusOr<std::vector<StoredTensor>> ParseSafetensors(std::span<const std::byte> file,
                                                           absl::string_view what) {
  if (file.size() < 8) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": ", file.size(), " bytes, too short for a header"));
  }
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | std::to_integer<uint64_t>(file[i]);
  if (header_bytes > uint64_t{kMaxHeaderBytes} || header_bytes > file.size() - 8) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": header of ", header_bytes, " bytes (at most ",
                                                   kMaxHeaderBytes, ") in a file of ", file.size(),
                                                   " bytes"));
  }
  const auto data = file.subspan(8 + header_bytes);
  absl::StatusOr<json> header =
      ParseJsonObject({reinterpret_cast<const char*>(file.data()) + 8, static_cast<size_t>(header_bytes)},
                      what, kHeaderLimits);
  if (!header.ok()) return header.status();

  std::vector<StoredTensor> tensors;
  for (const auto& [name, entry] : header->items()) {
    if (name == "__metadata__") continue;
    if (name.empty() || name.size() > kMaxNameBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, ": tensor name of ", name.size(), " bytes, must be 1 to ", kMaxNameBytes));
    }
    absl::StatusOr<StoredTensor> tensor = ParseEntry(name, entry, data, what);
    if (!tensor.ok()) return tensor.status();
    tensors.push_back(*std::move(tensor));
  }
  std::sort(tensors.begin(), tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::pair(a.data.data(), a.data.size()) < std::pair(b.data.data(), b.data.size());
  });
  if (absl::Status status = CheckCoverage(tensors, data, what); !status.ok()) return status;
  return tensors;
}

}  // namespace orrery
