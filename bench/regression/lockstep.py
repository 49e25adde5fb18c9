"""A model and clients in lock-step: a piece of text is sent when every client has the one before.

So what a server does for a turn does not depend on how fast it is: pieces never arrive together. If
the turn has tool calls, the results of all are waited for in the same way.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

_PATIENCE = 120.0
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Lockstep:
    """One crowd: its model's streams, and how far its clients have read.

    Attributes:
        port: Of the model.
    """

    def __init__(self, pieces: int) -> None:
        """Create it, without streams.

        Args:
            pieces: Of text in each answer.
        """
        self._pieces = pieces
        self._streams: list[asyncio.StreamWriter] = []
        self._changed = asyncio.Condition()
        self._read = 0
        self.port = 0

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None, None]:
        """Serve the model on a free port."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            yield

    async def run(self, port: int, tokens: list[str], tool: str = "", steps: int = 0) -> None:
        """Run one turn for each token, all at once.

        Args:
            port: Of the server.
            tokens: Of the clients.
            tool: What the model calls in each step but the last, with an order.
            steps: With a call, one after the other; 0 for an answer at once.
        """
        self._streams, self._read = [], 0
        async with asyncio.timeout(_PATIENCE), asyncio.TaskGroup() as group:
            for token in tokens:
                group.create_task(self._ask(port, token))
            await self._until(lambda: len(self._streams) == len(tokens))
            for step in range(steps):
                asked, self._streams = self._streams, []
                for stream in asked:
                    stream.write(_call(tool, step))
                    await stream.drain()
                await self._until(lambda: len(self._streams) == len(tokens))
            for number in range(self._pieces):
                await self._send(_piece(number))
                await self._until(lambda n=number: self._read == (n + 1) * len(tokens))
            await self._send(_END)

    async def _until(self, reached) -> None:  # noqa: ANN001 - a condition
        async with self._changed:
            await self._changed.wait_for(reached)

    async def _send(self, frame: bytes) -> None:
        for stream in self._streams:
            stream.write(frame)
            await stream.drain()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take the requests of a connection; each becomes a stream of the crowd."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if b"content-length: " not in head:
                    writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                    continue
                size = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(size)
                writer.write(_HEAD)
                async with self._changed:
                    self._streams.append(writer)
                    self._changed.notify_all()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _ask(self, port: int, token: str) -> None:
        """One turn of a client of its own connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps({"text": "Where is my order?", "stream": True}).encode()
        writer.write(
            b"POST /v1/turns HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
            b"content-type: application/json\r\nauthorization: Bearer %b\r\n"
            b"content-length: %d\r\n\r\n%b" % (token.encode(), len(body), body)
        )
        seen, data = 0, b""
        while part := await reader.read(65_536):
            data += part
            now = data.count(b"event: text.delta")
            if now != seen:
                async with self._changed:
                    self._read += now - seen
                    self._changed.notify_all()
                seen = now
        writer.close()
        if seen != self._pieces or b"event: turn.completed" not in data:
            raise RuntimeError(f"a turn was not completed: {data[-2_000:]!r}")


def _frame(value: object) -> bytes:
    data = b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def _chunk(delta: dict[str, object], finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return _frame(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "one",
            "choices": [choice],
            **more,
        }
    )


def _piece(number: int) -> bytes:
    return _chunk({"content": f" word{number}"})


def _call(tool: str, step: int) -> bytes:
    function = {"name": tool, "arguments": json.dumps({"order": f"#W100575{step}"})}
    call = {"index": 0, "id": f"call_{step}", "type": "function", "function": function}
    return _chunk({"tool_calls": [call]}) + _chunk({}, "tool_calls", usage=_USED) + _LAST


_USED = {"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140}
_LAST = _frame(b"[DONE]") + b"0\r\n\r\n"
_END = _chunk({}, "stop", usage=_USED) + _LAST
