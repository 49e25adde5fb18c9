"""Credentials of tenants of their own."""

from collections.abc import Mapping

from seawall.identity.outbound.port import Headers, OutboundCredentials
from seawall.turn import Principal

__all__ = ["TenantCredentials"]


class TenantCredentials:
    """Those of the principal's tenant, or else the common ones. See `OutboundCredentials`."""

    def __init__(
        self, common: OutboundCredentials, tenants: Mapping[str, OutboundCredentials]
    ) -> None:
        """Create it.

        Args:
            common: Of calls without a principal, and of tenants that have none of their own.
            tenants: By tenant.
        """
        self._common = common
        self._tenants = dict(tenants)

    async def headers(
        self, principal: Principal | None, caller_token: str, *, deadline: float
    ) -> Headers:
        """See `OutboundCredentials.headers`."""
        return await self._of(principal).headers(principal, caller_token, deadline=deadline)

    def rejected(
        self,
        principal: Principal | None,
        caller_token: str,
        headers: Headers,
        challenge: str = "",
    ) -> bool:
        """See `OutboundCredentials.rejected`."""
        return self._of(principal).rejected(principal, caller_token, headers, challenge)

    async def close(self) -> None:
        """Close all."""
        for each in (self._common, *self._tenants.values()):
            await each.close()

    def _of(self, principal: Principal | None) -> OutboundCredentials:
        if principal is None:
            return self._common
        return self._tenants.get(principal.tenant, self._common)
