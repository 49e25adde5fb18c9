"""A TCP proxy that loses answers: it cuts a connection at a random moment."""

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["LossyProxy", "running_proxy"]

_PIECE = 65_536


class LossyProxy:
    """In front of one server, which may be replaced by another at any time.

    Of the connections, a share is cut when the request is through and the first of the answer is
    there, and a share in the middle of the answer; the client does not learn the outcome of its
    turn.
    """

    def __init__(self, seed: int) -> None:
        self.target = ("127.0.0.1", 0)
        self.port = 0
        self.cut = 0
        self._chance = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.port}"

    def point_at(self, url: str) -> None:
        """From now on, new connections go there."""
        host, _, port = url.removeprefix("http://").rpartition(":")
        self.target = (host, int(port))

    def run(self, ready: threading.Event) -> None:
        """Serve until `stop`; in a thread of its own."""

        async def serve() -> None:
            server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            self._stopped = asyncio.Event()
            ready.set()
            await self._stopped.wait()
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        try:
            self._loop.run_until_complete(serve())
        finally:
            self._loop.close()

    def stop(self) -> None:
        """End `run`; from another thread."""
        self._loop.call_soon_threadsafe(self._stopped.set)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._pass(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fate = self._chance.random()
        left = 0 if fate < 0.12 else self._chance.randint(1, 400) if fate < 0.2 else None
        behind: asyncio.StreamWriter | None = None
        try:
            answers, behind = await asyncio.open_connection(*self.target)
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(_copy(reader, behind))
                await self._answer(answers, writer, left)
                asking.cancel()
        except (OSError, ExceptionGroup):
            pass  # one of the two has gone
        finally:
            for each in (writer, behind):
                if each is not None:
                    each.transport.abort()

    async def _answer(
        self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int | None
    ) -> None:
        """Pass the answer on, of a connection that is to be cut only `left` bytes."""
        while data := await answers.read(_PIECE):
            await asyncio.sleep(self._chance.random() * 0.01)
            if left is not None and len(data) > left:
                self.cut += 1
                writer.write(data[:left])
                await writer.drain()
                return
            left = left - len(data) if left is not None else None
            writer.write(data)
            await writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_PIECE):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()  # the client has gone: the server is to notice


@contextmanager
def running_proxy(seed: int) -> Iterator[LossyProxy]:
    """A proxy until the block ends; `point_at` says in front of what."""
    proxy, ready = LossyProxy(seed), threading.Event()
    thread = threading.Thread(target=proxy.run, args=(ready,))
    thread.start()
    try:
        assert ready.wait(10)
        yield proxy
    finally:
        proxy.stop()
        thread.join()
