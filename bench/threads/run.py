"""Processes, threads without the interpreter lock, or subinterpreters: what serves a turn cheapest.

    .venv/bin/python bench/threads/run.py PYTHON… [--turns 2000] [--rounds 3]

Each PYTHON serves the stand-in of `server.py` by one and by two workers of each kind that it can
have, in alternation. Prints a table, and the figures as one JSON line at the end. See README.md.
"""

import argparse
import asyncio
import hashlib
import hmac
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SERVER = Path(__file__).with_name("server.py")
AT_ONCE = 50
PIECES = 40
PIECE = b'data: {"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}\n\n'
TICKS = os.sysconf("SC_CLK_TCK")


async def model(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A model that writes its pieces one by one."""
    await reader.readline()
    for _ in range(PIECES):
        writer.write(PIECE)
        await writer.drain()
        await asyncio.sleep(0)
    writer.close()


async def ask(port: int, turn: str) -> None:
    """One turn."""
    body = json.dumps({"id": turn, "text": "Where is my order?"}).encode()
    signature = hmac.new(b"secret", body, hashlib.sha256).hexdigest().encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST / HTTP/1.1\r\nhost: localhost\r\nauthorization: %b\r\ncontent-length: %d\r\n\r\n%b"
        % (signature, len(body), body)
    )
    answer = await reader.read(-1)
    writer.close()
    if answer.count(b"event: text.delta") != PIECES or b"turn.completed" not in answer:
        raise RuntimeError(f"a turn was not completed: {answer[-500:]!r}")


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in family(int(child)))]


def cpu_seconds(pid: int) -> float:
    """Of a process and its children."""
    total = 0
    for each in family(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def megabytes(pid: int) -> float:
    """Proportional memory of a process and its children."""
    total = 0
    for each in family(pid):
        for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1_024


def listening(port: int) -> int:
    """How many sockets listen on a port."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(1 for row in rows if row[1] == f"0100007F:{port:04X}" and row[3] == "0A")


def wait_until_listening(port: int, workers: int, server: subprocess.Popen[bytes]) -> None:
    """Wait until all workers listen."""
    while listening(port) < workers and server.poll() is None:
        time.sleep(0.05)


def start(python: str, kind: str, workers: int, port: int, folder: str) -> subprocess.Popen[bytes]:
    """Start a server whose model is on a port."""
    return subprocess.Popen(
        [python, str(SERVER), kind, str(workers), str(port), folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


async def measure(python: str, kind: str, workers: int, turns: int, port: int) -> dict[str, float]:
    """One run of one server."""
    with tempfile.TemporaryDirectory(prefix="seawall-bench-") as folder:
        server = start(python, kind, workers, port, folder)
        assert server.stdout is not None
        try:
            async with asyncio.timeout(300):
                own = int(await asyncio.to_thread(server.stdout.readline))
                await asyncio.to_thread(wait_until_listening, own, workers, server)
                numbers = iter(range(turns + AT_ONCE))
                await asyncio.gather(*(ask(own, f"w{next(numbers)}") for _ in range(AT_ONCE)))
                before, began = cpu_seconds(server.pid), time.monotonic()

                async def client() -> None:
                    for number in numbers:
                        await ask(own, f"t{number}")

                async with asyncio.TaskGroup() as group:
                    for _ in range(AT_ONCE):
                        group.create_task(client())
                took = time.monotonic() - began
                cpu = cpu_seconds(server.pid) - before
            return {
                "cpu_ms": cpu / turns * 1e3,
                "turns_a_second": turns / took,
                "memory_mb": megabytes(server.pid),
            }
        finally:
            for each in reversed(family(server.pid)):
                os.kill(each, 9)
            server.wait()


def kinds(python: str) -> tuple[str, ...]:
    """The kinds of worker that a Python can have in parallel."""
    asked = "import sys; print(sys.version_info >= (3, 13), sys._is_gil_enabled())"
    done = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=False)
    if done.stdout.split() == ["True", "True"]:
        return ("processes", "interpreters")
    return ("processes", "threads") if done.returncode == 0 else ("processes",)


async def main(pythons: list[str], turns: int, rounds: int) -> list[dict[str, object]]:
    """All of them."""
    results = []
    model_server = await asyncio.start_server(model, "127.0.0.1", 0, backlog=1_024)
    async with model_server:
        port = model_server.sockets[0].getsockname()[1]
        cases = [(each, kind, n) for each in pythons for kind in kinds(each) for n in (1, 2)]
        runs: dict[tuple[str, str, int], list[dict[str, float]]] = {each: [] for each in cases}
        for _ in range(rounds):
            for case in cases:
                runs[case].append(await measure(*case, turns, port))
                sys.stderr.write(f"{case}: {runs[case][-1]}\n")
        for (python, kind, workers), found in runs.items():
            median = {name: statistics.median(each[name] for each in found) for name in found[0]}
            results.append({"python": python, "kind": kind, "workers": workers, **median})
    for each in results:
        sys.stdout.write(f"{each['python']}: {each['workers']} {each['kind']}: ")
        sys.stdout.write(f"{each['cpu_ms']:.2f} ms, {each['turns_a_second']:.0f} a second, ")
        sys.stdout.write(f"{each['memory_mb']:.1f} MB\n")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pythons", nargs="+")
    parser.add_argument("--turns", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    figures = asyncio.run(main(options.pythons, options.turns, options.rounds))
    sys.stdout.write(json.dumps({"load": os.getloadavg()[0], "runs": figures}) + "\n")
