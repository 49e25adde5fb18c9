"""What the page Now costs a browser: processor time of all processes of Chromium.

    .venv/bin/python bench/console/page.py [--rounds N] [--assets FOLDER]

A stream of two workers is played to the page: seconds without turns, then seconds of a crowd. With
--assets a second version of the page takes turns with it. See README.md.
"""

import argparse
import asyncio
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

from playwright.async_api import Browser, CDPSession
from watchers import WATCH, Use, chromium, during

ASSETS = Path(__file__).resolve().parents[2] / "src/seawall/console/assets"
HISTORY_SECONDS = 240
SETTLE_SECONDS = 4.0
ME = {
    "by": "anonymous",
    "permissions": ["look", "read"],
    "surge": False,
    "login": {"key": False, "issuer": False},
}
Sample = dict[str, Any]


class Played(ThreadingHTTPServer):
    """Serves a version of the page, and the stream.

    Attributes:
        crowd: Whether the samples are those of a crowd.
    """

    daemon_threads = True

    def __init__(self, assets: Path) -> None:
        self.crowd = False
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(assets)))


class Handler(SimpleHTTPRequestHandler):
    """Files, who one is, what happens now."""

    server: Played

    def do_GET(self) -> None:
        """Answer."""
        if self.path == "/console/api/me":
            self.answer("application/json", json.dumps(ME).encode())
        elif self.path == "/console/api/now":
            self.stream()
        else:
            name = self.path.removeprefix("/console/")
            self.path = "/" + (name.removeprefix("assets/") or "index.html")
            super().do_GET()

    def answer(self, kind: str, body: bytes) -> None:
        """Answer with a body."""
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self) -> None:
        """The samples of the last minutes, then those of each second."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        now = int(time.time())
        past = [samples(at, crowd=at % 60 < 20) for at in range(now - HISTORY_SECONDS, now + 1)]
        history = {worker: [each[worker][0] for each in past] for worker in ("0", "1")}
        try:
            self.event("history", history)
            while True:
                time.sleep(1.02 - time.time() % 1.0)
                self.event("second", samples(int(time.time()), crowd=self.server.crowd))
        except OSError:  # the page was closed
            self.close_connection = True

    def event(self, name: str, data: object) -> None:
        """Send an event."""
        self.wfile.write(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


def samples(at: int, *, crowd: bool) -> dict[str, list[Sample]]:
    """Those of two workers in a second."""
    wave = at % 20 / 20
    busy = int(2_500 * (1 - wave)) if crowd else 0
    ended = 160 + at % 7 * 20 if crowd else 0
    return {
        str(worker): [
            {
                "at": at,
                "in_flight": busy - worker * 13 if busy else 0,
                "limit": 4_000,
                "queued": 0,
                "begun": 2_500 if crowd and wave == 0 else 0,
                "completed": ended,
                "failed": 0,
                "refused": 0,
                "first_text": {str(70 + at % 5 + number): ended // 15 for number in range(15)}
                if crowd
                else {},
                "cpu": 0.6 + at % 3 / 10 if crowd else 0.002,
                "memory": 120_000_000 + busy * 20_000,
                "lag": 0.05 + at % 4 / 100 if crowd else 0.0003,
                "upstreams": [
                    ["default", "model", "closed", busy, 8_000, ended, 0],
                    ["store", "tools", "closed", 0, 0, ended, 0],
                ],
                "quotas": [],
            }
        ]
        for worker in range(2)
    }


@contextmanager
def playing(assets: Path) -> Iterator[Played]:
    """Serve a version of the page."""
    with Played(assets) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


async def watch(
    browser: Browser, debugger: CDPSession, server: Played, seconds: float
) -> dict[str, Any]:
    """The shares of one processor that the page takes in each phase, in a window of its own."""
    found: dict[str, Any] = {}
    server.crowd = False
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    try:
        page = await context.new_page()
        await page.goto(f"http://127.0.0.1:{server.server_port}/console/#/now")
        await page.wait_for_selector(".plot canvas")
        await page.evaluate(WATCH)
        await asyncio.sleep(SETTLE_SECONDS)
        for phase in ("idle", "crowd"):
            server.crowd = phase == "crowd"
            began, before = time.time(), await Use.of(debugger)
            await asyncio.sleep(seconds)
            used = (after := await Use.of(debugger)).seconds_since(before)
            found[phase] = after.share_since(before)
            found |= {
                f"{phase} {kind}": round(used[kind] / seconds, 4) for kind in used if kind != "all"
            }
            seen = during(await page.evaluate("window.seen"), began, time.time())
            found[f"{phase} drawn lag p50, ms"] = seen["drawn_lag_ms"].get("p50", 0.0)
    finally:
        await context.close()
    return found


async def measure(versions: dict[str, Path], rounds: int, seconds: float) -> None:
    """Print the medians over all rounds."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in versions}
    for number in range(rounds):
        order = list(versions) if number % 2 == 0 else list(reversed(versions))
        for name in order:
            with playing(versions[name]) as server:
                async with chromium() as (browser, _, debugger):
                    figures = await watch(browser, debugger, server, seconds)
            found[name].append(figures)
            shares = {key: value for key, value in figures.items() if " " not in key}
            sys.stderr.write(f"round {number + 1}, {name}: {shares}\n")
    names = Counter(key for each in found.values() for figures in each for key in figures)
    for key in names:
        columns = [
            f"{name} {median(figures.get(key, 0.0) for figures in each):.4g} "
            f"({min(figures.get(key, 0.0) for figures in each):.4g}-"
            f"{max(figures.get(key, 0.0) for figures in each):.4g})"
            for name, each in found.items()
        ]
        sys.stdout.write(f"{key:28} {', '.join(columns)}\n")


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each phase; default: 20")
    parser.add_argument("--assets", type=Path, help="another version of the page's files")
    arguments = parser.parse_args()
    versions = {"page": ASSETS}
    if arguments.assets is not None:
        versions["other"] = arguments.assets
    asyncio.run(measure(versions, arguments.rounds, arguments.seconds))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
