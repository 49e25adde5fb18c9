"""What a call to DynamoDB costs a client, and what it costs to be ready for one.

    .venv/bin/python bench/dynamodb_client/run.py [--quick]

Prints tables, and the figures as one JSON line at the end. See README.md.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLIENTS = ("seawall", "aiodynamo", "aiobotocore", "boto3")
CALLS = ("get", "query", "transact")
CONCURRENCY = 16


def python_of(client: str) -> str:
    """Our own interpreter, or that of the peers' venv, which is made where it is missing."""
    if client == "seawall":
        return sys.executable
    python = HERE / ".venv" / "bin" / "python"
    if not python.exists():
        sys.stderr.write("making a venv for the peers ...\n")
        venv.create(HERE / ".venv", with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"], check=True
        )
    return str(python)


@contextmanager
def stub() -> Iterator[int]:
    """The port of a server that gives canned answers."""
    process = subprocess.Popen(
        [sys.executable, "stub.py"], cwd=HERE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def cost(client: str, call: str, port: int, count: int) -> float:
    """CPU microseconds a call, in a process of its own."""
    command = [python_of(client), "client.py", client, call, str(port), str(count)]
    done = subprocess.run(
        [*command, str(CONCURRENCY)], cwd=HERE, check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def start(command: list[str]) -> tuple[float, float]:
    """Milliseconds of a process from start to end: by the clock, and of CPU."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(command, cwd=HERE, check=True)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall * 1e3, cpu * 1e3


def spread(found: list[float]) -> dict[str, float]:
    """The least, and the one in the middle."""
    return {"min": round(min(found), 1), "median": round(statistics.median(found), 1)}


def main(*, quick: bool) -> None:
    """All clients, one after another, in several rounds, so that a busy machine hits all."""
    count, rounds, starts = (1_600, 2, 5) if quick else (8_000, 5, 15)
    costs: dict[str, dict[str, list[float]]] = {
        client: {call: [] for call in CALLS} for client in CLIENTS
    }
    times: dict[str, tuple[list[float], list[float]]] = {
        client: ([], []) for client in ("bare", *CLIENTS)
    }
    with stub() as port:
        for _ in range(rounds):
            for client in CLIENTS:
                for call in CALLS:
                    costs[client][call].append(cost(client, call, port, count))
        for _ in range(starts + 1):
            for client, (wall, cpu) in times.items():
                if client == "bare":
                    took = start([sys.executable, "-c", "pass"])
                else:
                    took = start([python_of(client), "client.py", client, "import", str(port)])
                wall.append(took[0])
                cpu.append(took[1])
    for wall, cpu in times.values():  # the first start reads files that later ones find in memory
        del wall[0], cpu[0]
    sys.stdout.write("CPU a call, microseconds, least and median of the rounds:\n")
    for client, by_call in costs.items():
        row = "".join(
            f"{call} {min(f):7.1f} {statistics.median(f):7.1f}   " for call, f in by_call.items()
        )
        sys.stdout.write(f"  {client:12} {row}\n")
    sys.stdout.write("Process start to a ready client and end, milliseconds:\n")
    for client, (wall, cpu) in times.items():
        sys.stdout.write(
            f"  {client:12} wall {min(wall):7.1f} {statistics.median(wall):7.1f}   "
            f"cpu {min(cpu):7.1f} {statistics.median(cpu):7.1f}\n"
        )
    figures = {
        "cpu_us_a_call": {
            client: {call: spread(found) for call, found in by_call.items()}
            for client, by_call in costs.items()
        },
        "ready_ms": {client: spread(wall) for client, (wall, _) in times.items()},
        "ready_cpu_ms": {client: spread(cpu) for client, (_, cpu) in times.items()},
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer calls and rounds")
    main(quick=parser.parse_args().quick)
