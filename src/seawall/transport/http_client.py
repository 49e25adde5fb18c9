"""HTTP/1.1 client with a connection pool, streaming responses and deadlines.

docs/decisions/001-http-client.md compares its cost with other clients'.
"""

import asyncio
import re
import socket
import ssl
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from msgspec import Struct

from seawall.timers import Deadline, TimingWheel
from seawall.transport.connection import (
    BodyTooLong,
    ConnectFailed,
    Connection,
    ConnectionBroken,
    ConnectTimeout,
)

if TYPE_CHECKING:
    from seawall.transport.pacing import ReadPacer

__all__ = ["BufferedResponse", "Endpoint", "HttpClient", "Origin", "Response", "is_public"]

Header = tuple[bytes, bytes]

_DEADLINE_TICK = 0.02
_TRANSLATED = frozenset({0x64_FF9B << 64})  # 64:ff9b::/96 without its IPv4 address (RFC 6052)
_forbidden = re.compile(rb"[\r\n\0]")


class Origin(Struct, frozen=True):
    """Scheme, host and port; connections to one origin are interchangeable."""

    host: str
    port: int
    secure: bool


class Endpoint(Struct, frozen=True):
    """A parsed URL: an origin, a request target and the value of the `Host` header."""

    origin: Origin
    target: bytes
    authority: bytes

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse an absolute http or https URL.

        Raises:
            ValueError: The URL is not one, or has control characters or credentials.
        """
        if any(character <= " " or character == "\x7f" for character in url):
            raise ValueError(f"a URL must not contain spaces or control characters: {url!r}")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http or https URL: {url!r}")
        if parts.username or parts.password:
            raise ValueError("a URL must not carry a user name or password")
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        default = port == (443 if secure else 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(
            Origin(parts.hostname, port, secure),
            target.encode("ascii"),
            (host if default else f"{host}:{port}").encode("ascii"),
        )


class BufferedResponse(Struct, frozen=True):
    """A complete response. Header names are in lower case."""

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

    def read_some(self) -> Coroutine[None, None, bytes]:
        """The body bytes received since the last call; b"" at the end of the body."""
        return self._connection.read()

    async def forward(self, take: Callable[[bytes], bool]) -> None:
        """Pass on the body as it arrives. See `Connection.forward`."""
        await self._connection.forward(take)

    async def drain(self, *, seconds: float) -> None:
        """Discard the rest of the body, so that the connection can be reused.

        Args:
            seconds: The longest wait for the end of the body; after it the connection is closed.
        """
        await self._connection.drain(seconds)

    async def read(self, *, limit: int) -> bytes:
        """Read the whole body.

        Args:
            limit: Bytes that the body may have.

        Raises:
            BodyTooLong: The body has more than `limit` bytes.
            TransportError: The body was cut off.
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
    """The connections to one origin; idle ones are reused last in, first out."""

    __slots__ = ("idle", "open", "waiters")

    def __init__(self) -> None:
        self.open = 0
        self.idle: list[Connection] = []
        self.waiters: deque[asyncio.Future[None]] = deque()


