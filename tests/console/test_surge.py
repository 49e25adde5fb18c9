"""A surge from the page: for all workers one at a time, bounded, and by who may only."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from seawall.config import parse_settings
from seawall.console.surge import SurgeOrder
from seawall.errors import ConfigError
from seawall.lab.processes import descendants
from seawall.lab.surge import from_console
from tests.console.conftest import Console, keys, serving
from tests.console.test_access import REST
from tests.hosts.test_interruptions import eventually
from tests.parts import browser as chromium

OPERATES = {"credential": "sw_operates"}


@contextmanager
def opened(folder: Path, **settings: str) -> Iterator[Console]:
    tokens = folder / "tokens"
    tokens.write_text("sw_customer\nsw_customer\n")
    defaults = {
        "SERVER__WORKERS": "2",
        "IDENTITY__API_KEYS": keys(),
        "CONSOLE__ENABLED": "true",
        "CONSOLE__LOOK": "['watch']",
        "CONSOLE__OPERATE": "['operator']",
        "CONSOLE__REPORTS": str(folder / "reports"),
        "CONSOLE__SURGE__PEOPLE": "200",
        "CONSOLE__SURGE__TOKEN_FILE": str(tokens),
    }
    with serving(folder, **(defaults | settings)) as server:
        yield Console(server, folder)


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with opened(tmp_path_factory.mktemp("surge")) as console:
        yield console


@pytest.fixture(scope="module")
def kept() -> Iterator[BrowserContext]:
    with chromium.started() as browser, chromium.kept_context(browser) as context:
        yield context


@contextmanager
def logged_in(
    kept: BrowserContext,
    console: Console,
    login: dict[str, str],
    size: tuple[int, int] = chromium.DESKTOP,
    *,
    dark: bool = False,
) -> Iterator[Page]:
    """A page of a user of the console."""
    kept.clear_cookies()
    assert kept.request.post(f"{console.url}/console/api/login", data=login).ok
    with chromium.new_page(kept, size, dark=dark) as page:
        yield page


def start(console: Console, people: int, seconds: float = 0.0) -> httpx2.Response:
    with console.client("sw_operates") as client:
        return client.post("/console/api/surge", json={"people": people, "seconds": seconds})


def stop(console: Console, surge: str) -> int:
    with console.client("sw_operates") as client:
        return client.post(f"/console/api/surge/{surge}/stop").status_code


def shown(console: Console) -> dict[str, Any]:
    """The surge as a worker shows it, whichever the connection reaches, once it has started."""
    with console.client("sw_looks") as client:
        while (answered := client.get("/console/api/surge")).status_code == 503:
            assert "not open yet" in answered.json()["detail"]
            time.sleep(0.05)
    assert answered.status_code == 200, answered.text
    found: dict[str, Any] = answered.json()["surge"]
    return found


def ended(console: Console) -> dict[str, Any]:
    eventually(lambda: shown(console)["state"] in ("ended", "broken"), seconds=60)
    return shown(console)


def test_it_is_watched_and_its_report_is_there(crowded: Console) -> None:
    started = start(crowded, 40)
    assert started.status_code == 200, started.text
    surge = ended(crowded)
    assert surge["id"] == started.json()["surge"]["id"]
    assert surge["by"] == "olga of ops"
    assert surge["figures"]["headline"].startswith("40 of 40 turns completed, 0 refused, 0 failed")
    assert "40 of 40 found durable" in surge["figures"]["headline"]
    assert surge["figures"]["good"] is True
    assert (surge["progress"]["sent"], surge["progress"]["completed"]) == (40, 40)
    assert 0 < surge["figures"]["p50"] <= surge["figures"]["p95"] <= surge["figures"]["p99"]
    with crowded.client("sw_looks") as client:
        listed = client.get("/console/api/reports").json()["reports"]
        assert surge["report"] in {each["name"] for each in listed}
        assert "40 of 40 turns completed" in client.get(f"/console/reports/{surge['report']}").text
    assert f"olga of ops starts surge {surge['id']} of 40" in (crowded.folder / "log").read_text()


def test_all_workers_show_the_one_that_runs_refuse_another_and_stop_it(crowded: Console) -> None:
    surge = start(crowded, 200, 200.0).json()["surge"]["id"]
    try:
        for _ in range(8):  # on connections that the kernel spreads
            assert shown(crowded)["id"] == surge
            assert start(crowded, 1).status_code == 503
        eventually(lambda: (shown(crowded)["progress"] or {}).get("completed", 0) > 0, seconds=30)
        assert stop(crowded, "20200101-000000-00000000") == 404
        assert shown(crowded)["state"] == "running"
    finally:
        assert stop(crowded, surge) == 200
    found = ended(crowded)
    assert found["state"] == "ended"
    assert "interrupted" in found["figures"]["headline"]
    assert found["figures"]["good"] is False
    assert stop(crowded, surge) == 404
    again = start(crowded, 1)
    assert again.status_code == 200
    assert ended(crowded)["id"] == again.json()["surge"]["id"]


def test_of_many_that_start_one_at_once_one_does(crowded: Console) -> None:
    with ThreadPool(8) as pool:
        statuses = pool.map(lambda _: start(crowded, 5, 10.0).status_code, range(8))
    assert sorted(statuses) == [200] + 7 * [503]
    assert stop(crowded, shown(crowded)["id"]) == 200
    ended(crowded)


@pytest.mark.parametrize("key", ["sw_looks", "sw_customer", ""])
def test_it_is_neither_started_nor_stopped_without_the_role(crowded: Console, key: str) -> None:
    with crowded.client(key) as client:
        for path in ("surge", "surge/20200101-000000-00000000/stop"):
            answered = client.post(f"/console/api/{path}", json={"people": 1})
            assert answered.status_code == (403 if key else 401)


@pytest.mark.parametrize(
    "change",
    [
        {"x-console-token": ""},
        {"x-console-token": "x" * 24},
        {"origin": "https://evil.example"},
        {"sec-fetch-site": "cross-site"},
    ],
    ids=str,
)
def test_no_other_page_starts_one(crowded: Console, change: dict[str, str]) -> None:
    with httpx2.Client(base_url=f"{crowded.url}/console/api", timeout=20) as client:
        assert client.post("/login", json=OPERATES).status_code == 204
        good = {"x-console-token": client.get("/me").json()["token"]}
        answered = client.post("/surge", json={"people": 1}, headers=good | change)
        assert answered.status_code == 403
        assert client.post("/surge", json={"people": 0}, headers=good).status_code == 422


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"people": 1000000000}', "people"),
        ('{"people": 201}', "people"),
        ('{"people": 0}', "people"),
        ('{"people": -1}', "people"),
        ('{"people": "1"}', "people"),
        ('{"people": 1e999}', None),
        ('{"people": 1, "seconds": 1e9}', "seconds"),
        ('{"people": 1, "seconds": -1}', "seconds"),
        ('{"people": 1, "url": "http://elsewhere.example"}', "url"),
        ('{"people": 1, "report": "/etc/passwd"}', "report"),
        ("{}", "people"),
        ("[" * 900, None),
    ],
)
def test_orders_outside_the_limits_are_refused(
    crowded: Console, body: str, field: str | None
) -> None:
    before = shown(crowded)
    with crowded.client("sw_operates") as client:
        answered = client.post("/console/api/surge", content=body)
    assert answered.status_code in (400, 422)
    if field is not None:
        assert field in answered.text
    assert shown(crowded) == before


def test_where_it_is_not_configured_there_is_none(tmp_path: Path) -> None:
    settings = {"SERVER__WORKERS": "1", "IDENTITY__ANONYMOUS": "true"}
    with serving(tmp_path, **settings) as server, Console(server, tmp_path).client() as client:
        me = client.get("/console/api/me").json()
        assert me["surge"] is False
        assert client.get("/console/api/surge").json()["most"] == 0
        token = {"x-console-token": me["token"]}
        answered = client.post("/console/api/surge", json={"people": 1}, headers=token)
        assert answered.status_code == 404


@pytest.mark.parametrize("signalled", ["kill", "terminate"])
def test_the_driver_ends_with_the_server(tmp_path: Path, signalled: str) -> None:
    with opened(tmp_path, SERVER__WORKERS="1") as console, console.client("sw_operates") as client:
        before = set(descendants(console.process.pid))
        client.post("/console/api/surge", json={"people": 200, "seconds": 200})
        eventually(lambda: (shown(console)["progress"] or {}).get("sent", 0) > 0, seconds=30)
        (driver,) = set(descendants(console.process.pid)) - before
        getattr(console.process, signalled)()
        console.process.wait(20)
        eventually(lambda: not is_alive(driver), seconds=30)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("[console.surge]", "console.surge: needs console.reports"),
        ("reports = 'r'\n[console.surge]", "console.surge.token_file: must name the tokens"),
        ("[console.surge]\npeople = 0", "console.surge.people"),
        ("[console.surge]\npeople = 1000000000", "console.surge.people"),
        ("[console.surge]\nurl = 'http://a.example'", "console.surge.url"),
    ],
)
def test_faults_of_the_section_name_their_key(table: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_settings(f"[console]\n{table}\n{REST}")


def test_the_newest_reports_are_kept_and_others_are_left_alone(tmp_path: Path) -> None:
    for number in range(105):
        (tmp_path / f"console-surge-2026-{number:03}.html").write_text("old")
    for other in ("console-surge-9.txt", "plan.html", "surge-1.html"):
        (tmp_path / other).write_text("another")
    from_console._write_report(tmp_path / "console-surge-2026-999.html", "new")
    made = sorted(each.name for each in tmp_path.glob("console-surge-*.html"))
    assert len(made) == 100
    assert made[-1] == "console-surge-2026-999.html"
    assert made[0] == "console-surge-2026-006.html"
    assert len(list(tmp_path.iterdir())) == 103


STOPPED_WHILE_REPORTING = """
import os, signal, sys
sys.modules["uvloop"] = None  # as where it is not installed
from seawall.lab.surge import from_console
write = from_console._write_report
def stopped(*parts):
    os.kill(os.getpid(), signal.SIGTERM)
    write(*parts)
