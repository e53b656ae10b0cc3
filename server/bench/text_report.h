// The table that `orrery bench` prints for people.
#ifndef ORRERY_SERVER_BENCH_TEXT_REPORT_H_
#define ORRERY_SERVER_BENCH_TEXT_REPORT_H_

#include <string>

#include "server/bench/load_driver.h"
#include "server/bench/measurement.h"

namespace orrery::bench {

// Several lines, ending in a newline.
std::string TextReport(const Measurement& block);

// One line without a newline, at most 110 columns.
std::string ProgressLine(const DriverProgress& progress, int64_t total);

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_TEXT_REPORT_H_
