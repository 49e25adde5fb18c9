"""What a page that watches costs a crowd, and how the page fares meanwhile.

    .venv/bin/python bench/console/crowd.py [--pairs N] [--turns N] [--json FILE]

A pair is three runs, in turning order, each with a server of its own: of nothing that watches, of a
bare reader of the stream, and of the page Now in Chromium. See README.md.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
from playwright.async_api import Page, async_playwright

from seawall.lab.demo import DemoIssuer, server_environment
from seawall.lab.processes import Service, raise_file_limit, run, run_service
from seawall.lab.surge.process import drive_watched
from seawall.lab.surge.scenario import Crowd, Instant, Open, Scenario, Simulated
from seawall.transport.http_client import Endpoint, HttpClient
from seawall.transport.sse import SseParser

ARMS = ("none", "reader", "page")
EXAMPLE = Path(__file__).resolve().parents[2] / "examples/store"
SETTLE_SECONDS = 4.0
DEADLINE_SECONDS = 600.0
OPTIONS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
WATCH = """
window.seen = { frames: [], drawn: [], tasks: [] };
const epoch = (at) => performance.timeOrigin + at;
const frame = (at) => { seen.frames.push(epoch(at)); requestAnimationFrame(frame); };
requestAnimationFrame(frame);
new PerformanceObserver((list) => list.getEntries().forEach((each) => {
  if (each.name === "seawall-drawn") seen.drawn.push([epoch(each.startTime), each.detail]);
})).observe({ type: "mark" });
new PerformanceObserver((list) => list.getEntries().forEach((each) => {
  seen.tasks.push([epoch(each.startTime), each.duration]);
})).observe({ type: "longtask" });
"""

Figures = dict[str, Any]
Seen = Callable[[float, float], Awaitable[Figures]]


@asynccontextmanager
async def nothing(_: str) -> AsyncGenerator[Seen, None]:
    """Nobody watches."""

    async def seen(_began: float, _ended: float) -> Figures:
        return {}

    yield seen


@asynccontextmanager
async def reader(url: str) -> AsyncGenerator[Seen, None]:
    """A bare reader of the stream."""
    client = HttpClient()
    frames: list[tuple[float, int, int]] = []  # when it came, its bytes, its newest second

    async def read() -> None:
        deadline = asyncio.get_running_loop().time() + DEADLINE_SECONDS
        at = Endpoint.parse(f"{url}/console/api/now")
        async with client.stream("GET", at, headers=[], body=b"", deadline=deadline) as response:
            parser = SseParser()
            while received := await response.read_some():
                for event in parser.feed(received):
                    if event.name == b"second":
                        samples = msgspec.json.decode(event.data)
                        seconds = [sample["at"] for each in samples.values() for sample in each]
                        newest = max(seconds, default=0)
                        frames.append((time.time(), len(event.data), newest))

    task = asyncio.create_task(read())

    async def seen(began: float, ended: float) -> Figures:
        within = [each for each in frames if began <= each[0] <= ended]
        lags = [(at - newest) * 1e3 for at, _, newest in within if newest]
        gaps = [two[0] - one[0] for one, two in pairwise(within)]
        return {
            "events": len(within),
            "bytes_an_event": round(statistics.mean(each[1] for each in within)),
            "event_lag_ms": spread(lags),
            "longest_event_gap_ms": round(max(gaps) * 1e3),
        }

    try:
        yield seen
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await client.close()


@asynccontextmanager
async def page(url: str) -> AsyncGenerator[Seen, None]:
    """The page Now in Chromium."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(OPTIONS)
        )
        shown: Page = await browser.new_page(viewport={"width": 1280, "height": 800})
        await shown.add_init_script(WATCH)
        await shown.goto(f"{url}/console/#/now")
        await shown.wait_for_selector(".plot canvas")
        debugger = await shown.context.new_cdp_session(shown)
        await debugger.send("Performance.enable", {"timeDomain": "threadTicks"})

        async def busy() -> tuple[float, float]:
            """Seconds that the page's main thread has worked, and when that was."""
            found = await debugger.send("Performance.getMetrics")
            values = {each["name"]: each["value"] for each in found["metrics"]}
            return values["TaskDuration"], time.time()

        since = await busy()

        async def seen(began: float, ended: float) -> Figures:
            worked, at = (now - then for now, then in zip(await busy(), since, strict=True))
            await asyncio.sleep(1.0)  # until the last is drawn
            found = await shown.evaluate("window.seen")

            def within(at: float) -> bool:
                return began * 1e3 <= at <= ended * 1e3

            frames = [each for each in found["frames"] if within(each)]
            gaps = [two - one for one, two in pairwise(frames)]
            tasks = [length for at, length in found["tasks"] if within(at)]
            drawn = [at - newest * 1e3 for at, newest in found["drawn"] if within(at)]
            return {
                "frames_a_second": round(len(frames) / (ended - began), 1),
                "frame_gap_ms": spread(gaps),
                "frames_over_100_ms": sum(each > 100 for each in gaps),
                "drawn": len(drawn),
                "drawn_lag_ms": spread(drawn),
                "main_thread_share": round(worked / at, 4),
                "long_tasks": len(tasks),
                "long_tasks_ms": round(sum(tasks)),
                "longest_task_ms": round(max(tasks, default=0)),
            }

        try:
            yield seen
        finally:
            await browser.close()


