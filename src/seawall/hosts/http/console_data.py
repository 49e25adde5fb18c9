"""`/console/api`: what happens now, recent turns, and the sessions of all tenants.

Times, figures and names are for everyone who may look. What people and models wrote needs the
permission to read, and each reading is logged and recorded in the audit of the session before it is
shown.
"""

import asyncio
import logging
import math
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from seawall.console.access import Viewer
from seawall.console.service import ConsoleService
from seawall.console.shown import FIELDS, ShownEvent, TurnDetails
from seawall.errors import (
    InvalidField,
    NotFound,
    Problem,
    SessionNotFound,
    StoreUnavailable,
    TurnNotFound,
)
from seawall.hosts.http.console_access import ConsoleAccess
from seawall.hosts.http.exchange import Exchange, encode
from seawall.hosts.http.sessions import call_limit, public_fields, read_page, shown_turn
from seawall.hosts.http.turns import EVENT_STREAM, while_connected
from seawall.printable import printable
from seawall.storage.port import AuditRecord
from seawall.turn import Decision, Principal, SessionKey

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = ["ConsoleData"]

_audit = logging.getLogger("seawall.audit")
_audit.setLevel(logging.INFO)  # independently of the level of other logs
_STREAM_SECONDS = 900.0  # after which the page connects again, and is authenticated again
_CHECK_SECONDS = 5.0  # between two looks whether the login was ended
_MAX_VALUE_CHARACTERS = 256
_MAX_EVENTS = 10_000


