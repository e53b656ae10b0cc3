#include "server/cost/kernel_profile.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "scheduler/base/text.h"
#include "server/cost/kernel_tables.h"
#include "server/cost/model_shape.h"

namespace orrery {
namespace {

constexpr double kLaunchMs = 0.002;
constexpr int32_t kSmallKernels = 5;
constexpr double kActivationBytes = 2;  // bfloat16, whatever the weights are
constexpr std::pair<std::string_view, double> kMemoryBytes[] = {
    {"a100", 80e9}, {"h100", 80e9}, {"h200", 141e9}};

struct Wanted {
  std::string gpu, weights, kv = "bfloat16";
  ModelShape model;
  int32_t ranks = 0;

  int32_t heads() const { return model.heads / ranks; }  // of a rank
  int32_t kv_heads() const { return std::max(1, model.kv_heads / ranks); }
};

// Bytes of an element, by the number of bits in the name of its type; what names none has eight.
double BytesOf(std::string_view type) {
  if (type.find("16") != std::string_view::npos) return 2;
  return type.find('4') != std::string_view::npos ? 0.5 : 1;
}

absl::StatusOr<Wanted> ParseWanted(const std::string& name) {
  const std::vector<std::string_view> parts = Split(name, '/');
  if (parts.size() != 4 && parts.size() != 5) {
    return absl::InvalidArgumentError(Cat("'", name, "' is not of the form GPU/MODEL/tpN/WEIGHTS[/KV]"));
  }
  Wanted wanted;
  wanted.gpu = std::string(parts[0]);
  wanted.weights = std::string(parts[3]);
  if (parts.size() == 5) wanted.kv = std::string(parts[4]);
  const auto ranks = parts[2].substr(0, 2) == "tp" ? ParseNumber<int32_t>(parts[2].substr(2)) : std::nullopt;
  if (!ranks || *ranks < 1 || *ranks > 1024) {
    return absl::InvalidArgumentError(Cat("'", parts[2], "' is not tp1 to tp1024"));
  }
  wanted.ranks = *ranks;
  auto model = ParseModelShape(std::string(parts[1]));
  if (!model.ok()) return model.status();
  wanted.model = *model;
  if (absl::Status status = wanted.model.CheckRanks(wanted.ranks); !status.ok()) return status;
  return wanted;
}

// Times that fall with size are noise: neighbours out of order get their mean, until none are.
void Pool(CostCurve* curve) {
  std::vector<std::pair<double, size_t>> groups;  // mean, points
  for (const double y : curve->y) {
    groups.emplace_back(y, 1);
    while (groups.size() > 1 && groups[groups.size() - 2].first > groups.back().first) {
      const auto [mean, count] = groups.back();
      groups.pop_back();
      auto& [joint, points] = groups.back();
      joint = (joint * static_cast<double>(points) + mean * static_cast<double>(count)) /
              static_cast<double>(points + count);
      points += count;
    }
  }
  curve->y.clear();
  for (const auto& [mean, points] : groups) curve->y.insert(curve->y.end(), points, mean);
}

class Products {
 public:
  explicit Products(const KernelTimes& times) {
    for (const auto& [key, ms] : times) {
      const auto [n, k, m] = key;
      if (m > 1 && std::fmod(m, 2) != 0) continue;
      CostCurve& curve = curves_[{n, k}];
      curve.x.push_back(m);
      curve.y.push_back(ms);
      n_.insert(n);
      k_.insert(k);
    }
  }

  // m -> ms of [m x k] [k x n].
  absl::StatusOr<CostCurve> Of(double n, double k) const {
    if (curves_.empty()) return absl::InvalidArgumentError("nothing was measured at an even m");
    CostCurve sum;
    for (const auto& [near_n, share_n] : Beside(n_, n)) {
      for (const auto& [near_k, share_k] : Beside(k_, k)) {
        const auto found = curves_.find({near_n, near_k});
        if (found == curves_.end()) {
          return absl::InvalidArgumentError(
              Cat("n ", near_n, " with k ", near_k, " was not measured, for n ", n, ", k ", k));
        }
        if (sum.x.empty()) sum = {found->second.x, std::vector<double>(found->second.x.size())};
        for (size_t i = 0; i < sum.x.size(); ++i) {
          sum.y[i] += share_n * share_k * CurveAt(found->second, sum.x[i]);
        }
      }
    }
    return sum;
  }

