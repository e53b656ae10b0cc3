#include "router/policy/tenant_shares.h"

#include <algorithm>
#include <cmath>

namespace orrery {
namespace {

constexpr double kNothing = 1;           // tokens that are forgotten
constexpr double kLeastPart = 1.0 / 16;  // of a half-life between two decays

}  // namespace

void TenantShares::Decay(Time now) {
  const double halvings = (now - last_).seconds() / half_life_.seconds();
  if (halvings < kLeastPart) return;
  last_ = now;
  const double keep = std::exp2(-halvings);
  for (Share& share : shares_) share.tokens *= keep;
  std::erase_if(shares_, [](const Share& share) { return share.tokens < kNothing; });
}

void TenantShares::Add(uint32_t tenant, double tokens) {
  const auto before = [](const Share& share, uint32_t id) { return share.tenant < id; };
  auto at = std::lower_bound(shares_.begin(), shares_.end(), tenant, before);
  if (at == shares_.end() || at->tenant != tenant) {
    if (shares_.size() == kMostTenants) {
      shares_.erase(std::min_element(shares_.begin(), shares_.end(),
                                     [](const Share& a, const Share& b) { return a.tokens < b.tokens; }));
      at = std::lower_bound(shares_.begin(), shares_.end(), tenant, before);
    }
    at = shares_.insert(at, {tenant, 0});
  }
  at->tokens += tokens;
}

double TenantShares::Served(uint32_t tenant) const {
  const auto at = std::lower_bound(shares_.begin(), shares_.end(), tenant,
                                   [](const Share& share, uint32_t id) { return share.tenant < id; });
  return at != shares_.end() && at->tenant == tenant ? at->tokens : 0;
}

}  // namespace orrery
