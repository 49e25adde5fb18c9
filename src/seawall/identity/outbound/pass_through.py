"""The caller's own token, passed on to the upstream that it is for."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from seawall.errors import ConfigError
from seawall.identity.outbound.claims import check_unexpired, read_claims
from seawall.identity.outbound.oauth import bearer
from seawall.identity.outbound.port import CredentialsUnavailable, Headers
from seawall.identity.outbound.settings import PassThroughAuth
from seawall.identity.outbound.token_endpoint import is_sendable
from seawall.transport.http_client import Endpoint
from seawall.turn import Principal

__all__ = ["PassThrough"]


class PassThrough:
    """The caller's token, if the upstream is in its audience. See `OutboundCredentials`."""

    def __init__(self, settings: PassThroughAuth, addresses: Sequence[str], *, key: str) -> None:
        """Create it.

        Args:
            settings: The audience, and where tokens may be sent.
            addresses: URLs of the upstream.
            key: The table, for errors.

        Raises:
            ConfigError: An address of the upstream is not listed.
        """
        self._audience = settings.audience
        listed = {Endpoint.parse(each).origin for each in settings.addresses}
        for each in addresses:
            if Endpoint.parse(each).origin not in listed:
                parts = urlsplit(each)
                raise ConfigError(
                    f"{key}.addresses: {parts.scheme}://{parts.netloc} is not listed: callers' "
                    "tokens are not sent there"
                )

    async def headers(
        self,
        principal: Principal | None,  # noqa: ARG002 - the token says it
        caller_token: str,
        *,
        deadline: float,  # noqa: ARG002 - nothing to wait for
    ) -> Headers:
        """See `OutboundCredentials.headers`."""
        if not caller_token:
            raise CredentialsUnavailable(
                "a caller's token is needed: there is no caller, it came without one, or the turn "
                "runs on without it (in the background, or after a pause)"
            )
        claims = read_claims(caller_token)
        check_unexpired(claims)
        if self._audience not in claims.audiences:
            raise CredentialsUnavailable(
                f'the caller\'s token is not for "{self._audience}" (its aud is another)'
            )
        if not is_sendable(caller_token):
            raise CredentialsUnavailable("the caller's token cannot be sent in a header")
        return bearer(caller_token)

    def rejected(
        self,
        principal: Principal | None,  # noqa: ARG002 - of the port
        caller_token: str,  # noqa: ARG002
        headers: Headers,  # noqa: ARG002
        challenge: str = "",  # noqa: ARG002
    ) -> bool:
        """See `OutboundCredentials.rejected`: the caller has no other token."""
        return False

    async def close(self) -> None:
        """Nothing runs."""
