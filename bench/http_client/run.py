"""What a streamed exchange costs an HTTP client, and what it costs to be ready for one.

    .venv/bin/python bench/http_client/run.py [--quick]

Prints tables, and the figures as one JSON line at the end. See README.md.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLIENTS = ("seawall", "aiohttp", "httpx")
CROWDS = (16, 64)


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
def upstream() -> Iterator[int]:
    """The port of a server that streams."""
    process = subprocess.Popen(
        [sys.executable, "upstream.py"], cwd=HERE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def cost(client: str, port: int, count: int, crowd: int) -> float:
    """CPU microseconds an exchange, in a process of its own."""
    command = [python_of(client), "client.py", client, "exchange", str(port), str(count)]
    done = subprocess.run(
        [*command, str(crowd)], cwd=HERE, check=True, stdout=subprocess.PIPE, text=True
    )
    return float(done.stdout)


def start(command: list[str]) -> float:
    """Milliseconds of a process from start to end."""
    began = time.perf_counter()
    subprocess.run(command, cwd=HERE, check=True)
    return (time.perf_counter() - began) * 1e3


def spread(found: list[float]) -> dict[str, float]:
    """The least, and the one in the middle."""
    return {"min": round(min(found), 1), "median": round(statistics.median(found), 1)}


def main(*, quick: bool) -> None:
    """All clients, one after another, in several rounds, so that a busy machine hits all."""
    count, rounds, starts = (256, 2, 4) if quick else (1_024, 4, 12)
    costs: dict[str, dict[int, list[float]]] = {
        client: {crowd: [] for crowd in CROWDS} for client in CLIENTS
    }
    times: dict[str, list[float]] = {client: [] for client in ("bare", "asyncio", *CLIENTS)}
    with upstream() as port:
        for _ in range(rounds):
            for client in CLIENTS:
                for crowd in CROWDS:
                    costs[client][crowd].append(cost(client, port, count, crowd))
    for _ in range(starts + 1):
        for client, took in times.items():
            if client in CLIENTS:
                command = [python_of(client), "client.py", client, "import"]
            else:
                command = [sys.executable, "-c", "import asyncio" if client == "asyncio" else ""]
            took.append(start(command))
    for took in times.values():  # the first start reads files that later ones find in memory
        del took[0]
    sys.stdout.write("CPU of a streamed exchange of 40 chunks, microseconds, least and median:\n")
    for client, by_crowd in costs.items():
        row = "".join(
            f"{crowd:>4} at once {min(found):7.0f} {statistics.median(found):7.0f}   "
            for crowd, found in by_crowd.items()
        )
        sys.stdout.write(f"  {client:8} {row}\n")
    sys.stdout.write("Process start to a ready client and end, milliseconds, least and median:\n")
    for client, took in times.items():
        sys.stdout.write(f"  {client:8} {min(took):7.1f} {statistics.median(took):7.1f}\n")
    figures = {
        "cpu_us_an_exchange": {
            client: {str(crowd): spread(found) for crowd, found in by_crowd.items()}
            for client, by_crowd in costs.items()
        },
        "ready_ms": {client: spread(took) for client, took in times.items()},
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer exchanges and rounds")
    main(quick=parser.parse_args().quick)
