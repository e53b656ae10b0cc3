// The models once more, in double precision and as plainly as the papers state them, straight from
// config.json and model.safetensors: what the engine's logits and tokens are compared with. Shares no code
// with engine/ or kernels/ and is itself compared with fixtures that transformers wrote
// (fixtures/make_fixtures.py).
#ifndef ORRERY_TESTS_ENGINE_REFERENCE_MODEL_H_
#define ORRERY_TESTS_ENGINE_REFERENCE_MODEL_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace orrery::testing {

class ReferenceModel {
 public:
  // Throws std::runtime_error for what it cannot read.
  explicit ReferenceModel(const std::string& dir);

  // What the cache keeps of a key's or value's element; as it is at first.
  void set_kept(double (*kept)(double)) { kept_ = kept; }

  // A sequence under way: feed one token, get the logits [vocab] of the next.
  class Run {
   public:
    explicit Run(const ReferenceModel& model);
    std::vector<double> Feed(int32_t token);

   private:
    const ReferenceModel& model_;
    int64_t position_ = 0;
    std::vector<std::vector<double>> keys_, values_;  // per layer [positions * kv heads * head size]
  };

  // Logits at every position, concatenated.
  std::vector<double> AllLogits(const std::vector<int32_t>& tokens) const;
  std::vector<int32_t> Greedy(const std::vector<int32_t>& prompt, int count) const;
  int64_t vocab() const { return vocab_; }

 private:
  using Vector = std::vector<double>;
  const Vector& Get(const std::string& name) const { return tensors_.at(name); }
  const Vector* Find(const std::string& name) const;
  // y = W x + b, with b where the checkpoint has it.
  Vector Linear(const std::string& name, const Vector& x) const;
  Vector Norm(const Vector& x, const Vector& gain) const;
  void Rotate(double* head, int64_t position) const;
  double InverseFrequency(int64_t j) const;

  std::map<std::string, Vector> tensors_;
  int64_t layers_, hidden_, heads_, kv_heads_, dim_, vocab_;
  double eps_, theta_;
  bool tied_, qk_norm_;
  double (*kept_)(double) = [](double x) { return x; };
  std::string rope_type_ = "default";
  double factor_ = 1, low_ = 1, high_ = 4, original_ = 8192;
};

}  // namespace orrery::testing

#endif  // ORRERY_TESTS_ENGINE_REFERENCE_MODEL_H_
