// The logits that an engine gives to the tokens of a file, for tests/gpu/parity.py: of the last prompt token
// and of every token after it, each fed to a step of its own whatever the engine would have chosen.
//
//   gpu_engine_logits MODEL_DIR TOKENS OUT cpu|cuda [--prompt N] [--chunk N] [--batch N] [--invariant on|off]
//                     [--dtype bf16|f16] [--cache DIR]
//
// TOKENS: ids, separated by blanks. --prompt: how many of them are the prompt (all). --chunk: most tokens of
// a prefill step. --batch: as many sequences run side by side, of different prompts, the file's last among
// them. --cache: where matrix product algorithms are kept for the next run (orrery-gemm in the folder for
// temporary files). OUT: f32 [tokens - prompt + 1, vocab] in the machine's byte order.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/cpu_engine.h"
#include "engine/cuda_engine.h"
#include "tests/engine/plan_driver.h"

namespace orrery {
namespace {

using testing::PlanDriver;

struct Arguments {
  std::string model, tokens, out, cache = std::filesystem::temp_directory_path() / "orrery-gemm";
  bool cuda = true, invariant = false;
  DType dtype = DType::kBF16;
  int prompt = 0, chunk = 1 << 20, batch = 1;
};

[[noreturn]] void Fail(const std::string& message) {
  std::fprintf(stderr, "gpu_engine_logits: %s\n", message.c_str());
  std::exit(1);
}
void Check(const absl::Status& status) {
  if (!status.ok()) Fail(status.ToString());
}

Arguments Parse(int argc, char** argv) {
  if (argc < 5 || argc % 2 == 0)
    Fail(
        "MODEL_DIR TOKENS OUT cpu|cuda [--prompt N] [--chunk N] [--batch N] [--invariant on|off] "
        "[--dtype bf16|f16] [--cache DIR]");
  Arguments arguments{
      .model = argv[1], .tokens = argv[2], .out = argv[3], .cuda = std::strcmp(argv[4], "cuda") == 0};
  for (int i = 5; i < argc; i += 2) {
    const std::string flag = argv[i], value = argv[i + 1];
    if (flag == "--prompt") {
      arguments.prompt = std::atoi(value.c_str());
    } else if (flag == "--chunk") {
      arguments.chunk = std::max(1, std::atoi(value.c_str()));
    } else if (flag == "--batch") {
      arguments.batch = std::clamp(std::atoi(value.c_str()), 1, 256);
    } else if (flag == "--invariant") {
      arguments.invariant = value == "on";
    } else if (flag == "--cache") {
      arguments.cache = value;
    } else if (flag == "--dtype") {
      arguments.dtype = value == "f16" ? DType::kF16 : DType::kBF16;
    } else {
      Fail("unknown flag " + flag);
    }
  }
  return arguments;
}

class Sequences {
 public:
  Sequences(ModelExecutor& engine, const Arguments& arguments, const std::vector<TokenId>& tokens)
      : driver_(engine),
        chunk_(std::min(arguments.chunk, engine.limits().max_step_tokens)),
        tokens_(tokens),
        prompt_(arguments.prompt) {
    for (int i = 0; i < arguments.batch; ++i) {
      Sequence sequence;
      // The others begin later in the text, and so are shorter and say something else.
      sequence.begin = std::min<size_t>(static_cast<size_t>(arguments.batch - 1 - i) * 3 % 61,
                                        static_cast<size_t>(prompt_ - 1));
      sequence.handle = Add(sequence.begin, 0);
      sequences_.push_back(sequence);
    }
  }

