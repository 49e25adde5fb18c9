"""A protocol on httptools that calls its handler without ASGI: how little it can be."""

import asyncio
import json

from answers import EVENTS, OBJECT, OBJECT_HEADERS, STREAM_HEADERS, check
from httptools import HttpRequestParser

_LINES = b"".join(b"%b: %b\r\n" % each for each in STREAM_HEADERS)
_OBJECT = b"HTTP/1.1 200 OK\r\n%b%%b\r\n%b" % (
    b"".join(b"%b: %b\r\n" % each for each in OBJECT_HEADERS),
    OBJECT,
)


class Connection(asyncio.Protocol):
    """One connection; without limits, deadlines, flow control or shutdown."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.transport = transport
        self.parser = HttpRequestParser(self)
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.kept = True
        self.task: asyncio.Task[None] | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        del exc
        if self.task is not None:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self.parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        self.headers[name.lower()] = value

    def on_body(self, data: bytes) -> None:
        """See httptools."""
        self.body += data

    def on_message_complete(self) -> None:
        """See httptools."""
        check(self.headers)
        self.kept = self.parser.should_keep_alive()
        closing = b"" if self.kept else b"connection: close\r\n"
        if self.parser.get_method() == b"GET":
            self.transport.write(_OBJECT % closing)
            self.end()
        else:
            self.task = asyncio.get_running_loop().create_task(self.stream(closing))

    async def stream(self, closing: bytes) -> None:
        """Answer with a stream."""
        json.loads(self.body)
        write = self.transport.write
        first = EVENTS[0]
        write(
            b"HTTP/1.1 200 OK\r\n%btransfer-encoding: chunked\r\n%b\r\n%x\r\n%b\r\n"
            % (_LINES, closing, len(first), first)
        )
        await asyncio.sleep(0)
        for event in EVENTS[1:-1]:
            write(b"%x\r\n%b\r\n" % (len(event), event))
            await asyncio.sleep(0)
        write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(EVENTS[-1]), EVENTS[-1]))
        self.end()

    def end(self) -> None:
        """Be ready for the next request, or close."""
        self.task = None
        if not self.kept:
            self.transport.close()
        self.headers, self.body = {}, b""
