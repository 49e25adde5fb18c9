"""Steady load for a long time: does memory, or anything else, grow?

    .venv/bin/python bench/soak/run.py [--minutes 30] [--users 60] [--quick]

Can be started and left alone: every sample is written to soak.csv at once, the picture soak.svg at
the end, both into --folder. Prints what it does each minute, and the figures as one JSON line at
the end. See README.md.
"""

import argparse
import asyncio
import csv
import json
import os
import re
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
from msgspec import Struct
from picture import Panel, draw

from seawall.lab.demo import DemoIssuer, server_environment
from seawall.lab.processes import Service, consumption, raise_file_limit, run, run_service
from seawall.lab.sim_model.reply import SimTimes
from seawall.lab.statistics import percentiles
from seawall.lab.surge.driver import drive
from seawall.lab.surge.outcome import Outcome
from seawall.lab.surge.scenario import Closed, Scenario, Simulated
from seawall.transport.connection import TransportError
from seawall.transport.http_client import Endpoint, HttpClient

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SETTLED = 0.25  # of the time: from then on the lines are fitted
REST_SECONDS = 5.0
TIMES = SimTimes(first_token=(0.2, 0.4), duration=(0.8, 1.6))


class Sample(Struct):
    """Of the server at a moment. cpu: of one processor, since the sample before."""

    minutes: float
    turns: int
    failed: int
    memory_mb: float
    descriptors: int
    threads: int
    in_flight: float
    upstream_streams: float
    cpu: float


class Minute(Struct):
    """Outcomes of one minute; milliseconds that the server added to the model's own time."""

    minute: int
    turns: int
    added_first_text_p50: float
    added_first_text_p99: float


class Watch:
    """Samples the server from outside, and collects the outcomes of turns."""

    def __init__(self, server: Service, client: HttpClient) -> None:
        self._server = server
        self._client = client
        self._began = self._at = time.monotonic()
        self._cpu = consumption(server.pid).cpu_seconds
        self._late: list[float] = []
        self.turns = 0
        self.errors: dict[str, int] = {}
        self.samples: list[Sample] = []
        self.minutes: list[Minute] = []

    def on_outcome(self, outcome: Outcome) -> None:
        """Count an outcome."""
        self.turns += 1
        if outcome.error:
            self.errors[outcome.error] = self.errors.get(outcome.error, 0) + 1
        else:
            self._late.append(outcome.added or 0.0)

    async def sample(self) -> Sample:
        """Take a sample."""
        used = consumption(self._server.pid)
        now = time.monotonic()
        metrics = await self._metrics()
        taken = Sample(
            minutes=round((now - self._began) / 60, 4),
            turns=self.turns,
            failed=sum(self.errors.values()),
            memory_mb=round(used.resident_bytes / 2**20, 2),
            descriptors=_entries(self._server.pid, "fd"),
            threads=_entries(self._server.pid, "task"),
            in_flight=_value(metrics, "seawall_turns_in_flight"),
            upstream_streams=_value(metrics, "seawall_upstream_requests_in_flight"),
            cpu=round((used.cpu_seconds - self._cpu) / max(0.001, now - self._at), 3),
        )
        self._at, self._cpu = now, used.cpu_seconds
        self.samples.append(taken)
        return taken

    def close_minute(self) -> Minute:
        """The outcomes since the previous minute."""
        late, self._late = percentiles(self._late), []
        before = sum(each.turns for each in self.minutes)
        felt = Minute(len(self.minutes) + 1, self.turns - before, late.p50 or 0.0, late.p99 or 0.0)
        self.minutes.append(felt)
        return felt

    async def _metrics(self) -> str:
        try:
            deadline = asyncio.get_running_loop().time() + 5.0
            url = Endpoint.parse(f"{self._server.url}/metrics")
            answer = await self._client.request("GET", url, deadline=deadline)
        except TransportError:
            return ""
        return answer.body.decode()


def _entries(pid: int, kind: str) -> int:
    """Of /proc/PID/KIND, for one process: the server runs as one."""
    return sum(1 for _ in Path(f"/proc/{pid}/{kind}").iterdir())


