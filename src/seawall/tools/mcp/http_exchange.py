"""One request over streamable HTTP: a POST, answered by JSON or by a stream of events.

The stream of a legacy server may break off and be resumed. Everything that a server sends is
bounded: bytes, messages, requests of its own, resumptions, and time by the request's deadline.
"""

import asyncio
import itertools
import logging
import re
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from msgspec import Raw, Struct

from seawall.identity.outbound.port import Headers
from seawall.tools.mcp.elicitation import Elicitations
from seawall.tools.mcp.header_values import encode_value
from seawall.tools.mcp.jsonrpc import (
    INVALID_PARAMS,
    InvalidMessage,
    Message,
    decode,
    encode_notification,
    encode_request,
)
from seawall.tools.mcp.protocol import (
    MODERN_VERSION,
    Server,
    answer_request,
    is_listing_change,
    progress_of,
)
from seawall.tools.mcp.wire import Header, Request, ResultTooLong
from seawall.tools.port import ToolContext
from seawall.tools.remote_http import RemoteHttp, status_fault
from seawall.tools.repeated_secrets import without_secrets
from seawall.tools.upstream import FaultKind, UpstreamFault, after_sending
from seawall.transport.connection import ProtocolError, TransportError, TransportTimeout
from seawall.transport.http_client import Response
from seawall.transport.sse import SseParser
from seawall.turn import Principal

__all__ = [
    "BOTH",
    "EVENTS",
    "Exchange",
    "HttpExchanges",
    "Session",
    "SessionLost",
    "is_stream",
    "transport_fault",
    "version_headers",
]

BOTH: tuple[Header, ...] = (
    (b"Accept", b"application/json, text/event-stream"),
    (b"Content-Type", b"application/json"),
)
EVENTS: tuple[Header, ...] = ((b"Accept", b"text/event-stream"),)

_MAX_MESSAGES = 10_000  # of one exchange
_MAX_REQUESTS = 16  # of the server, within one exchange
_MAX_RESUMPTIONS = 10
_MAX_BACKGROUND = 64
_MAX_SESSION_ID = 1_024
_RETRY_SECONDS = 1.0
_MAX_RETRY_SECONDS = 30.0
_DRAIN_SECONDS = 0.05
_CANCEL_SECONDS = 2.0
_NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}

# How the message begins that is the result of a request.
_result = re.compile(rb'\s*\{(\s*"(jsonrpc|id)"\s*:\s*("[^"]*"|\d+)\s*,)*\s*"result"\s*:')

_log = logging.getLogger("seawall.tools.mcp")


class SessionLost(Exception):
    """The server does not know the session any more; it has not executed the request."""


class Session(Struct, eq=False):
    """What a server is for one subject.

    Attributes:
        owner: The subject; None for what no turn asks for.
        lock: Of the negotiation.
        server: What the negotiation has found; None before.
        id: The server's id of it; empty if it has none.
        active: Requests in progress.
        asking: Of them, those within which the user may be asked.
        listener: Hears what is asked on the session's stream.
        abandoned: Whether a call was given up, on which the server may still work.
    """

    owner: Principal | None
    lock: asyncio.Lock
    server: Server | None = None
    id: str = ""
    active: int = 0
    asking: list[Elicitations] = []
    listener: asyncio.Task[None] | None = None
    abandoned: bool = False

    @property
    def modern(self) -> bool:
        """Whether there is neither a handshake nor an id."""
        return self.server is not None and self.server.modern

    @property
    def version(self) -> str:
        """Of the protocol; empty before the negotiation."""
        return self.server.version if self.server is not None else ""


