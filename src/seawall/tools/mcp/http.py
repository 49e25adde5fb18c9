"""The way to a server over streamable HTTP, and its sessions.

A legacy server may give out sessions. There is one for each subject, never one for two: what a
server keeps in a session is the business of one customer. A modern server has none.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from msgspec import Raw

from seawall.errors import ConfigError
from seawall.tools.mcp.http_changes import HttpChanges
from seawall.tools.mcp.http_exchange import (
    Exchange,
    HttpExchanges,
    Session,
    SessionLost,
    version_headers,
)
from seawall.tools.mcp.http_questions import HttpQuestions
from seawall.tools.mcp.jsonrpc import UNSUPPORTED_VERSION, RpcError, encode_notification
from seawall.tools.mcp.negotiation import initialize, negotiate
from seawall.tools.mcp.protocol import Server, client_offer
from seawall.tools.mcp.wire import MAX_MESSAGE_BYTES, Request
from seawall.tools.port import ToolContext
from seawall.tools.remote_http import RemoteHttp
from seawall.tools.upstream import UpstreamFault
from seawall.turn import Principal

__all__ = ["HttpWire"]

_MAX_SESSIONS = 256  # those least used are ended
_MAX_ENDING = 32
_GOODBYE_SECONDS = 2.0

_log = logging.getLogger("seawall.tools.mcp")


class _Link:
    """Negotiates a session; see `negotiation.Link`."""

    def __init__(self, exchanges: HttpExchanges, begin: Callable[[str], Exchange]) -> None:
        self._exchanges = exchanges
        self._begin = begin

    async def send(self, method: str, params: dict[str, Any], version: str) -> Raw:
        return await self._exchanges.run(self._begin(version), Request(method, params))

    async def notify(self, method: str, version: str) -> None:
        await self._exchanges.post_message(self._begin(version), encode_notification(method))


class HttpWire:
    """The way to one server; see `wire.Wire`."""

    def __init__(
        self,
        http: RemoteHttp,
        url: str,
        *,
        name: str,
        limit: int = MAX_MESSAGE_BYTES,
        stateless: bool = False,
        elicitation: bool | None = None,
    ) -> None:
        """Create it; nothing is sent before it is used.

        Args:
            http: Makes the requests; owned from now on.
            url: The server's endpoint.
            name: Of the source, for the log.
            limit: Bytes that the server may send in answer to one request.
            stateless: Whether a server with sessions is refused.
            elicitation: Whether the server may ask the user; None for a modern one only.
        """
        self._http = http
        self._url = url
        self._name = name
        self._stateless = stateless
        self._offer = client_offer(elicitation)
        self._sessions: OrderedDict[tuple[str, str] | None, Session] = OrderedDict()
        self._shared: Session | None = None  # for all: the server has no sessions
        self._legacy = False  # known to be one
        self._changed: Callable[[], None] | None = None
        self._exchanges = HttpExchanges(
            http, url, name=name, limit=limit, meta=self._offer.meta, changed=self._listing_changed
        )
        self._changes = HttpChanges(
            http,
            url,
            self._exchanges,
            opened=lambda deadline: self._opened(None, deadline),
            lost=self._forget,
        )
        self._questions = HttpQuestions(http, url, self._exchanges) if elicitation else None
        self._ending: set[asyncio.Task[None]] = set()

    async def open(self, *, deadline: float) -> Server:
        """See `Wire.open`.

        Raises:
            ConfigError: The server has sessions, and must not.
            UpstreamFault: See `Wire.open`.
        """
        session = await self._opened(None, deadline)
        assert session.server is not None  # noqa: S101 - it is open
        if self._stateless:
            if session.id:
                raise ConfigError(
                    f"{self._name}: {self._url} keeps sessions (MCP {session.version}). Here only "
                    "stateless servers can be used: each process would be a session of its own."
                )
        elif session.server.notifies and self._changed is not None:
            self._changes.start()
        return session.server

    async def request(
        self, request: Request, *, context: ToolContext | None, deadline: float
    ) -> Raw:
        """See `Wire.request`."""
        session = await self._opened(context, deadline)
        try:
            return await self._request(session, request, context, deadline)
        except SessionLost:
            self._forget(session)
        session = await self._opened(context, deadline)
        try:
            return await self._request(session, request, context, deadline)
        except SessionLost:
            self._forget(session)
            raise UpstreamFault("broken", "it forgets its sessions at once", sent=False) from None

    async def _request(
        self, session: Session, request: Request, context: ToolContext | None, deadline: float
    ) -> Raw:
        exchange = self._exchanges.begin(session, session.version, context, deadline)
        session.active += 1
        asks = session.id and context is not None and context.may_ask
        try:
            if self._questions is None or not asks:
                return await self._exchanges.run(exchange, request)
            async with self._questions.heard(session, request.elicitations, context, deadline):
                return await self._exchanges.run(exchange, request)
        except UpstreamFault:
            if exchange.other_server:
                self._forget(session)
            raise
        except RpcError as error:
            if error.code == UNSUPPORTED_VERSION:
                self._forget(session)
                raise UpstreamFault("broken", str(error), sent=False) from error
            raise
        finally:
            session.active -= 1

    def subscribe(self, changed: Callable[[], None]) -> None:
        """See `Wire.subscribe`."""
        self._changed = changed

    async def close(self) -> None:
        """End sessions and what else is in progress."""
        sessions = [each for each in self._sessions.values() if each.id]
        self._sessions.clear()
        self._shared = None
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self._changes.close()
                await self._exchanges.close()
                await asyncio.gather(*self._ending, *map(self._end, sessions))
        except TimeoutError:
            _log.warning("%s: not all sessions were ended", self._name)
        finally:
            await self._http.close()

    def _listing_changed(self) -> None:
        if self._changed is not None:
            self._changed()

    async def _opened(self, context: ToolContext | None, deadline: float) -> Session:
        """The session of the context's subject."""
        if self._shared is not None:
            return self._shared
        owner = context.principal if context is not None else None
        key = (owner.tenant, owner.subject) if owner is not None else None
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = Session(owner, asyncio.Lock())
            self._evict()
        self._sessions.move_to_end(key)
        if session.server is None:
            session.active += 1
            try:
                async with asyncio.timeout_at(deadline), session.lock:
                    if session.server is None:
                        await self._negotiate(session, context, deadline)
            except TimeoutError:
                raise UpstreamFault("late", "no session in time", sent=False) from None
            finally:
                session.active -= 1
        return session

    async def _negotiate(
        self, session: Session, context: ToolContext | None, deadline: float
    ) -> None:
        link = _Link(
            self._exchanges,
            lambda version: self._exchanges.begin(session, version, context, deadline),
        )
        try:
            if self._legacy:
                server = await initialize(link, self._offer)
            else:
                server = await negotiate(link, self._offer)
        except (RpcError, SessionLost) as error:
            self._legacy = False
            detail = f"the handshake was refused: {error}"
            raise UpstreamFault("broken", detail, sent=False) from None
        except UpstreamFault as fault:
            fault.sent = False  # the call itself was not
            raise
        session.server = server
        self._legacy = not server.modern
        if not session.id:
            self._shared = session
            self._sessions.clear()

    def _forget(self, session: Session) -> None:
        if self._shared is session:
            self._shared = None
        for key, each in self._sessions.items():
            if each is session:
                del self._sessions[key]
                return

    def _evict(self) -> None:
        """End the session that was not used for the longest time, if there are too many."""
        if len(self._sessions) <= _MAX_SESSIONS:
            return
        for key, each in self._sessions.items():
            if not each.active:
                del self._sessions[key]
                if each.id and len(self._ending) < _MAX_ENDING:
                    task = asyncio.create_task(self._end(each))
                    self._ending.add(task)
                    task.add_done_callback(self._ending.discard)
                return

    async def _end(self, session: Session) -> None:
        """Tell the server that a session is not needed any more."""
        deadline = asyncio.get_running_loop().time() + _GOODBYE_SECONDS
        try:
            await self._http.request(
                "DELETE",
                self._url,
                headers=version_headers(session.version, session.id),
                context=_context_of(session.owner, deadline),
                deadline=deadline,
            )
        except UpstreamFault as fault:
            _log.debug("%s: a session was not ended: %s", self._name, fault)


def _context_of(owner: Principal | None, deadline: float) -> ToolContext | None:
    """A context for the end of a session: whose it was, and nothing of a turn."""
    if owner is None:
        return None
    return ToolContext(owner, "", "", "", "", "", deadline, {})
