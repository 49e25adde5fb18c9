"""An upstream that streams: 40 chunks to each request, one at a time, as a model does.

A process of its own, so that only the client's CPU is counted. Prints its port.
"""

import asyncio
import sys

import uvloop
from answer import CHUNKS, EVENT, SECONDS_A_CHUNK

_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: upstream\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)


class Streaming(asyncio.Protocol):
    """Reads requests that have a Content-Length; answers each with the chunks."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.transport = transport
        self.pending = b""

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self.pending += data
        while (end := self.pending.find(b"\r\n\r\n")) >= 0:
            head = self.pending[:end].lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            if len(self.pending) < end + 4 + length:
                return
            self.pending = self.pending[end + 4 + length :]
            self._write(_HEAD)
            self._next(1)

    def _next(self, number: int) -> None:
        if number <= CHUNKS:
            self._write(_CHUNK)
            asyncio.get_running_loop().call_later(SECONDS_A_CHUNK, self._next, number + 1)
        else:
            self._write(b"0\r\n\r\n")

    def _write(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[attr-defined]


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(
        Streaming, "127.0.0.1", 0, backlog=1_024
    )
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


uvloop.run(main())