class HttpClient:
    """A client that keeps connections and reuses them.

    Attributes:
        open_streams: Requests in progress.
    """

    def __init__(
        self,
        *,
        max_connections: int = 1_024,
        connect_seconds: float = 5.0,
        idle_seconds: float = 25.0,
        max_header_bytes: int = 65_536,
        ssl_context: ssl.SSLContext | None = None,
        public_only: bool = False,
        pacer: "ReadPacer | None" = None,
    ) -> None:
        """Create a client.

        Args:
            max_connections: Connections to one origin at most; further requests wait for one.
            connect_seconds: Timeout for connecting, TLS included.
            idle_seconds: How long an idle connection is kept; less than servers usually keep it.
            max_header_bytes: Size of a response head at most.
            ssl_context: For https; the default context if not given.
            public_only: Refuse hosts that resolve to private, loopback or link-local addresses.
            pacer: Of bodies that are passed on as they arrive; closed with the client.
        """
        self._pacer = pacer
        self._max_connections = max_connections
        self._connect_seconds = connect_seconds
        self._idle_seconds = idle_seconds
        self._max_header_bytes = max_header_bytes
        self._ssl_context = ssl_context
        self._public_only = public_only
        self._contexts: dict[Origin, ssl.SSLContext] = {}
        self._pools: dict[Origin, _Pool] = {}
        self._wheel = TimingWheel(_DEADLINE_TICK)
        self._sweeping: asyncio.TimerHandle | None = None
        self.open_streams = 0

    def trust(self, origin: Origin, context: ssl.SSLContext) -> None:
        """Verify the server of an origin with a context of its own.

        Args:
            origin: Of the server.
            context: See `tls_context`.
        """
        self._contexts[origin] = context

    def stream(
        self,
        method: str,
        endpoint: Endpoint,
        *,
        headers: Sequence[Header] = (),
        body: bytes = b"",
        deadline: float,
        replay: bool = True,
    ) -> AbstractAsyncContextManager[Response]:
        """Send a request; the response is read inside the `async with` block.

        Leaving the block before the end of the body closes the connection at once. The request
        is released when its response begins: with thousands of responses in progress, prompts
        would be most of the memory.

        Args:
            method: The HTTP method.
            endpoint: The URL.
            headers: Without `Host` and `Content-Length`.
            body: The request body.
            deadline: For the whole exchange, in seconds on the event loop's clock.
            replay: Send the request again, once and on a new connection, if a reused connection
                is closed before any byte of the response. Most likely the upstream had closed it
                while idle and has not seen the request, but that is not certain: pass False for
                requests that must not be repeated.

        Raises:
            TransportError: The exchange failed.
        """
        request = _encode(method, endpoint, headers, body)
        return _Exchange(
            self, endpoint.origin, request, deadline, head_only=method == "HEAD", replay=replay
        )

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
        """Send a request and read the complete response.

        Args:
            method: The HTTP method.
            endpoint: The URL.
            headers: Without `Host` and `Content-Length`.
            body: The request body.
            deadline: See `stream`.
            limit: Bytes that the body of the response may have.
            replay: See `stream`.

        Raises:
            TransportError: The exchange failed.
        """
        async with self.stream(
            method, endpoint, headers=headers, body=body, deadline=deadline, replay=replay
        ) as response:
            return BufferedResponse(
                response.status, response.headers, await response.read(limit=limit)
            )

    async def warm(self, endpoint: Endpoint, connections: int, *, deadline: float) -> None:
        """Open idle connections in advance, concurrently.

        Args:
            endpoint: Its origin is connected to.
            connections: How many.
            deadline: Seconds on the event loop's clock.

        Raises:
            TransportError: A connection could not be opened; the others are kept.
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
        """Close idle connections; those in use are closed at the end of their exchange."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for pool in self._pools.values():
            for connection in pool.idle:
                connection.abort()
            pool.open -= len(pool.idle)
            pool.idle.clear()
        if self._pacer is not None:
            self._pacer.close()
        await asyncio.sleep(0)  # lets the transports call connection_lost

    async def begin(
        self, origin: Origin, request: bytes, deadline: float, *, head_only: bool, replay: bool
    ) -> Connection:
        """Send the request; return its connection once the response head has arrived."""
        connection = await self._acquire(origin, deadline)
        while True:
            try:
                connection.send(request, deadline=deadline, head_only=head_only)
                await connection.head()
            except BaseException as error:
                stale = replay and connection.used and not connection.received_any
                self.release(origin, connection)
                if not (stale and isinstance(error, ConnectionBroken)):
                    raise
            else:
                return connection
            replay = False
            connection = await self._acquire(origin, deadline, fresh=True)

    async def _acquire(self, origin: Origin, deadline: float, *, fresh: bool = False) -> Connection:
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = _Pool()
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
                    _wake_next(pool)  # a connection became free while giving up: pass it on
                elif waiter in pool.waiters:
                    pool.waiters.remove(waiter)
                if isinstance(error, TimeoutError):
                    raise ConnectTimeout("no connection became free in time") from error
                raise

    def _idle(self, pool: _Pool, now: float) -> Connection | None:
        """Take the most recently used idle connection; close those idle for too long."""
        while pool.idle:
            connection = pool.idle.pop()
            if connection.open and now - connection.idle_since < self._idle_seconds:
                return connection
            connection.abort()
            pool.open -= 1
        return None

    async def _connect(self, origin: Origin, pool: _Pool, deadline: float) -> Connection:
        loop = asyncio.get_running_loop()
        context = self._tls(origin) if origin.secure else None
        pool.open += 1
        try:
            async with Deadline(self._wheel, min(deadline, loop.time() + self._connect_seconds)):
                host = await _public_address(origin) if self._public_only else origin.host
                connection = Connection(loop, self._wheel, self._max_header_bytes, self._pacer)
                if context is None:
                    await loop.create_connection(lambda: connection, host, origin.port)
                else:
                    await _secure(connection, host, origin, context)
        except BaseException as error:
            pool.open -= 1
            _wake_next(pool)
            if isinstance(error, TimeoutError):
                raise ConnectTimeout(
                    f"{origin.host}:{origin.port} did not connect in time"
                ) from error
            if isinstance(error, OSError | UnicodeError):  # the latter: no name of a host
                raise ConnectFailed(f"{origin.host}:{origin.port}: {_reason(error)}") from error
            raise
        return connection

    def _tls(self, origin: Origin) -> ssl.SSLContext:
        if (own := self._contexts.get(origin)) is not None:
            return own
        if self._ssl_context is None:
            from seawall.transport.tls import tls_context  # noqa: PLC0415 - only for https

            self._ssl_context = tls_context()
        return self._ssl_context

    def release(self, origin: Origin, connection: Connection) -> None:
        """End an exchange; its connection is kept where it can be used again."""
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
        """Close connections that were idle for too long, even if no request arrives."""
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


