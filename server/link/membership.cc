#include "server/link/membership.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace orrery {
namespace {

struct HostPort {
  std::string host, port;
};

absl::StatusOr<HostPort> Split(std::string_view option, const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  if (colon == std::string::npos || colon == 0 || !absl::SimpleAtoi(address.substr(colon + 1), &port) ||
      port < 1 || port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat("--", std::string(option), ": '", address,
                                                   "' is not HOST:PORT with a port from 1 to 65535"));
  }
  return HostPort{address.substr(0, colon), address.substr(colon + 1)};
}

class StaticAndDns final : public Membership {
 public:
  StaticAndDns(std::set<std::string> fixed, std::vector<HostPort> names)
      : fixed_(std::move(fixed)), names_(std::move(names)) {}

  absl::StatusOr<std::vector<std::string>> Resolve() override {
    std::set<std::string> all = fixed_;
    for (const HostPort& name : names_) {
      if (absl::Status status = Lookup(name, &all); !status.ok()) return status;
    }
    return std::vector<std::string>(all.begin(), all.end());
  }

 private:
  static absl::Status Lookup(const HostPort& name, std::set<std::string>* all) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    const int error = getaddrinfo(name.host.c_str(), nullptr, &hints, &found);
    if (error == EAI_NONAME) return absl::OkStatus();  // a name that stands for nobody right now
    if (error != 0) {
      return absl::UnavailableError(absl::StrCat("cannot resolve ", name.host, ": ", gai_strerror(error)));
    }
    for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
      char text[NI_MAXHOST];
      if (getnameinfo(entry->ai_addr, entry->ai_addrlen, text, sizeof text, nullptr, 0, NI_NUMERICHOST) != 0)
        continue;
      const bool v6 = entry->ai_family == AF_INET6;
      all->insert(v6 ? absl::StrCat("[", text, "]:", name.port) : absl::StrCat(text, ":", name.port));
    }
    freeaddrinfo(found);
    return absl::OkStatus();
  }

  const std::set<std::string> fixed_;
  const std::vector<HostPort> names_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Membership>> NewMembership(const std::vector<std::string>& static_addresses,
                                                          const std::vector<std::string>& dns_names) {
  std::set<std::string> fixed;
  for (const std::string& address : static_addresses) {
    if (auto split = Split("worker-address", address); !split.ok()) return split.status();
    if (!fixed.insert(address).second) {
      return absl::InvalidArgumentError(absl::StrCat("--worker-address: '", address, "' is given twice"));
    }
  }
  std::vector<HostPort> names;
  for (const std::string& name : dns_names) {
    auto split = Split("worker-dns", name);
    if (!split.ok()) return split.status();
    names.push_back(*std::move(split));
  }
  return std::make_unique<StaticAndDns>(std::move(fixed), std::move(names));
}

}  // namespace orrery
