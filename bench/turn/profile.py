"""Where the server's CPU goes in a crowd: samples of its threads, by part of the package.

    .venv/bin/python bench/turn/profile.py [--quick]

Samples one of two workers with py-spy while the crowd is served, and adds up, for each part, the
samples in which that part was the innermost one of ours. Prints a table, and the shares as one
JSON line at the end. See README.md.
"""

import argparse
import asyncio
import json
import os
import re
import sys
import tempfile
from asyncio.subprocess import DEVNULL
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from run import ROOT, other_python, scenario_of

from seawall.lab.demo import DemoIssuer, server_environment
from seawall.lab.processes import raise_file_limit, run_service
from seawall.lab.surge.process import drive_in_subprocess

# The first pattern that a frame's file or function matches names its part; frames are looked at
# from the innermost outwards.
PARTS = (
    ("writing to clients (system call)", r"hosts/http/joining|^write \(.*uvicorn"),
    ("durable sessions", r"seawall/sessions"),
    ("metrics", r"prometheus_client|telemetry/"),
    ("intents", r"seawall/intents"),
    ("identity", r"seawall/identity|joserfc|cryptography"),
    ("admission", r"seawall/admission"),
    ("model: connecting", r"_connect \(seawall/transport"),
    ("model: client and stream", r"seawall/transport|seawall/models"),
    ("agent loop", r"seawall/agents"),
    ("pipeline", r"seawall/pipeline|seawall/orchestrator"),
    ("HTTP host", r"seawall/hosts|uvicorn"),
    ("event loop and reading (system calls)", r"asyncio/runners"),
)
# Threads that wait for work, which the sampler takes for busy, and the supervisor.
IDLE = r"^_serve \(seawall/sessions|^_worker \(concurrent/futures|^run \(seawall/hosts/http/superv"


async def sample(crowd: int) -> Counter[str]:
    """Serve the crowd; samples by part."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seawall-bench-")))
        issuer = DemoIssuer(folder / "jwks.json")
        model = await stack.enter_async_context(run_service("sim-model", "--port", "0"))
        server = await stack.enter_async_context(
            run_service(
                *("serve", "examples/store/seawall.toml", "--port", "0", "--json"),
                environment=server_environment(folder, model),
            )
        )
        raw = folder / "samples.txt"
        spy = other_python().parent / "py-spy"
        command = (spy, "record", "--pid", str(server.pid), "--subprocesses")
        options = ("--rate", "200", "--format", "raw", "--output", str(raw), "--duration", "600")
        profiler = await asyncio.create_subprocess_exec(*command, *options, stdout=DEVNULL)
        await asyncio.sleep(2.0)
        tokens = [issuer.token(f"customer-{each}") for each in range(crowd)]
        await drive_in_subprocess(scenario_of(server, crowd, tokens))
        profiler.send_signal(2)
        await profiler.wait()
        return _count(raw.read_text())


def _count(samples: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for line in samples.splitlines():
        stack, _, number = line.rpartition(" ")
        frames = [_plain(frame) for frame in stack.split(";")]
        if not re.search(IDLE, frames[-1]):
            counts[_part(frames)] += int(number)
    return counts


def _plain(frame: str) -> str:
    """`Class.method (file.py:12)` as `method (file.py`."""
    name, _, where = frame.partition(" (")
    return f"{name.rpartition('.')[2]} ({where}"


def _part(frames: list[str]) -> str:
    for frame in reversed(frames):
        for name, pattern in PARTS:
            if re.search(pattern, frame):
                return name
    return "other"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="a small crowd only")
    crowd = 200 if parser.parse_args().quick else 5_000
    os.chdir(ROOT)
    raise_file_limit()
    found = asyncio.run(sample(crowd))
    total = sum(found.values())
    shares = {name: round(100 * count / total, 1) for name, count in found.most_common()}
    for name, share in shares.items():
        sys.stdout.write(f"{share:5.1f} %  {name}\n")
    sys.stdout.write(json.dumps({"crowd": crowd, "samples": total, "shares": shares}) + "\n")
