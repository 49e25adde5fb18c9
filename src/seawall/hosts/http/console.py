"""`/console`: the files of the page, who is logged in, and the API as the page calls it."""

import base64
import logging
import os
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, structs

from seawall.console.access import Permission, permissions
from seawall.console.files import SECURITY_HEADERS, Asset, load_assets
from seawall.console.issuer import BegunLogin, IssuerLogin
from seawall.console.service import ConsoleService
from seawall.errors import Forbidden, NotFound, StoreUnavailable, Unauthenticated
from seawall.hosts.http.bodies import decode
from seawall.hosts.http.console_access import COOKIE, ConsoleAccess, read_cookie, set_cookie
from seawall.hosts.http.console_data import ConsoleData
from seawall.hosts.http.console_logins import ConsoleLogins
from seawall.hosts.http.console_reports import ConsoleReports
from seawall.hosts.http.console_surge import ConsoleSurges
from seawall.hosts.http.exchange import Exchange
from seawall.hosts.http.sessions import call_limit
from seawall.identity import API_KEY_PREFIX, Bearer, Trusted
from seawall.printable import printable

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = ["PRIVATE", "ConsoleEndpoints"]

_audit = logging.getLogger("seawall.audit")
PRIVATE = (b"cache-control", b"no-store")
_LOGIN_COOKIE = "seawall_console_login"
_API = "api/v1/"
_TURNS = "/api/turns/"
_REPORTS = "/reports/"
_SURGES = "/api/surge/"
_LOGINS = "/api/logins/"
_SESSIONS = "/api/sessions/"
_CALLS = "/v1/turns/"
_HANDED_OVER = "/v1/sessions/"
_USED = ("turns", "sessions", "approvals", "effects", "handovers", "files")
"""What the page calls of the API; other protocols also decide about calls, by other paths."""
_MAX_LOGIN_BYTES = 16_384

Endpoint = Callable[["Orchestrator", Exchange], Awaitable[None]]
Endpoints = dict[str, Endpoint]


class _Expiry(Struct):
    """When a token ends, in Unix seconds."""

    exp: float | None = None


class _LoginBody(Struct, forbid_unknown_fields=True):
    """A credential that is exchanged for a cookie."""

    credential: str


