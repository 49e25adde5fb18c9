"""Windows of a Chromium that can be minimized: Playwright has all of its pages visible.

https://chromedevtools.github.io/devtools-protocol/, over pipes: messages end with a zero byte.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.parts.browser import OPTIONS
from tests.parts.system import require_browser

__all__ = ["Tab", "Tabs", "tabs"]

SECONDS = 30.0  # in which something happens, on a machine that is busy


class Tabs:
    """The tabs of a browser."""

    def __init__(self, requests: int, answers: int) -> None:
        self._requests = requests
        self._answers = answers
        self._number = 0
        self._read = b""

    def open(self, url: str) -> "Tab":
        """A new tab."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.send("Page.navigate", session, url=url)
        return Tab(self, target, session)

    def send(self, method: str, session: str | None = None, **parameters: object) -> dict[str, Any]:
        """The result of a method."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": session} if session else {}
        os.write(self._requests, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            read = os.read(self._answers, 65_536)
            assert read, "the browser has ended"
            self._read += read
        first, _, self._read = self._read.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        return message


class Tab:
    """A tab."""

    def __init__(self, tabs: Tabs, target: str, session: str) -> None:
        self._tabs = tabs
        self._target = target
        self._session = session

    def hide(self) -> None:
        """Minimize its window: without windows, a browser has no tab behind another one."""
        self._set_window("minimized")

    def show(self) -> None:
        """Make it visible again."""
        self._set_window("normal")
        self._tabs.send("Target.activateTarget", targetId=self._target)

    def _set_window(self, state: str) -> None:
        window = self._tabs.send("Browser.getWindowForTarget", targetId=self._target)["windowId"]
        bounds = {"windowState": state}
        self._tabs.send("Browser.setWindowBounds", windowId=window, bounds=bounds)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression."""
        found = self._tabs.send(
            "Runtime.evaluate", self._session, expression=expression, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + SECONDS
        while not self.evaluate(expression):
            assert time.monotonic() < deadline, expression
            time.sleep(0.1)


@contextmanager
def tabs(profile: Path) -> Iterator[Tabs]:
    """A browser without a GPU.

    Args:
        profile: Folder for its data.
    """
    theirs, requests = os.pipe()
    answers, answer = os.pipe()
    options = ("--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}", *OPTIONS)
    redirected = f'exec "$@" 3<&{theirs} 4>&{answer}'  # where it reads and writes
    browser = subprocess.Popen(
        ["bash", "-c", redirected, "bash", require_browser(), *options, "about:blank"],
        pass_fds=(theirs, answer),
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    os.close(answer)
    try:
        yield Tabs(requests, answers)
    finally:
        browser.terminate()
        browser.wait()
        os.close(requests)
        os.close(answers)
