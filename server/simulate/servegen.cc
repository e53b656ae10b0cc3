// The `servegen` format: per-client arrival processes and length histograms.
#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <queue>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "scheduler/base/random.h"
#include "server/bench/arrivals.h"
#include "server/simulate/row_generator.h"
#include "server/traces/line_reader.h"
#include "server/traces/trace_reader.h"

namespace orrery::simulate {
namespace {

using nlohmann::json;

constexpr int64_t kDay = 86400;
constexpr uint32_t kLengthStream = 0x4C000000;  // random streams of lengths; those of gaps are below

// A distribution over lengths; drawn by its cumulative weights.
struct Histogram {
  std::vector<double> up_to;  // ascending, the last one is the sum of weights
  std::vector<int32_t> length;

  int32_t Draw(double uniform) const {
    const auto at = std::upper_bound(up_to.begin(), up_to.end() - 1, uniform * up_to.back());
    return length[static_cast<size_t>(at - up_to.begin())];
  }
  double Mean() const {
    double sum = 0, before = 0;
    for (size_t i = 0; i < length.size(); ++i) {
      sum += (up_to[i] - before) * length[i];
      before = up_to[i];
    }
    return sum / up_to.back();
  }
};

struct Lengths {
  int64_t start_s = 0;
  Histogram input, output;
};

struct Window {
  int64_t start_s = 0;
  double rate_per_s = 0, shape = 1;
  bool weibull = false;
};

struct Client {
  std::vector<Window> windows;   // ascending start
  std::vector<Lengths> lengths;  // ascending start, not empty

  // The histogram in force at this time of day: the latest of its windows, or the first.
  const Lengths& LengthsAt(int64_t start_s) const {
    const int64_t last = lengths.back().start_s;
    const int64_t at = start_s > last + kDay ? start_s % kDay : start_s;
    auto next = std::upper_bound(lengths.begin(), lengths.end(), at,
                                 [](int64_t time, const Lengths& l) { return time < l.start_s; });
    return next == lengths.begin() ? *next : *std::prev(next);
  }
};

struct Mix {
  std::vector<Client> clients;
  int64_t width_s = 600;  // of a window
  int64_t span_s = 0;
};

class ServeGenStream final : public RowStream {
 public:
  ServeGenStream(const Mix& mix, uint64_t seed) : mix_(mix), seed_(seed) {
    for (uint32_t c = 0; c < mix.clients.size(); ++c) {
      states_.push_back({.lengths = RandomStream(seed, kLengthStream + c)});
      EnterWindow(c, 0);
      Advance(c);
    }
  }
  void Next(DrawnRow* row) override {
    const auto [at, c] = due_.top();
    due_.pop();
    State& state = states_[c];
    const Client& client = mix_.clients[c];
    const Lengths& lengths = client.LengthsAt(client.windows[state.window].start_s);
    *row = {at, lengths.input.Draw(state.lengths.Uniform()), lengths.output.Draw(state.lengths.Uniform())};
    Advance(c);
  }

 private:
  struct State {
    size_t window = 0;
    double lap_s = 0;  // start of the current pass over the windows
    double at = 0;
    RandomStream lengths, gaps = RandomStream(0);
    bench::ArrivalProcess gamma = bench::ArrivalProcess({}, 0, 0);
    double weibull_mean = 1;
    uint32_t windows_seen = 0;
  };

  void EnterWindow(uint32_t c, size_t w) {
    State& state = states_[c];
    const Window& window = mix_.clients[c].windows[w];
    state.window = w;
    state.at = state.lap_s + static_cast<double>(window.start_s);
    const uint32_t stream = c * 65536 + state.windows_seen++;
    if (window.weibull) {
      state.gaps = RandomStream(seed_, stream);
      state.weibull_mean = std::tgamma(1 + 1 / window.shape);
    } else {
      state.gamma = bench::ArrivalProcess({bench::ArrivalKind::kGamma, 1, window.shape}, seed_, stream);
    }
  }