class _Exchange:
    """`async with` of `HttpClient.stream`; a class, as a generator costs each call more."""

    __slots__ = (
        "_client",
        "_connection",
        "_deadline",
        "_head_only",
        "_origin",
        "_replay",
        "_request",
    )

    def __init__(
        self,
        client: HttpClient,
        origin: Origin,
        request: bytes,
        deadline: float,
        *,
        head_only: bool,
        replay: bool,
    ) -> None:
        self._client = client
        self._origin = origin
        self._request = request
        self._deadline = deadline
        self._head_only = head_only
        self._replay = replay
        self._connection: Connection | None = None

    async def __aenter__(self) -> Response:
        client = self._client
        client.open_streams += 1
        try:
            beginning = client.begin(
                self._origin,
                self._request,
                self._deadline,
                head_only=self._head_only,
                replay=self._replay,
            )
            self._request = b""
            self._connection = connection = await beginning
        except BaseException:
            client.open_streams -= 1
            raise
        return Response(connection)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        client, connection = self._client, self._connection
        try:
            if connection is not None:
                client.release(self._origin, connection)
        finally:
            client.open_streams -= 1


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, ssl.SSLError):
        from seawall.transport.tls import handshake_fault  # noqa: PLC0415 - only for this error

        return handshake_fault(error)
    return str(error) or "the connection was closed while it was being made"


async def _secure(
    connection: Connection, host: str, origin: Origin, context: ssl.SSLContext
) -> None:
    """Connect with TLS, in two steps: the connection reads from the transport below by itself.

    Between them uvloop reads what a peer sends, and its end, so that no handshake would notice.

    Raises:
        ConnectFailed: The peer spoke before the handshake.
        OSError: There is no connection, or no TLS.
    """
    loop = asyncio.get_running_loop()
    raw, before = await loop.create_connection(_BeforeHandshake, host, origin.port)
    try:
        if before.spoke:
            raise ConnectFailed(f"{origin.host}:{origin.port}: it does not speak TLS at this port")
        if raw.is_closing():
            raise ConnectionResetError
        transport = await loop.start_tls(raw, connection, context, server_hostname=origin.host)
        if transport is None or transport.get_extra_info("socket") is None:
            raise ConnectionResetError  # lost as soon as it was made
        connection.connection_made(transport, raw)
    except BaseException:
        raw.abort()
        raise


class _BeforeHandshake(asyncio.Protocol):
    """What a connection has until its handshake begins; a server of TLS says nothing then."""

    spoke = False

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - of no interest
        """See asyncio.Protocol."""
        self.spoke = True


async def _public_address(origin: Origin) -> str:
    """The address that a host is resolved to, once: what is connected to has been checked.

    Raises:
        ConnectFailed: One of its addresses is not public.
        OSError: It cannot be resolved.
    """
    loop = asyncio.get_running_loop()
    resolved = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    addresses = [str(each[4][0]) for each in resolved]
    for address in addresses:
        if not is_public(address):
            raise ConnectFailed(f"{origin.host}: {address} is not a public address")
    return next((each for each in addresses if ":" not in each), addresses[0])


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, also by what translates it to IPv4.

    Args:
        address: IPv4, or IPv6 with or without a zone.
    """
    from ipaddress import IPv4Address, IPv6Address, ip_address  # noqa: PLC0415 - seldom needed

    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if int(found) >> 32 in _TRANSLATED:
            inner = IPv4Address(int(found) & 0xFFFF_FFFF)
        if inner is not None:
            found = inner
        elif int(found) >> 125 != 1:  # 2000::/3, which is all that is assigned
            return False
    return found.is_global and not found.is_multicast


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
