// The report of a load test as one page: no scripts, no outside files, light or dark as the reader prefers.
#ifndef ORRERY_SERVER_BENCH_HTML_REPORT_H_
#define ORRERY_SERVER_BENCH_HTML_REPORT_H_

#include <string>

#include "absl/status/status.h"
#include "server/bench/result_json.h"

namespace orrery::bench {

// The head of a page in the house style, up to and with <body>.
std::string HtmlHead(const std::string& title);

std::string HtmlReport(const RunResult& result);

absl::Status SaveHtmlReport(const std::string& path, const RunResult& result);

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_HTML_REPORT_H_
