// The bytes behind block ids: one allocation made at start, [block][layer][backend's block layout], so that
// a block with all its layers is one contiguous piece (copying, offloading, sending). Pages become resident
// when a block is first written; which block belongs to whom is the scheduler's business.
#ifndef ORRERY_ENGINE_KV_POOL_H_
#define ORRERY_ENGINE_KV_POOL_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/backend.h"
#include "scheduler/base/ids.h"

namespace orrery {

class KvPool {
 public:
  static absl::StatusOr<KvPool> Create(Backend& backend, const AttentionSpec& spec, int64_t num_layers,
                                       int64_t num_blocks) {
    const int64_t layer_bytes = backend.KvBlockBytes(spec);
    KvPool pool;
    pool.block_bytes_ = layer_bytes * num_layers;
    pool.num_blocks_ = num_blocks;
    absl::StatusOr<std::unique_ptr<Buffer>> buffer =
        backend.Allocate(static_cast<size_t>(pool.block_bytes_) * static_cast<size_t>(num_blocks));
    if (!buffer.ok()) return buffer.status();
    pool.buffer_ = *std::move(buffer);
    for (int64_t i = 0; i < num_layers; ++i) {
      pool.layers_.push_back({.base = pool.base() + i * layer_bytes, .block_stride = pool.block_bytes_});
    }
    return pool;
  }

  absl::Span<const KvLayer> layers() const { return layers_; }
  std::byte* block(BlockId id) const { return base() + Value(id) * block_bytes_; }
  int64_t block_bytes() const { return block_bytes_; }  // of all layers
  int64_t num_blocks() const { return num_blocks_; }

 private:
  std::byte* base() const { return static_cast<std::byte*>(buffer_->data()); }

  std::unique_ptr<Buffer> buffer_;
  std::vector<KvLayer> layers_;
  int64_t block_bytes_ = 0;
  int64_t num_blocks_ = 0;
};

}  // namespace orrery

#endif  // ORRERY_ENGINE_KV_POOL_H_