def spread(values: list[float]) -> dict[str, float]:
    """Median, 95th percentile and greatest."""
    if not values:
        return {}
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered), 1),
        "p95": round(ordered[int(0.95 * (len(ordered) - 1))], 1),
        "max": round(ordered[-1], 1),
    }


async def crowd(arm: str, turns: int) -> Figures:
    """One crowd, with a model and a server of its own."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        issuer = DemoIssuer(folder / "jwks.json")
        tokens = [issuer.token(f"customer-{index}") for index in range(turns)]
        model: Service = await stack.enter_async_context(run_service("sim-model", "--port", "0"))
        environment = server_environment(folder, model) | {"SEAWALL_IDENTITY__ANONYMOUS": "true"}
        server = await stack.enter_async_context(
            run_service(
                *("serve", str(EXAMPLE / "seawall.toml"), "--port", "0", "--json"),
                environment=environment,
                log=folder / "log",
            )
        )
        watching = {"none": nothing, "reader": reader, "page": page}[arm]
        seen = await stack.enter_async_context(watching(server.url))
        await asyncio.sleep(SETTLE_SECONDS)
        scenario = Scenario(
            url=server.url,
            load=Open([Crowd(shapes=[Instant(turns)], tokens=tokens)]),
            simulated=Simulated(0),
            patience=75.0,
        )
        began = time.time()
        result, use = await drive_watched(scenario, [server.pid])
        ended = time.time()
        watched: Figures = await seen(began, ended)
    return {
        "arm": arm,
        "turns": result.turns,
        "completed": result.completed,
        "seconds": result.seconds,
        "first_text_p50": result.first_text.p50,
        "first_text_p99": result.first_text.p99,
        "added_first_text_p50": result.added_first_text.p50,
        "added_first_text_p99": result.added_first_text.p99,
        "total_p99": result.total.p99,
        "server_cpu_seconds": round(use.cpu_seconds, 3),
        "driver_warnings": result.driver.saturated,
        **watched,
    }


COMPARED = (
    "first_text_p50",
    "first_text_p99",
    "added_first_text_p99",
    "total_p99",
    "server_cpu_seconds",
)


def summary(pairs: list[dict[str, Figures]]) -> Figures:
    """Medians over the pairs of each arm's figures as a ratio of the run without watchers."""
    found: Figures = {}
    for arm in ARMS[1:]:
        for name in COMPARED:
            ratios = [each[arm][name] / each["none"][name] for each in pairs]
            found[f"{arm}/none {name}"] = round(statistics.median(ratios), 4)
        shares = [
            (each[arm]["server_cpu_seconds"] - each["none"]["server_cpu_seconds"])
            / each[arm]["seconds"]
            for each in pairs
        ]
        found[f"{arm} server share of a processor"] = round(statistics.median(shares), 4)
    return found


async def measure(pairs: int, turns: int) -> Figures:
    """Run all pairs."""
    done: list[dict[str, Figures]] = []
    for number in range(pairs):
        order = ARMS[number % 3 :] + ARMS[: number % 3]
        pair: dict[str, Figures] = {}
        for arm in order:
            pair[arm] = await crowd(arm, turns)
            sys.stdout.write(json.dumps(pair[arm]) + "\n")
            sys.stdout.flush()
        done.append(pair)
    return {
        "summary": summary(done),
        "pairs": done,
        "processors": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
    }


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=5, help="default: 5")
    parser.add_argument("--turns", type=int, default=5_000, help="of each crowd; default: 5000")
    parser.add_argument("--json", type=Path, help="file for the result; default: only printed")
    arguments = parser.parse_args()
    raise_file_limit()
    figures = run(measure(arguments.pairs, arguments.turns))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    for name, value in figures["summary"].items():
        sys.stdout.write(f"{name:40} {value}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
