"""What a call of an MCP tool costs a client, and what it costs to be ready for one.

    .venv/bin/python bench/mcp_client/run.py [--quick]

Prints a table, and the figures as one JSON line at the end. See README.md.
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
CLIENTS = ("seawall", "sdk")
WAYS = ("json", "stream", "stdio")


def python_of(client: str) -> str:
    """Our own interpreter, or that of the SDK's venv, which is made where it is missing."""
    if client == "seawall":
        return sys.executable
    python = HERE / ".venv" / "bin" / "python"
    if not python.exists():
        sys.stderr.write("making a venv for the SDK ...\n")
        venv.create(HERE / ".venv", with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"], check=True
        )
    return str(python)


@contextmanager
def upstream() -> Iterator[int]:
    """The port of a server."""
    process = subprocess.Popen(
        [sys.executable, "upstream.py"], cwd=HERE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def client(
    name: str, way: str, port: int, calls: int, crowd: int
) -> tuple[dict[str, float], float]:
    """Figures of one process, and the seconds that it took."""
    target = str(HERE / "upstream.py") if way == "stdio" else f"http://127.0.0.1:{port}/{way}"
    began = time.perf_counter()
    done = subprocess.run(
        [python_of(name), "client.py", name, way, target, str(calls), str(crowd)],
        cwd=HERE,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return json.loads(done.stdout), time.perf_counter() - began


def main() -> None:
    """Measure all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    rounds, calls = (3, 300) if quick else (5, 2_000)
    figures = []
    with upstream() as port:
        for way in WAYS:
            for crowd in (1, 16):
                spent: dict[str, list[float]] = {name: [] for name in CLIENTS}
                for _ in range(rounds):  # in turns: the machine is not the same all the time
                    for name in CLIENTS:
                        spent[name].append(client(name, way, port, calls, crowd)[0]["ms"])
                for name in CLIENTS:
                    low, middle = min(spent[name]), statistics.median(spent[name])
                    print(f"{way:7} {crowd:3} at once  {name:8} {low:6.2f} / {middle:6.2f} ms")
                    figures.append([way, crowd, name, low, middle])
        for name in CLIENTS:
            starts = [client(name, "json", port, 0, 1) for _ in range(rounds * 2)]
            seconds = [each[1] for each in starts]
            low, middle = min(seconds), statistics.median(seconds)
            memory = starts[0][0]["mb"]
            print(f"start to ready and end  {name:8} {low:6.2f} / {middle:6.2f} s, {memory:.0f} MB")
            figures.append(["start", 1, name, low, middle, memory])
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
