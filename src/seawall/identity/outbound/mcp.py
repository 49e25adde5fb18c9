"""Credentials that an MCP server asks for when it refuses a request (MCP authorization)."""

import asyncio
import time
from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol

import msgspec

from seawall.identity.outbound.challenge import Challenge, parse_challenge
from seawall.identity.outbound.client import OAuthClient
from seawall.identity.outbound.discovery import Discovered, Discovery
from seawall.identity.outbound.login_file import Login, LoginFile
from seawall.identity.outbound.oauth import bearer, exchange_key, token_of
from seawall.identity.outbound.port import CredentialsUnavailable, Headers
from seawall.identity.outbound.registration import ConfiguredClient, as_client, register
from seawall.identity.outbound.token_endpoint import Grant, GrantRefused, TokenEndpoint
from seawall.identity.outbound.tokens import Token, TokenCache
from seawall.transport.http_client import HttpClient
from seawall.turn import Principal

__all__ = [
    "ClientGrant",
    "ExchangeGrant",
    "LoginGrant",
    "McpCredentials",
    "McpGrant",
    "endpoint_of",
]

_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
_SIGN_IN = "sign in with seawall tools login"
_REDISCOVERY_SECONDS = 10.0
_MIN_LIFE_SECONDS = 30.0
_MAX_SCOPES = 64


class McpGrant(Protocol):
    """How tokens are obtained once the authorization server is known."""

    def key(self, principal: Principal | None, caller_token: str) -> Hashable:
        """See `TokenSource.key`."""
        ...

    async def fetch(
        self, found: Discovered, scope: str, caller_token: str, *, deadline: float
    ) -> Token:
        """Obtain a token.

        Args:
            found: Where.
            scope: What is asked for; empty for the server's choice.
            caller_token: As for `OutboundCredentials.headers`.
            deadline: On the event loop's clock.

        Raises:
            CredentialsUnavailable: There is none.
        """
        ...


class McpCredentials:
    """Tokens for one MCP server. See `OutboundCredentials`.

    The first request goes out without a token. What the server says when it refuses that is where
    tokens come from, and with which scopes; from then on every request has one. A server that asks
    for more scopes later gets a token that has them as well.
    """

    def __init__(
        self,
        discovery: Discovery,
        grant: McpGrant,
        cache: TokenCache,
        *,
        scope: str,
        clients: tuple[HttpClient, ...],
    ) -> None:
        """Create it.

        Args:
            discovery: Finds the authorization server.
            grant: Obtains tokens there.
            cache: Keeps them.
            scope: Scopes that are asked for; empty for those that the server names.
            clients: Closed at the end.
        """
        self._discovery = discovery
        self._grant = grant
        self._cache = cache
        self._scope = scope
        self._clients = clients
        self._challenge: Challenge | None = None
        self._asked: tuple[str, ...] = ()  # scopes that the server has asked for
        self._found: Discovered | None = None
        self._found_at = 0.0
        self._finding = asyncio.Lock()

    async def headers(
        self, principal: Principal | None, caller_token: str, *, deadline: float
    ) -> Headers:
        """See `OutboundCredentials.headers`."""
        if self._challenge is None:
            return ()
        key = (self._grant.key(principal, caller_token), self._asked)

        async def fetch(until: float) -> Token:
            found = await self._discovered(until)
            scope = self._scope_for(found)
            return await self._grant.fetch(found, scope, caller_token, deadline=until)

        return bearer(await self._cache.get(key, fetch, deadline=deadline))

    def rejected(
        self,
        principal: Principal | None,
        caller_token: str,
        headers: Headers,
        challenge: str = "",
    ) -> bool:
        """See `OutboundCredentials.rejected`."""
        before, found = self._asked, parse_challenge(challenge)
        first = self._challenge is None
        if found.scope and not self._scope:
            self._asked = tuple(dict.fromkeys((*before, *found.scope.split())))[:_MAX_SCOPES]
        if found.error == "insufficient_scope":
            return self._asked != before  # else it has been asked for, and was not granted
        self._challenge = found
        if not first and time.monotonic() - self._found_at > _REDISCOVERY_SECONDS:
            self._found = None  # it may have another authorization server by now
        try:
            key = self._grant.key(principal, caller_token)
        except CredentialsUnavailable:
            return False
        if not headers:
            return True
        return self._cache.reject((key, before), token_of(headers))

    async def close(self) -> None:
        """See `OutboundCredentials.close`."""
        await self._cache.close()
        for each in self._clients:
            await each.close()

    async def _discovered(self, deadline: float) -> Discovered:
        async with self._finding:
            if self._found is None:
                challenge = self._challenge or Challenge()
                self._found = await self._discovery.run(challenge, deadline=deadline)
                self._found_at = time.monotonic()
            return self._found

    def _scope_for(self, found: Discovered) -> str:
        """What is asked for: as configured, as the server has asked, or all that it lists."""
        return self._scope or " ".join(self._asked or found.scopes)


class ClientGrant:
    """Tokens of this server itself. See `McpGrant`."""

    def __init__(self, configured: ConfiguredClient) -> None:
        self._clients = _Clients(configured, ("client_credentials",))

    def key(self, principal: Principal | None, caller_token: str) -> Hashable:  # noqa: ARG002
        """One token for all calls."""
        return ()

    async def fetch(
        self,
        found: Discovered,
        scope: str,
        caller_token: str,  # noqa: ARG002 - of the port
        *,
        deadline: float,
    ) -> Token:
        """See `McpGrant.fetch`."""
        parameters = {"grant_type": "client_credentials", "scope": scope}
        return (await self._clients.request(found, parameters, deadline=deadline)).token


