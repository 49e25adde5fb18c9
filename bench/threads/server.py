"""A stand-in for a turn, of the standard library only, served by workers of one of three kinds.

    PYTHON bench/threads/server.py KIND WORKERS MODEL_PORT FOLDER

KIND: processes, threads (an event loop in each), or interpreters (each with a lock of its own, in a
thread). A turn checks a signature, asks the model, decodes its pieces, sends them on, and is
committed to SQLite by the worker's own thread. Prints the port when all workers listen.
"""

import asyncio
import hashlib
import hmac
import json
import os
import socket
import sqlite3
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

_KEY = b"secret"
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


class Worker:
    """One event loop with its connection to the database."""

    def __init__(self, model: int, folder: str) -> None:
        self._model = model
        self._writer = ThreadPoolExecutor(1)
        self._db = sqlite3.connect(
            os.path.join(folder, "turns.db"),  # noqa: PTH118 - few imports
            timeout=30,
            isolation_level=None,
            check_same_thread=False,
        )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS turns (id TEXT PRIMARY KEY, text TEXT)")

    async def serve(self, listening: socket.socket) -> None:
        """Serve for ever."""
        server = await asyncio.start_server(self._answer, sock=listening, backlog=1_024)
        async with server:
            await server.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:-2])
        body = await reader.readexactly(int(headers["content-length"]))
        signature = hmac.new(_KEY, body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(signature, headers["authorization"]):
            raise ValueError("not signed")
        asked = json.loads(body)
        writer.write(_HEAD)
        model_reader, model_writer = await asyncio.open_connection("127.0.0.1", self._model)
        request = {"messages": [{"role": "user", "content": asked["text"]}], "stream": True}
        model_writer.write(json.dumps(request).encode() + b"\n")
        pieces: list[str] = []
        while line := await model_reader.readline():
            if line.startswith(b"data: {"):
                text = json.loads(line[6:])["choices"][0]["delta"]["content"]
                pieces.append(text)
                event = {"type": "text.delta", "text": text, "id": len(pieces)}
                writer.write(b"event: text.delta\ndata: " + json.dumps(event).encode() + b"\n\n")
                await writer.drain()
        model_writer.close()
        text = "".join(pieces)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._writer, self._commit, asked["id"], text)
        writer.write(b"event: turn.completed\ndata: {}\n\n")
        await writer.drain()
        writer.close()

    def _commit(self, turn: str, text: str) -> None:
        self._db.execute("INSERT INTO turns VALUES (?, ?)", (turn, text))


def listen(port: int) -> socket.socket:
    """A socket of a port that all workers share."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen(1_024)
    return listening


def work(port: int, model: int, folder: str) -> None:
    """Run a worker."""
    asyncio.run(Worker(model, folder).serve(listen(port)))


def work_in_interpreter(port: int, model: int, folder: str) -> None:
    """Run a worker in an interpreter of its own."""
    import _interpreters  # noqa: PLC0415 - from Python 3.13 on

    code = (
        f"import sys\nsys.path.insert(0, {sys.path[0]!r})\n"
        f"import server\nserver.work({port}, {model}, {folder!r})\n"
    )
    failure = _interpreters.exec(_interpreters.create("isolated"), code)
    raise RuntimeError(failure)


def main(kind: str, workers: int, model: int, folder: str) -> None:
    """Serve until killed."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(("127.0.0.1", 0))
    port = reserved.getsockname()[1]
    function = work_in_interpreter if kind == "interpreters" else work
    arguments = (port, model, folder)
    if kind == "processes":
        spawned = get_context("spawn")
        for _ in range(workers):
            spawned.Process(target=function, args=arguments, daemon=True).start()
    else:
        for _ in range(workers):
            threading.Thread(target=function, args=arguments, daemon=True).start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
