"""A lean pooled HTTP/1.1 client: what a turn needs of one, at a fraction of the usual cost.

docs/decisions/001-http-client.md has the figures behind it.
"""

import asyncio
import re
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct

from seawall.timers import TimingWheel
from seawall.transport.connection import Connection
from seawall.transport.deadline import Deadline
from seawall.transport.endpoint import Endpoint, Origin
from seawall.transport.errors import (
    BodyTooLong,
    ConnectFailed,
    ConnectionBroken,
    TransportTimeout,
)

__all__ = ["BufferedResponse", "Endpoint", "HttpClient", "Response"]

Header = tuple[bytes, bytes]

_DEADLINE_TICK = 0.02
_forbidden = re.compile(rb"[\r\n\0]")


class BufferedResponse(Struct, frozen=True):
    """A whole response."""

    status: int
    headers: dict[str, str]
    body: bytes


class Response:
    """A response whose body is being read."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._connection.status

    @property
    def headers(self) -> dict[str, str]:
        """Header values by lower-case name."""
        return self._connection.headers

    async def read_some(self) -> bytes:
        """What has come of the body since the last call, as one; b"" at its end."""
        return await self._connection.read()

    async def drain(self, *, seconds: float) -> None:
        """Wait for the end of a body of which nothing more is wanted.

        If it comes, the connection can be used again.

        Args:
            seconds: The longest wait.
        """
        await self._connection.drain(seconds)

    async def read(self, *, limit: int) -> bytes:
        """The whole body.

        Raises:
            BodyTooLong: it has more than `limit` bytes.
        """
        parts: list[bytes] = []
        size = 0
        while data := await self._connection.read():
            size += len(data)
            if size > limit:
                raise BodyTooLong(f"the body exceeds {limit} bytes")
            parts.append(data)
        return b"".join(parts)


class _Pool:
    """The connections to one origin: a bound on all, the idle ones newest first."""

    __slots__ = ("idle", "open", "waiters")

    def __init__(self) -> None:
        self.open = 0
        self.idle: list[Connection] = []
        self.waiters: deque[asyncio.Future[None]] = deque()


class HttpClient:
    """Connections are kept and reused, at most `max_connections` to one origin.

    connect_seconds: for connecting and TLS. idle_seconds: how long an unused connection is
    kept; less than servers commonly keep theirs.
    """

    def __init__(
        self,
        *,
        max_connections: int = 1_024,
        connect_seconds: float = 5.0,
        idle_seconds: float = 25.0,
        max_header_bytes: int = 65_536,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._max_connections = max_connections
        self._connect_seconds = connect_seconds
        self._idle_seconds = idle_seconds
        self._max_header_bytes = max_header_bytes
        self._ssl_context = ssl_context
        self._pools: dict[Origin, _Pool] = {}
        self._wheel = TimingWheel(_DEADLINE_TICK)
        self._sweeping: asyncio.TimerHandle | None = None
        self.open_streams = 0

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        endpoint: Endpoint,
        *,
        headers: Sequence[Header] = (),
        body: bytes = b"",
        deadline: float,
        replay: bool = True,
    ) -> AsyncGenerator[Response, None]:
        """Send a request and read its response inside the block.

        deadline: for everything, in seconds on the event loop's clock. Leaving the block before
        the body was read to its end closes the connection at once.

        A reused connection that the upstream closes before a single byte of the response came is
        replaced once: most likely it had been closed while idle, and the request was not seen.
        Nothing proves it, though: with `replay` false the caller is told instead.

        The request is let go of when its answer begins: of thousands that are being answered,
        the prompts would be most of the memory.

        Raises:
            TransportError: the exchange failed.
        """
        request = _encode(method, endpoint, headers, body)
        del body
        self.open_streams += 1
        try:
            beginning = self._begin(
                endpoint.origin, request, deadline, head_only=method == "HEAD", replay=replay
            )
            del request
            connection = await beginning
            try:
                yield Response(connection)
            finally:
                self._release(endpoint.origin, connection)
        finally:
            self.open_streams -= 1

    async def request(
        self,
        method: str,
        endpoint: Endpoint,
        *,
        headers: Sequence[Header] = (),
        body: bytes = b"",
        deadline: float,
        limit: int = 1 << 20,
        replay: bool = True,
    ) -> BufferedResponse:
        """Send a request; the whole response, whose body may have `limit` bytes.

        replay: see `stream`.

        Raises:
            TransportError: the exchange failed.
        """
        async with self.stream(
            method, endpoint, headers=headers, body=body, deadline=deadline, replay=replay
        ) as response:
            return BufferedResponse(
                response.status, response.headers, await response.read(limit=limit)
            )

    async def warm(self, endpoint: Endpoint, connections: int, *, deadline: float) -> None:
        """Open connections ahead of their use, all at once.

        Raises:
            TransportError: one could not be opened.
        """
        acquiring = (
            self._acquire(endpoint.origin, deadline, fresh=True) for _ in range(connections)
        )
        opened = await asyncio.gather(*acquiring, return_exceptions=True)
        failed = None
        for connection in opened:
            if isinstance(connection, BaseException):
                failed = connection
            else:
                self._keep(endpoint.origin, connection)
        if failed is not None:
            raise failed

    async def close(self) -> None:
        """Close every idle connection; those in use close when their response is left."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for pool in self._pools.values():
            for connection in pool.idle:
                connection.abort()
            pool.open -= len(pool.idle)
            pool.idle.clear()
        await asyncio.sleep(0)  # lets the transports tell their protocols

    async def _begin(
        self, origin: Origin, request: bytes, deadline: float, *, head_only: bool, replay: bool
    ) -> Connection:
        """A connection on which the request was sent and the head of its answer has come."""
        connection = await self._acquire(origin, deadline)
        while True:
            try:
                connection.send(request, deadline=deadline, head_only=head_only)
                await connection.head()
            except BaseException as error:
                stale = replay and connection.used and not connection.received_any
                self._release(origin, connection)
                if not (stale and isinstance(error, ConnectionBroken)):
                    raise
            else:
                return connection
            replay = False
            connection = await self._acquire(origin, deadline, fresh=True)

    async def _acquire(self, origin: Origin, deadline: float, *, fresh: bool = False) -> Connection:
        pool = self._pools.setdefault(origin, _Pool())
        loop = asyncio.get_running_loop()
        while True:
            if not fresh and (connection := self._idle(pool, loop.time())) is not None:
                return connection
            if pool.open < self._max_connections:
                return await self._connect(origin, pool, deadline)
            waiter = loop.create_future()
            pool.waiters.append(waiter)
            try:
                async with asyncio.timeout_at(deadline):
                    await waiter
            except BaseException as error:
                if waiter.done() and not waiter.cancelled():
                    _wake_next(pool)  # the place came while giving up: pass it on
                elif waiter in pool.waiters:
                    pool.waiters.remove(waiter)
                if isinstance(error, TimeoutError):
                    raise TransportTimeout("no connection became free in time") from error
                raise

    def _idle(self, pool: _Pool, now: float) -> Connection | None:
        """The connection used last, and the end of those that were idle for too long."""
        while pool.idle:
            connection = pool.idle.pop()
            if connection.open and now - connection.idle_since < self._idle_seconds:
                return connection
            connection.abort()
            pool.open -= 1
        return None

    async def _connect(self, origin: Origin, pool: _Pool, deadline: float) -> Connection:
        loop = asyncio.get_running_loop()
        context = self._tls() if origin.secure else None
        pool.open += 1
        try:
            async with Deadline(self._wheel, min(deadline, loop.time() + self._connect_seconds)):
                _, connection = await loop.create_connection(
                    lambda: Connection(loop, self._wheel, self._max_header_bytes),
                    origin.host,
                    origin.port,
                    ssl=context,
                )
        except BaseException as error:
            pool.open -= 1
            _wake_next(pool)
            if isinstance(error, TimeoutError):
                raise TransportTimeout(f"{origin.host}:{origin.port} did not accept") from error
            if isinstance(error, OSError):
                raise ConnectFailed(f"{origin.host}:{origin.port}: {error}") from error
            raise
        return connection

    def _tls(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            self._ssl_context = ssl.create_default_context()
        return self._ssl_context

    def _release(self, origin: Origin, connection: Connection) -> None:
        if connection.finish():
            self._keep(origin, connection)
        else:
            pool = self._pools[origin]
            pool.open -= 1
            _wake_next(pool)

    def _keep(self, origin: Origin, connection: Connection) -> None:
        pool = self._pools[origin]
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        pool.idle.append(connection)
        if self._sweeping is None:
            self._sweeping = loop.call_later(self._idle_seconds, self._sweep)
        _wake_next(pool)

    def _sweep(self) -> None:
        """Close what was idle for too long, also where nobody comes for a connection."""
        loop = asyncio.get_running_loop()
        oldest, kept = loop.time() - self._idle_seconds, False
        for pool in self._pools.values():
            for connection in pool.idle:
                if connection.idle_since <= oldest or not connection.open:
                    connection.abort()
                    pool.open -= 1
            pool.idle = [each for each in pool.idle if each.idle_since > oldest and each.open]
            kept = kept or bool(pool.idle)
        later = self._idle_seconds / 4
        self._sweeping = loop.call_later(later, self._sweep) if kept else None


def _wake_next(pool: _Pool) -> None:
    while pool.waiters:
        waiter = pool.waiters.popleft()
        if not waiter.done():
            waiter.set_result(None)
            return


def _encode(method: str, endpoint: Endpoint, headers: Sequence[Header], body: bytes) -> bytes:
    parts = [
        b"%b %b HTTP/1.1\r\nhost: %b\r\n"
        % (method.encode("ascii"), endpoint.target, endpoint.authority)
    ]
    for name, value in headers:
        if _forbidden.search(name) or _forbidden.search(value):
            raise ValueError(f"the header {name!r} has a line break or NUL")
        parts.append(b"%b: %b\r\n" % (name, value))
    if body or method in ("POST", "PUT", "PATCH"):
        parts.append(b"content-length: %d\r\n" % len(body))
    parts.append(b"\r\n")
    parts.append(body)
    return b"".join(parts)
