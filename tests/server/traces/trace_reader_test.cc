#include "server/traces/trace_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <lzma.h>
#include <zlib.h>

#include <map>
#include <set>

#include "server/traces/line_reader.h"
#include "tests/server/traces/temp_file.h"

namespace orrery {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Gzip(const std::string& text) {
  z_stream stream = {};
  EXPECT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&stream, text.size()) + 32, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string Xz(const std::string& text) {
  std::string out(text.size() + 1024, '\0');
  size_t size = 0;
  EXPECT_EQ(
      lzma_easy_buffer_encode(6, LZMA_CHECK_CRC64, nullptr, reinterpret_cast<const uint8_t*>(text.data()),
                              text.size(), reinterpret_cast<uint8_t*>(out.data()), &size, out.size()),
      LZMA_OK);
  out.resize(size);
  return out;
}

struct ReadResult {
  std::vector<TraceRow> rows;
  absl::Status status;
};

ReadResult ReadAll(TraceFormat format, const std::string& path, uint64_t seed = 0) {
  ReadResult result;
  auto trace = OpenTrace(format, path, seed);
  result.status = trace.status();
  if (!trace.ok()) return result;
  TraceRow row;
  for (;;) {
    auto more = (*trace)->Next(&row);
    result.status = more.status();
    if (!more.ok() || !*more) return result;
    result.rows.push_back(row);
  }
}

std::vector<std::string> Lines(const std::string& bytes) {
  TempFile file(bytes);
  auto reader = LineReader::Open(file.path());
  EXPECT_TRUE(reader.ok());
  std::vector<std::string> lines;
  for (;;) {
    auto more = reader->Next();
    EXPECT_TRUE(more.ok()) << more.status();
    if (!more.ok() || !*more) return lines;
    lines.push_back(std::string(reader->line()));
  }
}

TEST(LineReader, SplitsAndUnpacks) {
  EXPECT_THAT(Lines("a\nb\r\n\nc"), ElementsAre("a", "b", "", "c"));
  EXPECT_THAT(Lines(""), ElementsAre());
  EXPECT_THAT(Lines("\xEF\xBB\xBFx\n"), ElementsAre("x"));
  std::string text;
  std::vector<std::string> expected;
  for (int i = 0; i < 50'000; ++i) {
    expected.push_back(std::to_string(i * 7919));
    text += expected.back() + "\n";
  }
  EXPECT_EQ(Lines(text), expected);
  EXPECT_EQ(Lines(Gzip(text)), expected);
  EXPECT_EQ(Lines(Xz(text)), expected);
  EXPECT_EQ(Lines(Gzip(text.substr(0, 100)) + Gzip(text.substr(100))), expected);  // two members
}

TEST(LineReader, DamagedFilesAreErrors) {
  const std::string text(100'000, 'x');
  for (std::string packed : {Gzip(text), Xz(text)}) {
    TempFile truncated(packed.substr(0, packed.size() / 2));
    auto reader = LineReader::Open(truncated.path());
    ASSERT_TRUE(reader.ok());
    EXPECT_EQ(reader->Next().status().code(), absl::StatusCode::kDataLoss);
  }
  EXPECT_EQ(LineReader::Open("/nonexistent/file").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(LineReader::Open(::testing::TempDir()).status().code(), absl::StatusCode::kInvalidArgument);
  TempFile endless(std::string(LineReader::kMaxLineBytes + 1, 'x'));
  auto reader = LineReader::Open(endless.path());
  EXPECT_THAT(reader->Next().status().message(), HasSubstr(":1: line longer"));
}

TEST(LengthsTrace, ReadsColumnsByName) {
  TempFile file("pd_ratio, num_decode_tokens,num_prefill_tokens,arrived_at\n0.5,3,7,0.25\n\n1,4,9,1e1\n");
  const auto result = ReadAll(TraceFormat::kLengths, file.path());
  ASSERT_TRUE(result.status.ok()) << result.status;
  ASSERT_EQ(result.rows.size(), 2u);
  EXPECT_EQ(result.rows[0].prompt_tokens, 7);
  EXPECT_EQ(result.rows[0].output_tokens, 3);
  EXPECT_EQ(result.rows[0].arrival_s, 0.25);
  EXPECT_EQ(result.rows[1].line, 4);
  EXPECT_EQ(result.rows[1].arrival_s, 10.0);
}

TEST(LengthsTrace, MalformedRowsNameTheLine) {
  const std::string header = "num_prefill_tokens,num_decode_tokens\n5,6\n";
  const std::map<std::string, std::string> cases = {
      {"0,4\n", ":3: num_prefill_tokens '0'"},   {"4,-1\n", ":3: num_decode_tokens '-1'"},
      {"4\n", ":3: 1 fields, the header has 2"}, {"4,5,6\n", ":3: 3 fields"},
      {"4,x\n", ":3: num_decode_tokens 'x'"},    {"4,99999999999999999999\n", ":3: num_decode_tokens"},
      {"4,2.5\n", ":3: num_decode_tokens"},      {",\n", ":3: num_prefill_tokens ''"}};
  for (const auto& [row, message] : cases) {
    TempFile file(header + row);
    const auto result = ReadAll(TraceFormat::kLengths, file.path());
    EXPECT_EQ(result.status.code(), absl::StatusCode::kInvalidArgument) << row;
    EXPECT_THAT(std::string(result.status.message()), HasSubstr(file.path() + message));
    EXPECT_EQ(result.rows.size(), 1u);
  }
  for (const char* bytes : {"", "num_prefill_tokens,other\n1,2\n", "1,2\n"}) {
    TempFile file(bytes);
    const auto result = ReadAll(TraceFormat::kLengths, file.path());
    EXPECT_THAT(std::string(result.status.message()), HasSubstr(":1: ")) << bytes;
  }
  TempFile time("num_prefill_tokens,num_decode_tokens,arrived_at\n1,2,nan\n");
  EXPECT_THAT(std::string(ReadAll(TraceFormat::kLengths, time.path()).status.message()),
              HasSubstr(":2: arrived_at 'nan' is not a time"));
}

TEST(AzureTrace, CountsFromTheFirstRow) {
  TempFile file(
      "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
      "2023-11-16 18:15:50.9951690,396,109\n2023-11-17 00:00:00.0000001,1,1\n");
  const auto result = ReadAll(TraceFormat::kAzure, file.path());
  ASSERT_TRUE(result.status.ok()) << result.status;
  ASSERT_EQ(result.rows.size(), 3u);
  EXPECT_EQ(result.rows[0].arrival_s, 0.0);
  EXPECT_NEAR(*result.rows[1].arrival_s, 4.314579, 1e-9);
  EXPECT_NEAR(*result.rows[2].arrival_s, 20653.3194101, 1e-9);
  EXPECT_EQ(result.rows[1].prompt_tokens, 396);
  EXPECT_EQ(result.rows[1].output_tokens, 109);
  TempFile bad("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,374,44\n");
  EXPECT_THAT(std::string(ReadAll(TraceFormat::kAzure, bad.path()).status.message()),
              HasSubstr(":2: TIMESTAMP 'yesterday'"));
}

constexpr char kMooncake[] =
    R"({"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [0, 1]}
{"timestamp": 0, "input_length": 700, "output_length": 6, "hash_ids": [0, 2]}
{"timestamp": 0, "input_length": 10, "output_length": 7, "hash_ids": []}
{"timestamp": 3000, "input_length": 10, "output_length": 8, "hash_ids": [3]}
{"timestamp": 3100, "input_length": 10, "output_length": 9}
)";

TEST(MooncakeTrace, SpreadsTicks) {
  TempFile file(kMooncake);
  const auto result = ReadAll(TraceFormat::kMooncake, file.path(), 7);
  ASSERT_TRUE(result.status.ok()) << result.status;
  ASSERT_EQ(result.rows.size(), 5u);
  for (int i = 0; i < 3; ++i) EXPECT_LT(*result.rows[i].arrival_s, 3.0);
  EXPECT_LE(*result.rows[0].arrival_s, *result.rows[1].arrival_s);
  EXPECT_LE(*result.rows[1].arrival_s, *result.rows[2].arrival_s);
  EXPECT_NE(*result.rows[0].arrival_s, *result.rows[2].arrival_s);
  // A tick is never spread past the next one.
  EXPECT_GE(*result.rows[3].arrival_s, 3.0);
  EXPECT_LT(*result.rows[3].arrival_s, 3.1);
  EXPECT_GE(*result.rows[4].arrival_s, 3.1);
  EXPECT_THAT(result.rows[1].hash_ids, ElementsAre(0, 2));
  EXPECT_EQ(result.rows[4].output_tokens, 9);
  EXPECT_EQ(*ReadAll(TraceFormat::kMooncake, file.path(), 7).rows[1].arrival_s, *result.rows[1].arrival_s);
  EXPECT_NE(*ReadAll(TraceFormat::kMooncake, file.path(), 8).rows[1].arrival_s, *result.rows[1].arrival_s);
}

TEST(MooncakeTrace, MalformedRowsNameTheLine) {
  const std::string good = R"({"timestamp": 5, "input_length": 10, "output_length": 8})"
                           "\n";
  const std::map<std::string, std::string> cases = {
      {"{", ":2: not a JSON object"},
      {"[]", ":2: not a JSON object"},
      {R"({"input_length": 10, "output_length": 8})", ":2: timestamp"},
      {R"({"timestamp": 5, "input_length": 0, "output_length": 8})", ":2: input_length"},
      {R"({"timestamp": 5, "input_length": 9, "output_length": 1.5})", ":2: output_length"},
      {R"({"timestamp": 5, "input_length": 9, "output_length": 1, "hash_ids": [1, 2]})",
       ":2: hash_ids has 2 ids"},
      {R"({"timestamp": 5, "input_length": 9, "output_length": 1, "hash_ids": ["a"]})", ":2: hash_ids"},
      {R"({"timestamp": 4, "input_length": 9, "output_length": 1})", ":2: timestamp is before"}};
  for (const auto& [row, message] : cases) {
    TempFile file(good + row);
    const auto result = ReadAll(TraceFormat::kMooncake, file.path());
    EXPECT_THAT(std::string(result.status.message()), HasSubstr(message)) << row;
  }
}

TEST(BenchTrace, TakesLengthsAndTimes) {
  TempFile file(R"({"duration": 3.5, "per_class": {"a": {"output_lens": [9]}},
"schedule": {"mode": "open", "arrival_s": [0.5, 1, 2, 3], "input_tokens": [7, null, 9, 4],
             "output_tokens": [5, 256, 6, 6], "class": ["", "", "", ""]},
"outcomes": ["completed", "completed", "failed", "unfinished"],
"input_lens": [7, 33, null, 4], "output_lens": [5, 12, 0, 2],
"itls": [[0.1, 0.2], [], [], []], "ttfts": [0.5, null, null, null]})");
  const auto result = ReadAll(TraceFormat::kBench, file.path());
  ASSERT_TRUE(result.status.ok()) << result.status;
  ASSERT_EQ(result.rows.size(), 4u);
  const std::vector<std::array<double, 3>> expected = {{0.5, 7, 5}, {1, 33, 12}, {2, 9, 6}, {3, 4, 6}};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(*result.rows[i].arrival_s, expected[i][0]);
    EXPECT_EQ(result.rows[i].prompt_tokens, expected[i][1]);
    EXPECT_EQ(result.rows[i].output_tokens, expected[i][2]);
  }
  for (const char* bytes : {"", "{", "[1]", "{\"input_lens\": [1]}", "{\"a\": [[[[[[[[[[[[[[[[[[1"}) {
    TempFile bad(bytes);
    EXPECT_EQ(ReadAll(TraceFormat::kBench, bad.path()).status.code(), absl::StatusCode::kInvalidArgument)
        << bytes;
  }
}

