// A generation request after validation: every default filled in, every value in its range, the prompt as
// ids.
#ifndef ORRERY_SERVER_DELIVERY_GENERATION_SPEC_H_
#define ORRERY_SERVER_DELIVERY_GENERATION_SPEC_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "scheduler/base/time.h"
#include "scheduler/types/request.h"
#include "scheduler/types/sampling.h"
#include "server/text/stop_matcher.h"

namespace orrery {

struct GenerationSpec {
  std::string request_id;
  std::shared_ptr<const std::vector<TokenId>> prompt;  // never empty
  Sampling sampling;                                   // seed of choice 0
  StopRules stop;
  std::shared_ptr<const StopStrings> stop_strings;  // null: none
  bool include_stop = false;                        // the matched stop string stays in the text
  bool skip_special = true;
  bool ignore_eos = false;
  bool echo_prompt = false;
  uint32_t num_choices = 1;
  std::vector<TokenId> client_stop_ids;  // of stop.stop_ids, those that the client named
  uint32_t truncate_prompt = 0;          // sampling.truncate_prompt_tokens; 0: not asked for
  Slo slo;
  std::string slo_class;                     // a label for metrics
  Duration deadline = Duration::Infinite();  // from arrival
  int32_t priority = 0;
  uint32_t tenant = 0;
  uint32_t application = 0;  // 0: none was named
  uint64_t routing_key = 0;  // of the session, else of the application, else of the tenant; 0: none was named
  uint64_t cache_salt = 0;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_DELIVERY_GENERATION_SPEC_H_
