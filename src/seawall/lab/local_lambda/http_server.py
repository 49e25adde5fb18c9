"""HTTP/1.1 as the local Lambda serves it: requests with streamed bodies and trailers."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from http import HTTPStatus

from seawall.transport.http_request import MalformedRequest, parse_head

__all__ = ["Header", "HttpServer", "Request", "ResponseWriter", "serve"]

Header = tuple[str, str]
Handle = Callable[["Request", "ResponseWriter"], Awaitable[None]]

_log = logging.getLogger("seawall.lab.lambda")
_MAX_HEAD_BYTES = 1 << 20  # of trailers as well: an error goes there whole
_MAX_CHUNK_LINE_BYTES = 1_024
_size = re.compile(rb"[0-9A-Fa-f]{1,16}")
_PIECE_BYTES = 1 << 16
_ROUNDS_TO_ACCEPT = 4  # of the event loop, until what was just accepted is among the connections


class Request:
    """A request; its body is read once, by `pieces`, and at its end the trailers are known."""

    def __init__(
        self,
        method: str,
        target: str,
        headers: list[Header],
        reader: asyncio.StreamReader,
        length: int | None,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.trailers: dict[str, str] = {}
        self._reader = reader
        self._chunked = length is None
        self._left = length or 0
        self._done = not self._chunked and self._left == 0

    def header(self, name: str) -> str:
        """The value of a header by its lower-case name; "" if it was not sent."""
        return next((value for key, value in self.headers if key == name), "")

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes; may be left, and gone on with.

        Raises:
            asyncio.IncompleteReadError: it broke off.
            MalformedRequest: it is not well formed.
        """
        while not self._done:
            if self._left == 0:  # chunked: another chunk begins
                line = await self._reader.readuntil(b"\n")
                self._left = _chunk_size(line)
                if self._left == 0:
                    await self._read_trailers()
                    return
            piece = await self._reader.read(min(self._left, _PIECE_BYTES))
            if not piece:
                raise asyncio.IncompleteReadError(b"", self._left)
            self._left -= len(piece)
            if self._left == 0 and self._chunked:
                if await self._reader.readexactly(2) != b"\r\n":
                    raise MalformedRequest("a chunk is longer than its size says")
            elif self._left == 0:
                self._done = True
            yield piece

    async def body(self, limit: int) -> bytes | None:
        """The whole body; None where it is longer than `limit` bytes, of which the rest is read."""
        parts: list[bytes] = []
        size = 0
        async for piece in self.pieces():
            size += len(piece)
            if size <= limit:
                parts.append(piece)
        return b"".join(parts) if size <= limit else None

    async def skip(self) -> None:
        """Read past what is left of the body."""
        async for _ in self.pieces():
            pass

    async def _read_trailers(self) -> None:
        self._done = True
        size = 0
        while line := (await self._reader.readuntil(b"\n")).strip():
            size += len(line)
            if size > _MAX_HEAD_BYTES:
                raise MalformedRequest("the trailers are too large")
            name, _, value = line.decode("latin-1").partition(":")
            self.trailers[name.strip().lower()] = value.strip()


class ResponseWriter:
    """Writes the answer to one request.

    started: whether its head is out. gone: the other side does not listen any more.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, head_only: bool
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._head_only = head_only
        self.started = False
        self.disconnected = False

    @property
    def client_connected(self) -> bool:
        """Whether the other side still waits for an answer, as far as is known."""
        return not (self.disconnected or self._reader.at_eof() or self._writer.is_closing())

    async def answer(self, status: int, body: bytes = b"", headers: Iterable[Header] = ()) -> None:
        """Send a whole answer."""
        self._head(status, [*headers, ("content-length", str(len(body)))], body)
        await self._drain()

    async def start(self, status: int, headers: Iterable[Header] = ()) -> None:
        """Send the head of an answer whose body comes in pieces."""
        self._head(status, [*headers, ("transfer-encoding", "chunked")], b"")
        await self._drain()

    async def write(self, piece: bytes) -> None:
        """Send a piece of the body."""
        if piece and not (self.disconnected or self._head_only):
            self._writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await self._drain()

    async def end(self) -> None:
        """The body is whole."""
        if not (self.disconnected or self._head_only):
            self._writer.write(b"0\r\n\r\n")
            await self._drain()

    def abort(self) -> None:
        """Close the connection in the middle, so that nobody takes the answer for whole."""
        self.disconnected = True
        self._writer.transport.abort()

    def _head(self, status: int, headers: list[Header], body: bytes) -> None:
        self.started = True
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "Status"
        lines = [f"HTTP/1.1 {status} {phrase}"]
        lines += [f"{name}: {_line(value)}" for name, value in headers]
        head = "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n"
        self._writer.write(head if self._head_only else head + body)

    async def _drain(self) -> None:
        try:
            await self._writer.drain()
        except ConnectionError:
            self.disconnected = True


class HttpServer:
    """A server that listens, and the connections that it has."""

    def __init__(self) -> None:
        self.server: asyncio.Server
        self.connections: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening, and end every connection."""
        self.server.close()
        for _ in range(_ROUNDS_TO_ACCEPT):
            await asyncio.sleep(0)
        for task in self.connections:
            task.cancel()
        if self.connections:
            await asyncio.wait(self.connections)


async def serve(handle: Handle, host: str, port: int) -> HttpServer:
    """Serve at an address; every request of a connection is handled after the one before."""
    serving = HttpServer()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            serving.connections.add(task)
            task.add_done_callback(serving.connections.discard)
        try:
            await _serve_connection(handle, reader, writer)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        except asyncio.CancelledError:  # the server is closing: there is nothing to wait for
            writer.transport.abort()

    serving.server = await asyncio.start_server(
        connected, host, port, limit=_MAX_HEAD_BYTES, backlog=4_096
    )
    return serving


async def _serve_connection(
    handle: Handle, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Handle the requests of a connection until it ends."""
    answer: ResponseWriter | None = None
    try:
        while (request := await _read_head(reader)) is not None:
            answer = ResponseWriter(reader, writer, head_only=request.method == "HEAD")
            await handle(request, answer)
            if answer.disconnected or not answer.started:
                break
            await request.skip()
            answer = None
    except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass
    except MalformedRequest as error:
        if answer is None or not answer.started:
            writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        _log.warning("not HTTP/1.1: %s", error)


async def _read_head(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    found = parse_head(head)
    target = found.path + (b"?" + found.query if found.query else b"")
    headers = [
        (name.decode(), value.decode("utf-8", "surrogateescape")) for name, value in found.headers
    ]
    return Request(found.method.decode(), target.decode(), headers, reader, found.length)


def _chunk_size(line: bytes) -> int:
    size = line.rstrip(b"\r\n").partition(b";")[0]
    if len(line) > _MAX_CHUNK_LINE_BYTES or not _size.fullmatch(size):
        raise MalformedRequest("a chunk without a size")
    return int(size, 16)


def _line(value: str) -> str:
    """A header value that cannot become two lines."""
    return value.replace("\r", " ").replace("\n", " ")
