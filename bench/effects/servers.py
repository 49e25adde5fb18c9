"""Processes of the harness: services, and servers that are killed by a plan and started again."""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
from bench.effects.kill_points import KILLS, PLAN, SERVER, Kill
from bench.effects.server import writing_calls

from seawall.lab.processes import parent_death_signal

__all__ = ["ROOT", "Plan", "Planner", "Server", "kill_points", "read_kills", "service"]

ROOT = Path(__file__).resolve().parents[2]
Plan = dict[str, tuple[int, str]]
"""Points with the number of the call and the action, "kill" or "stop"."""

EFFECT_POINTS = ("effect:before", "effect:sent", "effect:after")
OFTEN = ("effect:", "journal.", "commit:")  # of turns with effects
RARE = 3  # further points of one process
MOST_CALLS = 8
STOPPED_SECONDS = 4.0  # beyond the end of a lease
PATIENCE_SECONDS = (2.0, 6.0)
START_SECONDS = 60.0


def kill_points() -> list[str]:
    """All points: around the effect, and around each call by which a turn writes to its store."""
    calls = [f"{name}:{when}" for name in writing_calls() for when in ("before", "after")]
    return [*EFFECT_POINTS, *calls]


@contextmanager
def service(*words: str) -> Iterator[str]:
    """A process of the harness, until the block ends; yields the URL that it announces."""
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        preexec_fn=parent_death_signal(signal.SIGKILL),  # noqa: PLW1509 - there are none
    )
    assert process.stdout is not None
    try:
        yield str(json.loads(process.stdout.readline())["url"])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class Planner:
    """Chooses the kill points of the next process: those that were reached least so far."""

    def __init__(
        self, points: list[str], chance: random.Random, *, kills: Path, stops: float
    ) -> None:
        self._points = points
        self._stops = stops
        self._chance = chance
        self._kills = kills
        self._armed: Counter[str] = Counter()

    def plan(self) -> Plan:
        """Points with the number of the call and the action."""
        chance = self._chance
        seen = Counter(each.point for each in read_kills(self._kills))
        # A point that is never reached must not keep its place for ever.
        rank = {each: seen[each] + self._armed[each] / 5 for each in self._points}
        order = sorted(self._points, key=lambda each: (rank[each], chance.random()))
        often = [each for each in self._points if each.startswith(OFTEN)] or self._points
        chosen = {
            each: (1 if seen[each] == 0 else chance.randint(1, MOST_CALLS), "kill")
            for each in dict.fromkeys([*order[:RARE], chance.choice(often)])
        }
        self._armed.update(chosen.keys())
        if chance.random() < self._stops:
            point = chance.choice(self._points)
            return {point: (chance.randint(1, MOST_CALLS), "stop")}
        return chosen


def read_kills(path: Path) -> list[Kill]:
    """The kills so far."""
    if not path.exists():
        return []
    return [msgspec.json.decode(line, type=Kill) for line in path.read_bytes().splitlines()]


class Server:
    """A server at a fixed port, which is started again whenever it ends."""

    def __init__(
        self,
        number: int,
        environment: dict[str, str],
        *,
        kills: Path,
        log: Path,
        planner: Planner | None = None,
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.starts = 0
        self._number = number
        self._environment = environment
        self._planner = planner
        self._kills = kills
        self._log = log

    async def keep_up(self, chance: random.Random, over: asyncio.Event) -> None:
        """Run the server with one plan after another until `over`."""
        assert self._planner is not None
        while not over.is_set():
            async with self.planned(self._planner.plan()) as process:
                await self._watch(process, chance, over)

    @asynccontextmanager
    async def planned(self, plan: Plan) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run the server with a plan; it is killed at the end of the block."""
        process = await self._start(plan)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    @contextmanager
    def calm(self) -> Iterator[None]:
        """Run the server without kill points while the block runs."""
        words, environment = self._command({})
        with self._log.open("ab") as errors:
            process = subprocess.Popen(
                words,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env=environment,
                preexec_fn=parent_death_signal(signal.SIGKILL),  # noqa: PLW1509 - the same
            )
        assert process.stdout is not None
        try:
            if not process.stdout.readline():
                raise RuntimeError(f"the server did not start; see {self._log}")
            yield
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()

    def _command(self, plan: Plan) -> tuple[list[str], dict[str, str]]:
        words = [sys.executable, "-m", "bench.effects.server", "bench/effects/seawall.toml"]
        words += ["--port", str(self._port), "--anonymous", "--json"]
        own = {PLAN: json.dumps(plan), KILLS: str(self._kills), SERVER: str(self._number)}
        return words, {**os.environ, **self._environment, **own}

    async def _start(self, plan: Plan) -> asyncio.subprocess.Process:
        words, environment = self._command(plan)
        with self._log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *words,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env=environment,
                preexec_fn=parent_death_signal(signal.SIGKILL),
            )
        self.starts += 1
        return process

    @staticmethod
    async def ready(process: asyncio.subprocess.Process) -> None:
        """Return when the server has announced itself, or has ended."""
        assert process.stdout is not None
        await process.stdout.readline()

    async def _watch(
        self, process: asyncio.subprocess.Process, chance: random.Random, over: asyncio.Event
    ) -> None:
        """Return when the process has ended; it is killed, or ended, when it lives too long."""
        clock = asyncio.get_running_loop().time
        # A plan may kill or stop it before it announces itself.
        ready: asyncio.Task[None] | None = asyncio.create_task(self.ready(process))
        until = clock() + START_SECONDS
        while process.returncode is None and not over.is_set():
            if _is_stopped(process.pid):
                await asyncio.sleep(STOPPED_SECONDS)
                process.send_signal(signal.SIGCONT)
            if ready is not None and ready.done():
                ready = None
                until = clock() + chance.uniform(*PATIENCE_SECONDS)
            if clock() > until:
                await self._end(process, graceful=chance.random() < 0.25)
                break
            await asyncio.sleep(0.05)
        if ready is not None:
            ready.cancel()

    async def _end(self, process: asyncio.subprocess.Process, *, graceful: bool) -> None:
        point = "SIGTERM" if graceful else "random"
        kill = Kill(server=self._number, point=point, at=time.time())
        with self._kills.open("ab") as log:
            log.write(msgspec.json.encode(kill) + b"\n")
        if graceful:
            process.terminate()
            try:
                async with asyncio.timeout(15):
                    await process.wait()
            except TimeoutError:
                process.kill()
        else:
            process.kill()


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False
