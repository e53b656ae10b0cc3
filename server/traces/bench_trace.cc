// The `bench` format: the result file of `orrery bench --save`, read as a trace.
//
// One JSON document, read as a stream of events: only the few per-request arrays that make a trace are kept,
// so memory is a few words per request however many token times the file holds. A request that completed has
// the lengths it really had; one that did not has those that were planned, and is left out when the plan did
// not know them (text prompts) or it was never due.
#include <functional>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/traces/byte_source.h"
#include "server/traces/trace_reader.h"

namespace orrery {
namespace {

using nlohmann::json;

constexpr size_t kMaxRequests = size_t{1} << 26;
constexpr size_t kMaxDepth = 16;

// nlohmann's reader takes any pair of input iterators; this one pulls from a ByteSource.
class ByteIterator {
 public:
  using difference_type = std::ptrdiff_t;
  using value_type = char;
  using pointer = const char*;
  using reference = char;
  using iterator_category = std::input_iterator_tag;

  struct Stream {
    std::unique_ptr<ByteSource> source;
    std::vector<char> buffer = std::vector<char>(64 << 10);
    size_t next = 0;
    size_t end = 0;
    bool ended = false;
    absl::Status status;

    void Fill() {
      if (next < end || ended) return;
      auto got = source->Read(absl::MakeSpan(buffer));
      if (!got.ok()) status = got.status();
      next = 0;
      end = got.ok() ? *got : 0;
      ended = end == 0;
    }
  };

  ByteIterator() = default;  // the end
  explicit ByteIterator(Stream* stream) : stream_(stream) { stream_->Fill(); }
  char operator*() const { return stream_->buffer[stream_->next]; }
  ByteIterator& operator++() {
    ++stream_->next;
    stream_->Fill();
    return *this;
  }
  bool operator==(const ByteIterator& other) const { return at_end() == other.at_end(); }
  bool operator!=(const ByteIterator& other) const { return !(*this == other); }

 private:
  bool at_end() const { return stream_ == nullptr || stream_->ended; }
  Stream* stream_ = nullptr;
};

// The arrays of the file that make a trace; -1 stands for null.
struct Arrays {
  std::vector<double> arrival_s;      // schedule.arrival_s
  std::vector<double> planned_input;  // schedule.input_tokens
  std::vector<double> planned_output;
  std::vector<double> input;    // input_lens
  std::vector<double> output;   // output_lens
  std::vector<char> completed;  // outcomes[i] == "completed"
};

// Keeps the numbers of the wanted arrays and skips everything else.
class ArraysHandler : public nlohmann::json_sax<json> {
 public:
  explicit ArraysHandler(Arrays* out) : out_(out) {}
  const std::string& error() const { return error_; }

  bool null() override { return Number(-1); }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t v) override { return Number(static_cast<double>(v)); }
  bool number_unsigned(number_unsigned_t v) override { return Number(static_cast<double>(v)); }
  bool number_float(number_float_t v, const string_t&) override { return Number(v); }
  bool binary(binary_t&) override { return true; }
  bool string(string_t& value) override {
    if (depth_ != 2 || section_ != "outcomes") return true;
    out_->completed.push_back(value == "completed");
    return Bounded(out_->completed.size());
  }
  bool start_object(size_t) override { return Deeper(); }
  bool start_array(size_t) override { return Deeper(); }
  bool end_object() override { return Shallower(); }
  bool end_array() override { return Shallower(); }
  bool key(string_t& name) override {
    if (depth_ == 1) section_ = name;
    if (depth_ == 2) field_ = name;
    return true;
  }
  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    error_ = absl::StrCat("not JSON near byte ", position);
    return false;
  }