class ConsoleData:
    """Endpoints with data for the page."""

    def __init__(self, access: ConsoleAccess, service: ConsoleService) -> None:
        """Create them.

        Args:
            access: Decides who may ask.
            service: Has recent turns and samples of all workers.
        """
        self._access = access
        self._service = service

    async def now(self, _: "Orchestrator", exchange: Exchange) -> None:
        """`GET /console/api/now`: server-sent events, one each second.

        Raises:
            Overloaded: As many pages as are allowed show it already.
        """
        viewer = await self._access.viewer(exchange, "look")
        await exchange.body(limit=0, seconds=1.0)
        with self._service.feed.viewer():
            await while_connected(exchange, self._stream(exchange, viewer))

    async def _stream(self, exchange: Exchange, viewer: Viewer) -> None:
        await exchange.start(200, [*EVENT_STREAM, (b"x-content-type-options", b"nosniff")])
        until = time.monotonic() + _STREAM_SECONDS
        checked_at = time.monotonic()
        async with aclosing(self._service.feed.watch()) as frames:
            async for frame in frames:
                await exchange.write(frame)
                if exchange.shutdown.requested or time.monotonic() > until:
                    break
                if time.monotonic() - checked_at >= _CHECK_SECONDS:
                    checked_at = time.monotonic()
                    if await self._is_over(viewer):
                        break
        await exchange.end()

    async def _is_over(self, viewer: Viewer) -> bool:
        try:
            return await self._access.has_ended(viewer)
        except StoreUnavailable:
            return True

    async def turns(self, _: "Orchestrator", exchange: Exchange) -> None:
        """`GET /console/api/turns`: recent turns of all workers, newest first."""
        await self._access.viewer(exchange, "look")
        rows, kept = await self._service.search(_search(exchange))
        await _answer(exchange, {"turns": rows, "kept": kept})

    async def turn(self, exchange: Exchange, turn: str) -> None:
        """`GET /console/api/turns/{id}`: a recent turn, without contents."""
        await self._access.viewer(exchange, "look")
        await _answer(exchange, await self._find(turn, content=False))

    async def turn_events(
        self, orchestrator: "Orchestrator", exchange: Exchange, turn: str
    ) -> None:
        """`GET /console/api/turns/{id}/events`: its events with their times, or from the store.

        Those from the store have no times. Whose they are is asked with `tenant` and `subject`,
        unless the turn is recent.

        Raises:
            TurnNotFound: The turn is not known, or of which session it is.
        """
        viewer = await self._access.viewer(exchange, "read")
        details = await self._service.turn(turn, content=True)
        if details is not None and details.row.outcome == "running":
            raise NotFound("The turn has not ended yet: its contents are shown when it has.")
        if details is not None and details.row.tenant:
            row = details.row
            owner = Principal(row.tenant, row.subject)
        else:
            owner = _owner(exchange)
        session = details.row.session if details is not None else ""
        if details is not None and details.events is not None:
            events, truncated = details.events, details.truncated
        else:
            events, truncated = await self._stored_events(orchestrator, owner, turn)
            started = (each.event for each in events if each.event["type"] == "turn.started")
            session = session or next((str(each["session"]) for each in started), "")
            if not session:
                raise TurnNotFound
        await self._record(orchestrator, viewer, owner, session, turn)
        await _answer(exchange, {"events": events, "truncated": truncated})

    async def sessions(self, orchestrator: "Orchestrator", exchange: Exchange) -> None:
        """`GET /console/api/sessions?tenant=&subject=`: a subject's sessions, newest first."""
        await self._access.viewer(exchange, "look")
        owner = _owner(exchange)
        limit, cursor = read_page(exchange)
        async with call_limit(orchestrator):
            page = await orchestrator.engine.store.sessions(owner, limit=limit, cursor=cursor)
        listed = [public_fields(each) for each in page.sessions]
        await _answer(exchange, {"sessions": listed, "cursor": page.cursor})

    async def session(self, orchestrator: "Orchestrator", exchange: Exchange, session: str) -> None:
        """`GET /console/api/sessions/{id}?tenant=&subject=`: its turns, newest first."""
        viewer = await self._access.viewer(exchange, "read")
        owner = _owner(exchange)
        limit, cursor = read_page(exchange)
        if len(session) > _MAX_VALUE_CHARACTERS:
            raise SessionNotFound
        key = SessionKey(owner.tenant, owner.subject, session)
        async with call_limit(orchestrator):
            page = await orchestrator.engine.store.turns(key, limit=limit, cursor=cursor)
        await self._record(orchestrator, viewer, owner, session, "")
        turns = [shown_turn(each) for each in page.turns]
        await _answer(
            exchange, public_fields(page.session) | {"turns": turns, "cursor": page.cursor}
        )

    async def _find(self, turn: str, *, content: bool) -> TurnDetails:
        details = await self._service.turn(turn[:_MAX_VALUE_CHARACTERS], content=content)
        if details is None:
            raise TurnNotFound
        return details

    async def _stored_events(
        self, orchestrator: "Orchestrator", owner: Principal, turn: str
    ) -> tuple[list[ShownEvent], bool]:
        """The events of a turn as they are stored, as far as it has come."""
        found: list[ShownEvent] = []
        try:
            async with (
                asyncio.timeout(orchestrator.settings.turn.session),
                aclosing(orchestrator.engine.events(owner, turn)) as events,
            ):
                async for position, event in events:
                    found.append(ShownEvent(None, position, msgspec.to_builtins(event)))
                    if len(found) >= _MAX_EVENTS:
                        return found, True
        except TimeoutError:
            return found, True
        except Problem:
            if not found:
                raise
        return found, False

    async def _record(
        self,
        orchestrator: "Orchestrator",
        viewer: Viewer,
        owner: Principal,
        session: str,
        turn: str,
    ) -> None:
        """Log and record that contents are read.

        Raises:
            StoreUnavailable: It cannot be recorded, and so nothing is shown.
        """
        who = viewer.principal
        _audit.info(
            "%s of %s reads session %s turn %s of %s of %s in the console",
            *map(printable, (who.subject, who.tenant, session, turn or "-")),
            *map(printable, (owner.subject, owner.tenant)),
        )
        if not session:  # of a turn that has failed before it had one
            return
        now = time.time()
        by = f"{who.subject} of {who.tenant}"[:_MAX_VALUE_CHARACTERS]
        record = AuditRecord(
            key=SessionKey(owner.tenant, owner.subject, session),
            turn=turn,
            kind="read",
            effect="",
            call="",
            tool="",
            agent="",
            arguments="",
            status="read",
            at=now,
            decision=Decision("read", by, now),
        )
        async with call_limit(orchestrator):
            await orchestrator.engine.store.append_audit(record)


def _search(exchange: Exchange) -> dict[str, str]:
    query = {name: value for name, value in exchange.query().items() if value}
    for name, value in query.items():
        if name not in (*FIELDS, "since", "until", "course"):
            raise InvalidField("There is no such field.", field=name[:64])
        if len(value) > _MAX_VALUE_CHARACTERS:
            raise InvalidField(f"Must have at most {_MAX_VALUE_CHARACTERS} characters.", field=name)
        if name == "course" and value not in ("", "recorded"):
            raise InvalidField('Must be "recorded", if it is given.', field=name)
        if name in ("since", "until") and not _is_number(value):
            raise InvalidField("Must be a number of Unix seconds.", field=name)
    return query


def _is_number(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def _owner(exchange: Exchange) -> Principal:
    query = exchange.query()
    for name in ("tenant", "subject"):
        if not 1 <= len(query.get(name, "")) <= _MAX_VALUE_CHARACTERS:
            raise InvalidField(f"Must have 1 to {_MAX_VALUE_CHARACTERS} characters.", field=name)
    return Principal(query["tenant"], query["subject"])


async def _answer(exchange: Exchange, value: object) -> None:
    await exchange.answer(
        encode(value),
        headers=[(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")],
    )
