"""HTTP server on loopback that answers, breaks off or hangs on request of a test."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import msgspec
from msgspec import Struct, field


class Request(Struct):
    """A received request."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, object]:
        found: dict[str, object] = msgspec.json.decode(self.body)
        return found


class Answer(Struct):
    """A response. `cut`: close after this many bytes. `sized`: send Content-Length."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    sized: bool = True


class Hang(Struct):
    """Never respond."""


HANG = Hang()
DROP = Answer(cut=0)
"""Close the connection instead of responding; the request was received."""

Handler = Callable[[Request], Answer | Hang | Awaitable[Answer]]


class FaultyServer:
    """The server's URL, and the requests that it received."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.requests: list[Request] = []
        self.connections = 0
        self.url = ""
        self.stop_listening: Callable[[], None] = lambda: None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while (request := await read_request(reader)) is not None:
                self.requests.append(request)
                answer = self.handler(request)
                if isinstance(answer, Awaitable):
                    answer = await answer
                if isinstance(answer, Hang):
                    await reader.read()
                    return
                whole = encode(answer)
                writer.write(whole if answer.cut is None else whole[: answer.cut])
                await writer.drain()
                if answer.cut is not None:
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1") if not reader.at_eof() else ""
    if not head:
        return None
    first, *lines = head.rstrip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, target, headers, body)


def encode(answer: Answer) -> bytes:
    sized = {"content-length": str(len(answer.body))} if answer.sized else {}
    headers = {**sized, **answer.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {answer.status} Said\r\n{lines}\r\n".encode() + answer.body


@asynccontextmanager
async def serving(
    handler: Handler, port: int = 0, *, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[FaultyServer, None]:
    """Serve until the block ends; hanging connections are closed then."""
    server = FaultyServer(handler)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(server.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listening = await asyncio.start_server(accept, "127.0.0.1", port, ssl=tls)
    scheme = "http" if tls is None else "https"
    server.url = f"{scheme}://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    server.stop_listening = listening.close
    try:
        yield server
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listening.wait_closed()


def script(*answers: Answer | Hang) -> Handler:
    """Respond with these one after another; with the last one to all further requests."""
    left = list(answers)

    def handler(_: Request) -> Answer | Hang:
        return left.pop(0) if len(left) > 1 else left[0]

    return handler
