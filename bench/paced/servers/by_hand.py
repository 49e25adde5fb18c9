"""A proxy of model streams on asyncio's protocols: as little as can be done.

It passes each request on over a kept connection, and the bytes of the answer back as they come. It
checks nothing, knows no other path, and has no deadline: a floor to compare with, not a server.
"""

import argparse
import asyncio
from collections import deque
from urllib.parse import urlsplit

import uvloop

END = b"0\r\n\r\n"


class Upstream(asyncio.Protocol):
    """A connection to the model; kept in `idle` while no client uses it."""

    def __init__(self, idle: "deque[Upstream]") -> None:
        self._idle = idle
        self._tail = b""
        self.client: Client | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Pass the bytes on; free the connection at the end of the answer."""
        client = self.client
        if client is None:
            return
        client.transport.write(data)
        self._tail = data[-5:] if len(data) >= 5 else (self._tail + data)[-5:]
        if self._tail == END:
            self._tail = b""
            self.client = client.upstream = None
            self._idle.append(self)

    def connection_lost(self, _: Exception | None) -> None:
        """Break the client's answer off."""
        if self.client is not None:
            self.client.transport.abort()
        elif self in self._idle:
            self._idle.remove(self)


class Client(asyncio.Protocol):
    """A connection of a client."""

    def __init__(self, model: str, idle: deque[Upstream]) -> None:
        address = urlsplit(model)
        self._address = (address.hostname or "127.0.0.1", address.port or 80)
        self._line = b"POST %b/chat/completions HTTP/1.1\r\nhost: model\r\n" % address.path.encode()
        self._idle = idle
        self._received = b""
        self._connecting: asyncio.Task[None] | None = None
        self.upstream: Upstream | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Pass a complete request on."""
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self._received = body[length:]
        request = b"%bcontent-length: %d\r\n\r\n%b" % (self._line, length, body[:length])
        if self._idle:
            self._ask(self._idle.pop(), request)
        else:
            self._connecting = asyncio.create_task(self._connect(request))

    def _ask(self, upstream: Upstream, request: bytes) -> None:
        self.upstream, upstream.client = upstream, self
        upstream.transport.write(request)

    async def _connect(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        _, upstream = await loop.create_connection(lambda: Upstream(self._idle), *self._address)
        self._ask(upstream, request)

    def pause_writing(self) -> None:
        """Read no more from the model while the client reads nothing."""
        if self.upstream is not None:
            self.upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        if self.upstream is not None:
            self.upstream.transport.resume_reading()

    def connection_lost(self, _: Exception | None) -> None:
        """Cancel the model's answer."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self.upstream is not None:
            self.upstream.client = None
            self.upstream.transport.abort()


async def serve(port: int, model: str) -> None:
    """Serve until the process ends."""
    idle: deque[Upstream] = deque()
    server = await asyncio.get_running_loop().create_server(
        lambda: Client(model, idle), "127.0.0.1", port, backlog=8192
    )
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True, help="its URL")
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.port, arguments.model))