  // Puts the client's next arrival into the queue.
  void Advance(uint32_t c) {
    State& state = states_[c];
    const std::vector<Window>& windows = mix_.clients[c].windows;
    for (;;) {
      const Window& window = windows[state.window];
      const double unit =
          window.weibull ? std::pow(-std::log1p(-state.gaps.Uniform()), 1 / window.shape) / state.weibull_mean
                         : state.gamma.NextGap();
      state.at += unit / window.rate_per_s;
      if (state.at < state.lap_s + static_cast<double>(window.start_s + mix_.width_s)) break;
      if (state.window + 1 == windows.size()) state.lap_s += static_cast<double>(mix_.span_s);
      EnterWindow(c, (state.window + 1) % windows.size());
    }
    due_.emplace(state.at, c);
  }

  const Mix& mix_;
  const uint64_t seed_;
  std::vector<State> states_;
  using Due = std::pair<double, uint32_t>;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due_;
};

class ServeGen final : public RowGenerator {
 public:
  Mix mix;
  std::unique_ptr<RowStream> Start(uint64_t seed) const override {
    return std::make_unique<ServeGenStream>(mix, seed);
  }
};

absl::Status ReadHistogram(const json& object, const LineReader& lines, const char* key, int32_t add,
                           Histogram* out) {
  const auto histogram = object.find(key);
  if (histogram == object.end() || !histogram->is_object() || histogram->empty()) {
    return lines.Error(absl::StrCat(key, " is not a histogram"));
  }
  std::map<int32_t, double> weights;
  for (const auto& [text, weight] : histogram->items()) {
    int64_t length = 0;
    if (!absl::SimpleAtoi(text, &length) || length < 0 || length + add > kMaxTraceTokens) {
      return lines.Error(absl::StrCat(key, ": '", text, "' is not a length in [1, ", kMaxTraceTokens, "]"));
    }
    if (!weight.is_number() || !(weight.get<double>() >= 0 && weight.get<double>() <= 1e12)) {
      return lines.Error(absl::StrCat(key, ": weight of '", text, "' is not a number >= 0"));
    }
    // A source that counts nothing for an empty answer still made its end.
    weights[std::max<int32_t>(1, static_cast<int32_t>(length) + add)] += weight.get<double>();
  }
  double sum = 0;
  for (const auto& [length, weight] : weights) {
    if (weight == 0) continue;
    out->length.push_back(length);
    out->up_to.push_back(sum += weight);
  }
  return out->length.empty() ? lines.Error(absl::StrCat(key, " has no weight")) : absl::OkStatus();
}

absl::Status ReadLengths(const std::string& path, std::map<int64_t, Client>* clients) {
  auto lines = LineReader::Open(path);
  if (!lines.ok()) return lines.status();
  for (;;) {
    auto more = lines->Next();
    if (!more.ok()) return more.status();
    if (!*more) return absl::OkStatus();
    if (lines->line().empty()) continue;
    const json object = json::parse(lines->line(), nullptr, /*allow_exceptions=*/false);
    if (!object.is_object()) return lines->Error("not a JSON object");
    for (const char* key : {"client", "start_s"}) {
      if (!object.contains(key) || !object[key].is_number_integer()) {
        return lines->Error(absl::StrCat(key, " is not an integer"));
      }
    }
    Lengths lengths;
    lengths.start_s = object["start_s"].get<int64_t>();
    // Models with several kinds of input name their text apart.
    const char* input = object.contains("input_tokens") ? "input_tokens" : "text_tokens";
    if (auto s = ReadHistogram(object, *lines, input, 0, &lengths.input); !s.ok()) return s;
    if (auto s = ReadHistogram(object, *lines, "output_tokens", 0, &lengths.output); !s.ok()) return s;
    (*clients)[object["client"].get<int64_t>()].lengths.push_back(std::move(lengths));
  }
}

absl::Status ReadRates(const std::string& path, std::map<int64_t, Client>* clients) {
  auto lines = LineReader::Open(path);
  if (!lines.ok()) return lines.status();
  for (bool header = true;; header = false) {
    auto more = lines->Next();
    if (!more.ok()) return more.status();
    if (!*more) return absl::OkStatus();
    const std::vector<absl::string_view> fields = absl::StrSplit(lines->line(), ',');
    if (header) {
      if (lines->line() == "client,start_s,rate_per_s,cv,pattern,param1,param2") continue;
      return lines->Error("header must be client,start_s,rate_per_s,cv,pattern,param1,param2");
    }
    if (lines->line().empty()) continue;
    int64_t client = 0;
    Window window;
    if (fields.size() != 7 || !absl::SimpleAtoi(fields[0], &client) ||
        !absl::SimpleAtoi(fields[1], &window.start_s) || window.start_s < 0) {
      return lines->Error("not a row of client,start_s,rate_per_s,cv,pattern,param1,param2");
    }
    if (!absl::SimpleAtod(fields[2], &window.rate_per_s) ||
        !(window.rate_per_s > 0 && window.rate_per_s < 1e9)) {
      return lines->Error(absl::StrCat("rate_per_s '", fields[2], "' is not above 0"));
    }
    if (!absl::SimpleAtod(fields[5], &window.shape) || !(window.shape > 0 && window.shape < 1e9)) {
      return lines->Error(absl::StrCat("param1 '", fields[5], "' is not a shape above 0"));
    }
    window.weibull = fields[4] == "Weibull";
    if (!window.weibull && fields[4] != "Gamma") {
      return lines->Error(absl::StrCat("pattern '", fields[4], "' is neither Gamma nor Weibull"));
    }
    if (const auto found = clients->find(client); found != clients->end()) {
      found->second.windows.push_back(window);
    }
  }
}

// ..._rates.csv -> ..._lengths.jsonl, whatever follows (.xz, .gz).
absl::StatusOr<std::string> LengthsPath(const std::string& rates) {
  constexpr absl::string_view kRates = "_rates.csv";
  const size_t at = rates.rfind(std::string(kRates));
  if (at == std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(rates, ": a servegen trace is named ..._rates.csv"));
  }
  return absl::StrCat(rates.substr(0, at), "_lengths.jsonl", rates.substr(at + kRates.size()));
}

void Summarize(ServeGen* generator) {
  double requests = 0, prompt = 0, output = 0;
  for (const Client& client : generator->mix.clients) {
    std::map<const Lengths*, std::pair<double, double>> means;
    for (const Window& window : client.windows) {
      const Lengths& lengths = client.LengthsAt(window.start_s);
      auto [mean, fresh] = means.try_emplace(&lengths);
      if (fresh) mean->second = {lengths.input.Mean(), lengths.output.Mean()};
      requests += window.rate_per_s;
      prompt += window.rate_per_s * mean->second.first;
      output += window.rate_per_s * mean->second.second;
    }
  }
  generator->rate_per_s =
      requests * static_cast<double>(generator->mix.width_s) / static_cast<double>(generator->mix.span_s);
  generator->mean_prompt = prompt / requests;
  generator->mean_output = output / requests;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RowGenerator>> LoadServeGen(const std::string& path) {
  auto lengths_path = LengthsPath(path);
  if (!lengths_path.ok()) return lengths_path.status();
  std::map<int64_t, Client> clients;
  if (auto s = ReadLengths(*lengths_path, &clients); !s.ok()) return s;
  if (auto s = ReadRates(path, &clients); !s.ok()) return s;
  auto generator = std::make_unique<ServeGen>();
  Mix& mix = generator->mix;
  int64_t width = kDay;
  for (auto& [unused, client] : clients) {
    if (client.windows.empty()) continue;
    const auto by_start = [](const auto& a, const auto& b) { return a.start_s < b.start_s; };
    std::sort(client.windows.begin(), client.windows.end(), by_start);
    std::sort(client.lengths.begin(), client.lengths.end(), by_start);
    for (size_t i = 1; i < client.windows.size(); ++i) {
      const int64_t gap = client.windows[i].start_s - client.windows[i - 1].start_s;
      if (gap > 0) width = std::min(width, gap);
    }
    mix.clients.push_back(std::move(client));
  }
  if (mix.clients.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": no client with lengths"));
  mix.width_s = width;
  for (const Client& client : mix.clients) {
    mix.span_s = std::max(mix.span_s, client.windows.back().start_s + width);
  }
  Summarize(generator.get());
  return generator;
}

}  // namespace orrery::simulate
