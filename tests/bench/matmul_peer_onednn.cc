// oneDNN: bf16 activations times bf16 weights in the layout it likes best, f32 results.
#include <omp.h>

#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

#include "tests/bench/matmul_peer.h"

namespace orrery {
namespace {

class OneDnn : public MatMulPeer {
 public:
  OneDnn(const std::byte* source, int64_t k, int64_t n) : source_(source), k_(k), n_(n) {}

  bool Prepare(int64_t rows) override {
    using Type = dnnl::memory::data_type;
    using Tag = dnnl::memory::format_tag;
    try {
      const dnnl::memory::desc in({rows, k_}, Type::bf16, Tag::ab);
      const dnnl::memory::desc weight({k_, n_}, Type::bf16, Tag::any);
      const dnnl::memory::desc out({rows, n_}, Type::f32, Tag::ab);
      const dnnl::matmul::primitive_desc desc(dnnl::matmul::desc(in, weight, out), engine_);
      product_ = dnnl::matmul(desc);
      in_ = dnnl::memory(desc.src_desc(), engine_);
      out_ = dnnl::memory(desc.dst_desc(), engine_);
      dnnl::memory plain({{k_, n_}, Type::bf16, Tag::ba}, engine_, const_cast<std::byte*>(source_));
      weights_.clear();
      for (size_t bytes = 0; bytes < (size_t{400} << 20); bytes += desc.weights_desc().get_size()) {
        weights_.emplace_back(desc.weights_desc(), engine_);
        dnnl::reorder(plain, weights_.back()).execute(stream_, plain, weights_.back());
      }
      stream_.wait();
      return true;
    } catch (const dnnl::error&) {
      return false;
    }
  }

  void Run() override {
    product_.execute(
        stream_,
        {{DNNL_ARG_SRC, in_}, {DNNL_ARG_WEIGHTS, weights_[next_++ % weights_.size()]}, {DNNL_ARG_DST, out_}});
    stream_.wait();
  }

 private:
  const std::byte* const source_;
  const int64_t k_, n_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  dnnl::matmul product_;
  dnnl::memory in_, out_;
  std::vector<dnnl::memory> weights_;
  size_t next_ = 0;
};

}  // namespace

std::unique_ptr<MatMulPeer> MakeMatMulPeer(const std::byte* source, DType stored, DType computed, int64_t k,
                                           int64_t n, int num_threads) {
  if (stored != DType::kBF16 || computed != DType::kBF16) return nullptr;
  omp_set_num_threads(num_threads);
  return std::make_unique<OneDnn>(source, k, n);
}

}  // namespace orrery
