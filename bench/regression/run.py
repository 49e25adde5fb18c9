"""Instructions that the server executes for a turn; fails if they are many more than before.

    .venv/bin/python bench/regression/run.py [--quick] [--update]

Prints a table, and the figures as one JSON line at the end. See README.md.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from lockstep import Lockstep

from seawall.lab.demo import DemoIssuer, server_environment
from seawall.lab.processes import Service

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LAST = HERE / "last.json"
PIECES = 40
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


async def start(folder: Path, model: str) -> Counted:
    """Start the store example with one worker under callgrind, not counting yet."""
    environment = server_environment(folder, Service(model, 0)) | {
        "SEAWALL_SERVER__PORT": "0",
        "SEAWALL_SERVER__WORKERS": "1",
        # What depends on how slow the machine is, and callgrind makes it fifty times slower.
        "SEAWALL_SERVER__FLUSH_DELAY_SECONDS": "0",
        "SEAWALL_SERVER__FROZEN_SECONDS": "600",
        "SEAWALL_ADMISSION__LOOP_TARGET_SECONDS": "600",
        "SEAWALL_MODELS__DEFAULT__RESILIENCE__MIN_CONCURRENCY": "200",
        "PYTHONHASHSEED": "0",
    }
    process = await asyncio.create_subprocess_exec(
        *("valgrind", "--tool=callgrind", "--instr-atstart=no", "--quiet"),
        f"--callgrind-out-file={folder / 'callgrind.out.%p'}",
        *(sys.executable, "-m", "seawall", "serve", "examples/store/seawall.toml", "--json"),
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=(folder / "log").open("wb"),
    )
    assert process.stdout is not None
    async with asyncio.timeout(START_SECONDS):
        line = await process.stdout.readline()
    port = int(json.loads(line)["url"].rpartition(":")[2])
    return Counted(folder, process, port)


async def main(sizes: list[int], rounds: int) -> dict[str, float]:
    """Thousands of instructions a turn, by turns at once."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="seawall-bench-") as name:
        folder = Path(name)
        issuer = DemoIssuer(folder / "jwks.json")
        crowd = Lockstep(PIECES)
        async with crowd.serving():
            server = await start(folder, f"http://127.0.0.1:{crowd.port}/v1")
            try:
                for size in sizes:
                    await crowd.run(server.port, [issuer.token(f"warm-{n}") for n in range(size)])
                    counts = []
                    for number in range(rounds):
                        tokens = [issuer.token(f"{size}-{number}-{n}") for n in range(size)]
                        await server.begin()
                        await crowd.run(server.port, tokens)
                        counts.append(await server.end() / size / 1e3)
                        sys.stderr.write(f"{size} at once: {counts[-1]:,.0f} thousand a turn\n")
                    found[str(size)] = round(min(counts))
            finally:
                await server.stop()
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
        sys.stderr.write(f"{size} at once: {count:,} thousand instructions a turn{beside}\n")
    if status:
        sys.stderr.write(f"More than {ALLOWED - 1:.0%}: find out why, or keep them by --update.\n")
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
    arguments = parser.parse_args()
    if shutil.which("callgrind_control") is None:
        sys.exit("valgrind is not installed: apt install valgrind")
    sizes, rounds = ([20], 1) if arguments.quick else ([1, 20, 100], 3)
    figures = asyncio.run(main(sizes, rounds))
    outcome = judge(figures)
    if arguments.update:
        keep(figures)
    result = {"thousand_instructions_a_turn": figures, "python": VERSION, "pieces": PIECES}
    sys.stdout.write(json.dumps(result) + "\n")
    sys.exit(0 if arguments.update else outcome)
