// The `mooncake` format: one JSON object per line, arrivals stamped in coarse ticks.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "scheduler/base/random.h"
#include "server/traces/line_reader.h"
#include "server/traces/trace_reader.h"

namespace orrery {
namespace {

using nlohmann::json;

// Rows of one tick are held until the tick is complete; a tick of more rows than this is no trace.
constexpr size_t kMaxRowsPerTick = 1 << 20;

class MooncakeTrace : public TraceReader {
 public:
  MooncakeTrace(LineReader lines, uint64_t seed) : lines_(std::move(lines)), seed_(seed) {}

  absl::StatusOr<bool> Next(TraceRow* row) override {
    if (next_ == tick_.size()) {
      if (auto status = ReadTick(); !status.ok()) return status;
      if (tick_.empty()) return false;
    }
    *row = std::move(tick_[next_++]);
    return true;
  }

 private:
  // Reads every row of the next timestamp and places them inside the tick, in file order.
  absl::Status ReadTick() {
    tick_.clear();
    next_ = 0;
    if (!pending_.has_value()) {
      if (auto status = ReadRow(); !status.ok()) return status;
      if (!pending_.has_value()) return absl::OkStatus();
    }
    const double start = *pending_->arrival_s;
    while (pending_.has_value() && *pending_->arrival_s == start) {
      if (tick_.size() == kMaxRowsPerTick) {
        return lines_.Error(absl::StrCat("more than ", kMaxRowsPerTick, " rows with one timestamp"));
      }
      tick_.push_back(*std::move(pending_));
      pending_.reset();
      if (auto status = ReadRow(); !status.ok()) return status;
    }
    if (pending_.has_value()) {
      if (*pending_->arrival_s < start) return lines_.Error("timestamp is before the previous row's");
      width_ = std::min(kMooncakeTickSeconds, *pending_->arrival_s - start);
    }
    std::vector<double> offsets(tick_.size());
    for (double& offset : offsets) offset = width_ * UniformAt(seed_, draws_++);
    std::sort(offsets.begin(), offsets.end());
    for (size_t i = 0; i < tick_.size(); ++i) tick_[i].arrival_s = start + offsets[i];
    return absl::OkStatus();
  }

  // Reads one row into pending_, which stays empty at the end of the file.
  absl::Status ReadRow() {
    do {
      auto more = lines_.Next();
      if (!more.ok()) return more.status();
      if (!*more) return absl::OkStatus();
    } while (absl::StripAsciiWhitespace(lines_.line()).empty());
    const json object = json::parse(lines_.line(), nullptr, /*allow_exceptions=*/false);
    if (!object.is_object()) return lines_.Error("not a JSON object");
    TraceRow row;
    row.line = lines_.number();
    const auto timestamp = object.find("timestamp");
    if (timestamp == object.end() || !timestamp->is_number())
      return lines_.Error("timestamp is not a number");
    row.arrival_s = timestamp->get<double>() * 1e-3;
    if (auto s = ReadLength(object, "input_length", &row.prompt_tokens); !s.ok()) return s;
    if (auto s = ReadLength(object, "output_length", &row.output_tokens); !s.ok()) return s;
    if (const auto ids = object.find("hash_ids"); ids != object.end()) {
      const size_t blocks = (row.prompt_tokens + kMooncakeBlockTokens - 1) / kMooncakeBlockTokens;
      if (!ids->is_array()) return lines_.Error("hash_ids is not an array");
      if (ids->size() > blocks) {
        return lines_.Error(absl::StrCat("hash_ids has ", ids->size(), " ids, input_length needs ", blocks));
      }
      for (const json& id : *ids) {
        if (!id.is_number_integer()) return lines_.Error("hash_ids holds something that is not an integer");
        row.hash_ids.push_back(id.get<int64_t>());
      }
    }
    pending_ = std::move(row);
    return absl::OkStatus();
  }

  absl::Status ReadLength(const json& object, const char* name, int32_t* out) const {
    const auto it = object.find(name);
    if (it == object.end() || !it->is_number_integer() || it->get<int64_t>() < 1 ||
        it->get<int64_t>() > kMaxTraceTokens) {
      return lines_.Error(absl::StrCat(name, " is not a length in [1, ", kMaxTraceTokens, "]"));
    }
    *out = static_cast<int32_t>(it->get<int64_t>());
    return absl::OkStatus();
  }

  LineReader lines_;
  const uint64_t seed_;
  uint64_t draws_ = 0;
  double width_ = kMooncakeTickSeconds;  // of the last complete tick; the trace's last one takes it over
  std::optional<TraceRow> pending_;      // first row of the tick after tick_
  std::vector<TraceRow> tick_;
  size_t next_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TraceReader>> OpenMooncakeTrace(const std::string& path, uint64_t seed) {
  auto lines = LineReader::Open(path);
  if (!lines.ok()) return lines.status();
  return std::make_unique<MooncakeTrace>(*std::move(lines), seed);
}

}  // namespace orrery
