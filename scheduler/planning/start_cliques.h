// Cuts for the program of hindsight.h: sets of starts of which no schedule has two. Two requests that would
// overflow the capacity at the end of the first to complete exclude each other, though half of each is
// allowed by the row of that round; the cut  sum over the set <= 1  says so. Long requests, whose memory is
// mostly what they have not yet written, are where the relaxation is weak without.
#ifndef ORRERY_SCHEDULER_PLANNING_START_CLIQUES_H_
#define ORRERY_SCHEDULER_PLANNING_START_CLIQUES_H_

#include <vector>

#include "scheduler/planning/start_program.h"

namespace orrery::internal {

// Can no schedule have both?
bool Exclude(const UnitInstance& instance, const StartColumn& a, const StartColumn& b);

// Sets of columns, by index, ascending, each pair exclusive and each set as large as greed makes it, that
// `values` violates; the most violated `most` of them.
std::vector<std::vector<size_t>> ViolatedCliques(const UnitInstance& instance,
                                                 const std::vector<StartColumn>& columns,
                                                 const std::vector<double>& values, size_t most);

}  // namespace orrery::internal

#endif  // ORRERY_SCHEDULER_PLANNING_START_CLIQUES_H_