class ConsoleEndpoints:
    """The endpoints below `/console`."""

    def __init__(
        self,
        orchestrator: "Orchestrator",
        service: ConsoleService,
        endpoints: Callable[[str], Endpoints | None],
    ) -> None:
        """Load the files of the page.

        Args:
            orchestrator: What is shown.
            service: Has recent turns and samples of all workers.
            endpoints: The endpoints of the API by path, which the page calls by its login.

        Raises:
            ConfigError: The configuration of the console is not complete.
        """
        self._orchestrator = orchestrator
        self._api = endpoints
        self._service = service
        self._assets = load_assets()
        self.access = ConsoleAccess(orchestrator, service.logins)
        self._data = data = ConsoleData(self.access, service)
        self._reports = ConsoleReports(self.access)
        self._logins = logins = ConsoleLogins(self.access, service)
        self._surges = surges = ConsoleSurges(self.access, service)
        self._issuer: IssuerLogin | None = None
        self._decoder = msgspec.json.Decoder(_LoginBody)
        self._routes: dict[str, Endpoints] = {
            "": {"GET": self._to_page},
            "/": {"GET": self._page},
            "/api/me": {"GET": self._me},
            "/api/login": {"POST": self._login},
            "/api/logout": {"POST": self._logout},
            "/api/login/issuer": {"GET": self._begin_login},
            "/callback": {"GET": self._complete_login},
            "/api/now": {"GET": data.now},
            "/api/turns": {"GET": data.turns},
            "/api/sessions": {"GET": data.sessions},
            "/api/reports": {"GET": self._reports.listing},
            "/api/logins": {"GET": logins.listing},
            "/api/logins/end": {"POST": logins.end_all},
            "/api/surge": {"GET": surges.show, "POST": surges.start},
        }

    def find(self, path: str) -> Endpoints | None:
        """The endpoints of a path below `/console`, by method; None if there are none."""
        found = self._routes.get(path)
        if found is not None:
            return found
        if path.startswith("/assets/"):
            asset = self._assets.get(path.removeprefix("/assets/"))
            return {"GET": lambda _, exchange: self._file(exchange, asset)} if asset else None
        if path.startswith("/" + _API):
            return self._api_endpoints("/" + path.removeprefix("/api/"))
        return self._action_endpoints(path) or self._data_endpoints(path)

    def _action_endpoints(self, path: str) -> Endpoints | None:
        """The endpoints that end something."""
        if path.startswith(_LOGINS) and path.endswith("/end"):
            login = path.removeprefix(_LOGINS).removesuffix("/end")
            return {"POST": lambda _, x: self._logins.end(x, login)}
        if path.startswith(_SURGES) and path.endswith("/stop"):
            surge = path.removeprefix(_SURGES).removesuffix("/stop")
            return {"POST": lambda _, x: self._surges.stop(x, surge)}
        return None

    def recorded(self, endpoint: Endpoint) -> Endpoint:
        """The same endpoint; the course of a turn is recorded in any case, for who may look."""

        async def answer(orchestrator: "Orchestrator", exchange: Exchange) -> None:
            await self.access.viewer(exchange, "look")
            exchange.scope["seawall.recorded"] = True
            await endpoint(orchestrator, exchange)

        return answer

    def _data_endpoints(self, path: str) -> Endpoints | None:
        """The endpoints of one turn or session."""
        data = self._data
        if path.startswith(_TURNS):
            turn, _, below = path.removeprefix(_TURNS).partition("/")
            if below == "events":
                return {"GET": lambda app, exchange: data.turn_events(app, exchange, turn)}
            return None if below or not turn else {"GET": lambda _, x: data.turn(x, turn)}
        if path.startswith(_REPORTS):
            name = path.removeprefix(_REPORTS)
            return {"GET": lambda _, x: self._reports.show(x, name)}
        session = path.removeprefix(_SESSIONS)
        if session == path or not session or "/" in session:
            return None
        return {"GET": lambda app, exchange: data.session(app, exchange, session)}

    def _api_endpoints(self, path: str) -> Endpoints | None:
        """The API as far as the page calls it: as the person who is logged in."""
        if path.split("/")[2] not in _USED:
            return None
        found = self._api(path)
        if found is None:
            return None
        needed = _permission(path)

        def as_viewer(method: str, endpoint: Endpoint) -> Endpoint:
            async def answer(orchestrator: "Orchestrator", exchange: Exchange) -> None:
                viewer = await self.access.viewer(exchange, "look", change=method != "GET")
                principal = viewer.principal
                if needed is not None and needed not in viewer.permissions:
                    principal = structs.replace(principal, roles=())  # only what is their own
                exchange.scope["seawall.credential"] = Trusted(principal)
                exchange.scope["seawall.recorded"] = True
                await endpoint(orchestrator, exchange)

            return answer

        return {method: as_viewer(method, each) for method, each in found.items()}

    async def _to_page(self, _: "Orchestrator", exchange: Exchange) -> None:
        """The page's address ends in a slash: its files are relative to it."""
        await exchange.start(
            307, [(b"location", b"console/"), (b"content-length", b"0"), *SECURITY_HEADERS]
        )
        await exchange.end()

    async def _page(self, _: "Orchestrator", exchange: Exchange) -> None:
        await self._file(exchange, self._assets["index.html"])

    async def _file(self, exchange: Exchange, asset: Asset) -> None:
        """Send a file; browsers ask each time whether it has changed."""
        self.access.check_host(exchange)
        headers = [(b"etag", asset.tag), (b"cache-control", b"no-cache"), *SECURITY_HEADERS]
        if exchange.headers.get(b"if-none-match") == asset.tag:
            await exchange.start(304, headers)
            await exchange.end()
            return
        await exchange.answer(asset.body, headers=headers, content_type=asset.content_type)

    async def _me(self, orchestrator: "Orchestrator", exchange: Exchange) -> None:
        """`GET /console/api/me`: who is logged in, what they may do, and how to log in."""
        settings = orchestrator.settings
        answer: dict[str, object] = {
            "login": {"key": True, "issuer": settings.console.login is not None}
        }
        try:
            viewer = await self.access.identify(exchange)
        except Unauthenticated as problem:
            answer["reason"] = problem.detail
        else:
            answer |= {
                "tenant": viewer.principal.tenant,
                "subject": viewer.principal.subject,
                "permissions": sorted(viewer.permissions),
                "by": viewer.by,
                "token": viewer.token,
            }
            if viewer.permissions:
                answer |= {
                    "files": settings.blobs is not None,
                    "surge": settings.console.surge is not None,
                    "agents": [
                        {"name": name, "description": each.description}
                        for name, each in settings.agents.items()
                    ],
                }
        await exchange.answer(answer, headers=[PRIVATE, *SECURITY_HEADERS])

    async def _login(self, orchestrator: "Orchestrator", exchange: Exchange) -> None:
        """`POST /console/api/login`: exchange an API key or a token for a cookie."""
        self.access.check_same_origin(exchange)
        seconds = orchestrator.settings.server.body_seconds
        raw = await exchange.body(limit=_MAX_LOGIN_BYTES, seconds=seconds)
        body = decode(self._decoder, raw)
        async with call_limit(orchestrator):
            credential = Bearer(body.credential)
            principal = await orchestrator.engine.authenticator.authenticate(credential)
        if not permissions(self.access.settings, principal.roles):
            raise Forbidden("Its roles have no permission in the console: see [console].")
        lasts = _seconds_left(body.credential, self.access.settings.session_seconds)
        cookie = self.access.login_cookie(exchange, principal, lasts)
        await exchange.no_content([cookie, PRIVATE])

    def _issuer_login(self) -> IssuerLogin:
        """The login with the issuer.

        Raises:
            NotFound: None is configured.
        """
        settings = self._orchestrator.settings
        if settings.console.login is None or settings.identity.jwt is None:
            raise NotFound("There is no login with an issuer: see [console.login].")
        if self._issuer is None:
            client = self._orchestrator.engine.client
            self._issuer = IssuerLogin(
                settings.console.login, settings.identity.jwt, client, os.environ
            )
        return self._issuer

    async def _begin_login(self, _: "Orchestrator", exchange: Exchange) -> None:
        """`GET /console/api/login/issuer`: send the browser to the issuer."""
        begun, address = await self._issuer_login().begin()
        sealed = self.access.seal.close(begun, b"login")
        # It must come back with the browser, which another site sends.
        cookie = set_cookie(exchange, _LOGIN_COOKIE, sealed, seconds=600, same_site="Lax")
        location = (b"location", address.encode("ascii", "ignore"))
        await exchange.start(303, [location, cookie, PRIVATE, (b"content-length", b"0")])
        await exchange.end()

    async def _complete_login(self, _: "Orchestrator", exchange: Exchange) -> None:
        """`GET /console/callback`: where the issuer sends the browser back to.

        The answer is a page that goes on to the console by itself: a redirect would be part of the
        other site's navigation, in which browsers do not send the new cookie.
        """
        login = self._issuer_login()
        cookie = read_cookie(exchange, _LOGIN_COOKIE)
        begun = self.access.seal.open(cookie, BegunLogin, b"login") if cookie else None
        principal = await login.complete(begun, exchange.query())
        if not permissions(self.access.settings, principal.roles):
            raise Forbidden("Your roles have no permission in the console: see [console].")
        lasts = self.access.settings.session_seconds
        headers = [
            self.access.login_cookie(exchange, principal, lasts),
            set_cookie(exchange, _LOGIN_COOKIE, "", seconds=0, same_site="Lax"),
            PRIVATE,
            *SECURITY_HEADERS,
        ]
        page = self._assets["return.html"]
        await exchange.answer(page.body, headers=headers, content_type=page.content_type)

    async def _logout(self, _: "Orchestrator", exchange: Exchange) -> None:
        """`POST /console/api/logout`: end the login, also where its cookie was copied."""
        self.access.check_same_origin(exchange)
        login = self.access.login(exchange)
        if login is not None:
            try:
                await self.access.logins.end(login)
                await self._service.seen_logins(anew=True)
            except StoreUnavailable as problem:  # the browser forgets it nevertheless
                names = printable(login.subject), printable(login.tenant)
                _audit.warning("a logout of %s of %s is not recorded: %s", *names, problem.detail)
        await exchange.no_content([set_cookie(exchange, COOKIE, "", seconds=0), PRIVATE])


def _permission(path: str) -> Permission | None:
    """What the console must permit a user whose roles are to count in the API; None for nothing.

    Without it they decide about what is their own, as without a role.
    """
    if path.startswith("/v1/approvals") or (path.startswith(_CALLS) and "/approvals/" in path):
        return "approve"
    handed_over = path.startswith(_HANDED_OVER) and path.endswith("/messages")
    if handed_over or path.startswith(("/v1/effects", "/v1/handovers")):
        return "operate"
    return None


def _seconds_left(credential: str, most: float) -> float:
    """How long a login by a verified credential lasts: not longer than a token does."""
    if credential.startswith(API_KEY_PREFIX):
        return most
    parts = credential.split(".")
    padded = parts[1] + "=" * (-len(parts[1]) % 4)
    claims = msgspec.json.decode(base64.urlsafe_b64decode(padded), type=_Expiry)
    return min(most, claims.exp - time.time()) if claims.exp is not None else most
