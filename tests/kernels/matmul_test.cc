#include "kernels/cpu/matmul.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cpu/cpu_features.h"

namespace orrery {
namespace {

constexpr DType kWeightTypes[] = {DType::kF32, DType::kF16, DType::kBF16, DType::kI8};
constexpr float kUntouched = -12345.0f;

std::vector<Isa> Isas() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (isa <= DetectedIsa()) isas.push_back(isa);
  }
  return isas;
}

class ScopedIsa {
 public:
  explicit ScopedIsa(Isa isa) { LimitIsa(isa); }
  ~ScopedIsa() { LimitIsa(Isa::kAmx); }
};

std::vector<float> RandomValues(std::mt19937& random, int64_t count, float scale) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// Values in the bytes of a checkpoint, one byte off alignment as safetensors may have them.
struct Stored {
  std::vector<std::byte> bytes;
  DType dtype;
  const std::byte* data() const { return bytes.data() + 1; }
};

Stored Store(const std::vector<float>& values, DType dtype) {
  Stored stored{std::vector<std::byte>(values.size() * SizeOf(dtype) + 1), dtype};
  std::byte* out = stored.bytes.data() + 1;
  for (float value : values) {
    const uint16_t half = dtype == DType::kF16 ? F16FromF32(value) : BF16FromF32(value);
    std::memcpy(out, dtype == DType::kF32 ? static_cast<const void*>(&value) : &half, SizeOf(dtype));
    out += SizeOf(dtype);
  }
  return stored;
}

double Load(const Stored& stored, int64_t index) {
  if (stored.dtype == DType::kF32) {
    float value;
    std::memcpy(&value, stored.data() + index * 4, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, stored.data() + index * 2, 2);
  return stored.dtype == DType::kF16 ? F32FromF16(bits) : F32FromBF16(bits);
}

// The weight the product is meant to use. What i8 makes of the stored values is PackedMatrixTest's concern.
std::vector<double> ExpectedWeight(const Stored& stored, const PackedMatrix& packed) {
  const int64_t n = packed.n(), k = packed.k();
  std::vector<double> weight(n * k);
  std::vector<float> row(k);
  for (int64_t r = 0; r < n; ++r) {
    if (packed.dtype() == DType::kI8) packed.ReadRow(r, row.data());
    for (int64_t i = 0; i < k; ++i) {
      const double value = Load(stored, r * k + i);
      weight[r * k + i] = packed.dtype() == DType::kBF16 ? F32FromBF16(BF16FromF32(static_cast<float>(value)))
                          : packed.dtype() == DType::kI8 ? row[i]
                                                         : value;
    }
  }
  return weight;
}

struct Problem {
  int64_t rows, n, k;
  DType source = DType::kF32, packed = DType::kF32, in = DType::kF32, out = DType::kF32;
  ColumnOrder order = ColumnOrder::kStacked;
  bool bias = false, residual = false;

  int64_t columns() const { return order == ColumnOrder::kGated ? n / 2 : n; }
  std::string Describe() const {
    return std::to_string(rows) + "x" + std::to_string(n) + "x" + std::to_string(k) + " " +
           std::string(NameOf(source)) + "->" + std::string(NameOf(packed)) + " in " +
           std::string(NameOf(in)) + " out " + std::string(NameOf(out)) + " on " +
           std::string(NameOf(ActiveIsa()));
  }
};

struct Data {
  Stored weight, in;
  std::vector<float> bias, residual;
};

Data MakeData(std::mt19937& random, const Problem& p) {
  Data data;
  data.weight = Store(RandomValues(random, p.n * p.k, 0.05f), p.source);
  data.in = Store(RandomValues(random, p.rows * p.k, 1.0f), p.in);
  if (p.bias) data.bias = RandomValues(random, p.n, 1.0f);
  if (p.residual) data.residual = RandomValues(random, p.rows * p.columns(), 1.0f);
  return data;
}

// With bytes behind it that must stay untouched.
struct Scratch {
  static constexpr size_t kGuardBytes = 4096;
  static constexpr std::byte kGuard{0xA5};

  Scratch(int64_t rows, int64_t k, int threads)
      : size(MatMulScratchBytes(rows, k, threads)), bytes(size + 64 + kGuardBytes, kGuard) {}
  ~Scratch() {
    const std::byte* guard = static_cast<const std::byte*>(data()) + size;
    EXPECT_EQ(std::count(guard, guard + kGuardBytes, kGuard), static_cast<std::ptrdiff_t>(kGuardBytes))
        << "wrote past the scratch";
  }
  void* data() { return reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(bytes.data()) + 63) / 64 * 64); }
  size_t size;
  std::vector<std::byte> bytes;
};

