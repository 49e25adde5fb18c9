"""`/console/api/surge`: a surge that an operator starts from the page, at this server only."""

import logging
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta, Struct

from seawall.console.service import ConsoleService
from seawall.console.surge import MAX_SECONDS
from seawall.errors import InvalidField, NotFound, Overloaded, ServerStopping
from seawall.hosts.http.bodies import decode
from seawall.hosts.http.console_access import ConsoleAccess
from seawall.hosts.http.exchange import Exchange, encode
from seawall.printable import printable

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = ["ConsoleSurges"]

_audit = logging.getLogger("seawall.audit")
_MAX_BODY_BYTES = 1_024


class _SurgeBody(Struct, forbid_unknown_fields=True):
    """The people of a surge, and the seconds within which they arrive."""

    people: Annotated[int, Meta(ge=1)]
    seconds: Annotated[float, Meta(ge=0, le=MAX_SECONDS)] = 0.0


class ConsoleSurges:
    """Endpoints of surges."""

    def __init__(self, access: ConsoleAccess, service: ConsoleService) -> None:
        """Create them.

        Args:
            access: Decides who may start one.
            service: Runs it.
        """
        self._access = access
        self._service = service
        self._decoder = msgspec.json.Decoder(_SurgeBody)

    async def show(self, _: "Orchestrator", exchange: Exchange) -> None:
        """`GET /console/api/surge`: the newest surge of all workers."""
        await self._access.viewer(exchange, "look")
        settings = self._service.surges.settings
        surge = await self._service.surge() if settings is not None else None
        most = 0 if settings is None else settings.people
        await _answer(exchange, {"most": most, "seconds": MAX_SECONDS, "surge": surge})

    async def start(self, orchestrator: "Orchestrator", exchange: Exchange) -> None:
        """`POST /console/api/surge`: start one.

        Raises:
            NotFound: None may be started here.
            InvalidField: There are more people than allowed.
            Overloaded: One runs already.
            ServerStopping: This server is stopping.
        """
        viewer = await self._access.viewer(exchange, "operate", change=True)
        settings = self._service.surges.settings
        if settings is None:
            raise NotFound("No surge may be started here: see [console.surge].")
        seconds = orchestrator.settings.server.body_seconds
        body = decode(self._decoder, await exchange.body(limit=_MAX_BODY_BYTES, seconds=seconds))
        if body.people > settings.people:
            raise InvalidField(f"Must be at most {settings.people}.", field="people")
        if exchange.shutdown.requested:
            raise ServerStopping("This server is stopping.", retry_after=1.0)
        who = f"{viewer.principal.subject} of {viewer.principal.tenant}"
        surge = await self._service.surges.start(_own_url(exchange), body.people, body.seconds, who)
        _audit.info(
            "%s starts surge %s of %d in the console", printable(who), surge.id, body.people
        )
        await _answer(exchange, {"surge": surge})

    async def stop(self, exchange: Exchange, surge: str) -> None:
        """`POST /console/api/surge/{id}/stop`: stop one, of any operator.

        Raises:
            NotFound: It does not run.
            Overloaded: The worker beside which it runs does not answer now.
        """
        viewer = await self._access.viewer(exchange, "operate", change=True)
        await exchange.body(limit=_MAX_BODY_BYTES, seconds=1.0)
        shown = await self._service.surge(stop=surge[:64])
        if shown is None or shown.id != surge or shown.over:
            raise NotFound("This surge does not run.")
        if shown.state != "stopping":
            raise Overloaded("Its worker does not answer now: try again.", retry_after=1.0)
        who = f"{viewer.principal.subject} of {viewer.principal.tenant}"
        _audit.info("%s stops surge %s in the console", printable(who), shown.id)
        await _answer(exchange, {"surge": shown})


def _own_url(exchange: Exchange) -> str:
    """The address of this server at which the request has arrived."""
    host, port = exchange.scope["server"][:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _answer(exchange: Exchange, value: object) -> None:
    await exchange.answer(
        encode(value),
        headers=[(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")],
    )
