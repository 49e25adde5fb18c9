"""Ten times the capacity: goodput, latency, refusals and memory, beside a plain proxy.

    .venv/bin/python bench/overload/run.py [--quick] [--only PART ...]

Prints tables, writes overload.png beside itself, and the figures as one JSON line. See README.md.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections import Counter
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

from seawall.lab.demo import DemoIssuer, server_environment
from seawall.lab.processes import Service, raise_file_limit, run_service
from seawall.lab.sim_model.reply import SimTimes
from seawall.lab.statistics import percentiles
from seawall.lab.surge.outcome import Outcome, SurgeResult
from seawall.lab.surge.process import drive_watched
from seawall.lab.surge.scenario import Api, Crowd, Instant, Open, Poisson, Scenario, Simulated

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from bench.turn.run import pass_through  # noqa: E402 - the peer is that of bench/turn

TIMES = SimTimes(first_token=(0.2, 0.4), duration=(1.0, 2.0), chunks=20)
SLOTS = 150
LEVELS = (1, 2, 5, 10)
SAMPLE_SECONDS = 0.25

Figures = dict[str, Any]


async def drive(
    load: Scenario, server: Service
) -> tuple[SurgeResult, float, list[tuple[float, int]]]:
    """Run the load in a driver process; return also the server's CPU and memory over time."""
    result, use = await drive_watched(load, [server.pid], every=SAMPLE_SECONDS)
    return result, use.cpu_seconds, [(each.at, each.resident_bytes) for each in use.samples]


def ends_of(seen: list[Outcome]) -> Counter[str]:
    """The number of turns by how they ended."""
    return Counter(
        "ok" if not each.error else "refused" if each.refused else each.error for each in seen
    )


def summary(result: SurgeResult, *, since: float, until: float) -> Figures:
    """Of one level. Goodput: completed turns a second, of what ended between the two moments."""
    ok = [each for each in result.outcomes if not each.error]
    refused = [each for each in result.outcomes if each.refused]
    ended = sum(since <= each.due + each.total < until for each in ok)
    steady = [each for each in ok if each.due >= since]
    total = percentiles([each.total for each in steady])
    refusal = percentiles([each.total for each in refused if each.due >= since])
    first = percentiles([each.first_text or 0.0 for each in steady])
    return {
        "arrived": len(result.outcomes),
        "ok": len(ok),
        "refused": len(refused),
        "failed": len(result.outcomes) - len(ok) - len(refused),
        "goodput": round(ended / (until - since), 1),
        "p50_s": _seconds(total.p50),
        "p99_s": _seconds(total.p99),
        "first_text_p99_s": _seconds(first.p99),
        "refusal_p50_ms": refusal.p50,
        "refusal_p99_ms": refusal.p99,
        "driver_cpu": result.driver.cpu_share,
        "driver_late_ms": result.driver.late_ms,
        "driver_saturated": result.driver.saturated,
        "ends": dict(ends_of(result.outcomes)),
    }


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds / 1e3, 2)


def scenario(
    server: Service, crowds: list[Crowd], *, patience: float, api: Api = "turns"
) -> Scenario:
    """A scenario of crowds, on connections that are reused, as by a load balancer."""
    return Scenario(
        url=server.url,
        load=Open(crowds),
        api=api,
        simulated=Simulated(times=TIMES),
        patience=patience,
        keep_alive=True,
    )


