"""What an HTTP server executes for a request, in instructions and in system calls.

    .venv/bin/python bench/http_server/run.py [--quick] [--only NAME ...]

Prints a table, and the figures as one JSON line at the end. See README.md.
"""

import argparse
import asyncio
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import venv
from collections.abc import Awaitable, Callable
from pathlib import Path

from answers import PIECES, TOKEN

HERE = Path(__file__).resolve().parent
SERVERS = ("by-hand", "uvicorn", "uvicorn-h11", "granian", "ours", "ours-host")
CROWD = 20
HEADERS = (
    f"host: localhost\r\nauthorization: Bearer {TOKEN}\r\naccept: text/event-stream\r\n"
    "user-agent: bench/1\r\naccept-encoding: identity\r\n"
)
BODY = json.dumps({"text": "Where is my order?", "stream": True})
KINDS = {
    "GET, connection kept": ("GET", 10),
    "GET, new connection": ("GET", 1),
    "turn, connection kept": ("POST", 10),
    "turn, new connection": ("POST", 1),
}
SYSTEM_CALLS = ("write", "writev", "sendto", "sendmsg", "read", "recvfrom", "epoll_wait",
                "epoll_pwait", "epoll_ctl", "accept4", "setsockopt", "getsockname", "getpeername",
                "close", "futex", "shutdown", "io_uring_enter")  # fmt: skip


def python_of(server: str) -> str:
    """Our own interpreter, or that of the peer's venv, which is made where it is missing."""
    if server != "granian":
        return sys.executable
    python = HERE / ".venv" / "bin" / "python"
    if not python.exists():
        sys.stderr.write("making a venv for granian ...\n")
        venv.create(HERE / ".venv", with_pip=True)
        requirements = HERE / "requirements.txt"
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=True)
    return str(python)


async def crowd(port: int, method: str, requests: int) -> None:
    """`CROWD` connections at once; each sends its requests one after the other."""
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(CROWD):
            group.create_task(ask(port, method, requests))


async def ask(port: int, method: str, requests: int) -> None:
    """One connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    target = "/v1/turns" if method == "POST" else "/"
    for left in reversed(range(requests)):
        closing = "" if left else "connection: close\r\n"
        head = f"{method} {target} HTTP/1.1\r\n{HEADERS}{closing}"
        if method == "POST":
            head += f"content-type: application/json\r\ncontent-length: {len(BODY)}\r\n\r\n{BODY}"
        else:
            head += "\r\n"
        writer.write(head.encode())
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b" 200 " not in answer.split(b"\r\n")[0]:
            raise RuntimeError(f"not answered: {answer!r}")
        if b"transfer-encoding: chunked" in answer:
            body = await reader.readuntil(b"\r\n0\r\n\r\n")
            if body.count(b"event: text.delta") != PIECES or b"turn.completed" not in body:
                raise RuntimeError(f"not complete: {body!r}")
        else:
            await reader.readexactly(int(re.search(rb"content-length: (\d+)", answer)[1]))
    await reader.read()
    writer.close()


class Server:
    """A server, perhaps under callgrind."""

    def __init__(self, folder: Path, process: asyncio.subprocess.Process, port: int) -> None:
        self.folder = folder
        self.process = process
        self.port = port

    async def count_instructions(self, load: Callable[[], Awaitable[None]]) -> int:
        """Those that it executes during a load."""
        await self._control("-i", "on")
        await self._control("-z")
        await load()
        known = set(self.folder.glob("callgrind.out.*"))
        await self._control("-d")
        await self._control("-i", "off")
        total = 0
        for written in set(self.folder.glob("callgrind.out.*")) - known:
            found = re.search(r"^(?:totals|summary): (\d+)", written.read_text(), re.MULTILINE)
            total += int(found[1]) if found else 0
        return total

    async def count_system_calls(self, load: Callable[[], Awaitable[None]]) -> dict[str, int]:
        """Those that it makes during a load."""
        output = self.folder / "strace"
        tracer = await asyncio.create_subprocess_exec(
            *("strace", "-c", "-f", "-qq", "-o", str(output), "-p", str(self.process.pid)),
            stderr=subprocess.DEVNULL,
        )
        await asyncio.sleep(1.0)
        await load()
        await asyncio.sleep(0.2)
        tracer.send_signal(signal.SIGINT)
        await tracer.wait()
        rows = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$",
                          output.read_text(), re.MULTILINE)  # fmt: skip
        return {name: int(count) for count, name in rows if name in SYSTEM_CALLS}

    async def _control(self, *arguments: str) -> None:
        done = await asyncio.create_subprocess_exec(
            *("callgrind_control", *arguments, str(self.process.pid)),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder,
        )  # fmt: skip
        if await done.wait():
            raise RuntimeError(f"callgrind_control {' '.join(arguments)} failed")


async def start(name: str, folder: Path, *, counted: bool) -> Server:
    """Start a server and wait until it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    valgrind = ("valgrind", "--tool=callgrind", "--instr-atstart=no", "--quiet")
    before = (*valgrind, f"--callgrind-out-file={folder}/callgrind.out.%p") if counted else ()
    process = await asyncio.create_subprocess_exec(
        *(*before, python_of(name), "server.py", name, str(port)),
        cwd=HERE,
        stdout=subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(120):
            while not await answers(port):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.2)
        await crowd(port, "GET", 2)
    except BaseException:
        process.kill()
        raise
    return Server(folder, process, port)


async def answers(port: int) -> bool:
    """Whether a server listens, and answers turns."""
    listening = True
    try:
        await crowd(port, "POST", 2)
    except* ConnectionError:
        listening = False
    return listening


async def main(servers: list[str], rounds: int) -> dict[str, object]:
    """All figures of all servers."""
    figures: dict[str, object] = {}
    for name in servers:
        found: dict[str, object] = {}
        for counted in (True, False):
            with tempfile.TemporaryDirectory(prefix="seawall-bench-") as folder:
                server = await start(name, Path(folder), counted=counted)
                try:
                    for kind, (method, requests) in KINDS.items():
                        each = CROWD * requests
                        load = lambda m=method, r=requests: crowd(server.port, m, r)  # noqa: E731, B023
                        if counted:
                            counts = [await server.count_instructions(load) for _ in range(rounds)]
                            found[kind] = round(min(counts) / each / 1e3, 1)
                        else:
                            calls = await server.count_system_calls(load)
                            found[f"{kind}: system calls"] = {
                                call: round(count / each, 1)
                                for call, count in calls.items()
                                if count * 20 > each
                            }
                finally:
                    server.process.kill()
                    await server.process.wait()
        sys.stderr.write(f"{name}: {json.dumps(found)}\n")
        figures[name] = found
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="each load once")
    parser.add_argument("--only", nargs="*", default=SERVERS, choices=SERVERS)
    arguments = parser.parse_args()
    for tool in ("callgrind_control", "strace"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is not installed: apt install valgrind strace")
    result = asyncio.run(main(list(arguments.only), 1 if arguments.quick else 3))
    for kind in KINDS:
        sys.stdout.write(f"{kind}:\n")
        for name, found in result.items():
            calls = found[f"{kind}: system calls"]
            sys.stdout.write(f"  {name:12} {found[kind]:8.1f} thousand   {calls}\n")
    sys.stdout.write(json.dumps(result) + "\n")
