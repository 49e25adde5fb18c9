"""Streams at the pace of a model: what a turn costs and takes, beside proxies that do less.

    .venv/bin/python bench/paced/run.py [--quick] [--only NAME ...] [--sizes N,N] [--runs N]

Prints a table, and the figures as one JSON line at the end. See README.md.
"""

import argparse
import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE
from bisect import bisect_left
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "peers"))

from install import install, installed, python_of
from msgspec import Struct, json, structs

from seawall.lab.demo import DemoIssuer, server_environment
from seawall.lab.processes import (
    Service,
    consumption,
    parent_death_signal,
    raise_file_limit,
    run,
    run_service,
)
from seawall.lab.sim_model.reply import SimTimes
from seawall.lab.surge.outcome import Progress, SurgeResult
from seawall.lab.surge.process import ProcessUsage, drive_in_subprocess, drive_watched
from seawall.lab.surge.scenario import Closed, Scenario, Simulated

PEERS = HERE.parent / "peers"
BY_HAND, ASGI, FASTAPI = "asyncio by hand", "ASGI + aiohttp", "FastAPI + openai"
OURS, AT_ONCE, OTHER = "Seawall", "Seawall, delay 0", "Seawall, other"
NAMES = {
    "by-hand": BY_HAND, "asgi": ASGI, "fastapi": FASTAPI, "seawall": OURS, "delay-0": AT_ONCE,
}  # fmt: skip
CHUNKS, FIRST, WHOLE = 40, 0.03, 1.23
TIMES = SimTimes((FIRST, FIRST), (WHOLE, WHOLE), CHUNKS)
RAMP_UP = 2.0
SETTLED = RAMP_UP + 1.5  # seconds; before that not all users have sent a turn
WARM_UP = Closed(users=20, seconds=2.5, ramp_up=0.5)
START_SECONDS = 120.0
PATIENCE = 180.0


class Figures(Struct):
    """Of one server and one number of turns at once. Milliseconds and kilobytes.

    Attributes:
        cpu_ms: Processor time of the server's processes, user and system, by turn.
        added_first: First token less the model's own part, p50 and p99.
        whole: Whole turn, p50 and p99.
        busy: Share of a processor that the server used, once all users were there.
        a_second: Turns that ended in a second, at the same time.
        kb: Growth of the server's memory, by turn in flight.
        driver, model: Shares of a processor that those used meanwhile.
    """

    server: str
    at_once: int
    turns: int
    failed: int
    cpu_ms: float
    added_first: tuple[float, float]
    whole: tuple[float, float]
    busy: float
    a_second: float
    kb: float
    driver: float
    model: float
    saturated: list[str]


