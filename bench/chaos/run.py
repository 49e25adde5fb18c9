"""An hour of a failing provider in minutes: every turn has one outcome, and nothing is left over.

    .venv/bin/python bench/chaos/run.py [--quick] [--fallback]

Prints what it does, and the figures as one JSON line at the end. See README.md.
"""

import argparse
import asyncio
import json
import os
import re
import sqlite3
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
from hour import hour

from seawall.lab.demo import DemoIssuer, server_environment
from seawall.lab.processes import Service, raise_file_limit, run, run_service
from seawall.lab.sim_model.reply import SimTimes
from seawall.lab.statistics import percentiles
from seawall.lab.surge.driver import drive
from seawall.lab.surge.outcome import Outcome
from seawall.lab.surge.scenario import Closed, Scenario, Simulated

ROOT = Path(__file__).resolve().parents[2]
TIMES = SimTimes(first_token=(0.1, 0.3), duration=(0.8, 1.6), chunks=20)
TURN_SECONDS = 12.0
GRACE_SECONDS = 1.0  # of the driver and the network beyond a turn's deadline
COOL_DOWN_SECONDS = 40.0  # longer than unused connections are kept
CALM_SECONDS = 5.0
MODEL, SPARE = "gpt-primary", "gpt-spare"
REFUSALS = {"overloaded", "upstream-throttled", "upstream-unavailable", "session-busy"}
LEASES = """
SELECT (SELECT count(*) FROM sessions WHERE holder IS NOT NULL)
     + (SELECT count(*) FROM idempotency WHERE number IS NULL)
     + (SELECT count(*) FROM pending)
"""


class Ends:
    """How turns ended."""

    def __init__(self) -> None:
        self.ways: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.unexplained: list[str] = []
        self.seconds: list[float] = []
        self.completed: list[float] = []

    def take(self, outcome: Outcome) -> None:
        """Count an outcome."""
        self.seconds.append(outcome.total)
        if not outcome.error:
            self.ways["completed"] += 1
            self.completed.append(outcome.total)
            return
        code = re.search(r'"code":"([a-z-]+)"', outcome.error)
        if code is None:
            self.ways["unexplained"] += 1
            self.unexplained.append(outcome.error)
            return
        self.ways["refused" if code[1] in REFUSALS else "failed"] += 1
        self.reasons[code[1]] += 1


def environment_of(folder: Path, model: Service, *, fallback: bool) -> dict[str, str]:
    """The server's environment."""
    settings = {
        "TURN__TURN": TURN_SECONDS,
        "MODELS__DEFAULT__MODEL": MODEL,
        "MODELS__DEFAULT__RESILIENCE__FIRST_TOKEN_SECONDS": 2.0,
        "MODELS__DEFAULT__RESILIENCE__BETWEEN_TOKENS_SECONDS": 2.0,
        "MODELS__DEFAULT__RESILIENCE__OPEN_SECONDS": 1.0,
        "MODELS__DEFAULT__RESILIENCE__WINDOW_SECONDS": 5.0,
    }
    if fallback:
        settings |= {
            "MODELS__DEFAULT__RESILIENCE__FAILURE_RATE": 0.2,
            "MODELS__DEFAULT__FALLBACKS": '["spare"]',
            "MODELS__SPARE__BASE_URL": model.url,
            "MODELS__SPARE__MODEL": SPARE,
        }
    own = {f"SEAWALL_{name}": str(value) for name, value in settings.items()}
    return server_environment(folder, model) | own


def fetch(url: str, body: bytes | None = None) -> bytes:
    """The body of a response; POST if there is a body to send."""
    request = urllib.request.Request(url, data=body)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return bytes(answer.read())


def gauge(metrics: str, name: str) -> float:
    """A metric, summed over its labels."""
    found = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", metrics, re.MULTILINE)
    return sum(float(each) for each in found)


def open_files(pid: int) -> int:
    """Open files of a server and its children."""
    count = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            count += open_files(int(child))
    return count + len(list(Path(f"/proc/{pid}/fd").iterdir()))