 private:
  bool Number(double value) {
    std::vector<double>* array = nullptr;
    if (depth_ == 2 && section_ == "input_lens") array = &out_->input;
    if (depth_ == 2 && section_ == "output_lens") array = &out_->output;
    if (depth_ == 3 && section_ == "schedule") {
      if (field_ == "arrival_s") array = &out_->arrival_s;
      if (field_ == "input_tokens") array = &out_->planned_input;
      if (field_ == "output_tokens") array = &out_->planned_output;
    }
    if (array == nullptr) return true;
    array->push_back(value);
    return Bounded(array->size());
  }
  bool Bounded(size_t size) {
    if (size <= kMaxRequests) return true;
    error_ = absl::StrCat("more than ", kMaxRequests, " requests");
    return false;
  }
  bool Deeper() {
    if (++depth_ <= kMaxDepth) return true;
    error_ = absl::StrCat("nested deeper than ", kMaxDepth);
    return false;
  }
  bool Shallower() {
    if (--depth_ == 1) field_.clear();
    return true;
  }

  Arrays* out_;
  size_t depth_ = 0;
  std::string section_;  // key at the top level
  std::string field_;    // key one level below
  std::string error_;
};

class BenchTrace : public TraceReader {
 public:
  BenchTrace(std::string path, Arrays arrays) : path_(std::move(path)), arrays_(std::move(arrays)) {}

  absl::StatusOr<bool> Next(TraceRow* row) override {
    while (next_ < arrays_.arrival_s.size() && !Known(next_)) ++next_;
    if (next_ == arrays_.arrival_s.size()) return false;
    const size_t i = next_++;
    const bool completed = arrays_.completed[i] != 0;
    row->line = static_cast<int64_t>(i) + 1;
    row->hash_ids.clear();
    row->arrival_s = arrays_.arrival_s[i];
    const double prompt = arrays_.input[i] >= 0 ? arrays_.input[i] : arrays_.planned_input[i];
    const double output = completed ? arrays_.output[i] : arrays_.planned_output[i];
    if (auto s = ToLength(prompt, "input_lens", i, &row->prompt_tokens); !s.ok()) return s;
    if (auto s = ToLength(output, "output_lens", i, &row->output_tokens); !s.ok()) return s;
    return true;
  }

 private:
  bool Known(size_t i) const {
    if (arrays_.completed[i] != 0) return true;
    const bool prompt = arrays_.input[i] >= 0 || arrays_.planned_input[i] >= 0;
    return prompt && arrays_.planned_output[i] >= 0 && arrays_.arrival_s[i] >= 0;
  }

  absl::Status ToLength(double value, const char* name, size_t index, int32_t* out) const {
    if (!(value >= 1) || value > static_cast<double>(kMaxTraceTokens)) {
      return absl::InvalidArgumentError(absl::StrCat(path_, ": ", name, " of request ", index + 1,
                                                     " is not a length in [1, ", kMaxTraceTokens, "]"));
    }
    *out = static_cast<int32_t>(value);
    return absl::OkStatus();
  }

  const std::string path_;
  const Arrays arrays_;
  size_t next_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TraceReader>> OpenBenchTrace(const std::string& path) {
  auto source = OpenByteSource(path);
  if (!source.ok()) return source.status();
  ByteIterator::Stream stream;
  stream.source = *std::move(source);
  Arrays arrays;
  ArraysHandler handler(&arrays);
  const bool parsed = json::sax_parse(ByteIterator(&stream), ByteIterator(), &handler);
  if (!stream.status.ok()) return stream.status;
  if (!parsed) return absl::InvalidArgumentError(absl::StrCat(path, ": ", handler.error()));
  const size_t n = arrays.arrival_s.size();
  if (n == 0 || arrays.input.size() != n || arrays.output.size() != n || arrays.completed.size() != n ||
      arrays.planned_input.size() != n || arrays.planned_output.size() != n) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": not a saved measurement: schedule {arrival_s, input_tokens, output_tokens}, input_lens,",
        " output_lens and outcomes must be arrays of one length"));
  }
  return std::make_unique<BenchTrace>(path, std::move(arrays));
}

}  // namespace orrery
