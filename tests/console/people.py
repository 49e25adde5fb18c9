"""People who use the console in a browser, each logged in with a key of their own."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from playwright.sync_api import Browser, BrowserContext, Page

from tests.parts.browser import DESKTOP, kept_context, new_page, started
from tests.servers import ServerProcess

__all__ = ["CONSOLE", "People", "people_of"]

CONSOLE = {
    "CONSOLE__ENABLED": "true",
    "CONSOLE__LOOK": '["other"]',
    "CONSOLE__READ": '["manager"]',
    "CONSOLE__APPROVE": '["manager"]',
    "CONSOLE__OPERATE": '["manager", "operator"]',
}
"""Roles of `tests.hosts.test_effects_api.CALLERS` and what they may do in the console."""


class People:
    """Users of a server's console, each in a context that stays until the browser ends."""

    def __init__(self, browser: Browser, server: ServerProcess, opened: ExitStack) -> None:
        self._browser = browser
        self._server = server
        self._opened = opened
        self._contexts: dict[str, BrowserContext] = {}

    @contextmanager
    def page(
        self, name: str, at: str, size: tuple[int, int] = DESKTOP, *, dark: bool = False
    ) -> Iterator[Page]:
        """A new page of the console, of a user; errors of the page's scripts fail the test.

        Args:
            name: Of the caller who is logged in.
            at: The page's name.
            size: Of the window, in pixels.
            dark: Whether the user prefers a dark page.
        """
        faults: list[str] = []
        with new_page(self._context(name), size, dark=dark) as page:
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on(
                "console",
                lambda each: faults.append(each.text) if "Security Policy" in each.text else None,
            )
            page.goto(f"{self._server.url}/console/#/{at}")
            yield page
        assert faults == []

    def _context(self, name: str) -> BrowserContext:
        """The context of a user, who is logged in anew: the page before may have logged out."""
        if name not in self._contexts:
            self._contexts[name] = self._opened.enter_context(kept_context(self._browser))
        answer = self._contexts[name].request.post(
            f"{self._server.url}/console/api/login", data={"credential": f"sw_{name}"}
        )
        assert answer.ok, answer.text()
        return self._contexts[name]


@contextmanager
def people_of(server: ServerProcess) -> Iterator[People]:
    """Users of a server's console in a browser that ends with the block."""
    with started() as browser, ExitStack() as opened:
        yield People(browser, server, opened)
