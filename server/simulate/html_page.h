// The plots of simulations as one page: no scripts, no outside files.
#ifndef ORRERY_SERVER_SIMULATE_HTML_PAGE_H_
#define ORRERY_SERVER_SIMULATE_HTML_PAGE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "server/simulate/run_result.h"

namespace orrery::simulate {

// `runs` at the rate asked for: those with a recorder are drawn, all are in the table. `curve` at several
// rates (goodput against rate; may be empty).
std::string HtmlPage(absl::Span<const RunResult> runs, absl::Span<const RunResult> curve,
                     const std::string& command);

absl::Status SaveHtmlPage(const std::string& path, const std::string& page);

}  // namespace orrery::simulate

#endif  // ORRERY_SERVER_SIMULATE_HTML_PAGE_H_