class ExchangeGrant:
    """Tokens for callers, in exchange for theirs. See `McpGrant`."""

    def __init__(self, configured: ConfiguredClient) -> None:
        self._clients = _Clients(configured, (_EXCHANGE,))

    def key(self, principal: Principal | None, caller_token: str) -> Hashable:
        """The subject and its present token."""
        return exchange_key(principal, caller_token)

    async def fetch(
        self, found: Discovered, scope: str, caller_token: str, *, deadline: float
    ) -> Token:
        """See `McpGrant.fetch`."""
        parameters = {
            "grant_type": _EXCHANGE,
            "subject_token": caller_token,
            "subject_token_type": _ACCESS_TOKEN,
            "scope": scope,
        }
        return (await self._clients.request(found, parameters, deadline=deadline)).token


class LoginGrant:
    """Tokens of the person who has signed in on the command line. See `McpGrant`."""

    def __init__(self, configured: ConfiguredClient, file: LoginFile) -> None:
        self._configured = configured
        self._file = file
        self._used = ""  # the token that was returned last

    def key(self, principal: Principal | None, caller_token: str) -> Hashable:  # noqa: ARG002
        """One token for all calls."""
        return ()

    async def fetch(
        self,
        found: Discovered,
        scope: str,
        caller_token: str,  # noqa: ARG002 - of the port
        *,
        deadline: float,
    ) -> Token:
        """See `McpGrant.fetch`."""
        async with self._file.locked(deadline=deadline):
            login = self._file.read()
            if not set(scope.split()) <= set(login.scope.split()):
                raise CredentialsUnavailable(
                    f'the server asks for more than the sign-in is for: set scope = "{scope}", and '
                    "sign in again with seawall tools login"
                )
            if (login.resource, login.issuer) != (found.resource, found.server.issuer):
                raise CredentialsUnavailable(
                    f"the sign-in is for {login.resource} at {login.issuer}, which the server does "
                    f"not name any more: {_SIGN_IN}"
                )
            # Another process may have renewed it. One that was used here has to be renewed.
            fresh = login.expires_at - time.time() > _MIN_LIFE_SECONDS
            if login.access_token == self._used or not fresh:
                login = await self._renewed(found, login, deadline)
            self._used = login.access_token
            return Token(login.access_token, login.expires_at)

    async def _renewed(self, found: Discovered, login: Login, deadline: float) -> Login:
        client = login_client(self._configured, found, login)
        parameters = {
            "grant_type": "refresh_token",
            "refresh_token": login.refresh_token,
            "resource": found.resource,
        }
        if not login.refresh_token:
            raise CredentialsUnavailable(f"the sign-in has expired: {_SIGN_IN}")
        try:
            grant = await endpoint_of(found, client).request(parameters, deadline=deadline)
        except GrantRefused as refusal:
            if refusal.error != "invalid_grant":
                raise
            raise CredentialsUnavailable(f"the sign-in has ended: {_SIGN_IN}") from None
        renewed = msgspec.structs.replace(
            login,
            access_token=grant.token.value,
            expires_at=grant.token.expires_at,
            refresh_token=grant.refresh_token or login.refresh_token,
        )
        await asyncio.to_thread(self._file.write, renewed)
        return renewed


class _Clients:
    """This server as a client of the authorization server, registered where it has to be."""

    def __init__(self, configured: ConfiguredClient, grants: Sequence[str]) -> None:
        self._configured = configured
        self._grants = grants
        self._registering = asyncio.Lock()
        self._registered: tuple[str, OAuthClient] | None = None  # at which issuer

    async def request(
        self, found: Discovered, parameters: Mapping[str, str], *, deadline: float
    ) -> Grant:
        """Ask for a token for the server; see `TokenEndpoint.request`."""
        client = self._configured.at(found.server) or await self._register(found, deadline)
        endpoint = endpoint_of(found, client)
        try:
            return await endpoint.request(
                {**parameters, "resource": found.resource}, deadline=deadline
            )
        except GrantRefused as refusal:
            if refusal.error == "invalid_client":
                self._registered = None  # registrations may be forgotten: the next is a new one
            raise

    async def _register(self, found: Discovered, deadline: float) -> OAuthClient:
        async with self._registering:
            issuer = found.server.issuer
            if self._registered is None or self._registered[0] != issuer:
                registered = await register(found, grants=self._grants, deadline=deadline)
                self._registered = (issuer, as_client(registered))
            return self._registered[1]


def login_client(configured: ConfiguredClient, found: Discovered, login: Login) -> OAuthClient:
    """As which client a person has signed in."""
    if login.client is not None:
        return as_client(login.client)
    client = configured.at(found.server)
    if client is None:
        raise CredentialsUnavailable(f"the client of the sign-in is not configured: {_SIGN_IN}")
    return client


def endpoint_of(found: Discovered, client: OAuthClient) -> TokenEndpoint:
    """The token endpoint of an authorization server; assertions are for its issuer."""
    url = found.server.token_endpoint
    return TokenEndpoint(found.client(url), url, client, assertion_audience=found.server.issuer)