  // The step behind which the observer sees a row per sequence, the file's last.
  void Prefill() {
    bool more = true;
    while (more) {
      std::vector<std::pair<int, int32_t>> work;
      int32_t budget = chunk_;
      more = false;
      for (const Sequence& sequence : sequences_) {
        const auto& state = driver_.sequence(sequence.handle);
        // All but the last token first: so that everybody's logits come in one step.
        const int32_t left = state.num_tokens() - 1 - state.computed;
        const int32_t count = std::min(left, budget);
        if (count > 0) work.emplace_back(sequence.handle, count), budget -= count;
        more |= left > count;
      }
      if (!work.empty()) Check(driver_.Step(work));
    }
    Sample();
  }
  // Goes on with the t-th token behind the prompt.
  void Force(int t) {
    for (Sequence& sequence : sequences_) {
      const int next = Add(sequence.begin, t);
      auto& from = driver_.sequence(sequence.handle);
      auto& to = driver_.sequence(next);
      to.blocks = std::exchange(from.blocks, {});
      to.computed = to.num_tokens() - 1;
      released_.push_back(sequence.handle);
      sequence.handle = next;
    }
    for (int handle : std::exchange(released_, {})) driver_.Release(handle);
    Sample();
  }

 private:
  struct Sequence {
    size_t begin = 0;
    int handle = 0;
  };
  int Add(size_t begin, int emitted) {
    return driver_.Add(
        {tokens_.begin() + static_cast<std::ptrdiff_t>(begin), tokens_.begin() + prompt_ + emitted}, 1 << 20,
        testing::Greedy(), {}, emitted);
  }
  void Sample() {
    std::vector<std::pair<int, int32_t>> work;
    for (const Sequence& sequence : sequences_) work.emplace_back(sequence.handle, 1);
    Check(driver_.Step(work));
  }

  PlanDriver driver_;
  const int32_t chunk_;
  const std::vector<TokenId>& tokens_;
  const int prompt_;
  std::vector<Sequence> sequences_;
  std::vector<int> released_;
};

int Run(int argc, char** argv) {
  Arguments arguments = Parse(argc, argv);
  std::ifstream in(arguments.tokens);
  const std::vector<TokenId> tokens{std::istream_iterator<TokenId>(in), {}};
  if (tokens.size() < 2) Fail(arguments.tokens + " holds fewer than two ids");
  if (arguments.prompt <= 0) arguments.prompt = static_cast<int>(tokens.size());
  if (arguments.prompt < 2 || arguments.prompt > static_cast<int>(tokens.size()))
    Fail("--prompt is not in 2..tokens");

  EngineOptions options;
  options.model_dir = arguments.model;
  options.dtype = arguments.dtype;
  options.cache_dir = arguments.cache;
  options.kv_dtype = DType::kBF16;
  options.max_num_seqs =
      2 * arguments.batch;  // a forced token's sequence is there before its predecessor goes
  options.kv_cache_tokens = static_cast<int64_t>(tokens.size() + 32) * arguments.batch;
  options.batch_invariant = arguments.invariant;
  absl::StatusOr<LoadedEngines> engines =
      arguments.cuda ? LoadCudaEngines(options, OpenCudaDevice) : LoadCpuEngines(options);
  if (!engines.ok()) Fail(engines.status().ToString());
  ModelExecutor& engine = *engines->executors.front();

  std::ofstream out(arguments.out, std::ios::binary);
  std::vector<float> row;
  engine.set_logits_observer([&](const Tensor& logits) {
    // The last row of the step's last group is the file's sequence.
    row.resize(static_cast<size_t>(logits.cols));
    const Tensor last = logits.Slice(logits.rows - 1, 1);
    if (!arguments.cuda) {
      std::memcpy(row.data(), last.data, last.bytes());
    } else if (cudaMemcpy(row.data(), last.data, last.bytes(), cudaMemcpyDeviceToHost) != cudaSuccess) {
      Fail("download of logits");
    }
  });
  const auto write = [&] {
    out.write(reinterpret_cast<const char*>(row.data()),
              static_cast<std::streamsize>(row.size() * sizeof(float)));
  };
  Sequences sequences(engine, arguments, tokens);
  sequences.Prefill();
  write();
  for (int t = 1; t <= static_cast<int>(tokens.size()) - arguments.prompt; ++t) {
    sequences.Force(t);
    write();
  }
  return out.flush() ? 0 : 1;
}

}  // namespace
}  // namespace orrery

int main(int argc, char** argv) { return orrery::Run(argc, argv); }
