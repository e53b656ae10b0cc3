// Where workers may be found, as of now: a static list, what a DNS name resolves to, later the leases of a
// registry. Membership says only who may be there; whether they are, the streams to them say.
#ifndef ORRERY_SERVER_LINK_MEMBERSHIP_H_
#define ORRERY_SERVER_LINK_MEMBERSHIP_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace orrery {

class Membership {
 public:
  virtual ~Membership() = default;
  // HOST:PORT of each worker process, ascending, each once. On one thread; may take seconds. What cannot be
  // looked up just now is as it was.
  virtual std::vector<std::string> Resolve() = 0;
};

// Every address of `static_addresses` and those of the names, NAME:PORT, together. INVALID_ARGUMENT: an
// address twice, or one without a port; the message names the option.
absl::StatusOr<std::unique_ptr<Membership>> NewMembership(const std::vector<std::string>& static_addresses,
                                                          const std::vector<std::string>& dns_names);

}  // namespace orrery

#endif  // ORRERY_SERVER_LINK_MEMBERSHIP_H_
