"""Access to the console over HTTP: who asks, whether it may, and whether its page asked.

A person is known by the cookie of a login, by a header with a credential, or, where the
configuration accepts requests without a credential from this machine, as a user of it. A request
that changes something has to come from a page of this server, which repeats a token that no other
page can read; a request with a credential in a header was not made by a browser on its own.
"""

import hmac
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from seawall.console.access import (
    PERMISSIONS,
    Login,
    Permission,
    Seal,
    Viewer,
    console_secret,
    permissions,
)
from seawall.console.logins import Logins
from seawall.errors import Forbidden, Unauthenticated
from seawall.hosts.http.exchange import Exchange, Header
from seawall.hosts.http.sessions import call_limit
from seawall.identity import Anonymous
from seawall.turn import Principal

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = ["COOKIE", "TOKEN_HEADER", "ConsoleAccess", "read_cookie", "set_cookie"]

COOKIE = "seawall_console"
TOKEN_HEADER = b"x-console-token"
_MAX_COOKIE_CHARACTERS = 16_384
_EVERYTHING = frozenset(PERMISSIONS)


class ConsoleAccess:
    """Decides about requests to the console."""

    def __init__(self, orchestrator: "Orchestrator", logins: Logins) -> None:
        """Prepare the seal of cookies.

        Args:
            orchestrator: Its settings say who may what; its authenticator verifies credentials.
            logins: Which of them were ended.

        Raises:
            ConfigError: The configured secret is missing.
        """
        self._orchestrator = orchestrator
        self.logins = logins
        self.settings = orchestrator.settings.console
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")  # that the workers of a server share
        shared = Path(folder) if folder else None
        self.seal = Seal(console_secret(self.settings, os.environ, shared))
        login = self.settings.login
        self._origin = _origin(login.url) if login is not None else b""

    async def viewer(
        self, exchange: Exchange, permission: Permission, *, change: bool = False
    ) -> Viewer:
        """Who asks.

        Args:
            exchange: The request.
            permission: What is needed.
            change: Whether the request changes something; it then has to come from the page.

        Raises:
            Unauthenticated: There is no valid login or credential.
            Forbidden: It does not have the permission, or the request was not made by the page.
        """
        viewer = await self.identify(exchange)
        if change:
            self.check_origin(exchange, viewer)
        if permission not in viewer.permissions:
            raise Forbidden(f"This needs the permission {permission!r} of the console.")
        return viewer

    async def identify(self, exchange: Exchange) -> Viewer:
        """Who asks; perhaps without any permission.

        Raises:
            Unauthenticated: There is no valid login or credential.
        """
        login = self.login(exchange)
        if login is not None and await self.logins.is_valid(login):
            exchange.request.tenant = login.tenant
            return Viewer(
                Principal(login.tenant, login.subject, login.roles),
                permissions(self.settings, login.roles),
                "cookie",
                self.seal.token(login.id),
                login,
            )
        credential = exchange.credential()
        async with call_limit(self._orchestrator):
            principal = await self._orchestrator.engine.authenticator.authenticate(credential)
        exchange.request.tenant = principal.tenant
        if isinstance(credential, Anonymous):
            return Viewer(principal, _EVERYTHING, "anonymous", self.seal.token(""))
        granted = permissions(self.settings, principal.roles)
        return Viewer(principal, granted, "header", "")

    def login(self, exchange: Exchange) -> Login | None:
        """The login of the request's cookie, also if it was ended; None without one."""
        cookie = read_cookie(exchange, COOKIE)
        return self.seal.read_login(cookie) if cookie else None

    def login_cookie(self, exchange: Exchange, principal: Principal, seconds: float) -> Header:
        """The header that logs in.

        Args:
            exchange: The request.
            principal: Who it is.
            seconds: How long.
        """
        client = exchange.scope.get("client")
        agent = exchange.headers.get(b"user-agent", b"").decode("latin-1")
        address = client[0] if client else ""
        sealed = self.seal.login(principal, seconds, address=address, agent=agent)
        return set_cookie(exchange, COOKIE, sealed, seconds=seconds)

    async def has_ended(self, viewer: Viewer) -> bool:
        """Whether the login of someone who is watching was ended, or is over.

        Raises:
            StoreUnavailable: It is not known.
        """
        login = viewer.login
        if login is None:
            return False
        return login.expires_at <= time.time() or not await self.logins.is_valid(login)

    def check_origin(self, exchange: Exchange, viewer: Viewer) -> None:
        """Check that a page of this server made a request that changes something.

        Raises:
            Forbidden: It did not.
        """
        if viewer.by == "header":
            return
        self.check_same_origin(exchange)
        given = exchange.headers.get(TOKEN_HEADER, b"")
        if not hmac.compare_digest(given, viewer.token.encode()):
            raise Forbidden("The header X-Console-Token is missing or wrong: reload the page.")

    def check_same_origin(self, exchange: Exchange) -> None:
        """Check that no page of another origin made the request.

        Raises:
            Forbidden: One did.
        """
        origin = exchange.headers.get(b"origin")
        host = exchange.headers.get(b"host", b"").lower()
        own = (b"http://" + host, b"https://" + host, self._origin)
        if origin is not None and origin.lower() not in own:
            raise Forbidden("The request was made by a page of another origin.")
        site = exchange.headers.get(b"sec-fetch-site")
        if site is not None and site not in (b"same-origin", b"none"):
            raise Forbidden("The request was made by a page of another site.")

    def check_host(self, exchange: Exchange) -> None:
        """Check that only this machine is addressed, where it needs no credential.

        A page that has its name resolve to this machine (DNS rebinding) would be of the same
        origin as the console.

        Raises:
            Unauthenticated: Another name is in the header Host, with which no login is accepted.
        """
        identity = self._orchestrator.settings.identity
        if identity.jwt is not None or identity.api_keys:
            return
        credential = exchange.credential()
        if isinstance(credential, Anonymous) and not credential.loopback:
            raise Unauthenticated(f"The console is for this machine only: {credential.reason}.")


def read_cookie(exchange: Exchange, name: str) -> str:
    """The value of a cookie; empty if there is none."""
    header = exchange.headers.get(b"cookie", b"")
    if len(header) > _MAX_COOKIE_CHARACTERS:
        return ""
    # Those of other applications of the host come too, and may have any form.
    for each in header.decode("latin-1").split(";"):
        found, _, value = each.strip().partition("=")
        if found == name:
            return value
    return ""


def set_cookie(
    exchange: Exchange, name: str, value: str, *, seconds: float, same_site: str = "Strict"
) -> Header:
    """The header that sets a cookie of the console, or removes it.

    Args:
        exchange: The request; over HTTPS the cookie is for HTTPS only.
        name: Of the cookie.
        value: Empty to remove it.
        seconds: How long the browser keeps it.
        same_site: "Strict", or "Lax" for one that survives the way to the issuer and back.
    """
    path = (exchange.scope.get("root_path") or "") + "/console"
    forwarded = exchange.headers.get(b"x-forwarded-proto", b"")
    secure = exchange.scope.get("scheme") == "https" or forwarded.startswith(b"https")
    text = f"{name}={value}; Path={path}; HttpOnly; SameSite={same_site}; "
    text += f"Max-Age={int(seconds) if value else 0}" + ("; Secure" if secure else "")
    return b"set-cookie", text.encode()


def _origin(url: str) -> bytes:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower().encode()
