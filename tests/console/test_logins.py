"""The end of logins before their time: at every worker and server that shares the store."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, expect

from tests.console.conftest import Console, keys, serving
from tests.hosts.test_interruptions import eventually
from tests.parts import browser as chromium

SETTINGS = {
    "SERVER__WORKERS": "2",
    "IDENTITY__API_KEYS": keys(),
    "CONSOLE__ENABLED": "true",
    "CONSOLE__LOOK": "['watch']",
    "CONSOLE__OPERATE": "['operator']",
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("logins")
    with serving(folder, **SETTINGS) as server:
        yield Console(server, folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.started() as browser:
        yield browser


@contextmanager
def logged_in(url: str, key: str) -> Iterator[httpx2.Client]:
    """A client of a browser's kind, each of whose requests may reach any worker."""
    headers = {"connection": "close", "user-agent": f"Browser of {key}"}
    with httpx2.Client(base_url=f"{url}/console/api", headers=headers, timeout=20) as client:
        assert client.post("/login", json={"credential": key}).status_code == 204
        client.headers["x-console-token"] = client.get("/me").json()["token"]
        yield client


def listed(client: httpx2.Client) -> list[dict[str, object]]:
    found: list[dict[str, object]] = client.get("/logins").json()["logins"]
    return found


def test_no_worker_accepts_a_login_that_was_ended(shared: Console) -> None:
    with (
        logged_in(shared.url, "sw_looks") as leo,
        logged_in(shared.url, "sw_looks") as elsewhere,
        logged_in(shared.url, "sw_operates") as olga,
    ):
        (own,) = (each for each in listed(leo) if each["this"])
        assert own["subject"] == "leo"
        assert own["address"] == "127.0.0.1"
        assert own["agent"] == "Browser of sw_looks"
        assert {each["subject"] for each in listed(leo)} == {"leo"}
        assert {"leo", "olga"} <= {str(each["subject"]) for each in listed(olga)}
        assert olga.post(f"/logins/{own['id']}/end").status_code == 204
        for _ in range(12):  # on connections that the kernel spreads
            assert leo.get("/turns").status_code == 401
            assert leo.get("/v1/sessions").status_code == 401
            assert elsewhere.get("/turns").status_code == 200
        assert own["id"] not in {each["id"] for each in listed(olga)}
        assert olga.post(f"/logins/{own['id']}/end").status_code == 404
    log = (shared.folder / "log").read_text()
    assert "olga of ops ends a login of leo of ops to the console" in log


def test_ones_own_login_everywhere(shared: Console) -> None:
    with (
        logged_in(shared.url, "sw_looks") as here,
        logged_in(shared.url, "sw_looks") as there,
        logged_in(shared.url, "sw_operates") as olga,
    ):
        assert here.post("/logins/end", json={"tenant": "ops", "subject": "leo"}).status_code == 204
        for _ in range(6):
            assert here.get("/turns").status_code == 401
            assert there.get("/turns").status_code == 401
            assert olga.get("/turns").status_code == 200
    with logged_in(shared.url, "sw_looks") as again:
        assert again.get("/turns").status_code == 200


def test_a_copy_of_a_cookie_ends_with_the_logout(shared: Console) -> None:
    with logged_in(shared.url, "sw_looks") as leo:
        copied = dict(leo.cookies)
        assert leo.post("/logout").status_code == 204
        for _ in range(6):
            with httpx2.Client(base_url=f"{shared.url}/console/api", cookies=copied) as thief:
                assert thief.get("/turns").status_code == 401


def test_logins_of_others_are_not_ended_without_the_role(shared: Console) -> None:
    with (
        logged_in(shared.url, "sw_operates") as olga,
        logged_in(shared.url, "sw_looks") as leo,
    ):
        (own,) = (each for each in listed(olga) if each["this"])
        assert leo.post(f"/logins/{own['id']}/end").status_code == 404
        olgas = {"tenant": "ops", "subject": "olga"}
        assert leo.post("/logins/end", json=olgas).status_code == 403
        assert leo.post("/logins/end", json={"tenant": "ops"}).status_code == 422
        for changed in ({"x-console-token": ""}, {"origin": "https://evil.example"}):
            for path in (f"/logins/{own['id']}/end", "/logins/end"):
                assert olga.post(path, json=olgas, headers=changed).status_code == 403
        assert olga.get("/turns").status_code == 200
    with shared.client() as anonymous:
        assert anonymous.get("/console/api/logins").status_code == 401
        assert anonymous.post("/console/api/logins/end", json=olgas).status_code == 401


def test_another_server_with_the_same_secret_refuses_it_too(tmp_path: Path) -> None:
    secret = {"CONSOLE__SECRET_ENV": "SEAWALL_TEST_CONSOLE", "TEST_CONSOLE": "s" * 40}
    settings = SETTINGS | secret | {"SERVER__WORKERS": "1"}
    with (
        serving(tmp_path, **settings) as one,
        serving(tmp_path, **settings) as other,
        logged_in(one.url, "sw_looks") as leo,
    ):
        cookies = dict(leo.cookies)

        def there() -> int:
            with httpx2.Client(base_url=f"{other.url}/console/api", cookies=cookies) as client:
                return client.get("/turns").status_code

        assert there() == 200
        assert leo.post("/logins/end", json={"tenant": "ops", "subject": "leo"}).status_code == 204
        eventually(lambda: there() == 401)


def test_a_stream_ends_with_its_login(shared: Console) -> None:
    with (
        logged_in(shared.url, "sw_looks") as leo,
        logged_in(shared.url, "sw_operates") as olga,
        leo.stream("GET", "/now") as stream,
    ):
        lines = stream.iter_lines()
        assert next(lines) == "event: history"
        leos = {"tenant": "ops", "subject": "leo"}
        assert olga.post("/logins/end", json=leos).status_code == 204
        assert len(list(lines)) < 200, "the server ends it"


@pytest.mark.parametrize(
    "look", [("desktop", False), pytest.param(("phone", True), marks=pytest.mark.long)]
)
def test_the_page_by_keyboard(browser: Browser, shared: Console, look: tuple[str, bool]) -> None:
    size, dark = look
    width = chromium.PHONE if size == "phone" else chromium.DESKTOP
    with (
        logged_in(shared.url, "sw_looks") as leo,
        chromium.new_context(browser, width, dark=dark) as context,
    ):
        listed(leo)
        login_ = f"{shared.url}/console/api/login"
        assert context.request.post(login_, data={"credential": "sw_operates"}).ok
        page = context.new_page()
        page.goto(f"{shared.url}/console/#/logins")
        row = page.locator("tbody tr", has_text="leo of ops").first
        expect(row).to_contain_text("Browser of sw_looks")
        assert chromium.wrong(page) == []
        row.get_by_role("button").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("A login of leo has ended.")
        assert leo.get("/turns").status_code == 401
        page.get_by_role("button", name="Log out everywhere").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_label("API key or token")).to_be_visible()
