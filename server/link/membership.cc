#include "server/link/membership.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "spdlog/spdlog.h"

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
  StaticAndDns(std::set<std::string> fixed, std::vector<HostPort> names) : fixed_(std::move(fixed)) {
    for (HostPort& name : names) names_.push_back({std::move(name), {}});
  }

  std::vector<std::string> Resolve() override {
    std::set<std::string> all = fixed_;
    for (Name& name : names_) {
      if (absl::Status status = Lookup(&name); !status.ok()) {
        spdlog::warn("{}; what it stood for before is kept", std::string(status.message()));
      }
      all.insert(name.found.begin(), name.found.end());
    }
    return {all.begin(), all.end()};
  }

 private:
  struct Name {
    HostPort name;
    std::set<std::string> found;  // by the last answer
  };

  static absl::Status Lookup(Name* entry) {
    const HostPort& name = entry->name;
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    const int error = getaddrinfo(name.host.c_str(), nullptr, &hints, &found);
    if (error == EAI_NONAME) {  // it stands for nobody right now
      entry->found.clear();
      return absl::OkStatus();
    }
    if (error != 0) {
      return absl::UnavailableError(absl::StrCat("cannot resolve ", name.host, ": ", gai_strerror(error)));
    }
    entry->found.clear();
    for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
      char text[NI_MAXHOST];
      if (getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof text, nullptr, 0, NI_NUMERICHOST) != 0)
        continue;
      const bool v6 = one->ai_family == AF_INET6;
      entry->found.insert(v6 ? absl::StrCat("[", text, "]:", name.port) : absl::StrCat(text, ":", name.port));
    }
    freeaddrinfo(found);
    return absl::OkStatus();
  }

  const std::set<std::string> fixed_;
  std::vector<Name> names_;
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
