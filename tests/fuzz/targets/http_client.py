"""The HTTP client: one response or one transport error, independent of how bytes are split.

The first byte of an input chooses the cuts, the rest is what an upstream sends before it closes.
"""

import asyncio
from typing import Any

from seawall.transport.connection import Connection, TransportError
from tests.fuzz.connections import cut, event_loop, timing_wheel

SEEDS = [
    b"\x00HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
    (
        b"\x01HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        b"2;a=b\r\nhi\r\n0\r\nretry-after: 5\r\n\r\n"
    ),
    b"\x02HTTP/1.1 200 OK\r\n\r\nuntil the end",
    b"\x03HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 500 No\r\nx: y\r\n\r\n",
    b"\x04HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nabc",
    b"\x05HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nhi",
    b"\x06HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"\x07HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 3_000 + b"\r\n\r\n",
    b"\x08HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"t: u\r\n" * 900 + b"\r\n",
    b"\x09HTTP/1.1 204 No\r\ncontent-length: 5\r\n\r\nhello",
]
_MAX_HEADER_BYTES = 2_048
_MOST_BUFFERED = 400_000

Outcome = tuple[int, dict[str, str], bytes, str]


def one_input(data: bytes) -> None:
    """Read one response.

    Raises:
        AssertionError: An invariant is violated.
    """
    if not data:
        return
    wire = data[1:]
    loop = event_loop()
    pieces = loop.run_until_complete(
        _response([wire[at : at + 512] for at in range(0, len(wire), 512)])
    )
    others = loop.run_until_complete(_response(cut(wire, data[0])))
    if len(wire) <= _MAX_HEADER_BYTES:  # else a head may be found too large sooner or later
        assert bool(pieces[3]) == bool(others[3]), (pieces, others)
    if not (pieces[3] or others[3]):
        assert pieces == others
    assert sum(map(len, pieces[1].values())) <= _MAX_HEADER_BYTES + 512


class _Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.closing = False
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        del data

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True

    close = abort

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        del name
        return default


async def _response(segments: list[bytes]) -> Outcome:
    """Status, headers, body, and what went wrong."""
    loop = asyncio.get_running_loop()
    connection = Connection(loop, timing_wheel(), _MAX_HEADER_BYTES)
    transport = _Transport()
    connection.connection_made(transport)
    connection.send(b"GET / HTTP/1.1\r\n\r\n", deadline=loop.time() + 60.0)
    reading = loop.create_task(_read(connection))
    await asyncio.sleep(0)
    for segment in segments:
        while not (transport.reading or transport.closing or reading.done()):  # noqa: ASYNC110
            await asyncio.sleep(0)
        if transport.closing or reading.done():
            break
        connection.data_received(segment)
        assert connection._body_bytes <= _MOST_BUFFERED
        await asyncio.sleep(0)
    connection.connection_lost(None)
    body, error = await reading
    connection.finish()
    whole = connection.status >= 200 and connection._head_done
    return (
        connection.status if whole else 0,
        dict(connection.headers) if whole else {},
        body,
        error,
    )


async def _read(connection: Connection) -> tuple[bytes, str]:
    body = b""
    try:
        await connection.head()
        while data := await connection.read():
            body += data
    except TransportError as error:
        return body, type(error).__name__
    return body, ""
