"""Signing in to an MCP server with a browser: authorization code with PKCE (RFC 6749, RFC 7636).

The browser comes back to a port of this machine (RFC 8252 §7.3), and what is issued is kept in a
file for `grant = "login"`.
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Self
from urllib.parse import parse_qs, urlencode, urlsplit

from msgspec import Struct

from seawall.identity.outbound.challenge import Challenge, parse_challenge
from seawall.identity.outbound.discovery import Discovered, Discovery
from seawall.identity.outbound.http import send
from seawall.identity.outbound.login_file import Login
from seawall.identity.outbound.mcp import endpoint_of
from seawall.identity.outbound.port import CredentialsUnavailable
from seawall.identity.outbound.registration import (
    ConfiguredClient,
    as_client,
    register,
)
from seawall.transport.http_client import HttpClient

__all__ = ["log_in"]

_GRANTS = ("authorization_code", "refresh_token")
_UNREADABLE = (
    *(TimeoutError, OSError, ValueError, IndexError),
    *(asyncio.IncompleteReadError, asyncio.LimitOverrunError),
)
_MAX_REQUEST_BYTES = 16_384
_ANSWER_SECONDS = 5.0
_PAGE = "<!doctype html><title>Seawall</title><p>{}</p>"
# Requests without a token; some servers want one for the first of these only.
_INITIALIZE = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",'
    b'"capabilities":{},"clientInfo":{"name":"seawall","version":"1"}}}'
)
_PROBES = (b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}', _INITIALIZE)


class _Return(Struct, frozen=True):
    """What the browser brings back."""

    code: str = ""
    state: str = ""
    error: str = ""
    iss: str = ""


async def log_in(
    url: str,
    *,
    discovery: Discovery,
    configured: ConfiguredClient,
    http: HttpClient,
    scope: str,
    show: Callable[[str], None],
    seconds: float = 300.0,
) -> Login:
    """Sign in, and return what was issued.

    Args:
        url: Of the MCP server.
        discovery: Finds its authorization server.
        configured: The client; one without an id is registered.
        http: Asks the server what it wants.
        scope: Scopes that are asked for; empty for those that the server names.
        show: Called with the address that a browser has to open.
        seconds: How long a person may take.

    Raises:
        CredentialsUnavailable: It failed, was refused, or took too long.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    challenge = await _challenge(http, url, deadline)
    found = await discovery.run(challenge, deadline=deadline)
    if "S256" not in found.server.code_challenge_methods_supported:
        raise CredentialsUnavailable(
            f"{found.server.issuer} does not say that it supports PKCE (S256)"
        )
    wanted = scope or challenge.scope or " ".join(found.scopes)
    if "offline_access" in found.server.scopes_supported and wanted:
        wanted = " ".join(dict.fromkeys((*wanted.split(), "offline_access")))
    async with _Callback() as callback:
        registered = None
        client = configured.at(found.server)
        if client is None:
            registered = await register(
                found,
                grants=_GRANTS,
                redirect_uri=callback.address,
                scope=wanted,
                deadline=deadline,
            )
            client = as_client(registered)
        verifier = secrets.token_urlsafe(48)
        state = secrets.token_urlsafe(24)
        show(
            _request_url(
                found,
                client.client_id,
                address=callback.address,
                scope=wanted,
                state=state,
                verifier=verifier,
            )
        )
        returned = await callback.wait(state, deadline)
        _check(returned, found)
        grant = await endpoint_of(found, client).request(
            {
                "grant_type": "authorization_code",
                "code": returned.code,
                "redirect_uri": callback.address,
                "code_verifier": verifier,
                "resource": found.resource,
            },
            deadline=deadline,
        )
    return Login(
        resource=found.resource,
        issuer=found.server.issuer,
        client=registered,
        access_token=grant.token.value,
        expires_at=grant.token.expires_at,
        refresh_token=grant.refresh_token,
        scope=wanted,
    )


async def _challenge(http: HttpClient, url: str, deadline: float) -> Challenge:
    headers = (
        (b"content-type", b"application/json"),
        (b"accept", b"application/json, text/event-stream"),
    )
    for probe in _PROBES:
        answer = await send(http, "POST", url, headers=headers, body=probe, deadline=deadline)
        if answer.status == 401:
            return parse_challenge(answer.headers.get("www-authenticate", ""))
    return Challenge()  # it refuses later, or not at all: its metadata says which


def _request_url(
    found: Discovered, client_id: str, *, address: str, scope: str, state: str, verifier: str
) -> str:
    endpoint = found.server.authorization_endpoint
    if not endpoint:
        raise CredentialsUnavailable(f"{found.server.issuer} has no authorization endpoint")
    digest = hashlib.sha256(verifier.encode()).digest()
    parameters = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": address,
        "state": state,
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
        "resource": found.resource,
    }
    if scope:
        parameters["scope"] = scope
    if "offline_access" in scope.split():
        parameters["prompt"] = "consent"  # OpenID Connect Core §11 wants it for refresh tokens
    return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(parameters)}"


def _check(returned: _Return, found: Discovered) -> None:
    """Check who has sent the browser back (RFC 9207), and with what.

    Raises:
        CredentialsUnavailable: Another authorization server, or a refusal.
    """
    server = found.server
    required = server.authorization_response_iss_parameter_supported
    if (returned.iss or required) and returned.iss != server.issuer:
        raise CredentialsUnavailable(
            f"the answer is not from {server.issuer}: nothing was sent to it (mix-up)"
        )
    if returned.error:
        raise CredentialsUnavailable(f"{server.issuer} refused: {returned.error[:64]!r}")
    if not returned.code:
        raise CredentialsUnavailable(f"{server.issuer} sent no code")


class _Callback:
    """A server on this machine that the browser is sent back to; answers one request."""

    def __init__(self) -> None:
        self.address = ""
        self._server: asyncio.Server | None = None
        self._returned: asyncio.Future[_Return] = asyncio.get_running_loop().create_future()
        self._state = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, limit=_MAX_REQUEST_BYTES
        )
        self.address = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/callback"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    async def wait(self, state: str, deadline: float) -> _Return:
        """What comes back with this state; requests with another one are not counted.

        Raises:
            CredentialsUnavailable: Nothing, in time.
        """
        self._state = state
        try:
            async with asyncio.timeout_at(deadline):
                return await self._returned
        except TimeoutError:
            raise CredentialsUnavailable("the sign-in was not finished in time") from None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        status, text = "404 Not Found", "Not here."
        with suppress(*_UNREADABLE):
            async with asyncio.timeout(_ANSWER_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                target = head.split(b" ", 2)[1].decode("ascii")
                if (returned := self._read(target)) is not None:
                    status, text = "200 OK", "Signed in: this page can be closed."
                    if returned.error:
                        text = "The sign-in was refused."
                body = _PAGE.format(text).encode()
                writer.write(
                    b"HTTP/1.1 %b\r\ncontent-type: text/html\r\ncontent-length: %d\r\n"
                    b"connection: close\r\n\r\n%b" % (status.encode(), len(body), body)
                )
                await writer.drain()
                if returned is not None and not self._returned.done():
                    self._returned.set_result(returned)
        writer.close()

    def _read(self, target: str) -> _Return | None:
        parts = urlsplit(target)
        if parts.path != "/callback" or not self._state:
            return None
        query = parse_qs(parts.query)
        found = {
            name: query[name][0]
            for name in ("code", "state", "error", "iss")
            if len(query.get(name, ())) == 1
        }
        returned = _Return(**found)
        return (
            returned if hmac.compare_digest(returned.state.encode(), self._state.encode()) else None
        )
