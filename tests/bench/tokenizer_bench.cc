// Speed of the tokenizer on one core: loading, encoding of ordinary and of hostile texts, streaming back to
// text. Medians of several runs.
//
//   tokenizer_bench [--mb N] [--runs N] [--tokenizer FOLDER]...     needs the shared data (ORRERY_SHARED)

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "scheduler/base/random.h"
#include "server/text/detokenizer.h"
#include "server/text/tokenizer.h"
#include "server/text/utf8.h"
#include "tests/server/text/test_data.h"

namespace orrery {
namespace {

struct Options {
  size_t bytes = size_t{1} << 20;
  int runs = 5;
  std::vector<std::string> folders;
};

// Processor time of this thread: what other programs take of the machine is left out.
double ThreadSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

double MedianSeconds(int runs, const std::function<void()>& work) {
  std::vector<double> seconds;
  for (int i = 0; i < runs; ++i) {
    const double start = ThreadSeconds();
    work();
    seconds.push_back(ThreadSeconds() - start);
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

std::string Repeat(const std::string& unit, size_t bytes) {
  std::string text;
  while (text.size() + unit.size() <= bytes) text += unit;
  return text;
}

struct NamedText {
  const char* name;
  std::string text;
};

std::vector<NamedText> Texts(const std::string& sonnets, size_t bytes) {
  RandomStream random(1);
  std::string letters, ideographs, marks = "a";
  while (letters.size() < bytes) letters += static_cast<char>('a' + random.Below(26));
  while (ideographs.size() + 3 <= bytes)
    AppendUtf8(static_cast<uint32_t>(0x4E00 + random.Below(3000)), &ideographs);
  while (marks.size() + 4 <= bytes) marks += "\u0301\u0323";
  std::string no_spaces = Repeat(sonnets, bytes);
  std::erase_if(no_spaces, [](char c) { return c == ' ' || c == '\n'; });
  return {{"sonnets", Repeat(sonnets, bytes)},     {"sonnets, no spaces", no_spaces},
          {"random ideographs", ideographs},       {"random letters, one word", letters},
          {"one letter", std::string(bytes, 'a')}, {"spaces", std::string(bytes, ' ')},
          {"newlines", std::string(bytes, '\n')},  {"combining marks", marks}};
}

void Measure(const std::string& name, const std::string& json, const std::vector<NamedText>& texts,
             const Options& options) {
  absl::StatusOr<std::unique_ptr<const Tokenizer>> loaded;
  const double load = MedianSeconds(options.runs, [&] { loaded = Tokenizer::Parse({json, "", ""}); });
  if (!loaded.ok()) {
    std::printf("%s: %s\n", name.c_str(), loaded.status().ToString().c_str());
    return;
  }
  const Tokenizer& tokenizer = **loaded;
  std::printf("%s: %d ids, load %.3f s (%.1f MB of JSON)\n", name.c_str(), tokenizer.vocab_size(), load,
              static_cast<double>(json.size()) / 1e6);
  for (const NamedText& item : texts) {
    std::vector<TokenId> ids;
    const double encode = MedianSeconds(options.runs, [&] {
      ids = tokenizer.Encode(item.text, {.add_special = false, .max_bytes = item.text.size()}).value();
    });
    std::string text;
    const double stream = MedianSeconds(options.runs, [&] {
      text.clear();
      Detokenizer detokenizer(&tokenizer);
      for (const TokenId id : ids) detokenizer.Append(id, &text);
      detokenizer.Finish(&text);
    });
    const double megabytes = static_cast<double>(item.text.size()) / 1e6,
                 tokens = static_cast<double>(ids.size());
    std::printf("  %-26s encode %8.1f MB/s %7.2f Mtok/s   stream %7.1f ns/token   %.2f bytes/token\n",
                item.name, megabytes / encode, tokens / encode / 1e6, stream / tokens * 1e9,
                static_cast<double>(item.text.size()) / tokens);
  }
}

int Run(const Options& options) {
  const auto data = SharedData();
  if (!data.has_value()) {
    std::printf("shared data not found\n");
    return 2;
  }
  const auto sonnets = ReadMaybeXz(*data / "prompts" / "sonnet.txt");
  if (!sonnets.has_value()) return 2;
  const std::vector<NamedText> texts = Texts(*sonnets, options.bytes);
  for (const std::string& folder : options.folders) {
    const auto json = ReadMaybeXz(*data / "tokenizers" / folder / "tokenizer.json.xz");
    if (json.has_value()) Measure(folder, *json, texts, options);
  }
  return 0;
}

}  // namespace
}  // namespace orrery

int main(int argc, char** argv) {
  orrery::Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--mb") == 0)
      options.bytes = static_cast<size_t>(std::atof(argv[i + 1]) * (1 << 20));
    if (std::strcmp(argv[i], "--runs") == 0) options.runs = std::max(1, std::atoi(argv[i + 1]));
    if (std::strcmp(argv[i], "--tokenizer") == 0) options.folders.push_back(argv[i + 1]);
  }
  if (options.folders.empty()) options.folders = {"gpt2", "qwen2", "phi-3"};
  return orrery::Run(options);
}
