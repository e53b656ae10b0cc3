// A registered policy as people and programs see it (`orrery policies --json`).
#ifndef ORRERY_SCHEDULER_POLICY_POLICY_INFO_H_
#define ORRERY_SCHEDULER_POLICY_POLICY_INFO_H_

#include <string_view>
#include <vector>

#include "scheduler/base/options.h"

namespace orrery {

struct PolicyInfo {
  std::string_view kind;   // "batch", "eviction", "predictor", "route"
  std::string_view name;   // as on the command line
  std::string_view paper;  // where it comes from; empty: common knowledge
  std::string_view summary;
  std::vector<OptionInfo> options;
};

}  // namespace orrery

#endif  // ORRERY_SCHEDULER_POLICY_POLICY_INFO_H_
