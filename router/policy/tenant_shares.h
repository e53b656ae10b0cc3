// What each tenant was served lately, to give whoever had least the next turn: tokens, halved every
// half-life.
#ifndef ORRERY_ROUTER_POLICY_TENANT_SHARES_H_
#define ORRERY_ROUTER_POLICY_TENANT_SHARES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "scheduler/base/time.h"

namespace orrery {

// O(log tenants) but for a tenant that is new. At most kMostTenants are remembered: for another one the one
// that was served least is forgotten, to whom it means least.
class TenantShares {
 public:
  static constexpr size_t kMostTenants = 4096;

  explicit TenantShares(Duration half_life) : half_life_(half_life) {}

  void Decay(Time now);
  void Add(uint32_t tenant, double tokens);
  double Served(uint32_t tenant) const;
  size_t size() const { return shares_.size(); }

 private:
  struct Share {
    uint32_t tenant = 0;
    double tokens = 0;
  };

  const Duration half_life_;
  Time last_{};
  std::vector<Share> shares_;  // ascending tenant
};

}  // namespace orrery

#endif  // ORRERY_ROUTER_POLICY_TENANT_SHARES_H_
