"""What a page that watches costs a crowd, and how the page fares meanwhile.

    .venv/bin/python bench/console/crowd.py [--pairs N] [--turns N] [--frames] [--json FILE]

A pair is three runs, in turning order, each with a server of its own: of nothing that watches, of a
bare reader of the stream, and of the page Now in Chromium; with --frames also of a page whose
frames are counted. See README.md.
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
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
from playwright.async_api import CDPSession, Page, async_playwright

from seawall.lab.demo import DemoIssuer, server_environment
from seawall.lab.processes import Service, raise_file_limit, run, run_service
from seawall.lab.surge.process import drive_watched
from seawall.lab.surge.scenario import Crowd, Instant, Open, Scenario, Simulated
from seawall.transport.http_client import Endpoint, HttpClient
from seawall.transport.sse import SseParser

ARMS = ("none", "reader", "page")
EXAMPLE = Path(__file__).resolve().parents[2] / "examples/store"
SETTLE_SECONDS = 4.0
IDLE_SECONDS = 10.0
DEADLINE_SECONDS = 600.0
OPTIONS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
LEFT_OUT = (  # with these, Playwright would keep a hidden page busy
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
)
WATCH = """
window.seen = { frames: [], drawn: [], tasks: [] };
const epoch = (at) => performance.timeOrigin + at;
new PerformanceObserver((list) => list.getEntries().forEach((each) => {
  if (each.name === "seawall-drawn") seen.drawn.push([epoch(each.startTime), each.detail]);
})).observe({ type: "mark" });
new PerformanceObserver((list) => list.getEntries().forEach((each) => {
  seen.tasks.push([epoch(each.startTime), each.duration]);
})).observe({ type: "longtask" });
"""
# Asks for 60 frames a second, and so costs what a page by itself does not. The time that a frame is
# given is that of its slot on the screen, which says nothing of how late the page is.
COUNT_FRAMES = """
const frame = () => { seen.frames.push(epoch(performance.now())); requestAnimationFrame(frame); };
requestAnimationFrame(frame);
"""

Figures = dict[str, Any]
Seen = Callable[[float, float], Awaitable[Figures]]
Begin = Callable[[], Awaitable[Seen]]  # called when the crowd begins


@asynccontextmanager
async def nothing(_: str) -> AsyncGenerator[Begin, None]:
    """Nothing that watches."""

    async def seen(_began: float, _ended: float) -> Figures:
        return {}

    async def begin() -> Seen:
        return seen

    yield begin


@asynccontextmanager
async def reader(url: str) -> AsyncGenerator[Begin, None]:
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

    async def begin() -> Seen:
        return seen

    try:
        yield begin
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await client.close()


@asynccontextmanager
async def page(url: str, *, frames: bool = False) -> AsyncGenerator[Begin, None]:
    """The page Now in Chromium.

    Args:
        url: Of the server.
        frames: Count the frames that the page could draw.
    """
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=list(OPTIONS),
            ignore_default_args=list(LEFT_OUT),
        )
        debugger = await browser.new_browser_cdp_session()
        shown: Page = await browser.new_page(viewport={"width": 1280, "height": 800})
        await shown.add_init_script(WATCH + (COUNT_FRAMES if frames else ""))
        await shown.goto(f"{url}/console/#/now")
        await shown.wait_for_selector(".plot canvas")
        await asyncio.sleep(SETTLE_SECONDS)
        loaded = await Use.of(debugger)
        await asyncio.sleep(IDLE_SECONDS)
        idle = (await Use.of(debugger)).share_since(loaded)

        async def begin() -> Seen:
            before = await Use.of(debugger)

            async def seen(began: float, ended: float) -> Figures:
                after = await Use.of(debugger)
                await asyncio.sleep(1.0)  # until the last is drawn
                found = await shown.evaluate("window.seen")
                return during(found, began, ended) | {
                    "page_cpu_seconds": after.seconds_since(before),
                    "page_cpu_share": after.share_since(before),
                    "page_cpu_share_idle": idle,
                }

            return seen

        try:
            yield begin
        finally:
            await browser.close()


@dataclass(frozen=True)
class Use:
    """Processor time of all processes of a browser so far.

    Attributes:
        at: When it was read, in seconds of the monotonic clock.
        seconds: By type of the processes.
    """

    at: float
    seconds: Counter[str]

    @classmethod
    async def of(cls, debugger: CDPSession) -> "Use":
        """Read it."""
        found = await debugger.send("SystemInfo.getProcessInfo")
        seconds: Counter[str] = Counter()
        for each in found["processInfo"]:
            seconds[each["type"].partition(".")[0]] += each["cpuTime"]
        return cls(time.monotonic(), seconds)

    def seconds_since(self, before: "Use") -> dict[str, float]:
        """Seconds that were used, by type and of all."""
        used = {kind: self.seconds[kind] - before.seconds[kind] for kind in sorted(self.seconds)}
        return {kind: round(each, 3) for kind, each in (used | {"all": sum(used.values())}).items()}

    def share_since(self, before: "Use") -> float:
        """The share of one processor that was used."""
        return round(self.seconds_since(before)["all"] / (self.at - before.at), 4)


def during(found: Figures, began: float, ended: float) -> Figures:
    """What a page has noted of itself during a crowd.

    Args:
        found: What `WATCH` and `COUNT_FRAMES` keep.
        began: When the crowd began, in Unix seconds.
        ended: When it ended.
    """

    def within(at: float) -> bool:
        return began * 1e3 <= at <= ended * 1e3

    frames = [each for each in found["frames"] if within(each)]
    gaps = [two - one for one, two in pairwise(frames)]
    tasks = [length for at, length in found["tasks"] if within(at)]
    drawn = [at - newest * 1e3 for at, newest in found["drawn"] if within(at)]
    figures: Figures = {
        "drawn": len(drawn),
        "drawn_lag_ms": spread(drawn),
        "long_tasks": len(tasks),
        "long_tasks_ms": round(sum(tasks)),
        "longest_task_ms": round(max(tasks, default=0)),
    }
    if frames:
        figures |= {
            "frames_a_second": round(len(frames) / (ended - began), 1),
            "frame_gap_ms": spread(gaps),
            "frames_over_100_ms": sum(each > 100 for each in gaps),
        }
    return figures


WATCHERS = {"none": nothing, "reader": reader, "page": page, "frames": partial(page, frames=True)}


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
        begin = await stack.enter_async_context(WATCHERS[arm](server.url))
        await asyncio.sleep(SETTLE_SECONDS)
        scenario = Scenario(
            url=server.url,
            load=Open([Crowd(shapes=[Instant(turns)], tokens=tokens)]),
            simulated=Simulated(0),
            patience=75.0,
        )
        seen = await begin()
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
    for name in ("page_cpu_share", "page_cpu_share_idle"):
        found[name] = round(statistics.median(each["page"][name] for each in pairs), 4)
    return found


async def measure(arms: tuple[str, ...], pairs: int, turns: int) -> Figures:
    """Run all pairs."""
    done: list[dict[str, Figures]] = []
    for number in range(pairs):
        first = number % len(arms)
        order = arms[first:] + arms[:first]
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
    parser.add_argument("--frames", action="store_true", help="also a page that counts frames")
    parser.add_argument("--json", type=Path, help="file for the result; default: only printed")
    arguments = parser.parse_args()
    raise_file_limit()
    arms = (*ARMS, "frames") if arguments.frames else ARMS
    figures = run(measure(arms, arguments.pairs, arguments.turns))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    for name, value in figures["summary"].items():
        sys.stdout.write(f"{name:40} {value}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
