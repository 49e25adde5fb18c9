"""What may watch a crowd: nothing, a bare reader of the stream, the page Now in Chromium."""

import asyncio
import shutil
import statistics
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import msgspec
from playwright.async_api import Browser, CDPSession, Page, async_playwright

from seawall.transport.http_client import Endpoint, HttpClient
from seawall.transport.sse import SseParser

LONGEST_SECONDS = 600.0  # that a stream is read
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


class Watcher(Protocol):
    """Something that may watch a crowd; it is opened before each, and closed after it."""

    async def open(self) -> None:
        """Watch."""

    async def seen(self, began: float, ended: float) -> Figures:
        """What it has seen of a crowd; times in Unix seconds."""
        ...

    async def close(self) -> None:
        """Watch no more."""


class Nothing:
    """Nothing that watches."""

    async def open(self) -> None:
        """See `Watcher`."""

    async def seen(self, _began: float, _ended: float) -> Figures:
        """See `Watcher`."""
        return {}

    async def close(self) -> None:
        """See `Watcher`."""


class Reader:
    """A bare reader of the stream."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._frames: list[tuple[float, int, int]] = []  # when it came, its bytes, newest second
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """See `Watcher`."""
        self._frames.clear()
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for name, data in stream(self._url):
            if name == b"second":
                samples = msgspec.json.decode(data)
                seconds = [sample["at"] for each in samples.values() for sample in each]
                self._frames.append((time.time(), len(data), max(seconds, default=0)))

    async def seen(self, began: float, ended: float) -> Figures:
        """See `Watcher`."""
        within = [each for each in self._frames if began <= each[0] <= ended]
        gaps = [two[0] - one[0] for one, two in pairwise(within)]
        return {
            "events": len(within),
            "bytes_an_event": round(statistics.mean(each[1] for each in within)) if within else 0,
            "event_lag_ms": spread([(at - newest) * 1e3 for at, _, newest in within if newest]),
            "longest_event_gap_ms": round(max(gaps, default=0.0) * 1e3),
        }

    async def close(self) -> None:
        """See `Watcher`."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task


class ShownPage:
    """The page Now in a window that shows an empty page otherwise."""

    def __init__(self, page: Page, url: str, *, frames: bool = False) -> None:
        """Create it.

        Args:
            page: The window.
            url: Of the server.
            frames: Count the frames that the page could draw.
        """
        self._page = page
        self._address = f"{url}/console/#/now"
        self._frames = frames

    async def open(self) -> None:
        """See `Watcher`."""
        await self._page.goto(self._address)
        await self._page.wait_for_selector(".plot canvas")
        await self._page.evaluate(WATCH + (COUNT_FRAMES if self._frames else ""))

    async def seen(self, began: float, ended: float) -> Figures:
        """See `Watcher`."""
        await asyncio.sleep(1.0)  # until the last is drawn
        return during(await self._page.evaluate("window.seen"), began, ended)

    async def close(self) -> None:
        """See `Watcher`."""
        await self._page.goto("about:blank")


@asynccontextmanager
async def chromium() -> AsyncGenerator[tuple[Browser, Page, CDPSession], None]:
    """Chromium as for a user without a GPU: the browser, a window, and its debugger."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=list(OPTIONS),
            ignore_default_args=list(LEFT_OUT),
        )
        try:
            window = await browser.new_page(viewport={"width": 1280, "height": 800})
            yield browser, window, await browser.new_browser_cdp_session()
        finally:
            await browser.close()


async def stream(url: str) -> AsyncGenerator[tuple[bytes, bytes], None]:
    """Name and data of each event of what happens now."""
    client = HttpClient()
    deadline = asyncio.get_running_loop().time() + LONGEST_SECONDS
    at = Endpoint.parse(f"{url}/console/api/now")
    try:
        async with client.stream("GET", at, headers=[], body=b"", deadline=deadline) as response:
            parser = SseParser()
            while received := await response.read_some():
                for event in parser.feed(received):
                    yield event.name, event.data
    finally:
        await client.close()


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