PackedMatrix PackData(ThreadPool& pool, const Problem& p, const Data& data) {
  // Cut in two sources, as fused projections are.
  const int64_t first = p.n > 1 ? p.n / 2 : p.n;
  const MatrixSource sources[] = {
      {data.weight.data(), p.source, first},
      {data.weight.data() + first * p.k * SizeOf(p.source), p.source, p.n - first}};
  auto packed = PackedMatrix::Pack(pool, std::span(sources, p.n > 1 ? 2 : 1), p.k, p.packed, p.order);
  EXPECT_TRUE(packed.has_value()) << p.Describe();
  return std::move(*packed);
}

// Product of rows [begin, end) as f32, with a stride one wider than needed that must stay untouched.
std::vector<float> Multiply(ThreadPool& pool, const Problem& p, const Data& data, const PackedMatrix& weight,
                            int64_t begin, int64_t end) {
  const int64_t columns = p.columns(), stride = columns + 1, rows = end - begin;
  std::vector<std::byte> in(rows * p.k * SizeOf(p.in) + 64);  // aligned copy
  std::memcpy(in.data(), data.in.data() + begin * p.k * SizeOf(p.in), rows * p.k * SizeOf(p.in));
  const Stored blank = Store(std::vector<float>(rows * stride, kUntouched), p.out);
  std::vector<std::byte> out(blank.data(), blank.data() + rows * stride * SizeOf(p.out));
  MatMulEpilogue epilogue;
  if (p.bias) epilogue.bias = data.bias.data();
  if (p.residual) epilogue.residual = data.residual.data() + begin * columns;
  epilogue.residual_stride = columns;
  Scratch scratch(rows, p.k, pool.num_threads());
  MatMul(pool, {in.data(), p.in, rows, p.k}, weight, {out.data(), p.out, stride}, epilogue, scratch.data());
  std::vector<float> result(rows * columns);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c <= columns; ++c) {
      const std::byte* at = out.data() + (r * stride + c) * SizeOf(p.out);
      float value;
      uint16_t bits;
      std::memcpy(&value, at, p.out == DType::kF32 ? 4 : 0);
      std::memcpy(&bits, at, 2);
      if (p.out == DType::kBF16) value = F32FromBF16(bits);
      if (c < columns) {
        result[r * columns + c] = value;
      } else {
        const float blank_value = p.out == DType::kF32 ? kUntouched : F32FromBF16(BF16FromF32(kUntouched));
        EXPECT_EQ(value, blank_value) << "wrote past the row, " << p.Describe();
      }
    }
  }
  return result;
}

// The activations that the product is meant to use (matmul.h): row `row` of p.in.
std::vector<double> ExpectedInput(const Problem& p, const Data& data, int64_t row) {
  std::vector<double> in(p.k);
  float max = 0;
  for (int64_t i = 0; i < p.k; ++i) {
    in[i] = Load(data.in, row * p.k + i);
    max = std::max(max, std::fabs(static_cast<float>(in[i])));
  }
  if (ActiveIsa() < Isa::kAmx) return in;
  for (double& value : in) {
    const float narrow = static_cast<float>(value);
    if (p.packed == DType::kBF16) value = F32FromBF16(BF16FromF32(narrow));
    if (p.packed == DType::kI8) value = std::nearbyint(narrow * (16319.0f / max)) * (max / 16319.0);
  }
  return in;
}

void ExpectNearReference(const Problem& p, const Data& data, const PackedMatrix& packed,
                         const std::vector<float>& got) {
  const std::vector<double> weight = ExpectedWeight(data.weight, packed);
  const int64_t columns = p.columns();
  for (int64_t r = 0; r < p.rows; ++r) {
    const std::vector<double> in = ExpectedInput(p, data, r);
    std::vector<double> sum(p.n, 0), magnitude(p.n, 0);
    for (int64_t n = 0; n < p.n; ++n) {
      for (int64_t i = 0; i < p.k; ++i) {
        sum[n] += in[i] * weight[n * p.k + i];
        magnitude[n] += std::fabs(in[i] * weight[n * p.k + i]);
      }
      if (p.bias) sum[n] += data.bias[n];
      magnitude[n] += std::fabs(sum[n]);
    }
    for (int64_t c = 0; c < columns; ++c) {
      // f32 accumulation of k terms; the constant covers the epilogue.
      const double eps = (static_cast<double>(p.k) + 8) * 0x1p-24;
      double want = sum[c], bound = magnitude[c] * eps;
      if (p.order == ColumnOrder::kGated) {
        const double gate = sum[c], up = sum[columns + c];
        const double silu = gate / (1 + std::exp(-gate));
        want = silu * up;  // |silu'| < 1.1
        bound = 1.1 * bound * (std::fabs(up) + 1e-4) + std::fabs(silu) * magnitude[columns + c] * eps +
                std::fabs(want) * 0x1p-21;
      }
      if (p.residual) want += data.residual[r * columns + c];
      bound += std::fabs(want) * (p.out == DType::kBF16 ? 0x1.01p-8 : 0x1p-23);
      ASSERT_NEAR(got[r * columns + c], want, bound) << p.Describe() << " at " << r << ", " << c;
    }
  }
}

