"""What a page that watches costs a crowd, and how the page fares meanwhile.

    .venv/bin/python bench/console/crowd.py [--blocks N] [--minutes N] [--only ARM,ARM]
                                            [--turns N] [--json FILE]

The servers and the crowd are those of `make demo`. A block is one crowd with each of the watchers,
in random order, on the same servers; figures are compared within blocks. See README.md.
"""

import argparse
import asyncio
import json
import math
import os
import random
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev

import msgspec
import numpy as np
from playwright.async_api import Browser, CDPSession
from playwright.async_api import Error as BrowserError
from watchers import Figures, Nothing, Reader, ShownPage, Use, Watcher, chromium, stream

from seawall.errors import SeawallError
from seawall.lab.demo import Demo, RunningDemo, running_demo
from seawall.lab.processes import raise_file_limit, run
from seawall.lab.surge.outcome import Progress
from seawall.lab.surge.process import drive_watched

ARMS = ("none", "reader", "page", "frames")
USUAL = "none,page,reader"
EXAMPLE = Path(__file__).resolve().parents[2] / "examples/store"
LOAD_SECONDS = 1.0  # in which a page that was opened loads
SETTLE_SECONDS = 2.0  # before a crowd
REST_SECONDS = 0.5  # after it
CROWD_SECONDS = 180.0  # that a crowd may take
RENEWED = 10  # blocks after which servers and browser are started anew: the database grows
ATTEMPTS = 3  # at a crowd, and at a block in a row
LIMIT = 0.03  # of the difference that is to be shown
RESAMPLES = 20_000
COMPARED = (
    "first_text_p50",
    "first_text_p99",
    "total_p50",
    "total_p99",
    "server_cpu_seconds",
)

Block = dict[str, Figures]  # by arm


class Failed(Exception):
    """A crowd is of no use."""


class Rig:
    """The servers of the demo, and a browser if a page is to watch.

    Attributes:
        demo: The servers, and the crowd that is sent to them.
        watchers: By the name of the arm.
    """

    def __init__(
        self, demo: RunningDemo, watchers: dict[str, Watcher], debugger: CDPSession | None
    ) -> None:
        self.demo = demo
        self.watchers = watchers
        self._debugger = debugger

    async def crowd(self, arm: str) -> Figures:
        """One crowd.

        Raises:
            Failed: Not all turns were completed.
        """
        steps = [time.monotonic()]
        watcher = self.watchers[arm]
        await watcher.open()
        steps.append(time.monotonic())
        try:
            await asyncio.sleep(LOAD_SECONDS)
            loaded = await self._use()
            await asyncio.sleep(SETTLE_SECONDS)
            settled = await self._use()
            start, since, machine = Start(self._use), time.time(), machine_seconds()
            steps.append(time.monotonic())
            async with asyncio.timeout(CROWD_SECONDS):
                result, used = await drive_watched(
                    self.demo.surge, [self.demo.server.pid], start.progress
                )
            steps.append(time.monotonic())
            began = start.began
            machine = {kind: each - machine[kind] for kind, each in machine_seconds().items()}
            at_start, at_end = await start.used(), await self._use()
            seen = await watcher.seen(began, began + result.seconds)
        finally:
            await watcher.close()
        if result.completed < result.turns:
            raise Failed(f"{result.completed} of {result.turns} turns were completed")
        await asyncio.sleep(REST_SECONDS)
        steps.append(time.monotonic())
        figures: Figures = {
            "turns": result.turns,
            "seconds": round(result.seconds, 3),
            "first_text_p50": result.first_text.p50,
            "first_text_p99": result.first_text.p99,
            "total_p50": result.total.p50,
            "total_p99": result.total.p99,
            "server_cpu_seconds": round(used.cpu_seconds, 4),
            "turns_by_worker": await self._turns_by_worker(since),
            "machine_seconds": {kind: round(each, 2) for kind, each in machine.items()},
            "driver_share": result.driver.cpu_share,
            "driver_warnings": result.driver.saturated,
            "steps": [round(two - one, 2) for one, two in pairwise(steps)],
            **seen,
        }
        if loaded and settled and at_start and at_end:
            figures |= {
                "browser_cpu_seconds": at_end.seconds_since(at_start),
                "browser_share": at_end.share_since(at_start),
                "browser_share_before": settled.share_since(loaded),
            }
        return figures

    async def _use(self) -> Use | None:
        return await Use.of(self._debugger) if self._debugger is not None else None

    async def _turns_by_worker(self, since: float) -> list[int]:
        """The turns that each worker began since a time."""
        async for name, data in stream(self.demo.server.url):
            if name == b"history":
                samples = msgspec.json.decode(data)
                return [
                    sum(each["begun"] for each in samples[worker] if each["at"] > since)
                    for worker in sorted(samples)
                ]
        return []


