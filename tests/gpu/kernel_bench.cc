// The CUDA kernels alone: time, bytes or FLOP per second, and what they computed against double precision in
// the same run. Every repetition reads other memory than the one before, so that the cache holds nothing of
// it. Prints one JSON object of rows; tests/gpu/report.py puts ceilings, peers and published figures beside
// them.
//
//   gpu_kernel_bench
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/decode_attention.h"
#include "kernels/cuda/prefill_attention.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/rope_kv.h"
#include "kernels/cuda/sample.h"
#include "kernels/cuda/silu_mul.h"
#include "kernels/cuda/skinny_matmul.h"

namespace orrery::cuda {
namespace {

constexpr int kRounds = 7;
constexpr int64_t kColdBytes = int64_t{192} << 20;  // three times the second-level cache

void Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

// Device memory of T; what it is filled with repeats after kPattern elements.
template <typename T>
class Array {
 public:
  explicit Array(size_t size) : size_(size) {
    Check(cudaMalloc(reinterpret_cast<void**>(&data_), std::max<size_t>(1, size) * sizeof(T)), "allocate");
  }
  explicit Array(const std::vector<T>& values) : Array(values.size()) { Put(values); }
  ~Array() { Check(cudaFree(data_), "free"); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  void Put(const std::vector<T>& pattern) {
    for (size_t at = 0; at < size_; at += pattern.size())
      Check(cudaMemcpy(data_ + at, pattern.data(), std::min(pattern.size(), size_ - at) * sizeof(T),
                       cudaMemcpyHostToDevice),
            "upload");
  }
  std::vector<T> Get(size_t from, size_t count) const {
    std::vector<T> values(count);
    Check(cudaDeviceSynchronize(), "run");
    Check(cudaMemcpy(values.data(), data_ + from, count * sizeof(T), cudaMemcpyDeviceToHost), "download");
    return values;
  }
  T* data() const { return data_; }

 private:
  T* data_ = nullptr;
  size_t size_;
};

std::mt19937 generator{11};

std::vector<float> Normal(size_t count, float scale = 1.0f) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}
// 1,048,573 of them, a prime: rows and pages do not repeat with the pattern.
const std::vector<uint16_t>& NormalBF16() {
  static const std::vector<uint16_t> values = [] {
    std::vector<uint16_t> narrow;
    for (float value : Normal(1'048'573)) narrow.push_back(BF16FromF32(value));
    return narrow;
  }();
  return values;
}

// Twice as many e4m3, two by two.
const std::vector<uint16_t>& NormalE4M3() {
  static const std::vector<uint16_t> values = [] {
    const std::vector<uint16_t>& wide = NormalBF16();
    const auto code = [&](size_t i) { return E4M3FromF32(F32FromBF16(wide[i % wide.size()])); };
    std::vector<uint16_t> pairs(wide.size());
    for (size_t i = 0; i < pairs.size(); ++i) {
      pairs[i] = static_cast<uint16_t>(code(2 * i) | code(2 * i + 1) << 8);
    }
    return pairs;
  }();
  return values;
}

struct Timing {
  double median_us, least_us, most_us;
};

cudaStream_t the_stream = nullptr;  // of all launches

// Of one call: `repeats` calls, recorded as one launch so that the host is not what is timed, kRounds times.
// call(i) works on the i-th set of its inputs.
Timing Time(int repeats, const std::function<void(int)>& call) {
  for (int i = 0; i < 3; ++i) call(i);
  Check(cudaStreamSynchronize(the_stream), "run");
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  Check(cudaStreamBeginCapture(the_stream, cudaStreamCaptureModeRelaxed), "capture");
  for (int i = 0; i < repeats; ++i) call(i);
  Check(cudaStreamEndCapture(the_stream, &graph), "capture");
  Check(cudaGraphInstantiate(&replay, graph, 0), "instantiate");
  cudaEvent_t begin, end;
  Check(cudaEventCreate(&begin), "event");
  Check(cudaEventCreate(&end), "event");
  std::vector<double> us;
  for (int round = 0; round <= kRounds; ++round) {
    Check(cudaEventRecord(begin, the_stream), "record");
    Check(cudaGraphLaunch(replay, the_stream), "graph");
    Check(cudaEventRecord(end, the_stream), "record");
    Check(cudaEventSynchronize(end), "run");
    float ms = 0;
    Check(cudaEventElapsedTime(&ms, begin, end), "elapsed");
    if (round > 0) us.push_back(ms * 1e3 / repeats);
  }
  Check(cudaGetLastError(), "launch");
  Check(cudaGraphExecDestroy(replay), "graph");
  Check(cudaGraphDestroy(graph), "graph");
  Check(cudaEventDestroy(begin), "event");
  Check(cudaEventDestroy(end), "event");
  std::sort(us.begin(), us.end());
  return {us[kRounds / 2], us.front(), us.back()};
}

std::string Scientific(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.2e", value);
  return text;
}

class Report {
 public:
  Report() { std::printf("{\"rows\": ["); }
  ~Report() { std::printf("\n]}\n"); }
  // error: relative, against double precision; negative: not checked in this run.
  void Row(const std::string& kernel, const std::string& shape, Timing timing, double bytes, double flop,
           double error) {
    std::printf(
        "%s\n  {\"kernel\": \"%s\", \"case\": \"%s\", \"us\": %.2f, \"least_us\": %.2f, \"most_us\": %.2f, "
        "\"bytes\": %.0f, \"flop\": %.0f, \"tb_s\": %.3f, \"tflop_s\": %.2f, \"error\": %s}",
        first_ ? "" : ",", kernel.c_str(), shape.c_str(), timing.median_us, timing.least_us, timing.most_us,
        bytes, flop, bytes / timing.median_us / 1e6, flop / timing.median_us / 1e6,
        std::isfinite(error) ? Scientific(error).c_str() : "null");
    wrong_ |= !(error < kMostError);
    std::fflush(stdout);
    first_ = false;
  }