def _value(metrics: str, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", metrics, re.MULTILINE)
    return float(found[1]) if found else float("nan")


def line(samples: list[Sample], name: str) -> tuple[float, float]:
    """Least squares over the steady part: value at minute 0, growth a minute."""
    minutes = np.array([each.minutes for each in samples])
    values = np.array([float(getattr(each, name)) for each in samples])
    settled = minutes >= SETTLED * minutes[-1]
    growth, start = np.polyfit(minutes[settled], values[settled], 1)
    return float(start), float(growth)


async def soak(minutes: float, users: int, every: float, folder: Path) -> dict[str, object]:
    """Set up, run the load and sample, tear down; return the figures."""
    os.chdir(ROOT)
    first, whole = (f"{low:g}..{high:g}" for low, high in (TIMES.first_token, TIMES.duration))
    async with AsyncExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seawall-soak-")))
        issuer = DemoIssuer(data / "jwks.json")
        model = await stack.enter_async_context(
            run_service("sim-model", "--port", "0", "--first-token", first, "--duration", whole)
        )
        server = await stack.enter_async_context(
            run_service(
                *("serve", "examples/store/seawall.toml", "--port", "0", "--json"),
                *("--workers", "1"),
                environment=server_environment(data, model),
            )
        )
        client = HttpClient()
        stack.push_async_callback(client.close)
        watch = Watch(server, client)
        at_start = await watch.sample()
        crowd = Scenario(
            url=server.url,
            load=Closed(users=users, turns=10, think=0.5),
            simulated=Simulated(times=TIMES),
        )
        over = asyncio.Event()
        table = csv.writer(stack.enter_context((folder / "soak.csv").open("w", newline="")))
        table.writerow(Sample.__struct_fields__)
        ends = time.monotonic() + minutes * 60
        minute_ends = time.monotonic() + 60
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(
                drive(crowd, token=issuer.token, on_outcome=watch.on_outcome, until=over)
            )
            while time.monotonic() < ends:
                await asyncio.sleep(every)
                taken = await watch.sample()
                table.writerow([getattr(taken, name) for name in Sample.__struct_fields__])
                if time.monotonic() >= min(minute_ends, ends):
                    minute_ends += 60
                    sys.stderr.write(f"{watch.close_minute()}\n{taken}\n")
            over.set()
            await asking
        loaded = watch.samples[1:]
        await asyncio.sleep(REST_SECONDS)
        at_rest = await watch.sample()
    return _report(watch, loaded, at_start, at_rest, folder)


def _report(
    watch: Watch, loaded: list[Sample], at_start: Sample, at_rest: Sample, folder: Path
) -> dict[str, object]:
    lines = {name: line(loaded, name) for name in ("memory_mb", "descriptors", "threads", "cpu")}
    turns_a_minute = line(loaded, "turns")[1]
    times = [each.minutes for each in loaded]
    panels = [
        Panel(
            f"{name}, {lines[name][1]:+.4f} a minute",
            times,
            [float(getattr(each, name)) for each in loaded],
            lines[name],
        )
        for name in lines
    ]
    marks = [float(each.minute) for each in watch.minutes]
    panels += [
        Panel(f"{name}, ms", marks, [getattr(each, name) for each in watch.minutes])
        for name in ("added_first_text_p50", "added_first_text_p99")
    ]
    draw(folder / "soak.svg", panels)
    growth = lines["memory_mb"][1]
    return {
        "minutes": round(loaded[-1].minutes, 2),
        "turns": watch.turns,
        "failed": sum(watch.errors.values()),
        "errors": watch.errors,
        "turns_a_second": round(turns_a_minute / 60, 1),
        "memory_mb_start": at_start.memory_mb,
        "memory_mb_end": loaded[-1].memory_mb,
        "memory_mb_a_hour": round(growth * 60, 2),
        "memory_bytes_a_turn": round(growth * 2**20 / turns_a_minute, 1),
        "descriptors_a_hour": round(lines["descriptors"][1] * 60, 2),
        "threads_a_hour": round(lines["threads"][1] * 60, 2),
        "cpu_share_mean": round(float(np.mean([each.cpu for each in loaded])), 3),
        "added_first_text_p50_ms": [round(each.added_first_text_p50, 1) for each in watch.minutes],
        "added_first_text_p99_ms": [round(each.added_first_text_p99, 1) for each in watch.minutes],
        "descriptors_start_rest": [at_start.descriptors, at_rest.descriptors],
        "in_flight_at_rest": at_rest.in_flight,
        "upstream_streams_at_rest": at_rest.upstream_streams,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one minute")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--users", type=int, default=60)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    raise_file_limit()
    length = 1.0 if arguments.quick else arguments.minutes
    pause = 1.0 if length <= 5 else 5.0
    folder = arguments.folder.resolve()
    figures = run(soak(length, arguments.users, pause, folder))
    sys.stderr.write(f"{folder}/soak.csv, {folder}/soak.svg\n")
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.exit(1 if figures["failed"] else 0)
