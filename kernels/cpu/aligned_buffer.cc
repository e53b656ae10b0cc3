#include "kernels/cpu/aligned_buffer.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace orrery {

AlignedBuffer AlignedBuffer::Allocate(size_t bytes) {
  constexpr size_t kHugePage = size_t{2} << 20;
  AlignedBuffer buffer;
  if (bytes == 0) return buffer;
  const bool huge = bytes >= kHugePage;
  const std::align_val_t alignment{huge ? kHugePage : 64};
  auto* data = static_cast<std::byte*>(::operator new[](bytes, alignment, std::nothrow));
  if (data == nullptr) return buffer;
#if defined(__linux__)
  // Whole pages only: the last, partial one stays small so that no memory is held in vain.
  if (huge) madvise(data, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
  buffer.data_ = std::unique_ptr<std::byte[], Free>(data, Free{alignment});
  buffer.size_ = bytes;
  return buffer;
}

}  // namespace orrery