  // Weights per ms of the largest product with the fewest rows.
  double rate() const {
    double most = 0, rate = 0;
    for (const auto& [size, curve] : curves_) {
      const double weights = size.first * size.second;
      if (weights > most) most = weights, rate = weights / curve.y.front();
    }
    return rate;
  }

 private:
  // Measured sizes next to `size` and their shares.
  static std::vector<std::pair<double, double>> Beside(const std::set<double>& sizes, double size) {
    const auto above = sizes.lower_bound(size);
    if (above == sizes.end()) return {{*sizes.rbegin(), size / *sizes.rbegin()}};
    if (above == sizes.begin() || *above == size) return {{*above, 1}};
    const double low = *std::prev(above), share = (size - low) / (*above - low);
    return {{low, 1 - share}, {*above, share}};
  }

  std::map<std::pair<double, double>, CostCurve> curves_;  // by n, k
  std::set<double> n_, k_;
};

// The tables of one GPU, put together for one model.
class Composer {
 public:
  Composer(const Wanted& wanted, std::map<std::string, std::string> files)
      : wanted_(wanted), model_(wanted.model), files_(std::move(files)) {}

  absl::StatusOr<CostTable> Compose() const {
    const auto times = Read("gemm", {{"gemm_dtype", wanted_.weights}}, {"n", "k", "m"});
    if (!times.ok()) return times.status();
    const Products products(*times);
    auto head = Multiply(products, std::ceil(double{1} * model_.vocab / wanted_.ranks), model_.hidden);
    if (!head.ok()) return head.status();
    Pool(&*head);
    CostTable table;
    if (absl::Status status = AddProducts(products, &table.tokens); !status.ok()) return status;
    if (absl::Status status = AddReductions(&table.tokens); !status.ok()) return status;
    AddSmallKernels(products.rate(), &table.tokens);
    Pool(&table.tokens);
    for (double& ms : table.tokens.y) ms += head->y.front();
    if (absl::Status status = AddAttention(*head, &table); !status.ok()) return status;
    return table;
  }

 private:
  absl::StatusOr<KernelTimes> Read(const std::string& table, const std::vector<KernelFilter>& filters,
                                   const std::vector<std::string_view>& keys) const {
    const auto path = files_.find(table);
    if (path != files_.end()) return ReadKernelTimes(path->second, filters, keys);
    return absl::InvalidArgumentError(Cat("no table ", table, " beside ", files_.at("gemm")));
  }

  absl::StatusOr<CostCurve> Multiply(const Products& products, double n, double k) const {
    auto curve = products.Of(n, k);
    if (curve.ok()) return curve;
    return absl::InvalidArgumentError(Cat(files_.at("gemm"), ": ", std::string(curve.status().message())));
  }

  absl::Status AddProducts(const Products& products, CostCurve* tokens) const {
    const double hidden = model_.hidden, inner = model_.intermediate / wanted_.ranks;
    const double query = wanted_.heads() * model_.head_dim, kv = wanted_.kv_heads() * model_.head_dim;
    for (const auto& [n, k] : {std::pair(query + 2 * kv, hidden), std::pair(hidden, query),
                               std::pair(2 * inner, hidden), std::pair(hidden, inner)}) {
      const auto product = Multiply(products, n, k);
      if (!product.ok()) return product.status();
      if (tokens->x.empty()) *tokens = {product->x, std::vector<double>(product->x.size())};
      for (size_t i = 0; i < tokens->x.size(); ++i) {
        tokens->y[i] += model_.layers * CurveAt(*product, tokens->x[i]);
      }
    }
    return absl::OkStatus();
  }

  void AddSmallKernels(double weights_per_ms, CostCurve* tokens) const {
    const double norms = 2 * 4 * model_.hidden;  // each reads and writes activations and residual
    const double rotation = 2 * (wanted_.heads() + wanted_.kv_heads()) * model_.head_dim;
    const double kv_write = 4 * wanted_.kv_heads() * model_.head_dim;
    const double activation = 3 * (model_.intermediate / wanted_.ranks);
    const double token_ms = (norms + rotation + kv_write + activation) * kActivationBytes /
                            (weights_per_ms * BytesOf(wanted_.weights));
    for (size_t i = 0; i < tokens->x.size(); ++i) {
      tokens->y[i] += model_.layers * (kSmallKernels * kLaunchMs + token_ms * tokens->x[i]);
    }
  }