class Start:
    """When a crowd began, and what the browser had used until then."""

    def __init__(self, use: Callable[[], "asyncio.Future[Use | None]"]) -> None:
        self.began = math.inf
        self._use = use
        self._task: asyncio.Future[Use | None] | None = None

    def progress(self, progress: Progress) -> None:
        """Called with the progress of the crowd."""
        self.began = min(self.began, time.time() - progress.seconds)  # some are read late
        if self._task is None:
            self._task = asyncio.ensure_future(self._use())

    async def used(self) -> Use | None:
        """What the browser had used at the beginning."""
        return await self._task if self._task is not None else None


@asynccontextmanager
async def rig(arms: tuple[str, ...], turns: int) -> AsyncGenerator[Rig, None]:
    """Start servers, and a browser where one is needed; they have had one crowd."""
    async with AsyncExitStack() as stack:
        demo = await stack.enter_async_context(
            running_demo(
                Demo(
                    example=EXAMPLE,
                    turns=turns,
                    seed=0,
                    write_line=lambda _: None,
                    write=lambda _: None,
                    progress=lambda _: None,
                )
            )
        )
        url = demo.server.url
        watchers: dict[str, Watcher] = {"none": Nothing(), "reader": Reader(url)}
        debugger: CDPSession | None = None
        if {"page", "frames"} & set(arms):
            _browser: Browser
            _browser, window, debugger = await stack.enter_async_context(chromium())
            watchers["page"] = ShownPage(window, url)
            watchers["frames"] = ShownPage(window, url, frames=True)
        started = Rig(demo, watchers, debugger)
        with suppress(Failed):
            await started.crowd("page" if "page" in arms else "none")  # is not counted
        yield started


