// The error for a name that is none of the known ones.
#ifndef ORRERY_SERVER_BENCH_UNKNOWN_NAME_H_
#define ORRERY_SERVER_BENCH_UNKNOWN_NAME_H_

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/config/option_table.h"

namespace orrery::bench {

// InvalidArgument "FIELD: unknown 'NAME', did you mean 'KNOWN'? (KNOWN, KNOWN, ...)".
inline absl::Status UnknownName(absl::string_view field, absl::string_view name,
                                absl::Span<const absl::string_view> known) {
  const absl::string_view nearest = NearestName(name, known);
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": unknown '", name.substr(0, 64), "'",
                   nearest.empty() ? "" : absl::StrCat(", did you mean '", nearest, "'?"), " (",
                   absl::StrJoin(known, ", "), ")"));
}

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_UNKNOWN_NAME_H_
