"""`/docs`: the reference of the API in a browser, under the policy of the console."""

from collections.abc import Iterator

import httpx2
import pytest
from playwright.sync_api import Browser, expect

from tests.console.people import CONSOLE
from tests.parts import browser as chromium
from tests.parts import console_vendor
from tests.parts.browser import DESKTOP, PHONE, new_context, serious
from tests.servers import ServerProcess
from tests.widget.conftest import serving

# In the structure of an operation that is unfolded; docs/decisions has what that means.
_OF_SWAGGER_UI = {"nested-interactive", "scrollable-region-focusable"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("reference"), **CONSOLE) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.started() as browser:
        yield browser


def test_it_shows_the_api(browser: Browser, server: ServerProcess) -> None:
    said: list[str] = []
    asked: list[str] = []
    with new_context(browser, DESKTOP) as context:
        page = context.new_page()
        page.on("console", lambda each: said.append(each.text))
        page.on("pageerror", lambda each: said.append(str(each)))
        page.on("request", lambda each: asked.append(each.url))
        page.goto(f"{server.url}/docs")
        operation = page.locator(".opblock").filter(has_text="/v1/turns").first
        expect(operation).to_contain_text("Run a turn")
        operation.locator("button").first.click()
        expect(operation).to_contain_text("Idempotency-Key")
        for (width, height), seen in ((DESKTOP, ()), (PHONE, ("color-contrast",))):
            page.set_viewport_size({"width": width, "height": height})
            # Colours are the same in any window, and take more time than all other rules.
            faults = {each.partition(":")[0] for each in serious(page, without=seen)}
            assert faults <= _OF_SWAGGER_UI
            assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    assert said == []
    assert all(each.startswith((server.url, "data:", "blob:")) for each in asked)


def test_its_files(server: ServerProcess) -> None:
    with httpx2.Client(base_url=server.url, timeout=20) as client:
        page = client.get("/docs")
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert (
            client.get("/docs", headers={"if-none-match": page.headers["etag"]}).status_code == 304
        )
        packed = client.get("/docs/swagger-ui.js", headers={"accept-encoding": "gzip"})
        plain = client.get("/docs/swagger-ui.js", headers={"accept-encoding": "identity"})
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.content == plain.content
        assert client.get("/docs/", follow_redirects=False).headers["location"] == "/docs"
        for path in ("/docs/../api.js", "/docs/LICENSE", "/docs/x/y", "/docsx"):
            assert client.get(path).status_code == 404, path
        assert client.post("/docs").status_code == 405
    assert (console_vendor.REFERENCE / "swagger-ui.LICENSE.txt").read_text().count(
        "Apache License"
    ) > 0


def test_there_is_none_without_a_console(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serving(tmp_path_factory.mktemp("none")) as server:
        assert httpx2.get(f"{server.url}/docs", timeout=20).status_code == 404
