#include "scheduler/base/hash.h"
#include "scheduler/journal.h"

namespace orrery {
namespace {

template <typename Id>
uint64_t Word(Id id) {
  return static_cast<uint64_t>(id);
}

}  // namespace

uint64_t PlanDigest(const StepPlan& plan) {
  SipHash13 hash(0, 0);
  hash.Add(Word(plan.step));
  hash.Add(plan.group_step);
  hash.Add(plan.expert_map_epoch);
  hash.Add(Word(plan.graph_size));
  hash.Add(plan.participate_only);
  hash.Add(plan.admitted.size());
  for (const AdmittedSequence& admitted : plan.admitted) {
    hash.Add(Word(admitted.sequence));
    hash.Add(admitted.slot);
    hash.Add(Word(admitted.submit->key.request));
    hash.Add((uint64_t{admitted.submit->key.sample} << 32) | admitted.submit->key.attempt);
  }
  hash.Add(plan.slices.size());
  for (const Slice& slice : plan.slices) {
    hash.Add(Word(slice.sequence));
    hash.Add(slice.slot);
    hash.Add((Word(slice.begin) << 32) | Word(slice.count));
    hash.Add((Word(slice.output_index) << 8) | (Word(slice.input) << 1) | Word(slice.sample));
    hash.Add(Word(slice.num_scored));
  }
  hash.Add(plan.blocks.size());
  for (const BlockId block : plan.blocks) hash.Add(Word(block));
  for (const int32_t begin : plan.block_begin) hash.Add(Word(begin));
  hash.Add(plan.preempted.size());
  for (const SequenceId sequence : plan.preempted) hash.Add(Word(sequence));
  hash.Add(plan.released_slots.size());
  for (const uint32_t slot : plan.released_slots) hash.Add(slot);
  hash.Add(plan.copies.size());
  for (const BlockCopy& copy : plan.copies) hash.Add((Word(copy.from) << 32) | Word(copy.to));
  for (const auto* transfers : {&plan.kv_loads, &plan.kv_sends}) {
    hash.Add(transfers->size());
    for (const KvTransferOp& op : *transfers) {
      hash.Add(Word(op.transfer));
      hash.Add(Word(op.sequence));
      hash.Add(Word(op.peer));
      hash.Add((Word(op.begin_token) << 32) | Word(op.num_tokens));
    }
  }
  hash.Add(plan.expert_moves.size());
  for (const ExpertMove& move : plan.expert_moves) {
    hash.Add((Word(move.layer) << 32) | Word(move.to));
    hash.Add(Word(move.expert));
  }
  hash.Add((Word(plan.num_tokens) << 32) | Word(plan.num_samples));
  hash.Add(Word(plan.num_scoring));
  return hash.Finish().low;
}

}  // namespace orrery
