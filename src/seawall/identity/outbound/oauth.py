"""OAuth credentials: of this server itself, and of callers by exchange of their tokens."""

import hashlib
from collections.abc import Callable, Hashable
from typing import Protocol

from seawall.identity.outbound.claims import check_unexpired, read_claims
from seawall.identity.outbound.port import CredentialsUnavailable, Headers
from seawall.identity.outbound.settings import ClientCredentialsAuth, TokenExchangeAuth
from seawall.identity.outbound.token_endpoint import TokenEndpoint
from seawall.identity.outbound.tokens import Token, TokenCache
from seawall.transport.http_client import HttpClient
from seawall.turn import Principal

__all__ = ["CachedTokens", "ClientCredentials", "TokenExchange", "TokenSource", "bearer"]

_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_BEARER = b"Bearer "


class TokenSource(Protocol):
    """How the token of a call is obtained."""

    def key(self, principal: Principal | None, caller_token: str) -> Hashable:
        """Whose token it is: calls with equal keys share it.

        Raises:
            CredentialsUnavailable: There cannot be one for this call.
        """
        ...

    async def fetch(
        self, principal: Principal | None, caller_token: str, *, deadline: float
    ) -> Token:
        """Obtain a token.

        Raises:
            CredentialsUnavailable: There is none.
        """
        ...


class CachedTokens:
    """Bearer tokens of a source. See `OutboundCredentials`."""

    def __init__(self, source: TokenSource, cache: TokenCache, http: HttpClient | None) -> None:
        """Create it.

        Args:
            source: Obtains tokens.
            cache: Keeps them.
            http: What the source uses; closed at the end.
        """
        self._source = source
        self._cache = cache
        self._http = http

    async def headers(
        self, principal: Principal | None, caller_token: str, *, deadline: float
    ) -> Headers:
        """See `OutboundCredentials.headers`."""
        key = self._source.key(principal, caller_token)

        async def fetch(until: float) -> Token:
            return await self._source.fetch(principal, caller_token, deadline=until)

        return bearer(await self._cache.get(key, fetch, deadline=deadline))

    def rejected(
        self,
        principal: Principal | None,
        caller_token: str,
        headers: Headers,
        challenge: str = "",  # noqa: ARG002 - of the port
    ) -> bool:
        """See `OutboundCredentials.rejected`."""
        try:
            key = self._source.key(principal, caller_token)
        except CredentialsUnavailable:
            return False
        return self._cache.reject(key, token_of(headers))

    async def close(self) -> None:
        """See `OutboundCredentials.close`."""
        await self._cache.close()
        if self._http is not None:
            await self._http.close()


class ClientCredentials:
    """Tokens of this server itself (RFC 6749 §4.4). See `TokenSource`."""

    def __init__(self, settings: ClientCredentialsAuth, endpoint: TokenEndpoint) -> None:
        self._endpoint = endpoint
        self._parameters = {
            **settings.parameters,
            "grant_type": "client_credentials",
            "scope": settings.scope,
            "audience": settings.audience,
            "resource": settings.resource,
        }

    def key(self, principal: Principal | None, caller_token: str) -> Hashable:  # noqa: ARG002
        """One token for all calls."""
        return ()

    async def fetch(
        self,
        principal: Principal | None,  # noqa: ARG002 - of the port
        caller_token: str,  # noqa: ARG002
        *,
        deadline: float,
    ) -> Token:
        """See `TokenSource.fetch`."""
        return (await self._endpoint.request(self._parameters, deadline=deadline)).token


class TokenExchange:
    """Tokens for callers, in exchange for theirs (RFC 8693). See `TokenSource`."""

    def __init__(
        self,
        settings: TokenExchangeAuth,
        endpoint: TokenEndpoint,
        actor_token: Callable[[], str] | None,
    ) -> None:
        """Create it.

        Args:
            settings: What is asked for.
            endpoint: Of the authorization server.
            actor_token: The token of this server; None for no actor.
        """
        self._endpoint = endpoint
        self._actor_token = actor_token
        self._parameters = {
            **settings.parameters,
            "grant_type": _EXCHANGE,
            "subject_token_type": settings.subject_token_type,
            "requested_token_type": settings.requested_token_type,
            "scope": settings.scope,
            "audience": settings.audience,
            "resource": settings.resource,
        }
        if actor_token is not None:
            self._parameters["actor_token_type"] = settings.actor_token_type

    def key(self, principal: Principal | None, caller_token: str) -> Hashable:
        """The subject and its present token: another token may grant less."""
        return exchange_key(principal, caller_token)

    async def fetch(
        self,
        principal: Principal | None,  # noqa: ARG002 - the token says it
        caller_token: str,
        *,
        deadline: float,
    ) -> Token:
        """See `TokenSource.fetch`."""
        parameters = {**self._parameters, "subject_token": caller_token}
        if self._actor_token is not None:
            parameters["actor_token"] = self._actor_token()
        return (await self._endpoint.request(parameters, deadline=deadline)).token


def exchange_key(principal: Principal | None, caller_token: str) -> Hashable:
    """The subject, and a digest of the token that it has presented.

    Raises:
        CredentialsUnavailable: There is no token that could be exchanged.
    """
    if principal is None:
        raise CredentialsUnavailable("a caller's token is needed, and there is no caller here")
    if not caller_token:
        raise CredentialsUnavailable(
            "a caller's token is needed: the turn was not asked for with one, or it runs on "
            "without its caller (in the background, or after a pause)"
        )
    check_unexpired(read_claims(caller_token))
    digest = hashlib.sha256(caller_token.encode()).digest()
    return (principal.tenant, principal.subject, digest)


def bearer(token: str) -> Headers:
    """The header of a token."""
    return ((b"authorization", _BEARER + token.encode("ascii")),)


def token_of(headers: Headers) -> str:
    """The token of such a header; empty if there is none."""
    for name, value in headers:
        if name == b"authorization":
            return value.removeprefix(_BEARER).decode("ascii")
    return ""