class Exchange(Struct, eq=False):
    """A request while it is in progress.

    Attributes:
        number: Its id.
        session: Whose it is.
        version: Of the protocol; empty where none is agreed.
        context: The turn.
        deadline: In seconds on the event loop's clock.
        elicitations: Answer what the server asks now.
        credentials: With which it was made; no message may repeat them.
        progress: Its last words on the progress.
        received: Bytes of streams.
        messages: Messages of the server.
        requests: Of them, requests.
        resumptions: Of its stream.
        last_id: Of its stream's events.
        other_server: Whether the server seems to be another one than at the negotiation.
        retry_seconds: How long the server wants to be left alone before a resumption.
    """

    number: int
    session: Session
    version: str
    context: ToolContext | None
    deadline: float
    elicitations: Callable[[], Elicitations] = Elicitations
    credentials: Headers = ()
    progress: str = ""
    received: int = 0
    messages: int = 0
    requests: int = 0
    resumptions: int = 0
    last_id: bytes = b""
    other_server: bool = False
    retry_seconds: float = _RETRY_SECONDS


class HttpExchanges:
    """The exchanges with one server.

    Attributes:
        meta: Of modern requests.
        changed: Called when the server says that its tools have changed.
    """

    def __init__(
        self,
        http: RemoteHttp,
        url: str,
        *,
        name: str,
        limit: int,
        meta: dict[str, Any],
        changed: Callable[[], None],
    ) -> None:
        self._http = http
        self._url = url
        self._name = name
        self._limit = limit
        self.meta = meta
        self.changed = changed
        self._numbers = itertools.count(1)
        self._background: set[asyncio.Task[None]] = set()

    def begin(
        self, session: Session, version: str, context: ToolContext | None, deadline: float
    ) -> Exchange:
        """A new exchange."""
        return Exchange(next(self._numbers), session, version, context, deadline)

    async def run(self, exchange: Exchange, request: Request) -> Raw:
        """Send a request; return its result.

        Args:
            exchange: A new one.
            request: The request.

        Raises:
            RpcError: The server answered with an error.
            SessionLost: It does not know the session.
            UpstreamFault: It did not answer, or not in JSON-RPC.
        """
        session = exchange.session
        opening = request.method == "initialize"
        if opening:
            session.id = ""
        exchange.elicitations = lambda: request.elicitations
        params = request.params
        if session.server is not None:
            meta = {"progressToken": exchange.number, **request.meta}
            params = {**params, "_meta": {**self.meta, **meta} if session.modern else meta}
        headers = [*BOTH, *version_headers(exchange.version, session.id), *request.headers]
        if exchange.version == MODERN_VERSION:
            headers.append((b"Mcp-Method", request.method.encode("ascii")))
            if (named_by := _NAMED_BY.get(request.method)) is not None:
                headers.append((b"Mcp-Name", encode_value(params[named_by])))
        body = encode_request(exchange.number, request.method, params)
        try:
            answer = await self._post(exchange, body, headers, opening=opening)
            while answer is None:
                with after_sending():
                    answer = await self._resume(exchange)
        except (asyncio.CancelledError, UpstreamFault) as error:
            late = isinstance(error, UpstreamFault) and error.kind == "late"
            unwanted = late or isinstance(error, asyncio.CancelledError)
            if unwanted and session.server is not None and not session.modern:
                session.abandoned = True
                self._in_background(self._cancel(exchange))
            if unwanted and exchange.progress:
                _log.info(
                    "%s: a call was given up; its progress was %s", self._name, exchange.progress
                )
            raise
        return answer.outcome()

    async def _post(
        self, exchange: Exchange, body: bytes, headers: Sequence[Header], *, opening: bool
    ) -> Message | None:
        """The answer; None if the stream ended before it, and can be resumed."""
        try:
            async with self._http.stream(
                "POST",
                self._url,
                headers=headers,
                body=body,
                context=exchange.context,
                deadline=exchange.deadline,
            ) as (response, exchange.credentials):
                if opening:
                    exchange.session.id = _session_id(response)
                if is_stream(response):
                    return await self.read_stream(response, exchange)
                return await self._read_body(response, exchange)
        except TransportError as error:
            fault = transport_fault(error)
            if fault.kind == "broken" and exchange.last_id and not exchange.session.modern:
                return None
            raise fault from error

    async def _read_body(self, response: Response, exchange: Exchange) -> Message:
        status = response.status
        fault = status_fault(response)
        # Statuses of 4xx refuse a request before it is executed, but for 408, which ends a wait.
        executed = status == 408 or not 400 <= status < 500
        if fault is not None and fault.kind != "failed":
            fault.sent = fault.sent and executed
            raise fault
        body = without_secrets(await self._whole_body(response), exchange.credentials)
        if exchange.session.id and _is_lost(status, body, exchange.number):
            raise SessionLost
        detail = f"status {status}"
        if response.headers.get("content-type", "").lower().startswith("application/json"):
            try:
                for message in decode(body):
                    answer = await self._take(message, exchange)
                    if answer is not None:
                        return answer
                detail += " without an answer"
            except InvalidMessage as error:
                detail += f" with an invalid message: {error}"
        elif status < 300:
            detail += " with another type than JSON or a stream of events"
        exchange.other_server = exchange.session.modern and status in (400, 404, 405)
        kind: FaultKind = "refused" if status == 403 else "broken"
        raise fault or UpstreamFault(kind, detail, sent=executed)

    async def _whole_body(self, response: Response) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while data := await response.read_some():
            pieces.append(data)
            size += len(data)
            if size > self._limit:
                if response.status == 200 and _result.match(b"".join(pieces[:2])):
                    raise ResultTooLong(self._limit)
                raise UpstreamFault("broken", f"it sends more than {self._limit} bytes")
        return b"".join(pieces)

    async def read_stream(self, response: Response, exchange: Exchange) -> Message | None:
        """Read a stream of events.

        Args:
            response: The stream.
            exchange: Of the request that it answers.

        Returns:
            The answer; None if the stream ended before it, and can be resumed.

        Raises:
            UpstreamFault: It ended and cannot be resumed, or what it has is invalid or too much.
        """
        parser = SseParser(max_event_bytes=self._limit)
        while data := await response.read_some():
            exchange.received += len(data)
            if exchange.received > self._limit:
                with suppress(ProtocolError):
                    parser.feed(data)
                if _result.match(parser.beginning):
                    raise ResultTooLong(self._limit)
                raise UpstreamFault("broken", f"it sends more than {self._limit} bytes")
            for event in parser.feed(data):
                exchange.last_id = event.id or exchange.last_id
                answer = await self._take_event(event.name, event.data, exchange)
                if answer is not None:
                    await response.drain(seconds=_DRAIN_SECONDS)
                    return answer
            exchange.last_id = parser.last_id or exchange.last_id
            if parser.retry_seconds is not None:
                exchange.retry_seconds = min(parser.retry_seconds, _MAX_RETRY_SECONDS)
        if exchange.last_id and not exchange.session.modern:
            return None
        raise UpstreamFault("broken", "its stream ended without an answer")

    async def _take_event(self, name: bytes, data: bytes, exchange: Exchange) -> Message | None:
        if name != b"message" or not data:
            return None
        try:
            messages = decode(without_secrets(data, exchange.credentials))
        except InvalidMessage as error:
            raise UpstreamFault("broken", f"an invalid message: {error}") from None
        for message in messages:
            answer = await self._take(message, exchange)
            if answer is not None:
                return answer
        return None

    async def _take(self, message: Message, exchange: Exchange) -> Message | None:
        """Take a message; return it if it is the answer."""
        exchange.messages += 1
        if exchange.messages > _MAX_MESSAGES:
            raise UpstreamFault("broken", f"it sends more than {_MAX_MESSAGES} messages")
        if message.is_answer:
            unread = message.id is None and message.error is not None
            return message if message.id == exchange.number or unread else None
        if message.id is None:
            if is_listing_change(message):
                self.changed()
            elif (progress := progress_of(message)) is not None:
                exchange.progress = progress[1]
        elif not exchange.session.modern:
            exchange.requests += 1
            if exchange.requests > _MAX_REQUESTS:
                raise UpstreamFault("broken", f"it asks more than {_MAX_REQUESTS} times")
            with after_sending():
                await self.post_message(exchange, answer_request(message, exchange.elicitations()))
        return None

    async def post_message(self, exchange: Exchange, body: bytes) -> None:
        """Send a message that has no answer."""
        headers = (*BOTH, *version_headers(exchange.version, exchange.session.id))
        async with self._http.stream(
            "POST",
            self._url,
            headers=headers,
            body=body,
            context=exchange.context,
            deadline=exchange.deadline,
        ) as (response, _):
            await response.drain(seconds=_DRAIN_SECONDS)
            if response.status >= 400:
                _log.debug("%s: a message was refused: HTTP %d", self._name, response.status)

    async def _resume(self, exchange: Exchange) -> Message | None:
        """Continue the stream of an answer after it has broken off; see `_post`."""
        exchange.resumptions += 1
        if exchange.resumptions > _MAX_RESUMPTIONS:
            raise UpstreamFault("broken", "its stream breaks off again and again")
        now = asyncio.get_running_loop().time()
        if now + exchange.retry_seconds >= exchange.deadline:
            raise UpstreamFault("late", "its stream broke off, and there is no time to resume it")
        await asyncio.sleep(exchange.retry_seconds)
        headers = version_headers(exchange.version, exchange.session.id)
        try:
            async with self._http.stream(
                "GET",
                self._url,
                headers=(*EVENTS, *headers, (b"Last-Event-ID", exchange.last_id)),
                context=exchange.context,
                deadline=exchange.deadline,
            ) as (response, exchange.credentials):
                if response.status != 200 or not is_stream(response):
                    detail = f"its stream cannot be resumed: HTTP {response.status}"
                    raise UpstreamFault("failed", detail)
                return await self.read_stream(response, exchange)
        except TransportError as error:
            fault = transport_fault(error)
            if fault.kind == "broken":
                return None
            raise fault from error
        except UpstreamFault as fault:
            if fault.kind == "unreachable":
                return None
            raise

    async def _cancel(self, abandoned: Exchange) -> None:
        """Tell a legacy server that nothing waits for an answer any more."""
        params = {"requestId": abandoned.number, "reason": "the turn does not wait any longer"}
        deadline = asyncio.get_running_loop().time() + _CANCEL_SECONDS
        exchange = self.begin(abandoned.session, abandoned.version, abandoned.context, deadline)
        try:
            await self.post_message(
                exchange, encode_notification("notifications/cancelled", params)
            )
        except UpstreamFault as fault:
            _log.debug("%s: a call was not cancelled: %s", self._name, fault.detail)

    async def close(self) -> None:
        """End what is left of cancelled exchanges."""
        for task in (tasks := [*self._background]):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._background) >= _MAX_BACKGROUND:
            work.close()
            return
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def version_headers(version: str, session: str) -> list[Header]:
    """The headers that every message has.

    Args:
        version: Of the protocol; empty if none is agreed.
        session: Id of the session; empty if there is none.
    """
    headers = []
    if version:
        headers.append((b"MCP-Protocol-Version", version.encode("ascii")))
    if session:
        headers.append((b"Mcp-Session-Id", session.encode("ascii")))
    return headers


def is_stream(response: Response) -> bool:
    """Whether a response is a stream of events."""
    found = response.headers.get("content-type", "").lower().startswith("text/event-stream")
    return found and response.status == 200


def transport_fault(error: TransportError) -> UpstreamFault:
    """The fault of an answer that broke off."""
    if isinstance(error, TransportTimeout):
        return UpstreamFault("late", str(error))
    return UpstreamFault("broken", str(error))


def _is_lost(status: int, body: bytes, number: int) -> bool:
    """Whether a server does not know a session: 404; many say 400 and mention it.

    An argument may be called so as well: its error is the answer to the request.
    """
    if status != 400 or b"session" not in body[:2_000].lower():
        return status == 404
    try:
        errors = [each.error for each in decode(body) if each.id == number]
    except InvalidMessage:
        return True
    return not any(each is not None and each.code == INVALID_PARAMS for each in errors)


def _session_id(response: Response) -> str:
    found = response.headers.get("mcp-session-id", "")
    if len(found) > _MAX_SESSION_ID or not (found.isascii() and found.isprintable()):
        raise UpstreamFault("broken", "the id of its session is invalid")
    return found
