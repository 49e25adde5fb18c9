"""HTTP server on loopback that plays recorded answers and notices disconnects."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct, field

from tests.faulty_server import Request, read_request


class Recording(Struct):
    """Response to a request: chunks of a body, one write each.

    hangs: nothing is sent after the chunks, and the connection stays open. cut: the connection is
    closed before the end of the body. seconds: pause after each chunk.
    """

    chunks: Sequence[bytes]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs: bool = False
    cut: bool = False
    seconds: float = 0.0


class Player:
    """The server's URL, the requests that it received, and an event for a client that disconnected.

    recordings: for the first request, the second and so on; the last one for all further. judge:
    chooses the recording by the request instead.
    """

    def __init__(
        self, *recordings: Recording, judge: Callable[[Request], Recording] | None = None
    ) -> None:
        self.recordings = recordings
        self.judge = judge
        self.requests: list[Request] = []
        self.requested = asyncio.Event()
        self.left = asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await read_request(reader)) is not None:
                self.requests.append(request)
                self.requested.set()
                recording = self._choose(request)
                lines = "".join(f"{k}: {v}\r\n" for k, v in recording.headers.items())
                head = f"HTTP/1.1 {recording.status} Said\r\ntransfer-encoding: chunked\r\n{lines}"
                writer.write(f"{head}\r\n".encode())
                for chunk in recording.chunks:
                    writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                    await writer.drain()
                    if recording.seconds:
                        await asyncio.sleep(recording.seconds)
                if recording.hangs:
                    try:
                        await reader.read()
                    finally:
                        self.left.set()
                    return
                if recording.cut:
                    return
                writer.write(b"0\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _choose(self, request: Request) -> Recording:
        if self.judge is not None:
            return self.judge(request)
        return self.recordings[min(len(self.requests), len(self.recordings)) - 1]


@asynccontextmanager
async def playing(
    *recordings: Recording, judge: Callable[[Request], Recording] | None = None
) -> AsyncGenerator[Player, None]:
    player = Player(*recordings, judge=judge)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(player.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    player.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield player
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