  // Something was computed wrongly.
  bool wrong() const { return wrong_; }

 private:
  static constexpr double kMostError = 1e-2;
  bool first_ = true;
  bool wrong_ = false;
};

double RelativeError(const std::vector<float>& values, const std::vector<double>& expected) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += (values[i] - expected[i]) * (values[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return std::sqrt(difference / norm);
}

// KV of `sets` batches, pages in random order, and the queries of one.
class PagedBatch {
 public:
  PagedBatch(int requests, int tokens, int q_heads, int kv_heads, int head_dim, int64_t q_rows, DType dtype)
      : requests_(requests),
        pages_each_((tokens + kPageTokens - 1) / kPageTokens),
        q_heads_(q_heads),
        page_bytes_(PageBytes(kv_heads, head_dim, dtype)),
        sets_(std::max<int64_t>(2, kColdBytes / (page_bytes_ * pages_each_ * requests) + 1)),
        pool_(static_cast<size_t>(sets_ * requests * pages_each_ * page_bytes_ / 2)),
        q_(static_cast<size_t>(q_rows * q_heads * head_dim)),
        out_(static_cast<size_t>(q_rows * q_heads * head_dim)),
        tables_(static_cast<size_t>(sets_ * requests * pages_each_)) {
    pool_.Put(dtype == DType::kE4M3 ? NormalE4M3() : NormalBF16());
    q_.Put(NormalBF16());
    table_.resize(static_cast<size_t>(sets_ * requests * pages_each_));
    for (size_t i = 0; i < table_.size(); ++i) table_[i] = static_cast<int32_t>(i);
    std::shuffle(table_.begin(), table_.end(), generator);
    tables_.Put(table_);
    pages_ = {.base = pool_.data(),
              .page_stride = page_bytes_,
              .kv_heads = kv_heads,
              .head_dim = head_dim,
              .dtype = dtype};
  }

  template <typename Args>
  void Fill(Args& args, int set) const {
    args.q = q_.data();
    args.q_dtype = DType::kBF16;
    args.q_stride = int64_t{q_heads_} * pages_.head_dim;
    args.q_heads = q_heads_;
    args.pages = pages_;
    args.page_table = tables_.data() + (set % sets_) * requests_ * pages_each_;
    args.page_table_stride = pages_each_;
    args.scale = 1.0f / std::sqrt(static_cast<float>(pages_.head_dim));
    args.out = out_.data();
    args.out_dtype = DType::kBF16;
  }

  // Of the row's head whose request sees `tokens` tokens, after a launch on that set.
  double Error(int set, int request, int64_t row, int head, int tokens) const {
    const int dim = pages_.head_dim, kv_head = head / (q_heads_ / pages_.kv_heads);
    const size_t at = static_cast<size_t>((row * q_heads_ + head) * dim);
    const std::vector<uint16_t> q = q_.Get(at, static_cast<size_t>(dim)),
                                out = out_.Get(at, static_cast<size_t>(dim));
    std::vector<double> logits, expected(static_cast<size_t>(dim));
    std::vector<std::vector<float>> values;
    for (int token = 0; token < tokens; ++token) {
      const int32_t page = table_[static_cast<size_t>(((set % sets_) * requests_ + request) * pages_each_ +
                                                      token / kPageTokens)];
      // [keys | values][kv_head][16 tokens][head_dim]
      const int64_t row = int64_t{kv_head} * kPageTokens + token % kPageTokens;
      const std::vector<float> k = PoolRow(page, row);
      values.push_back(PoolRow(page, row + int64_t{pages_.kv_heads} * kPageTokens));
      double dot = 0;
      for (int d = 0; d < dim; ++d) dot += double{F32FromBF16(q[d])} * k[d];
      logits.push_back(dot / std::sqrt(dim));
    }
    const double most = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (int token = 0; token < tokens; ++token) {
      const double weight = std::exp(logits[token] - most);
      sum += weight;
      for (int d = 0; d < dim; ++d) expected[d] += weight * values[token][d];
    }
    for (double& value : expected) value /= sum;
    std::vector<float> got;
    for (uint16_t value : out) got.push_back(F32FromBF16(value));
    return RelativeError(got, expected);
  }

 private:
  std::vector<float> PoolRow(int64_t page, int64_t row) const {
    const size_t dim = static_cast<size_t>(pages_.head_dim), bytes = dim * SizeOf(pages_.dtype);
    const std::vector<uint16_t> raw = pool_.Get(
        (static_cast<size_t>(page * page_bytes_) + static_cast<size_t>(row) * bytes) / 2, bytes / 2);
    std::vector<float> values(dim);
    for (size_t i = 0; i < dim; ++i) {
      values[i] = pages_.dtype == DType::kE4M3 ? F32FromE4M3(static_cast<uint8_t>(raw[i / 2] >> (i % 2 * 8)))
                                               : F32FromBF16(raw[i]);
    }
    return values;
  }

  int requests_, pages_each_, q_heads_;
  int64_t page_bytes_, sets_;
  Array<uint16_t> pool_, q_, out_;
  Array<int32_t> tables_;
  std::vector<int32_t> table_;
  KvPages pages_;
};

std::string Of(DType kv_dtype) { return kv_dtype == DType::kBF16 ? "" : ", fp8 KV"; }

void Decode(Report& report, int multiprocessors, int batch, int context, int q_heads, int kv_heads,
            int head_dim, bool invariant, DType kv_dtype = DType::kBF16) {
  PagedBatch kv(batch, context, q_heads, kv_heads, head_dim, batch, kv_dtype);
  DecodePlan plan({.blocks = 2 * multiprocessors,
                   .q_heads = q_heads,
                   .kv_heads = kv_heads,
                   .batch_invariant = invariant});
  plan.Build(std::vector<int32_t>(static_cast<size_t>(batch), context));
  const Array<DecodeItem> items(plan.items());
  const Array<DecodeWork> work(plan.work());
  const Array<int32_t> block_begin(plan.block_begin()), slot_begin(plan.slot_begin());
  const size_t slots = static_cast<size_t>(plan.num_slots()) * q_heads;
  const Array<float> partial_out(slots * head_dim), partial_lse(slots);
  DecodeAttentionArgs args;
  args.requests = batch;
  args.items = items.data();
  args.work = work.data();
  args.block_begin = block_begin.data();
  args.blocks = static_cast<int32_t>(plan.block_begin().size()) - 1;
  args.slot_begin = slot_begin.data();
  args.partial_out = partial_out.data();
  args.partial_lse = partial_lse.data();
  const Timing timing = Time(20, [&](int set) {
    kv.Fill(args, set);
    DecodeAttention(the_stream, args);
  });
  kv.Fill(args, 0);
  DecodeAttention(the_stream, args);
  const double tokens = double{1} * batch * context;
  report.Row(std::string("decode attention") + (invariant ? ", batch-invariant" : "") + Of(kv_dtype),
             std::to_string(q_heads) + "/" + std::to_string(kv_heads) + "x" + std::to_string(head_dim) +
                 " b" + std::to_string(batch) + " ctx" + std::to_string(context),
             timing, tokens * kv_heads * head_dim * 2 * static_cast<double>(SizeOf(kv_dtype)),
             tokens * q_heads * head_dim * 4, kv.Error(0, batch - 1, batch - 1, q_heads - 1, context));
}

void Prefill(Report& report, int tokens, int q_heads, int kv_heads, int head_dim,
             DType kv_dtype = DType::kBF16) {
  PagedBatch kv(1, tokens, q_heads, kv_heads, head_dim, tokens, kv_dtype);
  const std::vector<PrefillSlice> slices = {{.row_begin = 0, .count = tokens, .position = 0, .table_row = 0}};
  std::vector<PrefillTile> plan;
  PlanPrefill(slices, plan);
  const Array<PrefillSlice> device_slices(slices);
  const Array<PrefillTile> tiles(plan);
  PrefillAttentionArgs args;
  args.slices = device_slices.data();
  args.tiles = tiles.data();
  args.num_tiles = static_cast<int32_t>(plan.size());
  const Timing timing = Time(tokens > 4096 ? 3 : 10, [&](int set) {
    kv.Fill(args, set);
    PrefillAttention(the_stream, args);
  });
  kv.Fill(args, 0);
  PrefillAttention(the_stream, args);
  const int row = tokens - 1;
  report.Row(
      "prefill attention" + Of(kv_dtype),
      std::to_string(q_heads) + "/" + std::to_string(kv_heads) + "x" + std::to_string(head_dim) + " " +
          std::to_string(tokens) + " tokens",
      timing,
      double{2} * tokens * (2.0 * q_heads + static_cast<double>(SizeOf(kv_dtype)) * kv_heads) * head_dim,
      double{2} * tokens * tokens * q_heads * head_dim, kv.Error(0, 0, row, q_heads - 1, tokens));
}

void Skinny(Report& report, int rows, int64_t n, int64_t k, DType dtype = DType::kBF16) {
  const int64_t copies = std::max<int64_t>(2, kColdBytes / (n * k * 2) + 1);
  Array<uint16_t> weight(static_cast<size_t>(copies * n * k)), x(static_cast<size_t>(rows * k));
  const auto value = [dtype](uint16_t bits) {
    return double{dtype == DType::kF16 ? F32FromF16(bits) : F32FromBF16(bits)};
  };
  std::vector<uint16_t> pattern = NormalBF16();
  if (dtype == DType::kF16) {
    for (uint16_t& bits : pattern) bits = F16FromF32(F32FromBF16(bits));
  }
  weight.Put(pattern);
  x.Put(pattern);
  const Array<float> out(static_cast<size_t>(rows * n));
  SkinnyMatMulArgs args{
      .x = x.data(), .dtype = dtype, .rows = rows, .weight = nullptr, .n = n, .k = k, .out = out.data()};
  const auto run = [&](int set) {
    args.weight = weight.data() + (set % copies) * n * k;
    SkinnyMatMul(the_stream, args);
  };
  const Timing timing = Time(20, run);
  run(0);
  std::vector<float> got;
  std::vector<double> expected;
  for (int64_t column = 0; column < n; column += n / 7) {
    const std::vector<uint16_t> w = weight.Get(static_cast<size_t>(column * k), static_cast<size_t>(k));
    const std::vector<uint16_t> in = x.Get(static_cast<size_t>((rows - 1) * k), static_cast<size_t>(k));
    double dot = 0;
    for (int64_t i = 0; i < k; ++i) dot += value(w[i]) * value(in[i]);
    expected.push_back(dot);
    got.push_back(out.Get(static_cast<size_t>((rows - 1) * n + column), 1)[0]);
  }
  report.Row(dtype == DType::kF16 ? "skinny product, f16" : "skinny product",
             "m" + std::to_string(rows) + " " + std::to_string(n) + "x" + std::to_string(k), timing,
             2.0 * n * k, 2.0 * rows * n * k, RelativeError(got, expected));
}

void Rows(Report& report, int64_t rows, int32_t hidden, int32_t inner) {
  const int64_t sets = std::max<int64_t>(2, kColdBytes / (rows * hidden * 8) + 1);
  Array<float> residual(static_cast<size_t>(sets * rows * hidden));
  residual.Put(Normal(1'000'003));
  Array<uint16_t> delta(static_cast<size_t>(sets * rows * hidden)),
      out(static_cast<size_t>(sets * rows * hidden));
  delta.Put(NormalBF16());
  const Array<float> gain(Normal(static_cast<size_t>(hidden)));
  const auto at = [&](int set) { return (set % sets) * rows * hidden; };
  const Timing norm = Time(20, [&](int set) {
    AddRmsNorm(the_stream, {.residual = residual.data() + at(set),
                            .delta = delta.data() + at(set),
                            .delta_dtype = DType::kBF16,
                            .gain = gain.data(),
                            .rows = rows,
                            .hidden = hidden,
                            .out = out.data() + at(set),
                            .out_dtype = DType::kBF16});
  });
  const std::string shape = std::to_string(rows) + " x ";
  report.Row("add and norm", shape + std::to_string(hidden), norm, 12.0 * rows * hidden, 0, -1);

  const int64_t gate_sets = std::max<int64_t>(2, kColdBytes / (rows * inner * 6) + 1);
  Array<uint16_t> gate_up(static_cast<size_t>(gate_sets * rows * inner * 2)),
      gated(static_cast<size_t>(gate_sets * rows * inner));
  gate_up.Put(NormalBF16());
  const Timing gate = Time(20, [&](int set) {
    SiluMul(the_stream, {.gate_up = gate_up.data() + (set % gate_sets) * rows * inner * 2,
                         .dtype = DType::kBF16,
                         .rows = rows,
                         .inner = inner,
                         .out = gated.data() + (set % gate_sets) * rows * inner,
                         .out_dtype = DType::kBF16});
  });
  report.Row("gate", shape + std::to_string(inner), gate, 6.0 * rows * inner, 0, -1);
}

void Rotate(Report& report, int64_t rows, int q_heads, int kv_heads, int head_dim) {
  const int64_t width = (q_heads + 2 * kv_heads) * int64_t{head_dim};
  Array<float> qkv(static_cast<size_t>(rows * width));
  qkv.Put(Normal(1'000'003));
  Array<uint16_t> pool(static_cast<size_t>(rows * PageBytes(kv_heads, head_dim) / 2));
  std::vector<int64_t> slots;
  std::vector<int32_t> positions;
  for (int64_t row = 0; row < rows; ++row) {
    slots.push_back(row * kPageTokens + row % kPageTokens);
    positions.push_back(static_cast<int32_t>(row % 1024));
  }
  const Array<int64_t> device_slots(slots);
  const Array<int32_t> device_positions(positions);
  const Array<float> angles(Normal(static_cast<size_t>(1024 * head_dim)));
  const Timing timing = Time(20, [&](int) {
    RopeAndWriteKv(the_stream, {.qkv = qkv.data(),
                                .dtype = DType::kF32,
                                .rows = rows,
                                .q_heads = q_heads,
                                .pages = {.base = pool.data(),
                                          .page_stride = PageBytes(kv_heads, head_dim),
                                          .kv_heads = kv_heads,
                                          .head_dim = head_dim},
                                .rotary_dim = head_dim,
                                .cos_sin = angles.data(),
                                .positions = device_positions.data(),
                                .slots = device_slots.data()});
  });
  report.Row("rotate and write KV",
             std::to_string(rows) + " rows " + std::to_string(q_heads) + "/" + std::to_string(kv_heads),
             timing, rows * (4.0 * width + 4.0 * q_heads * head_dim + 4.0 * kv_heads * head_dim), 0, -1);
}

void SampleRows(Report& report, int rows, int vocab, const std::string& name,
                const SampleParameters& parameters) {
  const int64_t sets = std::max<int64_t>(2, kColdBytes / (int64_t{rows} * vocab * 4) + 1);
  Array<float> logits(static_cast<size_t>(sets * rows * vocab));
  logits.Put(Normal(1'000'003, 3.0f));
  std::vector<SampleParameters> all(static_cast<size_t>(rows), parameters);
  for (int row = 0; row < rows; ++row) all[row].seed = row;
  const Array<SampleParameters> device_parameters(all);
  const Array<SampledToken> results(static_cast<size_t>(rows));
  const Array<TokenLogprob> top(static_cast<size_t>(rows));
  const auto run = [&](int set) {
    Sample(the_stream, {.logits = logits.data() + (set % sets) * rows * vocab,
                        .stride = vocab,
                        .vocab = vocab,
                        .rows = rows,
                        .parameters = device_parameters.data(),
                        .results = results.data(),
                        .top = top.data(),
                        .top_stride = 1});
  };
  const Timing timing = Time(20, run);
  double wrong = -1;
  if (parameters.temperature == 0) {
    run(0);
    const std::vector<SampledToken> tokens = results.Get(0, static_cast<size_t>(rows));
    wrong = 0;
    for (int row = 0; row < rows; ++row) {
      const std::vector<float> x = logits.Get(static_cast<size_t>(row) * vocab, static_cast<size_t>(vocab));
      wrong += tokens[row].token != std::max_element(x.begin(), x.end()) - x.begin();
    }
  }
  report.Row("sample, " + name, std::to_string(rows) + " x " + std::to_string(vocab), timing,
             4.0 * rows * vocab, 0, wrong);
}

int Run() {
  Check(cudaStreamCreateWithFlags(&the_stream, cudaStreamNonBlocking), "stream");
  cudaDeviceProp device{};
  Check(cudaGetDeviceProperties(&device, 0), "device");
  const int sms = device.multiProcessorCount;
  Report report;
  const int decode[][2] = {{1, 4096},  {8, 4096},  {32, 1024}, {32, 2048},  {32, 4096},
                           {64, 1024}, {64, 2048}, {64, 4096}, {128, 1024}, {256, 1024}};
  for (const auto& [batch, context] : decode) Decode(report, sms, batch, context, 32, 8, 128, false);
  for (const auto& [batch, context] : decode)
    if (batch <= 64 && context >= 2048) Decode(report, sms, batch, context, 32, 8, 128, true);
  Decode(report, sms, 64, 1024, 32, 4, 128, false);
  Decode(report, sms, 64, 4096, 32, 4, 128, false);
  Decode(report, sms, 64, 1024, 16, 8, 128, false);  // Qwen3-0.6B
  Decode(report, sms, 64, 1024, 32, 8, 64, false);   // Llama-3.2-1B
  for (const auto& [batch, context] : decode)
    if (batch == 1 || batch >= 64) Decode(report, sms, batch, context, 32, 8, 128, false, DType::kE4M3);
  Decode(report, sms, 64, 1024, 32, 8, 64, false, DType::kE4M3);
  for (int tokens : {512, 1024, 2048, 4096, 8192}) Prefill(report, tokens, 32, 8, 128);
  for (int tokens : {2048, 8192}) Prefill(report, tokens, 32, 8, 128, DType::kE4M3);
  for (int rows : {1, 4, 8}) {
    const int64_t shapes[][2] = {{6144, 4096},  {4096, 4096},   {28672, 4096},
                                 {4096, 14336}, {128256, 4096}, {4096, 1024}};
    for (const auto& [n, k] : shapes) Skinny(report, rows, n, k);
    Skinny(report, rows, 4096, 14336, DType::kF16);
  }
  Rows(report, 64, 4096, 14336);
  Rows(report, 16384, 4096, 14336);
  Rotate(report, 64, 32, 8, 128);
  Rotate(report, 2048, 32, 8, 128);
  SampleRows(report, 64, 128256, "greedy", {.temperature = 0});
  SampleRows(report, 64, 128256, "temperature", {.temperature = 1.0f});
  SampleRows(report, 64, 128256, "top-p", {.temperature = 0.8f, .top_p = 0.95f});
  SampleRows(report, 64, 128256, "top-k, top-p, log-probabilities",
             {.temperature = 1.0f, .top_k = 50, .top_p = 0.9f, .num_top = 1});
  SampleRows(report, 1, 128256, "greedy", {.temperature = 0});
  return report.wrong() ? 1 : 0;
}

}  // namespace
}  // namespace orrery::cuda

int main() { return orrery::cuda::Run(); }