class Bench:
    """The parts, each with its own servers in front of one simulated model."""

    def __init__(self, model: Service, folder: Path, issuer: DemoIssuer, *, quick: bool) -> None:
        self.model = model
        self.folder = folder
        self.quick = quick
        self.tokens = {
            name: [issuer.token(f"{name}-{number}", name) for number in range(16)]
            for name in ("one", "two", "three", "big", "small")
        }

    def ours(self, **settings: str) -> AbstractAsyncContextManager[Service]:
        """One process of Seawall."""
        for left in self.folder.glob("sessions.db*"):
            left.unlink()
        settings = {"ADMISSION__WAIT_SECONDS": "10"} | settings  # the default
        environment = server_environment(self.folder, self.model) | {
            f"SEAWALL_{name}": value for name, value in settings.items()
        }
        arguments = ("--port", "0", "--json", "--workers", "1")
        return run_service(
            "serve", "examples/store/seawall.toml", *arguments, environment=environment
        )

    def load(self, server: Service, rate: float, seconds: float, *, ours: bool = True) -> Scenario:
        """Arrivals at an even rate, of three equal tenants."""
        crowds = [
            Crowd(name=name, tokens=self.tokens[name], shapes=[Poisson(rate / 3, seconds)])
            for name in ("one", "two", "three")
        ]
        api: Any = "turns" if ours else "chat"
        return scenario(server, crowds, api=api, patience=15.0)

    async def levels(
        self, name: str, server: Service, capacity: float, levels: tuple[int, ...], *, ours: bool
    ) -> list[Figures]:
        """Each level in turn against one server."""
        found = []
        seconds = 10.0 if self.quick else 15.0
        since = 4.0 if self.quick else 6.0
        for level in levels:
            load = self.load(server, capacity * level, seconds, ours=ours)
            result, spent, memory = await drive(load, server)
            row = {"server": name, "level": level, "offered": round(capacity * level, 1)}
            row |= summary(result, since=since, until=seconds)
            row["server_cpu"] = round(spent / result.seconds, 2)
            row["memory_mb"] = [(at, round(size / 2**20, 1)) for at, size in memory]
            row["peak_mb"] = round(max(size for _, size in memory) / 2**20, 1)
            found.append(row)
            report(row)
            await asyncio.sleep(2.0)
        return found

    async def capacity(self, server: Service, rate: float, seconds: float = 16.0) -> float:
        """Goodput at saturation, which is the level `1x`."""
        seconds /= 2.0 if self.quick else 1.0
        result, _, _ = await drive(self.load(server, rate, seconds), server)
        return float(summary(result, since=seconds / 2, until=seconds)["goodput"])

    async def by_slots(self, levels: tuple[int, ...]) -> tuple[float, list[Figures]]:
        """Admission slots are the bottleneck, as with a model's quota."""
        async with self.ours(ADMISSION__IN_FLIGHT=str(SLOTS)) as server:
            capacity = await self.capacity(server, 1.5 * SLOTS / 1.5)
            say(f"capacity with {SLOTS} slots: {capacity} turns a second")
            return capacity, await self.levels(
                "seawall, slots", server, capacity, levels, ours=True
            )

    async def by_processor(self, levels: tuple[int, ...]) -> tuple[float, list[Figures]]:
        """The server's processor is the bottleneck: the concurrency limit has to be found."""
        async with self.ours() as server:
            capacity = await self.capacity(server, 700.0, 28.0)
            say(f"capacity of one processor: {capacity} turns a second")
            return capacity, await self.levels(
                "seawall, processor", server, capacity, levels, ours=True
            )

    async def peer(self, capacity: float, levels: tuple[int, ...]) -> list[Figures]:
        """The proxy under the load of `by_slots`; a new process for each level."""
        found = []
        for level in levels:
            async with pass_through(self.model, workers=1) as server:
                found += await self.levels(
                    "fastapi + openai", server, capacity, (level,), ours=False
                )
        return found

    async def refusals(self) -> Figures:
        """The cost of a refusal: one slot and no queue."""
        async with self.ours(ADMISSION__IN_FLIGHT="1", ADMISSION__QUEUED="0") as server:
            result, spent, _ = await drive(self.load(server, 1_500.0, 6.0), server)
        return {
            "refused": result.refused,
            "ok": result.completed,
            "cpu_us_a_refusal": round(spent / result.refused * 1e6, 1),
            "p50_ms": result.refusal.p50,
        }

    async def fairness(self) -> Figures:
        """5,000 turns of one tenant at once, 100 of another spread over the same time."""
        seconds = 10.0
        small = Crowd(name="small", tokens=self.tokens["small"], shapes=[Poisson(10.0, seconds)])
        count = 1_000 if self.quick else 5_000
        big = Crowd(name="big", tokens=self.tokens["big"], shapes=[Instant(count)])
        figures: Figures = {}
        async with self.ours(ADMISSION__IN_FLIGHT=str(SLOTS)) as server:
            for name, crowds in (("alone", [small]), ("beside", [small, big])):
                load = scenario(server, crowds, patience=40.0)
                result, _, _ = await drive(load, server)
                mine = [each for each in result.outcomes if each.crowd == "small"]
                figures[name] = _tenant(mine)
                figures[f"{name}_big"] = _tenant(
                    [each for each in result.outcomes if each.crowd == "big"]
                )
                await asyncio.sleep(1.0)
        return figures