TEST(MatMulTest, EqualsDoublePrecisionReferenceOnEveryIsa) {
  ThreadPool pool(2);
  std::mt19937 random(11);
  const auto pick = [&](int64_t limit) { return static_cast<int64_t>(random() % limit); };
  for (Isa isa : Isas()) {
    const ScopedIsa scoped(isa);
    for (DType packed : kWeightTypes) {
      for (int i = 0; i < 24; ++i) {
        Problem p{
            .rows = 1 + pick(i % 3 == 0 ? 3 : 70), .n = 1 + pick(150), .k = 1 + pick(i % 4 ? 200 : 1200)};
        p.packed = packed;
        constexpr DType kSources[] = {DType::kF32, DType::kF16, DType::kBF16};
        p.source = packed == DType::kF16 ? DType::kF16 : kSources[pick(3)];
        p.in = pick(2) ? DType::kF32 : DType::kBF16;
        p.out = pick(2) ? DType::kF32 : DType::kBF16;
        p.bias = pick(2);
        p.residual = pick(2);
        if (pick(3) == 0) {
          p.order = ColumnOrder::kGated;
          p.n += p.n % 2;
        }
        const Data data = MakeData(random, p);
        const PackedMatrix weight = PackData(pool, p, data);
        ExpectNearReference(p, data, weight, Multiply(pool, p, data, weight, 0, p.rows));
        if (HasFatalFailure()) return;
      }
    }
  }
}

// The promise that lets prefill, decode and replay agree bit for bit.
TEST(MatMulTest, ARowDoesNotDependOnTheRowsBesideItNorOnTheThreads) {
  std::mt19937 random(12);
  ThreadPool one(1), three(3);
  for (Isa isa : Isas()) {
    const ScopedIsa scoped(isa);
    for (DType packed : kWeightTypes) {
      for (ColumnOrder order : {ColumnOrder::kStacked, ColumnOrder::kGated}) {
        Problem p{.rows = 70, .n = 330, .k = 1100, .packed = packed, .order = order};
        p.source = packed == DType::kF16 ? DType::kF16 : DType::kF32;
        p.bias = true;
        const Data data = MakeData(random, p);
        const PackedMatrix weight = PackData(three, p, data);
        const std::vector<float> all = Multiply(one, p, data, weight, 0, p.rows);
        for (int64_t rows : {1, 2, 3, 5, 8, 9, 15, 16, 17, 31, 32, 33, 48, 64, 65, 70}) {
          const int64_t begin = static_cast<int64_t>(random() % (p.rows - rows + 1));
          const std::vector<float> some = Multiply(three, p, data, weight, begin, begin + rows);
          ASSERT_EQ(std::memcmp(some.data(), all.data() + begin * p.columns(), some.size() * 4), 0)
              << p.Describe() << ", rows " << begin << " + " << rows;
        }
      }
    }
  }
}

TEST(MatMulTest, ManyRowsAndLongSumsAreWorkedOffInBlocks) {
  std::mt19937 random(13);
  ThreadPool pool(2);
  for (DType packed : {DType::kBF16, DType::kI8}) {
    for (const auto& [rows, k] : {std::pair<int64_t, int64_t>{1100, 65}, {290, 4500}, {5, 4500}}) {
      Problem p{.rows = rows, .n = 70, .k = k, .source = DType::kBF16, .packed = packed};
      p.residual = true;
      const Data data = MakeData(random, p);
      const PackedMatrix weight = PackData(pool, p, data);
      ExpectNearReference(p, data, weight, Multiply(pool, p, data, weight, 0, p.rows));
    }
  }
}

