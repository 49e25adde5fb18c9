"""Instructions of a turn and of a step with a tool; fails if they are many more than before.

    .venv/bin/python bench/regression/run.py [--quick] [--update] [--only turns|steps]

Prints a table, and the figures as one JSON line at the end. See README.md.
"""

import argparse
import asyncio
import itertools
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from lockstep import Lockstep

from seawall.lab.demo import DemoIssuer, server_environment
from seawall.lab.processes import Service

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LAST = HERE / "last.json"
STORE = "examples/store/seawall.toml"
STEPS = "bench/regression/seawall.toml"
PIECES = 40
PIECES_WITH_STEP = 2
STEPS_AT_ONCE = 20
STEPS_A_TURN = 5  # so that what two counts of turns differ by anyway is divided by it
TOOLS = ("look_up", "look_up_in_thread", "change")
ALLOWED = 1.15
VERSION = f"{sys.version_info.major}.{sys.version_info.minor} {platform.machine()}"
START_SECONDS = 240.0


class Counted:
    """A server under callgrind.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, folder: Path, process: asyncio.subprocess.Process, port: int) -> None:
        self._folder = folder
        self._process = process
        self.port = port

    async def _control(self, *arguments: str) -> None:
        done = await asyncio.create_subprocess_exec(
            "callgrind_control",
            *arguments,
            str(self._process.pid),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
        )
        if await done.wait():
            raise RuntimeError(f"callgrind_control {' '.join(arguments)} failed")

    async def begin(self) -> None:
        """Count from here."""
        await self._control("-i", "on")
        await self._control("-z")

    async def end(self) -> int:
        """Stop counting; the instructions so far."""
        known = set(self._folder.glob("callgrind.out.*"))
        await self._control("-d")
        await self._control("-i", "off")
        (written,) = set(self._folder.glob("callgrind.out.*")) - known
        found = re.search(r"^(?:totals|summary): (\d+)", written.read_text(), re.MULTILINE)
        if found is None:
            raise RuntimeError(f"{written.name} has no total")
        return int(found[1])

    async def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()


async def start(folder: Path, model: str, config: str) -> Counted:
    """Start a server with one worker under callgrind, not counting yet."""
    demo = server_environment(folder, Service(model, 0))
    if config != STORE:
        demo = {name: value for name, value in demo.items() if "__STORE__" not in name}
    environment = demo | {
        "SEAWALL_SERVER__PORT": "0",
        "SEAWALL_SERVER__WORKERS": "1",
        # What depends on how slow the machine is, and callgrind makes it fifty times slower.
        "SEAWALL_SERVER__FLUSH_DELAY_SECONDS": "0",
        "SEAWALL_SERVER__FROZEN_SECONDS": "600",
        "SEAWALL_ADMISSION__LOOP_TARGET_SECONDS": "600",
        "SEAWALL_MODELS__DEFAULT__RESILIENCE__MIN_CONCURRENCY": "200",
        **{f"SEAWALL_TURN__{stage}": "60" for stage in ("AUTHENTICATE", "SESSION", "INTENT")},
        "PYTHONHASHSEED": "0",
    }
    process = await asyncio.create_subprocess_exec(
        *("valgrind", "--tool=callgrind", "--instr-atstart=no", "--quiet"),
        f"--callgrind-out-file={folder / 'callgrind.out.%p'}",
        *(sys.executable, "-m", "seawall", "serve", config, "--json"),
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=(folder / "log").open("wb"),
    )
    assert process.stdout is not None
    async with asyncio.timeout(START_SECONDS):
        line = await process.stdout.readline()
    if not line:
        raise RuntimeError(f"the server did not start: {(folder / 'log').read_text()[-2_000:]}")
    port = int(json.loads(line)["url"].rpartition(":")[2])
    return Counted(folder, process, port)


class Crowds:
    """Crowds of turns of one server, counted."""

    def __init__(self, folder: Path, config: str, pieces: int) -> None:
        self._issuer = DemoIssuer(folder / "jwks.json")
        self._crowd = Lockstep(pieces)
        self._folder = folder
        self._config = config
        self._numbers = itertools.count()

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None, None]:
        """Serve."""
        async with self._crowd.serving():
            model = f"http://127.0.0.1:{self._crowd.port}/v1"
            self._server = await start(self._folder, model, self._config)
            try:
                yield
            finally:
                await self._server.stop()

    async def count(self, size: int, rounds: int, tool: str = "", steps: int = 0) -> float:
        """Thousands of instructions a turn, the least of all rounds."""
        await self._crowd.run(self._server.port, self._tokens(size), tool, steps)
        counts = []
        for _ in range(rounds):
            tokens = self._tokens(size)
            await self._server.begin()
            await self._crowd.run(self._server.port, tokens, tool, steps)
            counts.append(await self._server.end() / size / 1e3)
            what = f"{steps} steps of {tool}, " if steps else ""
            sys.stderr.write(f"{what}{size} at once: {counts[-1]:,.0f} thousand a turn\n")
        return min(counts)

    def _tokens(self, size: int) -> list[str]:
        return [self._issuer.token(f"visitor-{next(self._numbers)}") for _ in range(size)]


async def turns(sizes: list[int], rounds: int) -> dict[str, float]:
    """Thousands of instructions a turn of the store example, by turns at once."""
    with tempfile.TemporaryDirectory(prefix="seawall-bench-") as name:
        crowds = Crowds(Path(name), STORE, PIECES)
        async with crowds.serving():
            return {str(size): round(await crowds.count(size, rounds)) for size in sizes}


async def steps(rounds: int) -> dict[str, float]:
    """Thousands of instructions of a step with one call, from turns with some and turns without."""
    with tempfile.TemporaryDirectory(prefix="seawall-bench-") as name:
        crowds = Crowds(Path(name), STEPS, PIECES_WITH_STEP)
        async with crowds.serving():
            without = await crowds.count(STEPS_AT_ONCE, rounds)
            found = {}
            for tool in TOOLS:
                turn = await crowds.count(STEPS_AT_ONCE, rounds, tool, STEPS_A_TURN)
                found[f"step of {tool}"] = round((turn - without) / STEPS_A_TURN)
            return found


def judge(found: dict[str, float]) -> int:
    """Print the figures beside the last ones; 1 if one has grown too much."""
    kept = json.loads(LAST.read_text()) if LAST.exists() else {}
    last = kept.get(VERSION, {})
    status = 0
    for size, count in found.items():
        before = last.get(size)
        grown = count / before if before else 1.0
        status |= grown > ALLOWED
        beside = (
            f", before {before:,}: {grown - 1:+.1%}" if before else f", none kept for {VERSION}"
        )
        what = f"{size} at once" if size.isdigit() else size
        sys.stderr.write(f"{what}: {count:,} thousand instructions{beside}\n")
    if status:
        sys.stderr.write("More than is allowed: find out why, or keep the figures by --update.\n")
    return status


def keep(found: dict[str, float]) -> None:
    """Keep the figures, beside those of other versions of Python."""
    kept = json.loads(LAST.read_text()) if LAST.exists() else {}
    kept[VERSION] = {**kept.get(VERSION, {}), **found}
    LAST.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 turns at once, counted once")
    parser.add_argument("--update", action="store_true", help="keep the figures as the last ones")
    parser.add_argument("--only", choices=["turns", "steps"], help="of both")
    arguments = parser.parse_args()
    if shutil.which("callgrind_control") is None:
        sys.exit("valgrind is not installed: apt install valgrind")
    sizes, rounds = ([20], 1) if arguments.quick else ([1, 20, 100], 3)
    figures: dict[str, float] = {}
    if arguments.only != "steps":
        figures |= asyncio.run(turns(sizes, rounds))
    if arguments.only != "turns":
        figures |= asyncio.run(steps(rounds))
    outcome = judge(figures)
    if arguments.update:
        keep(figures)
    result = {"thousand_instructions": figures, "python": VERSION, "pieces": PIECES}
    sys.stdout.write(json.dumps(result) + "\n")
    sys.exit(0 if arguments.update else outcome)
