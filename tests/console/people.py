"""People who use the console in a browser, each logged in with a key of their own."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page

from tests.parts.browser import DESKTOP, new_context
from tests.servers import ServerProcess

__all__ = ["CONSOLE", "page_of"]

CONSOLE = {
    "CONSOLE__ENABLED": "true",
    "CONSOLE__LOOK": '["other"]',
    "CONSOLE__READ": '["manager"]',
    "CONSOLE__APPROVE": '["manager"]',
    "CONSOLE__OPERATE": '["manager", "operator"]',
}
"""Roles of `tests.hosts.test_effects_api.CALLERS` and what they may do in the console."""


@contextmanager
def page_of(
    browser: Browser,
    server: ServerProcess,
    name: str,
    at: str,
    size: tuple[int, int] = DESKTOP,
    *,
    dark: bool = False,
) -> Iterator[Page]:
    """A page of the console, of a user; errors of the page's scripts fail the test.

    Args:
        browser: Where it is opened.
        server: Whose console it is.
        name: Of the caller who is logged in.
        at: The page's name.
        size: Of the window, in pixels.
        dark: Whether the user prefers a dark page.
    """
    faults: list[str] = []
    with new_context(browser, size, dark=dark) as context:
        answer = context.request.post(
            f"{server.url}/console/api/login", data={"credential": f"sw_{name}"}
        )
        assert answer.ok, answer.text()
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda each: faults.append(each.text) if "Security Policy" in each.text else None,
        )
        page.goto(f"{server.url}/console/#/{at}")
        yield page
    assert faults == []
