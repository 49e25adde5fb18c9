"""A server and a browser for all tests of this folder, and a shop that embeds the widget.

None of them may be async: Playwright's own event loop runs until the last one has ended.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.hosts.test_effects_api import keys_of_callers
from tests.parts import browser as chromium
from tests.pipeline.test_handover import SECRET
from tests.servers import ServerProcess, running
from tests.widget.shop import Shop, open_shop


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[ServerProcess]:
    environment = {
        "SESSIONS__PATH": str(folder / "sessions.db"),
        "SESSIONS__ORPHAN_SCAN_SECONDS": "0.2",
        "SERVER__PORT": "0",
        "SERVER__WORKERS": "1",
        "SERVER__CORS__ORIGINS": '["*"]',
        "IDENTITY__API_KEYS": keys_of_callers(),
        **settings,
    }
    prefixed = {f"SEAWALL_{name}": value for name, value in environment.items()}
    prefixed["DESK_SECRET"] = SECRET
    source = "tests.widget.app:app"
    with running("serve", source, "--json", environment=prefixed, log=folder / "log") as server:
        yield server


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("widget")) as server:
        yield server


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with open_shop() as shop:
        yield shop


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium.started() as browser:
        yield browser


@pytest.fixture(scope="package")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """For pages of all tests: what the widget keeps, it keeps for a tab."""
    with chromium.kept_context(browser) as context:
        yield context


class Chat:
    """The widget in a page, as its user sees it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.log = page.get_by_role("log")
        self.input = page.get_by_role("textbox", name="Your message")

    def open(self) -> None:
        self.page.get_by_role("button", name="Open chat").click()

    def say(self, text: str) -> None:
        self.input.fill(text)
        self.input.press("Enter")

    def run(self, *steps: object) -> None:
        """Let the model do these steps."""
        self.say(json.dumps(steps))

    def answers(self) -> Locator:
        return self.log.locator(".message.assistant .text")

    def expect_answer(self, text: str) -> None:
        expect(self.answers().last).to_have_text(text)
        self.expect_idle()

    def expect_idle(self) -> None:
        expect(self.page.get_by_role("button", name="Send")).to_be_visible()

    def kept(self) -> dict[str, Any]:
        """What the tab has stored."""
        text = self.page.evaluate("Object.values({...sessionStorage})[0]")
        kept: dict[str, Any] = json.loads(text)
        return kept

    @property
    def session(self) -> str:
        return str(self.kept()["session"])


@pytest.fixture
def chat(context: BrowserContext, server: ServerProcess, shop: Shop) -> Iterator[Chat]:
    shop.who, shop.seconds = "ann", 300
    shop.embed(server.url)
    with chromium.new_page(context) as page:
        page.goto(shop.url)
        chat = Chat(page)
        chat.open()
        yield chat


def caller(server: ServerProcess, name: str) -> httpx2.Client:
    """A client of the API as a user."""
    return httpx2.Client(
        base_url=server.url, headers={"authorization": f"Bearer sw_{name}"}, timeout=20
    )