def left_over(server: Service, model: Service, folder: Path) -> dict[str, float]:
    """Counts of what is in use now."""
    metrics = fetch(server.url + "/metrics").decode()
    stats = json.loads(fetch(model.url.removesuffix("/v1") + "/sim/stats"))
    with sqlite3.connect(f"file:{folder / 'sessions.db'}?mode=ro", uri=True) as database:
        (leases,) = database.execute(LEASES).fetchone()
    return {
        "turns": gauge(metrics, "seawall_turns_in_flight") + gauge(metrics, "seawall_turns_queued"),
        "tasks": gauge(metrics, "seawall_event_loop_tasks"),
        "upstream_streams": gauge(metrics, "seawall_upstream_requests_in_flight"),
        "model_calls": gauge(metrics, "seawall_model_in_flight"),
        "model_streams": stats["open_streams"],
        "open_files": open_files(server.pid),
        "leases": leases,
    }


async def main(*, quick: bool, fallback: bool) -> dict[str, object]:
    """Set up, run the hour, count what is left."""
    os.chdir(ROOT)
    seconds = 45.0 if quick else 240.0
    users = 60 if quick else 120

    def report(line: str) -> None:
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")

    first, whole = (f"{low:g}..{high:g}" for low, high in (TIMES.first_token, TIMES.duration))
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seawall-bench-")))
        issuer = DemoIssuer(folder / "jwks.json")
        arguments = ("--port", "0", "--first-token", first, "--duration", whole)
        model = await stack.enter_async_context(
            run_service("sim-model", *arguments, "--chunks", str(TIMES.chunks))
        )
        server = await stack.enter_async_context(
            run_service(
                *("serve", "examples/store/seawall.toml", "--port", "0", "--json"),
                environment=environment_of(folder, model, fallback=fallback),
            )
        )
        crowd = Scenario(
            url=server.url,
            load=Closed(users=users, turns=3),
            simulated=Simulated(times=TIMES),
            patience=TURN_SECONDS + 10.0,
        )
        before = await asyncio.to_thread(left_over, server, model, folder)
        report(f"before: {before}")
        rules = hour(seconds=seconds, model=MODEL, first=CALM_SECONDS)
        script = msgspec.json.encode({"rules": rules})
        await asyncio.to_thread(fetch, model.url.removesuffix("/v1") + "/sim/faults", script)
        ends, over = Ends(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(
                drive(crowd, token=issuer.token, on_outcome=ends.take, until=over)
            )
            for step in range(10):
                await asyncio.sleep((seconds + 2 * CALM_SECONDS) / 10)
                report(
                    f"minute {(step + 1) * 6} of the hour: {dict(ends.ways)} {dict(ends.reasons)}"
                )
            over.set()
            await asking
        report(f"over; {COOL_DOWN_SECONDS:g} s for unused connections to be closed")
        await asyncio.sleep(COOL_DOWN_SECONDS)
        after = await asyncio.to_thread(left_over, server, model, folder)
        report(f"after: {after}")
        stats = json.loads(
            await asyncio.to_thread(fetch, model.url.removesuffix("/v1") + "/sim/stats")
        )
    turns = sum(ends.ways.values())
    took = percentiles(ends.completed)
    for each in ends.unexplained[:10]:
        report(f"unexplained: {each}")
    return {
        "fallback": fallback,
        "seconds": seconds,
        "turns": turns,
        **{way: ends.ways[way] for way in ("completed", "refused", "failed", "unexplained")},
        "reasons": dict(ends.reasons),
        "longest_seconds": round(max(ends.seconds), 2),
        "beyond_deadline": sum(each > TURN_SECONDS + GRACE_SECONDS for each in ends.seconds),
        "completed_p50_seconds": round((took.p50 or 0.0) / 1e3, 2),
        "completed_p99_seconds": round((took.p99 or 0.0) / 1e3, 2),
        "upstream_calls": stats["models"],
        "upstream_calls_a_turn": round(sum(stats["models"].values()) / turns, 3),
        "faults": stats["faults"],
        "left_before": before,
        "left_after": after,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="45 seconds instead of four minutes")
    parser.add_argument("--fallback", action="store_true", help="with a second model that works")
    arguments = parser.parse_args()
    raise_file_limit()
    figures = run(main(quick=arguments.quick, fallback=arguments.fallback))
    sys.stdout.write(json.dumps(figures) + "\n")
