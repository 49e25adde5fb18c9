"""HTTP/1.1 server of the local Lambda: streamed request and response bodies, and trailers."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from http import HTTPStatus

from seawall.transport.http_request import MalformedRequest, RequestHead, RequestReader

__all__ = ["Header", "HttpServer", "Request", "ResponseWriter", "serve"]

Header = tuple[str, str]
Handler = Callable[["Request", "ResponseWriter"], Awaitable[None]]

_log = logging.getLogger("seawall.lab.lambda")
_MAX_HEAD_BYTES = 1 << 20  # with trailers: a streamed error is sent as one trailer
_MAX_HEADERS = 1_000
_READ_BYTES = 1 << 16
_ACCEPT_ROUNDS = 4  # event loop iterations until an accepted connection is in `connections`


class Request:
    """A request. Its body is read once, by `pieces`; `trailers` are complete after that.

    Attributes:
        method: As sent.
        target: Path and query.
        headers: Names in lower case, in the order sent.
    """

    def __init__(
        self, head: RequestHead, parser: RequestReader, stream: asyncio.StreamReader
    ) -> None:
        target = head.path + (b"?" + head.query if head.query else b"")
        self.method = head.method.decode()
        self.target = target.decode()
        self.headers = [
            (name.decode(), value.decode("utf-8", "surrogateescape"))
            for name, value in head.headers
        ]
        self._parser = parser
        self._stream = stream

    @property
    def trailers(self) -> dict[str, str]:
        """Trailers by lower-case name."""
        lines = self._parser.trailers.decode("latin-1").splitlines()
        pairs = (line.partition(":") for line in lines)
        return {name.lower(): value.strip() for name, _, value in pairs}

    def header(self, name: str) -> str:
        """The value of a header by its lower-case name; "" if it was not sent."""
        return next((value for key, value in self.headers if key == name), "")

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Iteration may stop and be continued by another call.

        Raises:
            asyncio.IncompleteReadError: The connection ended within the body.
            MalformedRequest: The body is malformed.
        """
        while not self._parser.complete:
            if piece := self._parser.read_body():
                yield piece
            elif not self._parser.complete:
                await _receive(self._stream, self._parser)

    async def body(self, limit: int) -> bytes | None:
        """The whole body; None if it exceeds `limit` bytes (it is read to its end all the same)."""
        parts: list[bytes] = []
        size = 0
        async for piece in self.pieces():
            size += len(piece)
            if size <= limit:
                parts.append(piece)
        return b"".join(parts) if size <= limit else None

    async def skip(self) -> None:
        """Read and discard the rest of the body."""
        async for _ in self.pieces():
            pass


class ResponseWriter:
    """Writes the response to one request.

    Attributes:
        started: Whether the head has been sent.
        disconnected: Whether writing failed because the client has closed the connection.
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
        """Whether no disconnection of the client was detected."""
        return not (self.disconnected or self._reader.at_eof() or self._writer.is_closing())

    async def answer(self, status: int, body: bytes = b"", headers: Iterable[Header] = ()) -> None:
        """Send a complete response."""
        self._head(status, [*headers, ("content-length", str(len(body)))], body)
        await self._drain()

    async def start(self, status: int, headers: Iterable[Header] = ()) -> None:
        """Send the head of a response with a chunked body."""
        self._head(status, [*headers, ("transfer-encoding", "chunked")], b"")
        await self._drain()

    async def write(self, piece: bytes) -> None:
        """Send a chunk of the body."""
        if piece and not (self.disconnected or self._head_only):
            self._writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await self._drain()

    async def end(self) -> None:
        """Finish the body."""
        if not (self.disconnected or self._head_only):
            self._writer.write(b"0\r\n\r\n")
            await self._drain()

    def abort(self) -> None:
        """Reset the connection, so that the client sees that the body is incomplete."""
        self.disconnected = True
        self._writer.transport.abort()

    def _head(self, status: int, headers: list[Header], body: bytes) -> None:
        self.started = True
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "Status"
        lines = [f"HTTP/1.1 {status} {phrase}"]
        lines += [f"{name}: {_single_line(value)}" for name, value in headers]
        head = "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n"
        self._writer.write(head if self._head_only else head + body)

    async def _drain(self) -> None:
        try:
            await self._writer.drain()
        except ConnectionError:
            self.disconnected = True


class HttpServer:
    """A listening server and its open connections."""

    def __init__(self) -> None:
        self.server: asyncio.Server
        self.connections: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening and close every connection."""
        self.server.close()
        for _ in range(_ACCEPT_ROUNDS):
            await asyncio.sleep(0)
        for task in self.connections:
            task.cancel()
        if self.connections:
            await asyncio.wait(self.connections)


async def serve(handle: Handler, host: str, port: int) -> HttpServer:
    """Start a server; the requests of a connection are handled one after the other.

    Args:
        handle: Called with each request and the writer of its response.
        host: Address to listen on.
        port: Port to listen on; 0 for any free one.
    """
    http_server = HttpServer()

    async def on_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            http_server.connections.add(task)
            task.add_done_callback(http_server.connections.discard)
        try:
            await _serve_connection(handle, reader, writer)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        except asyncio.CancelledError:  # the server is closing: there is nothing to wait for
            writer.transport.abort()

    http_server.server = await asyncio.start_server(on_connect, host, port, backlog=4_096)
    return http_server


async def _serve_connection(
    handle: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    parser = RequestReader(_MAX_HEAD_BYTES, _MAX_HEADERS)
    answer: ResponseWriter | None = None
    try:
        while (head := await _read_head(reader, parser)) is not None:
            request = Request(head, parser, reader)
            answer = ResponseWriter(reader, writer, head_only=request.method == "HEAD")
            await handle(request, answer)
            if answer.disconnected or not answer.started:
                break
            await request.skip()
            answer = None
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    except MalformedRequest as error:
        if answer is None or not answer.started:
            writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        _log.warning("malformed HTTP request: %s", error)


async def _read_head(stream: asyncio.StreamReader, parser: RequestReader) -> RequestHead | None:
    """The head of the next request; None if the connection was closed before one began."""
    while (head := parser.next_head()) is None:
        try:
            await _receive(stream, parser)
        except asyncio.IncompleteReadError:
            if parser.buffered:
                raise
            return None
    return head


async def _receive(stream: asyncio.StreamReader, parser: RequestReader) -> None:
    data = await stream.read(_READ_BYTES)
    if not data:
        raise asyncio.IncompleteReadError(b"", None)
    parser.feed(data)


def _single_line(value: str) -> str:
    """A header value without line breaks."""
    return value.replace("\r", " ").replace("\n", " ")
