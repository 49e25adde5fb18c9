"""Memory that attacks without a credential can make one worker use.

    .venv/bin/python bench/memory_attacks/run.py [--quick] [--connections 2000]

A server with one worker and its supervisor, a new one for each attack. Memory is the resident set
of the worker, and the kernel's memory of its sockets. Prints a row for each attack, and all as one
JSON line at the end; the exit status is 1 if a bound was exceeded. See README.md.
"""

import argparse
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.hosts.conftest import identity
from tests.issuer import Issuer
from tests.servers import ServerProcess, running_model, running_server

from seawall.lab.processes import raise_file_limit

MIB = 1 << 20
PAGE = os.sysconf("SC_PAGESIZE")
TURN = b"POST /v1/turns HTTP/1.1\r\nhost: x\r\n"
CHUNKED = TURN + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
# Of a connection by itself; together connections may buffer `max_unread_bytes` of requests.
PER_CONNECTION = 16_384
UNREAD = 64 * MIB
SLACK = 24 * MIB

Attack = Callable[[str, int], list[socket.socket]]


def opened(url: str, first: bytes) -> socket.socket:
    """A connection that sends as much as the kernel accepts at once, and reads nothing."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.settimeout(10)
    connection.connect((host, int(port)))
    connection.setblocking(False)
    push(connection, first)
    return connection


def push(connection: socket.socket, data: bytes) -> None:
    """Send what can be sent without blocking."""
    try:
        sent = connection.send(data)
        while sent < len(data):
            sent += connection.send(data[sent:])
    except OSError:
        return


def all_at_once(data: bytes) -> Attack:
    """Every connection sends the same, and reads nothing."""
    return lambda url, count: [opened(url, data) for _ in range(count)]


def without_end(first: bytes, rest: bytes) -> Attack:
    """A tenth of the connections, each sending without end."""

    def attack(url: str, count: int) -> list[socket.socket]:
        connections = [opened(url, first) for _ in range(max(1, count // 10))]
        until = time.monotonic() + 5.0
        while time.monotonic() < until:
            for each in connections:
                push(each, rest)
            time.sleep(0.01)
        return connections

    return attack


ATTACKS: dict[str, Attack] = {
    "idle connections": all_at_once(b""),
    "slow heads": all_at_once(b"GET /livez HTTP/1.1\r\nhost: x\r\nx: "),
    "large heads, not whole": all_at_once(b"GET / HTTP/1.1\r\nx: " + b"y" * 32_000),
    "heads without end": without_end(b"GET / HTTP/1.1\r\n", b"x: y\r\n" * 10_000),
    "bodies, not whole": all_at_once(TURN + b"content-length: 262144\r\n\r\n" + b"x" * 250_000),
    "bodies without end": without_end(TURN + b"content-length: 9999999999\r\n\r\n", b"x" * MIB),
    "trailers without end": without_end(CHUNKED, b"x: y\r\n" * 10_000),
    "extensions without end": without_end(CHUNKED[:-3] + b"1;", b"x" * 60_000),
    "pipelines without end": without_end(b"", b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n" * 2_000),
    "answers unread": all_at_once(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 50),
}


def worker_of(server: ServerProcess) -> int:
    """The process that serves."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return int((children.split() or [str(server.process.pid)])[0])


def resident(pid: int) -> int:
    """Bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def kernel() -> int:
    """Bytes of kernel memory of all TCP sockets."""
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            return int(line.split()[-1]) * PAGE
    return 0


def measure(name: str, connections: int) -> dict[str, object]:
    """The worker's peak memory during an attack, above its value at rest."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        issuer = Issuer()
        issuer.add("one")
        model = stack.enter_context(running_model())
        server = stack.enter_context(
            running_server(
                folder,
                model,
                SERVER__WORKERS="1",
                SERVER__WARM_UP="true",
                **identity(folder, issuer),
            )
        )
        pid = worker_of(server)
        rest, kernel_rest = resident(pid), kernel()
        sockets = ATTACKS[name](server.url, connections)
        largest, in_kernel = 0, 0
        for _ in range(20):
            largest = max(largest, resident(pid) - rest)
            in_kernel = max(in_kernel, kernel() - kernel_rest)
            time.sleep(0.1)
        for each in sockets:
            each.close()
    bound = SLACK + len(sockets) * PER_CONNECTION + UNREAD * 3 // 2  # half more: freed in pieces
    return {
        "attack": name,
        "connections": len(sockets),
        "largest_mib": round(largest / MIB, 1),
        "bound_mib": round(bound / MIB, 1),
        "kernel_mib_both_sides": round(in_kernel / MIB, 1),
        "within": largest <= bound,
    }


def main() -> int:
    """Run the attacks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="500 connections")
    parser.add_argument("--connections", type=int, default=2_000)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"of {', '.join(ATTACKS)}")
    options = parser.parse_args()
    raise_file_limit()
    rows = []
    for name in options.attacks or ATTACKS:
        rows.append(measure(name, 500 if options.quick else options.connections))
        print(rows[-1], flush=True)
    print(json.dumps(rows))
    return int(not all(row["within"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