  absl::Status AddReductions(CostCurve* tokens) const {
    if (wanted_.ranks == 1) return absl::OkStatus();
    const auto times = Read("custom_allreduce", {{"num_gpus", Cat(wanted_.ranks)}}, {"message_size"});
    if (!times.ok()) return times.status();
    CostCurve curve;
    for (const auto& [key, ms] : *times) curve.x.push_back(key[0]), curve.y.push_back(ms);
    for (size_t i = 0; i < tokens->x.size(); ++i) {
      const double elements = tokens->x[i] * model_.hidden;
      tokens->y[i] += 2 * model_.layers * CurveAt(curve, std::max(elements, curve.x.front()));
    }
    return absl::OkStatus();
  }

  absl::Status AddAttention(const CostCurve& head, CostTable* table) const {
    std::vector<KernelFilter> filters = {{"num_heads", Cat(wanted_.heads())},
                                         {"num_key_value_heads", Cat(wanted_.kv_heads())},
                                         {"head_dim", Cat(model_.head_dim)},
                                         {"kv_cache_dtype", wanted_.kv},
                                         {"window_size?", "0"}};
    const auto decodes = Read("generation_attention", filters, {"batch_size", "step"});
    if (!decodes.ok()) return decodes.status();
    filters.push_back({"batch_size", "1"});
    const auto prefills = Read("context_attention", filters, {"isl"});
    if (!prefills.ok()) return prefills.status();
    for (const auto& [key, ms] : *prefills) {
      table->prefill.x.push_back(key[0] * key[0]);
      table->prefill.y.push_back(model_.layers * ms);
    }
    Pool(&table->prefill);
    for (const auto& [key, ms] : *decodes) {
      if (table->decode_seqs.empty() || table->decode_seqs.back() != key[0]) {
        table->decode_seqs.push_back(key[0]);
        table->decode.emplace_back();
      }
      table->decode.back().x.push_back(key[1] + 1);  // cached tokens and the new one
      table->decode.back().y.push_back(model_.layers * ms);
    }
    for (size_t i = 0; i < table->decode.size(); ++i) {
      Pool(&table->decode[i]);
      const double more_heads =
          CurveAt(head, std::max(table->decode_seqs[i], head.x.front())) - head.y.front();
      CostCurve& curve = table->decode[i];
      for (size_t j = 0; j < curve.x.size(); ++j) {
        curve.y[j] += more_heads;
        if (i > 0) curve.y[j] = std::max(curve.y[j], CurveAt(table->decode[i - 1], curve.x[j]));
      }
    }
    return absl::OkStatus();
  }

  const Wanted& wanted_;
  const ModelShape& model_;
  std::map<std::string, std::string> files_;
};

// 0 where the memory is not known.
absl::StatusOr<int64_t> KvCapacity(const Wanted& wanted) {
  const double token = double{2} * wanted.kv_heads() * wanted.ranks * wanted.model.head_dim *
                       wanted.model.layers * BytesOf(wanted.kv);
  const double weights = wanted.model.parameters() * BytesOf(wanted.weights);
  for (const auto& [gpu, bytes] : kMemoryBytes) {
    if (gpu != wanted.gpu) continue;
    const double room = 0.9 * bytes * wanted.ranks;
    if (room > weights + token) return static_cast<int64_t>((room - weights) / token);
    return absl::InvalidArgumentError(Cat("weights of ", std::round(weights / 1e9),
                                          " GB do not fit into 90 % of ", wanted.ranks, " x ", bytes / 1e9,
                                          " GB"));
  }
  return 0;
}

}  // namespace

absl::StatusOr<KernelProfile> LoadKernelProfile(const std::string& folder, const std::string& name) {
  const auto wanted = ParseWanted(name);
  if (!wanted.ok()) return wanted.status();
  const auto capacity = KvCapacity(*wanted);
  if (!capacity.ok()) return capacity.status();
  auto files = FindKernelTables(folder, wanted->gpu);
  if (!files.ok()) return files.status();
  auto table = Composer(*wanted, *std::move(files)).Compose();
  if (!table.ok()) return table.status();
  if (absl::Status status = CheckTable(*table); !status.ok()) {
    return absl::InvalidArgumentError(Cat(folder, "#", name, ": ", std::string(status.message())));
  }
  return KernelProfile{.table = *std::move(table), .kv_capacity_tokens = *capacity};
}

}  // namespace orrery
