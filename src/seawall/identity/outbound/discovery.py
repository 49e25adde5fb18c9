"""Metadata of an MCP server and its authorization server (RFC 9728, RFC 8414, OpenID Connect)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from seawall.identity.outbound.challenge import Challenge
from seawall.identity.outbound.http import send
from seawall.identity.outbound.port import CredentialsUnavailable
from seawall.identity.outbound.settings import is_loopback, is_protected
from seawall.transport.http_client import Endpoint, HttpClient

__all__ = ["AuthorizationServer", "Discovered", "Discovery"]

T = TypeVar("T")

_RESOURCE = "/.well-known/oauth-protected-resource"
_OAUTH = "/.well-known/oauth-authorization-server"
_OPENID = "/.well-known/openid-configuration"


class AuthorizationServer(Struct, frozen=True):
    """What an authorization server says about itself (RFC 8414 §2)."""

    issuer: str
    token_endpoint: str
    authorization_endpoint: str = ""
    registration_endpoint: str = ""
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    code_challenge_methods_supported: tuple[str, ...] = ()
    scopes_supported: tuple[str, ...] = ()
    client_id_metadata_document_supported: bool = False
    authorization_response_iss_parameter_supported: bool = False


class Discovered(Struct, frozen=True):
    """Where tokens for an MCP server come from.

    Attributes:
        resource: The server, as tokens are asked for (RFC 8707).
        scopes: Those that the server lists; empty for none.
        server: The authorization server.
        client: What connects to an address that its metadata names.
    """

    resource: str
    scopes: tuple[str, ...]
    server: AuthorizationServer
    client: Callable[[str], HttpClient]


class _Resource(Struct, frozen=True):
    resource: str
    authorization_servers: tuple[str, ...] = ()
    scopes_supported: tuple[str, ...] = ()


class Discovery:
    """Finds the authorization server of one MCP server.

    Addresses that come from documents are https and public; http and this machine only where the
    MCP server is on this machine. An authorization server that is configured may be anywhere.
    """

    def __init__(
        self,
        url: str,
        issuers: Sequence[str],
        *,
        http: HttpClient,
        public: HttpClient,
        default_endpoints: bool = False,
    ) -> None:
        """Create it.

        Args:
            url: Of the MCP server.
            issuers: Authorization servers that may be used; empty for the one that it names.
            http: For configured addresses.
            public: For others; connects to public addresses only.
            default_endpoints: See `McpAuth`.
        """
        self._url = url
        self._origin = Endpoint.parse(url).origin
        self._issuers = tuple(issuers)
        self._http = http
        self._public = public
        self._default_endpoints = default_endpoints

    async def run(self, challenge: Challenge, *, deadline: float) -> Discovered:
        """Find it.

        Args:
            challenge: Of the server's refusal.
            deadline: On the event loop's clock.

        Raises:
            CredentialsUnavailable: It cannot be found, or what is found does not fit together.
        """
        resource = await self._resource(challenge, deadline)
        issuer = self._choose(resource)
        if not is_protected(issuer):
            raise CredentialsUnavailable(f"the authorization server {issuer[:200]!r} is not https")
        http = self._client(issuer, issuer)
        if http is self._public and is_loopback(issuer):
            raise CredentialsUnavailable(f"the authorization server {issuer[:200]!r} is not public")
        server = await _server_metadata(http, issuer, is_loopback(self._url), deadline)
        alone = not self._issuers and self._is_own(issuer)
        if server is None and self._default_endpoints and alone:
            server = AuthorizationServer(
                issuer,
                f"{issuer}/token",
                f"{issuer}/authorize",
                f"{issuer}/register",
                code_challenge_methods_supported=("S256",),
            )
        if server is None:
            raise CredentialsUnavailable(
                f"the authorization server {issuer} has no metadata (RFC 8414)"
            )
        return Discovered(
            resource.resource, resource.scopes_supported, server, partial(self._client, issuer)
        )

    async def _resource(self, challenge: Challenge, deadline: float) -> _Resource:
        parts = urlsplit(self._url)
        root, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
        addresses = [root + _RESOURCE + path, root + _RESOURCE] if path else [root + _RESOURCE]
        if challenge.resource_metadata:
            addresses = [challenge.resource_metadata]
            if not self._is_own(challenge.resource_metadata):
                raise CredentialsUnavailable(
                    "the metadata that the server names is not on the server itself: "
                    f"{challenge.resource_metadata[:200]!r}"
                )
        for address in addresses:
            found = await _document(self._http, address, _Resource, deadline)
            if found is not None:
                if not _covers(found.resource, self._url):
                    raise CredentialsUnavailable(
                        f"{address}: is the metadata of another resource: {found.resource[:200]!r}"
                    )
                return found
        if self._issuers:
            return _Resource(self._url)
        # Servers of 2025-03-26 have no such metadata, and are their own authorization servers.
        return _Resource(self._url, (root,))

    def _is_own(self, url: str) -> bool:
        try:
            return Endpoint.parse(url).origin == self._origin
        except ValueError:
            return False

    def _choose(self, resource: _Resource) -> str:
        named = resource.authorization_servers
        if self._issuers:
            for issuer in self._issuers:
                if issuer in named or not named:
                    return issuer
            listed = ", ".join(named)[:200]
            raise CredentialsUnavailable(
                f"the server names none of issuers as its authorization server, but {listed}"
            )
        if not named:
            raise CredentialsUnavailable("the server names no authorization server: set issuers")
        return named[0]

    def _client(self, issuer: str, url: str) -> HttpClient:
        """What connects to an address of an authorization server: its own, or one that it names."""
        near = is_loopback(self._url) and is_loopback(url)
        if issuer in self._issuers or near or self._is_own(url):
            return self._http
        return self._public


async def _server_metadata(
    http: HttpClient, issuer: str, near: bool, deadline: float
) -> AuthorizationServer | None:
    """The metadata of an issuer, at the addresses of RFC 8414 §3.1 and OpenID Connect Discovery.

    None if there is none.
    """
    parts = urlsplit(issuer)
    root, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    addresses = [root + _OAUTH + path, root + _OPENID + path]
    if path:
        addresses.append(root + path + _OPENID)
    for address in addresses:
        found = await _document(http, address, AuthorizationServer, deadline)
        if found is None:
            continue
        if found.issuer != issuer:  # RFC 8414 §3.3: another one may pose as it
            raise CredentialsUnavailable(
                f"{address}: is the metadata of another issuer: {found.issuer[:200]!r}"
            )
        for endpoint in (
            found.token_endpoint,
            found.authorization_endpoint,
            found.registration_endpoint,
        ):
            if endpoint and (not is_protected(endpoint) or (is_loopback(endpoint) and not near)):
                raise CredentialsUnavailable(f"{address}: names an address that is not https")
        return found
    return None


async def _document(http: HttpClient, url: str, kind: type[T], deadline: float) -> T | None:
    """A JSON document; None if there is none at this address."""
    answer = await send(http, "GET", url, deadline=deadline)
    if answer.status != 200:
        return None
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CredentialsUnavailable(f"{url}: cannot be read: {error}") from None


def _covers(resource: str, url: str) -> bool:
    """Whether a resource is the one at a URL, or a part of the server that it is in."""
    try:
        same = Endpoint.parse(resource).origin == Endpoint.parse(url).origin
    except ValueError:
        return False
    whole, part = urlsplit(resource).path.rstrip("/"), urlsplit(url).path.rstrip("/")
    return same and (part == whole or part.startswith(f"{whole}/"))
