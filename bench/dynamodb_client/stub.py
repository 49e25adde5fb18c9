"""A server that gives each of DynamoDB's calls one canned answer, as fast as it can.

A process of its own, so that only the client's CPU is counted. Prints its port.
"""

import asyncio
import json
import sys
import zlib

from cases import ITEMS


def _answer(document: object) -> bytes:
    body = json.dumps(document, separators=(",", ":")).encode()
    return (
        b"HTTP/1.1 200 OK\r\nServer: Server\r\nContent-Type: application/x-amz-json-1.0\r\n"
        b"x-amzn-RequestId: 0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGHIJ\r\n"
        b"x-amz-crc32: %d\r\nContent-Length: %d\r\n\r\n%b" % (zlib.crc32(body), len(body), body)
    )


ANSWERS = {
    b"GetItem": _answer({"Item": ITEMS[0]}),
    b"Query": _answer({"Items": ITEMS, "Count": len(ITEMS), "ScannedCount": len(ITEMS)}),
    b"TransactWriteItems": _answer({}),
}


class Canned(asyncio.Protocol):
    """Reads requests that have a Content-Length; answers by X-Amz-Target."""

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
            target = head.partition(b"x-amz-target:")[2].split(b"\r\n", 1)[0].strip()
            for name, answer in ANSWERS.items():
                if target.endswith(b"." + name.lower()):
                    self.transport.write(answer)  # type: ignore[attr-defined]


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Canned, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


asyncio.run(main())
