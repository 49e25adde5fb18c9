"""Runs an ASGI application on Lambda: its lifespan once, a request for each HTTP event."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

import msgspec

from seawall.errors import Problem
from seawall.hosts.aws_lambda.http_events import (
    INTEGRATION,
    HttpEvent,
    Source,
    http_response,
    stream_prelude,
)

__all__ = ["AsgiApp", "Lifespan", "ResponseWriter", "answer_http", "reject_http"]

_log = logging.getLogger("seawall.lambda")

Message = MutableMapping[str, Any]
AsgiApp = Callable[
    [dict[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]


class ResponseWriter(Protocol):
    """Takes the response to an invocation."""

    async def respond(self, payload: bytes) -> None:
        """Send a complete response."""
        ...

    async def begin(self, content_type: str) -> None:
        """Begin a streamed response."""
        ...

    async def write(self, piece: bytes) -> None:
        """Send a piece of a streamed response."""
        ...

    async def end(self) -> None:
        """End a streamed response."""
        ...


class Lifespan:
    """Start and end of an application by ASGI's lifespan protocol.

    Attributes:
        state: Set by the application at its start, and passed to every request.
    """

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._events: asyncio.Queue[str] = asyncio.Queue()
        self._replies: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self.state: dict[str, Any] = {}

    async def start(self) -> None:
        """Start the application, unless it does not support lifespans.

        Raises:
            RuntimeError: The application reports that it cannot start.
        """
        self._task = asyncio.create_task(self._run())
        reply = await self._ask("startup")
        if reply is None:
            self._task = None
        elif reply["type"] == "lifespan.startup.failed":
            raise RuntimeError(f"the application does not start: {reply.get('message', '')}")

    async def stop(self) -> None:
        """Shut the application down."""
        if self._task is not None:
            await self._ask("shutdown")
            await asyncio.wait([self._task])

    async def _ask(self, event: str) -> Message | None:
        """Send an event; return the reply, or None if the application ended without one."""
        task = self._task
        if task is None:
            return None
        self._events.put_nowait(f"lifespan.{event}")
        receiving = asyncio.create_task(self._replies.get())
        await asyncio.wait([receiving, task], return_when=asyncio.FIRST_COMPLETED)
        if receiving.done():
            return receiving.result()
        receiving.cancel()
        return None if self._replies.empty() else self._replies.get_nowait()

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }

        async def receive() -> Message:
            return {"type": await self._events.get()}

        async def send(message: Message) -> None:
            self._replies.put_nowait(message)

        try:
            await self._app(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - as servers do: it does not support lifespans
            _log.debug("the application has no lifespan: %r", error)


async def answer_http(
    app: AsgiApp, event: HttpEvent, writer: ResponseWriter, *, stream: bool
) -> None:
    """Have the application answer one request.

    Args:
        app: The application.
        event: The request.
        writer: Takes the response.
        stream: Whether the response is streamed.

    Raises:
        RuntimeError: The application ended before its response was complete, or sent messages in
            the wrong order.
        Exception: Any that it raises.
    """
    exchange = _Exchange(event, writer, stream=stream)
    await app(event.scope, exchange.receive, exchange.send)
    if not exchange.complete:
        raise RuntimeError("the application ended before its response was complete")


async def reject_http(
    problem: Problem, source: Source, writer: ResponseWriter, *, stream: bool, name: str
) -> None:
    """Answer a request with a problem, without calling the application.

    Args:
        problem: What is wrong.
        source: Of the event.
        writer: Takes the response.
        stream: Whether the response is streamed.
        name: The id of the request.
    """
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"x-request-id", name.encode("ascii", "replace")),
    ]
    body = msgspec.json.encode(problem.as_dict() | {"request_id": name})
    if not stream:
        await writer.respond(http_response(problem.status, headers, body, source))
        return
    await writer.begin(INTEGRATION)
    await writer.write(stream_prelude(problem.status, headers, source) + body)
    await writer.end()


class _Exchange:
    def __init__(self, event: HttpEvent, writer: ResponseWriter, *, stream: bool) -> None:
        self._event = event
        self._writer = writer
        self._stream = stream
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._read = False
        self._over = asyncio.Event()
        self._head_only = event.scope["method"] == "HEAD"
        self.complete = False

    async def receive(self) -> Message:
        if not self._read:
            self._read = True
            return {"type": "http.request", "body": self._event.body, "more_body": False}
        await self._over.wait()  # Lambda does not report that a client has disconnected
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start" and not self._status:
            self._status = message["status"]
            self._headers = [
                (bytes(name), bytes(value)) for name, value in message.get("headers", ())
            ]
            if self._stream:
                await self._writer.begin(INTEGRATION)
                head = stream_prelude(self._status, self._headers, self._event.source)
                await self._writer.write(head)
        elif kind == "http.response.body" and self._status and not self.complete:
            piece = b"" if self._head_only else message.get("body", b"")
            last = not message.get("more_body", False)
            if self._stream:
                if piece:
                    await self._writer.write(piece)
                if last:
                    self.complete = True
                    await self._writer.end()
            else:
                self._body.append(piece)
                if last:
                    self.complete = True
                    await self._writer.respond(
                        http_response(
                            self._status, self._headers, b"".join(self._body), self._event.source
                        )
                    )
            if last:
                self._over.set()
        else:
            raise RuntimeError(f"the application sent an unexpected {kind!r}")
