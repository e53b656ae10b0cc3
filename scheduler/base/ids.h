// Strong ids: a row is never a column. Dense where an array is indexed by them.
#ifndef ORRERY_SCHEDULER_BASE_IDS_H_
#define ORRERY_SCHEDULER_BASE_IDS_H_

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace orrery {

// One generation request in this process (the client's own request_id is a string kept at the edge).
enum class RequestId : uint64_t {};
// What a server asks of its own engine before it is ready; clients' requests count from 1.
inline constexpr RequestId kWarmUpRequest{0};
// One sequence inside one worker: a (request, sample index, attempt) that the worker accepted. Never reused.
enum class SequenceId : uint64_t {};
enum class WorkerId : uint32_t {};
enum class GroupId : uint32_t {};
enum class StepId : uint64_t {};
// A block of the worker's KV pool, [0, num_blocks).
enum class BlockId : int32_t {};
enum class TransferId : uint64_t {};
enum class PlanId : uint64_t {};
enum class ExpertId : int32_t {};
enum class LayerId : int32_t {};
enum class SlotId : int32_t {};
using TokenId = int32_t;

template <typename Id>
constexpr auto Value(Id id) {
  return static_cast<std::underlying_type_t<Id>>(id);
}

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_BASE_IDS_H_