def machine_seconds() -> dict[str, float]:
    """What all processors have done so far, and what others on the host have taken of them."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    user, nice, system, idle, disk, interrupts, soft, stolen = (
        int(each) / os.sysconf("SC_CLK_TCK") for each in fields
    )
    busy = user + nice + system + interrupts + soft
    return {"busy": busy, "idle": idle, "disk": disk, "stolen": stolen}


class Record:
    """The file of lines of JSON, one for each crowd; what is in it already is gone on from."""

    def __init__(self, path: Path | None, settings: Figures) -> None:
        """Read what there is.

        Args:
            path: Of the file; None to keep lines in memory only.
            settings: Of this measurement, which those of the file have to be.

        Raises:
            SystemExit: The file is of another measurement.
        """
        self._path = path
        self.lines: list[Figures] = []
        if path is not None and path.exists():
            first, *rest = path.read_text(encoding="utf-8").splitlines()
            if json.loads(first) != settings:
                raise SystemExit(f"{path} is of another measurement: {first}")
            self.lines = [json.loads(each) for each in rest]
        elif path is not None:
            path.write_text(json.dumps(settings) + "\n", encoding="utf-8")

    def add(self, line: Figures) -> None:
        """Keep a line."""
        self.lines.append(line)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def next_block(self) -> int:
        """The number of a block that was not begun."""
        return max((each["block"] for each in self.lines), default=0) + 1

    def blocks(self, arms: tuple[str, ...]) -> list[Block]:
        """The blocks of which all crowds are there."""
        found: dict[int, Block] = {}
        for each in self.lines:
            if "failed" not in each:
                found.setdefault(each["block"], {})[each["arm"]] = each
        return [each for each in found.values() if set(each) == set(arms)]

    def failed(self) -> int:
        """Crowds that failed."""
        return sum("failed" in each for each in self.lines)


def ratio(blocks: list[Block], arm: str, name: str) -> Figures:
    """The geometric mean of a figure as a ratio of that without watchers.

    Args:
        blocks: At least two.
        arm: The watcher.
        name: Of the figure.
    """
    logs = [math.log(each[arm][name] / each["none"][name]) for each in blocks]
    resampled = np.random.default_rng(0).choice(logs, (RESAMPLES, len(logs))).mean(axis=1)
    low, high = (float(each) for each in np.exp(np.percentile(resampled, [2.5, 97.5])))
    return {
        "ratio": round(math.exp(fmean(logs)), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "deviation": round(stdev(logs), 4),
        "within": abs(math.log(low)) < LIMIT and abs(math.log(high)) < LIMIT,
        "blocks_for_limit": math.ceil((1.96 * stdev(logs) / LIMIT) ** 2),
    }


def table(blocks: list[Block], arms: tuple[str, ...]) -> list[str]:
    """The figures as text."""
    if len(blocks) < 2:
        return ["too few blocks"]
    lines = []
    for arm in (each for each in arms if each != "none"):
        for name in COMPARED:
            found = ratio(blocks, arm, name)
            shown = "yes" if found["within"] else f"no, {found['blocks_for_limit']} blocks might"
            lines.append(
                f"{arm}/none {name:20} {found['ratio']:.3f} "
                f"({found['low']:.3f}-{found['high']:.3f}), a block differs by "
                f"{found['deviation']:.1%}; within {LIMIT:.0%}: {shown}"
            )
    for name in (*COMPARED, "seconds", "browser_share", "browser_share_before"):
        values = [
            f"{arm} {math.exp(fmean(math.log(each[arm][name]) for each in blocks)):.4g}"
            for arm in arms
            if all(each[arm].get(name) for each in blocks)
        ]
        lines.append(f"{name:25} {', '.join(values)}")
    for arm in arms:
        for name in ("event_lag_ms", "drawn_lag_ms", "frame_gap_ms"):
            if all(each[arm].get(name) for each in blocks):
                of = [each[arm][name] for each in blocks]
                lines.append(
                    f"{name} of {arm}: medians p50 {np.median([x['p50'] for x in of]):.0f}, "
                    f"p95 {np.median([x['p95'] for x in of]):.0f}, max "
                    f"{np.median([x['max'] for x in of]):.0f}; the longest of all "
                    f"{max(x['max'] for x in of):.0f}"
                )
    return lines


async def block(rig: Rig, arms: tuple[str, ...], number: int, record: Record) -> None:
    """A crowd with each watcher, in random order; one that fails is repeated.

    Raises:
        Failed: A crowd failed each time.
    """
    order = list(arms)
    random.Random(number).shuffle(order)
    for arm in order:
        for attempt in range(ATTEMPTS):
            line: Figures = {"block": number, "arm": arm, "server": rig.demo.server.pid}
            try:
                line |= await rig.crowd(arm)
            except Failed as error:
                record.add(line | {"failed": str(error)})
                say(f"block {number} {arm}: {error}")
                if attempt == ATTEMPTS - 1:
                    raise
                continue
            record.add(line)
            say(
                f"block {number} {arm}: first text p50 {line['first_text_p50']:.0f}, p99 "
                f"{line['first_text_p99']:.0f}, whole p99 {line['total_p99']:.0f} ms, server "
                f"{line['server_cpu_seconds']:.2f} s, by worker {line['turns_by_worker']}"
            )
            break


async def measure(
    arms: tuple[str, ...], blocks: int, until: float, turns: int, path: Path | None
) -> Record:
    """Run blocks until there are enough, the time is over, or three failed one after another.

    Args:
        arms: What watches.
        blocks: How many there are to be, with those of the file.
        until: Monotonic seconds after which none begins.
        turns: Of each crowd.
        path: File for the lines.
    """
    processors = len(os.sched_getaffinity(0))
    record = Record(path, {"turns": turns, "arms": sorted(arms), "processors": processors})
    failures = 0

    def wanted() -> bool:
        return len(record.blocks(arms)) < blocks and time.monotonic() < until

    while wanted():
        try:
            async with rig(arms, turns) as running:
                for _ in range(RENEWED):
                    if not wanted():
                        break
                    await block(running, arms, record.next_block(), record)
                    failures = 0
                    complete = record.blocks(arms)
                    say(f"{len(complete)} blocks, {record.failed()} crowds failed")
                    if len(complete) > 1:
                        say("\n".join(table(complete, arms)[: len(COMPARED) * (len(arms) - 1)]))
        except (SeawallError, Failed, OSError, BrowserError) as error:  # TimeoutError is an OSError
            failures += 1
            say(f"servers and browser are started anew: {error!r}")
            record.add({"block": record.next_block(), "arm": "", "failed": repr(error)})
            if failures == ATTEMPTS:
                break
    return record


def say(text: str) -> None:
    """Print a line of progress."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, default=20, help="default: 20")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which none begins")
    parser.add_argument("--only", default=USUAL, help=f"of {','.join(ARMS)}; default: {USUAL}")
    parser.add_argument("--turns", type=int, default=5_000, help="of each crowd; default: 5000")
    parser.add_argument("--json", type=Path, help="file of lines for each crowd; is continued")
    arguments = parser.parse_args()
    arms = tuple(dict.fromkeys(arguments.only.split(",")))
    if "none" not in arms or set(arms) - set(ARMS):
        parser.error(f"--only names none and others of {', '.join(ARMS)}")
    raise_file_limit()
    until = time.monotonic() + arguments.minutes * 60
    record = run(measure(arms, arguments.blocks, until, arguments.turns, arguments.json))
    found = record.blocks(arms)
    sys.stdout.write(
        "\n".join([f"{len(found)} blocks, {record.failed()} crowds failed", *table(found, arms)])
        + "\n"
    )
    if len(found) > 1:
        compared = {
            f"{arm}/none {name}": ratio(found, arm, name)
            for arm in arms
            if arm != "none"
            for name in COMPARED
        }
        sys.stdout.write(
            json.dumps({"blocks": len(found), "failed": record.failed()} | compared) + "\n"
        )
    return 0 if len(found) > 1 else 1


if __name__ == "__main__":
    raise SystemExit(main())