// Chunks of several panels whose sums are worked off in parts: 64 panels make chunks of 8 for two threads,
// and 4500 is more than twice a part. A row by itself takes the path that the double reference vouches for
// above.
TEST(MatMulTest, LongSumsInChunksOfPanelsEqualThoseOfARowAlone) {
  std::mt19937 random(17);
  ThreadPool pool(2);
  Problem p{.rows = 256, .n = 2048, .k = 4500, .source = DType::kBF16, .bias = true};
  const Data data = MakeData(random, p);
  for (DType packed : {DType::kBF16, DType::kI8}) {
    for (ColumnOrder order : {ColumnOrder::kStacked, ColumnOrder::kGated}) {
      p.packed = packed;
      p.order = order;
      const PackedMatrix weight = PackData(pool, p, data);
      const std::vector<float> all = Multiply(pool, p, data, weight, 0, p.rows);
      for (int64_t row : {0, 31, 32, 100, 255}) {
        const std::vector<float> alone = Multiply(pool, p, data, weight, row, row + 1);
        ASSERT_EQ(std::memcmp(alone.data(), all.data() + row * p.columns(), alone.size() * 4), 0)
            << p.Describe() << ", row " << row;
      }
    }
  }
}

TEST(MatMulTest, ResidualMayBeTheOutput) {
  std::mt19937 random(14);
  ThreadPool pool(2);
  Problem p{.rows = 5, .n = 100, .k = 64, .residual = true};
  const Data data = MakeData(random, p);
  const PackedMatrix weight = PackData(pool, p, data);
  std::vector<float> in(p.rows * p.k);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(Load(data.in, static_cast<int64_t>(i)));
  std::vector<float> out = data.residual;
  Scratch scratch(p.rows, p.k, 2);
  MatMul(pool, {in.data(), DType::kF32, p.rows, p.k}, weight, {out.data(), DType::kF32, p.n},
         {nullptr, out.data(), p.n}, scratch.data());
  ExpectNearReference(p, data, weight, out);
}

// Fixed point has no infinity: a row with one must not come out finite, nor may it harm the others.
TEST(MatMulTest, ARowThatIsNotFiniteStaysSo) {
  std::mt19937 random(16);
  ThreadPool pool(2);
  for (Isa isa : Isas()) {
    const ScopedIsa scoped(isa);
    for (DType packed : kWeightTypes) {
      for (float bad : {INFINITY, -INFINITY, NAN}) {
        Problem p{.rows = 3, .n = 40, .k = 100, .packed = packed};
        p.source = packed == DType::kF16 ? DType::kF16 : DType::kF32;
        Data data = MakeData(random, p);
        std::memcpy(data.in.bytes.data() + 1 + (p.k + 7) * 4, &bad, 4);
        const std::vector<float> got = Multiply(pool, p, data, PackData(pool, p, data), 0, p.rows);
        for (int64_t i = 0; i < p.rows * p.n; ++i) {
          ASSERT_EQ(std::isfinite(got[i]), i / p.n != 1) << p.Describe() << " at " << i;
        }
      }
    }
  }
}

TEST(PackedMatrixTest, RowsComeBack) {
  std::mt19937 random(15);
  ThreadPool pool(2);
  for (DType packed : kWeightTypes) {
    for (ColumnOrder order : {ColumnOrder::kStacked, ColumnOrder::kGated}) {
      Problem p{.rows = 1, .n = 102, .k = 77, .packed = packed, .order = order};
      p.source = packed == DType::kI8 ? DType::kF32 : packed;
      const Data data = MakeData(random, p);
      const PackedMatrix weight = PackData(pool, p, data);
      std::vector<float> row(p.k);
      for (int64_t n = 0; n < p.n; ++n) {
        weight.ReadRow(n, row.data());
        double scale = 0;  // of i8, from its definition
        for (int64_t i = 0; i < p.k; ++i)
          scale = std::max(scale, std::fabs(Load(data.weight, n * p.k + i)) / 127);
        for (int64_t i = 0; i < p.k; ++i) {
          const double stored = Load(data.weight, n * p.k + i);
          if (packed != DType::kI8) {
            ASSERT_EQ(row[i], stored) << n << ", " << i;
            continue;
          }
          ASSERT_NEAR(row[i], stored, scale * 0.50001) << n << ", " << i;
          ASSERT_NEAR(row[i] / scale, std::nearbyint(row[i] / scale), 1e-4);
        }
      }
    }
  }
}

TEST(PackedMatrixTest, TakesNoMoreMemoryThanTheWeightsPadded) {
  ThreadPool pool(1);
  const std::vector<float> zeros(96 * 64, 0.0f);
  const MatrixSource source{zeros.data(), DType::kF32, 96};
  for (DType packed : {DType::kF32, DType::kBF16, DType::kI8}) {
    const auto weight = PackedMatrix::Pack(pool, std::span(&source, 1), 64, packed);
    ASSERT_TRUE(weight.has_value());
    EXPECT_EQ(weight->bytes(), 96 * 64 * SizeOf(packed));
  }
}