// The public traces, against the statistics stated beside them.
TEST(RealTraces, HaveTheStatedStatistics) {
  const std::string data = SharedData();
  if (data.empty()) GTEST_SKIP() << "the shared public data is not here";
  struct Case {
    TraceFormat format;
    std::string path;
    size_t rows;
    double prompt_mean, output_mean, span_s;
  };
  const std::vector<Case> cases = {
      {TraceFormat::kAzure, "/traces/azure-2023/AzureLLMInferenceTrace_conv.csv.xz", 19'366, 1155, 211, 3502},
      {TraceFormat::kMooncake, "/traces/mooncake/conversation_trace.jsonl.xz", 12'031, 12'035, 343, 3537},
      {TraceFormat::kLengths, "/lengths/sharegpt_llama2.csv.xz", 30'731, 2340, 439, 0},
      {TraceFormat::kLengths, "/lengths/arxiv_summarization_llama2.csv.xz", 28'257, 2588, 291, 0}};
  for (const Case& one : cases) {
    SCOPED_TRACE(one.path);
    const auto result = ReadAll(one.format, data + one.path);
    ASSERT_TRUE(result.status.ok()) << result.status;
    ASSERT_EQ(result.rows.size(), one.rows);
    double prompt = 0;
    double output = 0;
    for (size_t i = 0; i < result.rows.size(); ++i) {
      prompt += result.rows[i].prompt_tokens;
      output += result.rows[i].output_tokens;
      if (one.span_s > 0 && i > 0) {
        EXPECT_LE(*result.rows[i - 1].arrival_s, *result.rows[i].arrival_s);
      }
    }
    EXPECT_NEAR(prompt / static_cast<double>(one.rows), one.prompt_mean, 0.5);
    EXPECT_NEAR(output / static_cast<double>(one.rows), one.output_mean, 0.5);
    if (one.span_s > 0) {
      EXPECT_NEAR(*result.rows.back().arrival_s, one.span_s, 4);
    }
  }
}

// An unlimited prefix cache hits 36.6 % of the Mooncake trace's blocks (the figure stated with the data).
TEST(RealTraces, MooncakeSharing) {
  const std::string data = SharedData();
  if (data.empty()) GTEST_SKIP() << "the shared public data is not here";
  const auto result = ReadAll(TraceFormat::kMooncake, data + "/traces/mooncake/conversation_trace.jsonl.xz");
  std::set<int64_t> seen;
  double blocks = 0;
  double hits = 0;
  for (const TraceRow& row : result.rows) {
    for (const int64_t id : row.hash_ids) {
      ++blocks;
      hits += !seen.insert(id).second;
    }
  }
  EXPECT_NEAR(hits / blocks, 0.366, 0.0005);
}

}  // namespace
}  // namespace orrery
