// What an executor answers to a plan it cannot run: the scheduler's mistake, never the client's.
#ifndef ORRERY_ENGINE_PLAN_ERROR_H_
#define ORRERY_ENGINE_PLAN_ERROR_H_

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "scheduler/types/step_plan.h"

namespace orrery {

inline absl::Status PlanError(const StepPlan& plan, absl::string_view problem) {
  return absl::InternalError(absl::StrCat("step ", Value(plan.step), ": ", problem));
}

}  // namespace orrery

#endif  // ORRERY_ENGINE_PLAN_ERROR_H_