class Bench:
    """The model, the servers and where they run."""

    def __init__(
        self,
        folder: Path,
        model: Service,
        *,
        processors: set[int],
        other: Path | None,
        keep_alive: bool,
    ) -> None:
        issuer = DemoIssuer(folder / "jwks.json")
        self._tokens = [issuer.token(f"customer-{each}", seconds=14_400) for each in range(1_000)]
        self._environment = server_environment(folder, model) | {
            "SEAWALL_ROUTING__CLASSIFIER_CACHE": str(folder / "classifier")
        }
        self._model = model
        self._processors = processors
        self._other = other
        self._keep_alive = keep_alive

    @asynccontextmanager
    async def serving(self, name: str) -> AsyncGenerator[Service, None]:
        """Run a server until the block ends."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        ours = name in (OURS, AT_ONCE, OTHER)
        environment = os.environ | {"MODEL_URL": self._model.url}
        if ours:
            environment |= self._environment
            where = ROOT
        else:
            where = (PEERS if name == FASTAPI else HERE) / "servers"
        if name == AT_ONCE:
            environment["SEAWALL_SERVER__FLUSH_DELAY_SECONDS"] = "0"
        process = await asyncio.create_subprocess_exec(
            *self._command(name, port),
            cwd=where,
            env=environment,
            stdout=PIPE if ours else DEVNULL,
            preexec_fn=on_processors(self._processors),
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                if process.stdout is not None:
                    await process.stdout.readline()  # it is announced when it is ready
                else:
                    await _listening(port, process)
            if process.returncode is not None:
                raise RuntimeError(f"{name} ended with status {process.returncode}")
            yield Service(f"http://127.0.0.1:{port}", process.pid)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()

    def _command(self, name: str, port: int) -> list[str]:
        if name == BY_HAND:
            return [
                *(sys.executable, "by_hand.py", "--port", str(port), "--model", self._model.url)
            ]
        if name in (ASGI, FASTAPI):
            bare = name == ASGI
            python = python_of("asgi_aiohttp", HERE) if bare else python_of("fastapi_openai")
            return [
                *(str(python), "-m", "uvicorn", "--port", str(port), "--loop", "uvloop"),
                *("--http", "httptools", "--log-level", "warning", "--no-access-log"),
                *("--backlog", "8192", "asgi_aiohttp:app" if bare else "serve_fastapi_openai:app"),
            ]
        python = sys.executable
        if name == OTHER and self._other is not None:
            python = str(self._other / ".venv" / "bin" / "python")
        return [
            *(python, "-m", "seawall", "serve", "examples/store/seawall.toml"),
            *("--port", str(port), "--workers", "1", "--json"),
        ]

    def scenario(self, name: str, url: str, load: Closed) -> Scenario:
        """The same for all, except for the API and the tokens."""
        ours = name in (OURS, AT_ONCE, OTHER)
        return Scenario(
            url=url,
            load=structs.replace(load, tokens=self._tokens) if ours else load,
            api="turns" if ours else "chat",
            model="simulated",
            simulated=Simulated(times=TIMES),
            patience=PATIENCE,
            keep_alive=self._keep_alive,
        )

    async def measure(self, name: str, at_once: int, seconds: float) -> Figures:
        """One server, one number of turns at once."""
        began = 0.0

        def progress(now: Progress) -> None:
            nonlocal began
            began = began or time.monotonic() - now.seconds

        async with self.serving(name) as server:
            await drive_in_subprocess(self.scenario(name, server.url, WARM_UP))
            load = Closed(users=at_once, seconds=seconds, ramp_up=RAMP_UP)
            model = consumption(self._model.pid).cpu_seconds
            started = time.monotonic()
            result, usage = await drive_watched(
                self.scenario(name, server.url, load), [server.pid], progress
            )
            model = consumption(self._model.pid).cpu_seconds - model
        return figures(name, at_once, result, usage, users=(began - started, seconds), model=model)


def figures(
    name: str,
    at_once: int,
    result: SurgeResult,
    usage: ProcessUsage,
    *,
    users: tuple[float, float],
    model: float,
) -> Figures:
    """The figures of a run.

    Args:
        name: Of the server.
        at_once: Users.
        result: Of the driver.
        usage: Of the server.
        users: When they began, on the clock of `usage`; seconds until they stopped.
        model: Processor seconds of the model.
    """
    began, seconds = users
    samples = usage.samples
    times = [each.at for each in samples]
    low = samples[min(len(samples) - 2, bisect_left(times, began + SETTLED))]
    high = samples[min(len(samples) - 1, bisect_left(times, began + seconds))]
    ended = sum(
        not each.error and low.at - began <= each.due + each.total < high.at - began
        for each in result.outcomes
    )
    span = max(0.1, high.at - low.at)
    first, whole = result.added_first_text, result.total
    return Figures(
        server=name,
        at_once=at_once,
        turns=result.turns,
        failed=result.turns - result.completed,
        cpu_ms=round(usage.cpu_seconds / max(1, result.turns) * 1e3, 2),
        added_first=(first.p50 or 0.0, first.p99 or 0.0),
        whole=(whole.p50 or 0.0, whole.p99 or 0.0),
        busy=round((high.cpu_seconds - low.cpu_seconds) / span, 3),
        a_second=round(ended / span, 1),
        kb=round(max(0, usage.grown_bytes) / max(1, result.peak_in_flight) / 1_024, 1),
        driver=result.driver.cpu_share,
        model=round(model / result.seconds, 3),
        saturated=result.driver.saturated,
    )


def on_processors(processors: set[int]) -> Callable[[], None]:
    """A `preexec_fn`: the child runs on these processors, and ends with its parent."""
    dying = parent_death_signal(signal.SIGTERM)

    def before() -> None:
        dying()
        os.sched_setaffinity(0, processors)

    return before


async def _listening(port: int, process: asyncio.subprocess.Process) -> None:
    while process.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return


async def main(arguments: argparse.Namespace, names: list[str], sizes: list[int]) -> list[Figures]:
    """Every server at every size, in turn, as many times as asked."""
    found: list[Figures] = []
    processors = sorted(os.sched_getaffinity(0))
    shared = arguments.unpinned or len(processors) == 1
    of_server, of_load = [set(processors)] * 2 if shared else ({processors[0]}, {processors[1]})
    os.sched_setaffinity(0, of_load)  # also of the driver, a child
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seawall-bench-")))
        model = await stack.enter_async_context(
            run_service(
                *("sim-model", "--port", "0", "--chunks", str(CHUNKS)),
                *("--first-token", str(FIRST), "--duration", str(WHOLE)),
                before=parent_death_signal(signal.SIGTERM),
            )
        )
        bench = Bench(
            folder,
            model,
            processors=of_server,
            other=arguments.other,
            keep_alive=arguments.keep_alive,
        )
        for _ in range(arguments.runs):
            for size in sizes:
                for name in names:
                    found.append(await bench.measure(name, size, arguments.seconds))
                    sys.stderr.write(f"{found[-1]}\n")
    return found


def table(found: list[Figures]) -> str:
    """The median of the runs: one line for each size and server."""
    columns = (
        *("at once", "server", "CPU a turn, ms", "added first token, ms, p50 / p99"),
        *("whole turn, s, p50 / p99", "busy", "turns a second", "memory a turn, KB"),
        *("failed", "driver / model busy"),
    )
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    for at_once, server in dict.fromkeys((each.at_once, each.server) for each in found):
        rows = [each for each in found if (each.at_once, each.server) == (at_once, server)]

        def of(figure: Callable[[Figures], float], rows: list[Figures] = rows) -> float:
            return median(map(figure, rows))

        lines.append(
            f"| {at_once:,} | {server} | {of(lambda each: each.cpu_ms):.2f} | "
            f"{of(lambda each: each.added_first[0]):,.1f} / "
            f"{of(lambda each: each.added_first[1]):,.1f} | "
            f"{of(lambda each: each.whole[0]) / 1e3:.2f} / "
            f"{of(lambda each: each.whole[1]) / 1e3:.2f} | {of(lambda each: each.busy):.0%} | "
            f"{of(lambda each: each.a_second):,.0f} | {of(lambda each: each.kb):.0f} | "
            f"{sum(each.failed for each in rows)} of {sum(each.turns for each in rows)} | "
            f"{of(lambda each: each.driver):.0%} / {of(lambda each: each.model):.0%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="short, without FastAPI")
    parser.add_argument("--only", nargs="+", choices=[*NAMES, "other"], metavar="NAME")
    parser.add_argument("--sizes", default="", metavar="N,N", help="turns at once")
    parser.add_argument("--runs", type=int, default=1, metavar="N")
    parser.add_argument("--seconds", type=float, default=0.0, metavar="S", help="of each size")
    parser.add_argument(
        "--other", type=Path, metavar="FOLDER", help="another checkout with its .venv, as a server"
    )
    parser.add_argument("--keep-alive", action="store_true", help="clients keep connections")
    parser.add_argument("--unpinned", action="store_true", help="all share the processors")
    given = parser.parse_args()
    os.chdir(ROOT)
    raise_file_limit()
    chosen = [NAMES.get(each, OTHER) for each in given.only or NAMES]
    if given.quick and not given.only:
        chosen.remove(FASTAPI)
    if given.other is not None and OTHER not in chosen:
        chosen.append(OTHER)
    if OTHER in chosen and given.other is None:
        parser.error("other needs --other FOLDER")
    given.seconds = given.seconds or (6.0 if given.quick else 15.0)
    for peer, where in (("asgi_aiohttp", HERE), ("fastapi_openai", PEERS)):
        if (ASGI if where == HERE else FASTAPI) in chosen and not installed(peer, where):
            install(peer, where)
    figured = run(
        main(
            given,
            chosen,
            [int(each) for each in given.sizes.split(",") if each] or [20, 100, 1_000],
        )
    )
    sys.stdout.write(table(figured) + "\n")
    sys.stdout.write(json.encode({"figures": figured}).decode() + "\n")