def _tenant(seen: list[Outcome]) -> Figures:
    ok = [each.total for each in seen if not each.error]
    times = percentiles(ok)
    return {
        "turns": len(seen),
        "ok": len(ok),
        "refused": sum(each.refused for each in seen),
        "p50_ms": times.p50,
        "p99_ms": times.p99,
        "max_ms": times.max,
    }


def say(text: str) -> None:
    """Print progress to standard error."""
    sys.stderr.write(text + "\n")


def report(row: Figures) -> None:
    """Print the figures of a level."""
    say("  ".join(f"{key}={value}" for key, value in row.items() if key != "memory_mb"))


def plot(figures: Figures) -> None:
    """Draw the chart with matplotlib, in its own venv."""
    python = HERE / ".venv" / "bin" / "python"
    if not python.exists():
        say("making a venv for matplotlib ...")
        venv.create(HERE / ".venv", with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"], check=True
        )
    subprocess.run([python, HERE / "plot.py"], input=json.dumps(figures).encode(), check=True)


async def main(*, quick: bool, only: set[str]) -> Figures:
    """All parts."""
    levels = (1, 10) if quick else LEVELS
    figures: Figures = {"quick": quick, "slots": SLOTS, "rows": []}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seawall-bench-")))
        issuer = DemoIssuer(folder / "jwks.json")
        model = await stack.enter_async_context(
            run_service(
                *("sim-model", "--port", "0", "--chunks", str(TIMES.chunks)),
                *("--first-token", "0.2..0.4", "--duration", "1..2"),
            )
        )
        bench = Bench(model, folder, issuer, quick=quick)
        capacity = 100.0
        if "slots" in only:
            capacity, rows = await bench.by_slots(levels)
            figures["capacity_slots"] = capacity
            figures["rows"] += rows
        if "refusals" in only:
            figures["refusals"] = await bench.refusals()
            say(json.dumps(figures["refusals"]))
        if "fairness" in only:
            figures["fairness"] = await bench.fairness()
            say(json.dumps(figures["fairness"]))
        if "processor" in only:
            figures["capacity_processor"], rows = await bench.by_processor(
                tuple(level for level in levels if level <= 5) if not quick else (1, 5)
            )
            figures["rows"] += rows
        if "peer" in only:
            figures["rows"] += await bench.peer(capacity, levels)
    return figures


if __name__ == "__main__":
    parts = ("slots", "refusals", "fairness", "processor", "peer")
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two levels, shorter")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    chosen = parser.parse_args()
    os.chdir(ROOT)
    raise_file_limit()
    began = time.monotonic()
    measured = asyncio.run(main(quick=chosen.quick, only=set(chosen.only)))
    measured["seconds"] = round(time.monotonic() - began)
    plot(measured)
    for each in measured["rows"]:
        del each["memory_mb"]
    sys.stdout.write(json.dumps(measured) + "\n")