TEST(PackedMatrixTest, RefusesWhatItCannotPack) {
  ThreadPool pool(1);
  const std::vector<float> values(64, 1.0f);
  const auto pack = [&](DType source, int64_t rows, int64_t k, DType packed, ColumnOrder order) {
    const MatrixSource piece{values.data(), source, rows};
    return PackedMatrix::Pack(pool, std::span(&piece, 1), k, packed, order).has_value();
  };
  EXPECT_TRUE(pack(DType::kF32, 2, 4, DType::kF32, ColumnOrder::kGated));
  EXPECT_FALSE(pack(DType::kF32, 3, 4, DType::kF32, ColumnOrder::kGated));
  EXPECT_FALSE(pack(DType::kF32, 0, 4, DType::kF32, ColumnOrder::kStacked));
  EXPECT_FALSE(pack(DType::kF32, 2, 0, DType::kF32, ColumnOrder::kStacked));
  EXPECT_FALSE(pack(DType::kI8, 2, 4, DType::kI8, ColumnOrder::kStacked));
  EXPECT_FALSE(pack(DType::kF32, 2, 4, DType::kI32, ColumnOrder::kStacked));
  EXPECT_FALSE(pack(DType::kF32, 2, 4, DType::kF16, ColumnOrder::kStacked));
}

TEST(PackedMatrixTest, QuantisesZeroRowsWithoutHarm) {
  ThreadPool pool(1);
  std::vector<float> values(2 * 32, 0.0f);
  values[32] = 1e-43f;
  const MatrixSource source{values.data(), DType::kF32, 2};
  const auto weight = PackedMatrix::Pack(pool, std::span(&source, 1), 32, DType::kI8);
  ASSERT_TRUE(weight.has_value());
  std::vector<float> row(32);
  for (int64_t n : {0, 1}) {
    weight->ReadRow(n, row.data());
    EXPECT_EQ(std::count(row.begin(), row.end(), 0.0f), 32);
  }
}

// A product with either would be finite and wrong.
TEST(PackedMatrixTest, ValuesThatAreNotFiniteAreRefusedInF16AndI8) {
  ThreadPool pool(2);
  for (DType packed : kWeightTypes) {
    const DType stored = packed == DType::kI8 ? DType::kF32 : packed;
    for (float bad : {NAN, INFINITY, -INFINITY, 65504.0f}) {
      for (size_t at : {size_t{0}, size_t{40 * 70 - 1}}) {
        std::vector<float> values(40 * 70, 0.5f);
        values[at] = bad;
        const Stored weight = Store(values, stored);
        const MatrixSource source{weight.data(), stored, 40};
        PackError error = PackError::kNoMemory;
        const auto matrix =
            PackedMatrix::Pack(pool, std::span(&source, 1), 70, packed, ColumnOrder::kStacked, &error);
        const bool refused = !std::isfinite(bad) && (packed == DType::kF16 || packed == DType::kI8);
        EXPECT_EQ(matrix.has_value(), !refused) << NameOf(packed) << " " << bad;
        EXPECT_EQ(error, refused ? PackError::kNotFinite : PackError::kNone);
      }
    }
  }
}

// The largest row that i8 takes, with the largest sums: all values and all activations at their largest.
TEST(PackedMatrixTest, Int8RowsEndWhereSumsWouldOverflow) {
  ThreadPool pool(2);
  constexpr int64_t kDepth = PackedMatrix::kMaxInt8Depth;
  const std::vector<float> values(kDepth + 1, 1.0f);
  const MatrixSource source{values.data(), DType::kF32, 1};
  const auto pack = [&](int64_t k, DType dtype, PackError* error) {
    return PackedMatrix::Pack(pool, std::span(&source, 1), k, dtype, ColumnOrder::kStacked, error);
  };
  PackError error;
  EXPECT_FALSE(pack(kDepth + 1, DType::kI8, &error).has_value());
  EXPECT_EQ(error, PackError::kTooDeep);
  EXPECT_TRUE(pack(kDepth + 1, DType::kBF16, &error).has_value());
  const auto weight = pack(kDepth, DType::kI8, &error);
  ASSERT_TRUE(weight.has_value());
  Scratch scratch(1, kDepth, 2);
  float sum = 0;
  MatMul(pool, {values.data(), DType::kF32, 1, kDepth}, *weight, {&sum, DType::kF32, 1}, {}, scratch.data());
  EXPECT_NEAR(sum, kDepth, kDepth * 1e-3);
}

}  // namespace
}  // namespace orrery