from_console._write_report = stopped
sys.exit(from_console.main())
"""


def test_a_stop_that_comes_when_all_has_ended_loses_no_report(
    crowded: Console, tmp_path: Path
) -> None:
    order = SurgeOrder(
        url=crowded.url,
        people=3,
        seconds=0.0,
        patience=30.0,
        token_file=str(crowded.folder / "tokens"),
        simulated=None,
        report=str(tmp_path / "report.html"),
    )
    command = [sys.executable, "-c", STOPPED_WHILE_REPORTING]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as driver:
        assert driver.stdin is not None
        assert driver.stdout is not None
        driver.stdin.write(msgspec.json.encode(order) + b"\n")
        driver.stdin.flush()
        said = driver.stdout.read()
    assert driver.returncode == 0
    assert b"3 of 3 turns completed" in said
    assert (tmp_path / "report.html").exists()


def test_without_its_report_the_figures_are_shown(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in place of a folder")
    settings = {"CONSOLE__REPORTS": str(tmp_path / "file"), "SERVER__WORKERS": "1"}
    with opened(tmp_path, **settings) as console:
        assert start(console, 3).status_code == 200
        surge = ended(console)
        assert (surge["state"], surge["report"]) == ("ended", "")
        assert surge["figures"]["headline"].startswith("3 of 3 turns completed")
        assert "its report cannot be written" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    "look", [("phone", True), pytest.param(("desktop", False), marks=pytest.mark.long)]
)
def test_from_the_page_by_keyboard(
    kept: BrowserContext, crowded: Console, look: tuple[str, bool]
) -> None:
    size, dark = look
    width = chromium.PHONE if size == "phone" else chromium.DESKTOP
    with logged_in(kept, crowded, OPERATES, width, dark=dark) as page:
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"{crowded.url}/console/#/surge")
        people = page.get_by_label("People, at most 200")
        people.fill("201")
        people.press("Enter")
        assert page.evaluate("document.querySelector('input:invalid').name") == "people"
        people.fill("120")
        page.keyboard.press("Tab")
        page.keyboard.type("60")
        assert chromium.wrong(page) == []
        page.keyboard.press("Enter")
        first = page.locator(".figure", has_text="First text p99").locator("dd")
        stop_button = page.get_by_role("button", name="Stop")
        expect(stop_button).to_be_visible()
        expect(first).not_to_have_text("-")
        assert chromium.wrong(page) == []
        stop_button.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("status").last).to_contain_text("interrupted with")
        frame = page.frame_locator("iframe.report")
        expect(frame.locator("h1")).to_contain_text("Surge at http://127.0.0.1")
        shown_once = frame.locator("h1").element_handle()
        for _ in range(2):  # what is asked for meanwhile does not load the report again
            page.wait_for_event("response", lambda each: each.url.endswith("/api/surge"))
        assert shown_once.evaluate("(each) => each.isConnected")
        assert chromium.wrong(page) == []
        assert faults == []


def test_nothing_of_it_is_offered_without_the_role(kept: BrowserContext, crowded: Console) -> None:
    with logged_in(kept, crowded, {"credential": "sw_looks"}) as page:
        page.goto(f"{crowded.url}/console/#/surge")
        expect(page.get_by_text("needs the permission to operate")).to_be_visible()
        expect(page.get_by_role("button", name="Start")).to_have_count(0)


def test_ones_own_turn_has_its_course_beside_a_crowd(kept: BrowserContext, tmp_path: Path) -> None:
    people = {"CONSOLE__SURGE__PEOPLE": "500", "CONSOLE__TURNS": "1000", "SERVER__WORKERS": "1"}
    with opened(tmp_path, **people) as console:
        assert start(console, 500).status_code == 200
        ended(console)  # of which few have a course
        surge = start(console, 200, 200.0).json()["surge"]["id"]
        with logged_in(kept, console, OPERATES) as page:
            page.goto(f"{console.url}/console/#/turns?outcome=succeeded")
            expect(page.get_by_role("status")).to_contain_text("courses are recorded of a sample")
            without = page.locator("tbody tr").filter(
                has_not=page.get_by_text("course", exact=True)
            )
            without.first.get_by_role("link").click()
            expect(page.get_by_text("are always recorded")).to_be_visible()
            assert chromium.serious(page) == []
            page.go_back()
            page.get_by_label("Course").select_option("recorded")
            page.get_by_role("button", name="Find").click()
            expect(page.get_by_role("status")).not_to_contain_text("report only")
            expect(page.locator("tbody tr").first).to_contain_text("course")
            page.get_by_role("link", name="Talk").first.click()
            page.get_by_label("Message").fill("And mine?")
            page.get_by_label("Message").press("Enter")
            page.get_by_role("link", name="course of this turn").click()
            bars = page.locator("table.waterfall tbody tr")
            expect(bars.filter(has_text="model default")).to_have_count(2)
            expect(page.get_by_text("are always recorded")).to_have_count(0)
        assert stop(console, surge) == 200


def driver_of(console: Console) -> tuple[int, int]:
    """The process of the driver, and the worker that started it."""
    for pid in descendants(console.process.pid):
        with suppress(OSError):
            if b"from_console" in Path(f"/proc/{pid}/cmdline").read_bytes():
                after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
                return pid, int(after_name.split()[1])
    raise AssertionError("no driver runs")


@pytest.mark.parametrize("seconds", [0.0, 0.03])
def test_one_that_is_stopped_before_it_began_is_not_broken(
    crowded: Console, seconds: float
) -> None:
    surge = start(crowded, 200, 200.0).json()["surge"]["id"]
    time.sleep(seconds)  # in which its driver begins
    assert stop(crowded, surge) == 200
    found = ended(crowded)
    assert (found["id"], found["state"]) == (surge, "ended")
    assert found["figures"] is None or found["figures"]["interrupted"]


def test_that_a_driver_was_killed_is_in_the_log(crowded: Console) -> None:
    start(crowded, 200, 200.0)
    eventually(lambda: shown(crowded)["progress"] is not None, seconds=30)
    os.kill(driver_of(crowded)[0], signal.SIGKILL)
    assert ended(crowded)["state"] == "broken"
    assert "the driver of the surge ended with status -9" in (crowded.folder / "log").read_text()


def test_of_a_worker_that_was_killed_the_surge_is_shown_as_broken(tmp_path: Path) -> None:
    with opened(tmp_path) as console:
        for _ in range(4):  # so that other workers have older ones
            assert start(console, 1).status_code == 200
            assert ended(console)["state"] == "ended"
        surge = start(console, 200, 200.0).json()["surge"]["id"]
        eventually(lambda: shown(console)["progress"] is not None, seconds=30)
        driver, worker = driver_of(console)
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: not is_alive(driver), seconds=30)
        eventually(lambda: is_shown_as_broken(console), seconds=30)
        assert {shown(console)["id"] for _ in range(4)} == {surge}
        assert start(console, 1).status_code == 200
        assert ended(console)["state"] == "ended"


def is_shown_as_broken(console: Console) -> bool:
    """Whether it is, unless the connection still reached the worker that was killed."""
    with suppress(httpx2.NetworkError):
        return bool(shown(console)["state"] == "broken")
    return False


def test_a_worker_that_does_not_answer_hides_no_surge(tmp_path: Path) -> None:
    with opened(tmp_path) as console:
        surge = start(console, 200, 200.0).json()["surge"]["id"]
        eventually(lambda: shown(console)["progress"] is not None, seconds=30)
        worker = driver_of(console)[1]
        pages = [console.client("sw_operates") for _ in range(16)]
        os.kill(worker, signal.SIGSTOP)
        try:
            with ThreadPool(len(pages)) as pool:  # of which some reach the other worker
                found = pool.map(asked_within, pages)
                stopped = pool.map(partial(stopped_within, surge), pages)
        finally:
            os.kill(worker, signal.SIGCONT)
        states = {(each["id"], each["state"]) for each in found if each is not None}
        assert states == {(surge, "running")}
        assert {each for each in stopped if each is not None} == {503}
        assert stop(console, surge) == 200


def asked_within(page: httpx2.Client) -> dict[str, Any] | None:
    """The surge, unless the worker that is asked does not answer."""
    with suppress(httpx2.TimeoutException):
        found: dict[str, Any] = page.get("/console/api/surge", timeout=6).json()["surge"]
        return found
    return None


def stopped_within(surge: str, page: httpx2.Client) -> int | None:
    """The status of an answer to a stop, as far as there is one."""
    with suppress(httpx2.TimeoutException):
        return page.post(f"/console/api/surge/{surge}/stop", json={}, timeout=6).status_code
    return None


def test_that_nothing_new_is_known_is_shown_only_meanwhile(
    kept: BrowserContext, crowded: Console
) -> None:
    with logged_in(kept, crowded, OPERATES) as page:
        page.goto(f"{crowded.url}/console/#/surge")
        expect(page.get_by_role("button", name="Start")).to_be_visible()
        page.route("**/console/api/surge", lambda route: route.abort())
        expect(page.get_by_role("alert")).to_be_visible()
        page.unroute("**/console/api/surge")
        expect(page.get_by_role("alert")).to_have_count(0)
