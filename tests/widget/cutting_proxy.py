"""A TCP proxy that cuts connections in the middle of what the server sends."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

__all__ = ["CuttingProxy", "open_proxy"]


class CuttingProxy:
    """What it does to connections.

    Attributes:
        url: Of the proxy.
        cuts: How many bytes of an event stream are let through, one for each cut that is left;
            connections with other responses are not cut.
        made: How many cuts were made.
        closed: Whether new connections are refused.
    """

    def __init__(self) -> None:
        self.url = ""
        self.cuts: list[int] = []
        self.made = 0
        self.closed = False
        self._connections: set[asyncio.StreamWriter] = set()
        self._call: Callable[[Callable[[], None]], object] = lambda _: None

    def cut_all(self) -> None:
        """Cut all connections that are open."""

        def cut() -> None:
            for writer in self._connections:
                writer.transport.abort()

        self._call(cut)

    async def serve(
        self, target: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self.closed:
            writer.transport.abort()
            return
        upstream_reader, upstream = await asyncio.open_connection(*target)
        self._connections |= {writer, upstream}
        sent = asyncio.create_task(_copy(reader, upstream))
        left = -1  # of a cut; below 0 for none
        try:
            while data := await upstream_reader.read(65_536):
                if left < 0 and self.cuts and b"content-type: text/event-stream" in data:
                    left = self.cuts.pop(0)
                if 0 <= left <= len(data):
                    writer.write(data[:left])
                    with suppress(ConnectionError):
                        await writer.drain()
                    self.made += 1
                    break
                writer.write(data)
                await writer.drain()
                left -= len(data) if left >= 0 else 0
        except ConnectionError:
            pass
        finally:
            sent.cancel()
            writer.transport.abort()
            upstream.transport.abort()
            self._connections -= {writer, upstream}


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextmanager
def open_proxy(url: str) -> Iterator[CuttingProxy]:
    """A proxy before a server, in a thread of its own, until the block ends."""
    proxy = CuttingProxy()
    parts = urlsplit(url)
    target = (str(parts.hostname), int(parts.port or 80))
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stopped = asyncio.Event()

    async def run() -> None:
        server = await asyncio.start_server(lambda r, w: proxy.serve(target, r, w), "127.0.0.1", 0)
        proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        proxy._call = loop.call_soon_threadsafe
        ready.set()
        await stopped.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    def work() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait()
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join()
