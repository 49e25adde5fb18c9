"""The pages Now, Turns, Sessions and Reports in a browser: each at two widths, light and dark."""

import json
from collections import Counter
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from tests.console.conftest import Console
from tests.parts import browser as chromium

LOOKS = {
    "desktop": (chromium.DESKTOP, False),
    "desktop-dark": (chromium.DESKTOP, True),
    "phone": (chromium.PHONE, False),
    "phone-dark": (chromium.PHONE, True),
}


def in_looks(usual: str) -> pytest.MarkDecorator:
    """Use a page in all looks in the long form, in one otherwise; `check` looks at two of them."""
    looks = [
        pytest.param(look, id=name, marks=() if name == usual else pytest.mark.long)
        for name, look in LOOKS.items()
    ]
    return pytest.mark.parametrize("page", looks, indirect=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.started() as browser:
        yield browser


@pytest.fixture(scope="module")
def kept(browser: Browser) -> Iterator[BrowserContext]:
    with chromium.kept_context(browser) as context:
        yield context


@pytest.fixture
def context(kept: BrowserContext) -> BrowserContext:
    """The context, without a login."""
    kept.clear_cookies()
    return kept


@pytest.fixture
def page(context: BrowserContext, request: pytest.FixtureRequest) -> Iterator[Page]:
    size, dark = request.param
    with chromium.new_page(context, size, dark=dark) as page:
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda message: faults.append(message.text) if message.type == "error" else None,
        )
        yield page
        assert faults == []


@pytest.fixture
def desktop(context: BrowserContext) -> Iterator[Page]:
    with chromium.new_page(context) as page:
        yield page


def check(page: Page) -> None:
    """Nothing is wider than the window, and axe-core finds nothing serious."""
    assert chromium.wrong(page) == []


def open_page(page: Page, console: Console, address: str) -> None:
    page.goto(f"{console.url}/console/#/{address}")


LINES = """(all) => all.map((each) => {
  const range = document.createRange();
  range.selectNodeContents(each);
  return new Set([...range.getClientRects()].map((line) => line.top)).size;
})"""


@in_looks("desktop")
def test_now_shows_a_turn_within_seconds(page: Page, local: Console) -> None:
    open_page(page, local, "now")
    expect(page.get_by_role("heading", name="Now")).to_contain_text("live")
    expect(page.locator(".plot canvas")).to_have_count(6)
    local.turn(key="")
    first = page.locator(".figure", has_text="First text p50").locator("dd")
    expect(first).not_to_have_text("-")
    expect(page.locator("tbody tr", has_text="default model")).to_contain_text("closed")
    assert set(page.locator(".figure dt, .figure small").evaluate_all(LINES)) == {1}
    expect(page.get_by_role("img", name="Turns a second: begun")).to_be_visible()
    check(page)


DRAWS = """
window.asked = 0;  // frames
window.draws = [];  // of a chart each: the time of its frame
let frame = 0;
const ask = requestAnimationFrame;
window.requestAnimationFrame = (call) => {
  asked += 1;
  return ask((at) => { frame = at; call(at); });
};
const canvas = CanvasRenderingContext2D.prototype;
const clear = canvas.clearRect;
canvas.clearRect = function (...area) { draws.push(frame); return clear.apply(this, area); };
window.changed = 0;  // nodes of the page
window.watch = () => new MutationObserver((all) => { changed += all.length; }).observe(
  document.body, { subtree: true, childList: true, characterData: true, attributes: true });
window.hide = (hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
};
"""


def test_charts_are_drawn_together_and_seldom_and_not_while_they_are_hidden(
    browser: Browser, local: Console
) -> None:
    most = 2  # a second: once for each sample, and once if it is late
    context = browser.new_context(
        viewport={"width": 1280, "height": 800},
        bypass_csp=True,  # which forbids `wait_for_function`
    )
    try:
        page = context.new_page()
        page.add_init_script(DRAWS)
        open_page(page, local, "now")
        page.wait_for_function("draws.length > 12", polling=100)  # until all are there
        before, began = page.evaluate("draws.splice(0) && [asked, performance.now()]")
        page.wait_for_function(
            f"new Set(draws).size >= 5 && performance.now() > {began + 4_000}", polling=100
        )
        drawn, after, ended = page.evaluate("[draws, asked, performance.now()]")
        seconds = (ended - began) / 1e3
        assert max(Counter(drawn).values()) == 6, "in one frame"
        grown = 3  # frames in which the height of a chart changes once, beside the others
        assert len(set(drawn)) <= most * seconds + 2 + grown
        assert after - before <= (most + 2) * seconds + 4 + grown, "and no others are asked for"
        page.evaluate("hide(true)")
        page.wait_for_timeout(200)
        page.evaluate("draws.splice(0) && watch()")
        page.wait_for_timeout(2_500)  # for two samples
        assert page.evaluate("[draws, changed]") == [[], 0]
        page.evaluate("hide(false)")
        page.wait_for_function("draws.length >= 6 && changed > 0", polling=100)
    finally:
        context.close()


def test_many_workers_are_told_apart_in_charts(desktop: Page, local: Console) -> None:
    with local.client() as client, client.stream("GET", "/console/api/now") as stream:
        lines = stream.iter_lines()
        data = next(line for line in lines if line.startswith("data: ")).removeprefix("data: ")
    (samples,) = json.loads(data).values()
    history = json.dumps({str(number): samples for number in range(12)})
    body = f"event: history\ndata: {history}\n\n"
    desktop.route(
        "**/console/api/now",
        lambda route: route.fulfill(content_type="text/event-stream", body=body),
    )
    open_page(desktop, local, "now")
    chart = desktop.locator(".chart", has=desktop.get_by_role("heading", name="Processor"))
    expect(chart.locator("li")).to_have_count(12)
    looks = {each.get_attribute("class") for each in chart.locator("li").all()}
    assert len(looks) == 12
    check(desktop)


@in_looks("phone-dark")
def test_a_turn_is_found_and_shown_as_a_waterfall(page: Page, local: Console) -> None:
    made = local.turn(key="", text="What does a waterfall look like?")
    open_page(page, local, "turns")
    page.get_by_label("Session").fill(made["session"])
    page.get_by_role("button", name="Find").click()
    expect(page.locator("table.rows tbody tr")).to_have_count(1)
    check(page)
    page.locator("table.rows tbody a").first.click()
    bars = page.locator("table.waterfall tbody tr")
    expect(bars.filter(has_text="model default")).to_have_count(2)
    expect(bars.filter(has_text="tool look_up")).to_have_count(1)
    span = bars.filter(has_text="agent only").locator(".span")
    share = span.evaluate("(each) => parseFloat(each.style.width)")
    bar, lane = span.bounding_box(), span.locator("..").bounding_box()
    assert bar is not None
    assert lane is not None
    assert share > 0
    assert abs(bar["width"] - max(2, lane["width"] * share / 100)) < 1
    assert bar["height"] > 10
    page.get_by_role("button", name="Show contents").click()
    expect(page.locator("table.events tbody tr").first).to_contain_text("turn.started")
    check(page)
    page.get_by_role("button", name="Replay").click()
    expect(page.locator(".played .said")).to_contain_text("Found: tide <img")
    assert page.evaluate("window.stolen") is None


@in_looks("desktop")
def test_a_session_is_a_conversation(page: Page, local: Console) -> None:
    made = local.turn(key="", text="What does a conversation look like?")
    open_page(page, local, "sessions")
    page.get_by_role("link", name=made["session"]).click()
    page.get_by_role("button", name="Show the conversation").click()
    expect(page.locator(".said.user")).to_contain_text("What does a conversation look like?")
    expect(page.locator(".said.assistant")).to_contain_text("Found: tide")
    page.get_by_text("look_up answered").click()
    check(page)
    assert page.evaluate("window.stolen") is None


def test_a_report_opens_in_a_frame_that_reaches_nothing(desktop: Page, console: Console) -> None:
    page = desktop
    script = """<p id="said">none</p><script>
    fetch("/console/api/me").then(() => "read", () => "kept out").then((text) => {
      document.getElementById("said").textContent = text + " " + (() => {
        try { return document.cookie; } catch { return "no cookies"; } })();
    });</script>"""
    (console.folder / "reports" / "spy.html").write_text(script)
    log_in(page, console, "sw_looks")
    open_page(page, console, "reports")
    page.get_by_role("link", name="spy.html").click()
    frame = page.frame_locator("iframe.report")
    expect(frame.locator("#said")).to_have_text("kept out no cookies")
    check(page)


def log_in(page: Page, console: Console, key: str) -> None:
    page.goto(f"{console.url}/console/")
    page.get_by_label("API key or token").fill(key)
    page.get_by_role("button", name="Log in with it").click()
    expect(page.get_by_role("navigation", name="Pages")).to_be_visible()


@in_looks("phone-dark")
def test_a_login_by_key_and_what_it_may_not_do(page: Page, console: Console) -> None:
    made = console.turn(text="For some eyes only")
    page.goto(f"{console.url}/console/")
    check(page)
    log_in(page, console, "sw_looks")
    expect(page.get_by_text("leo of ops")).to_be_visible()
    open_page(page, console, f"turns/{made['turn']}")
    expect(page.locator("table.waterfall")).to_be_visible()
    expect(page.get_by_text("need the permission to read")).to_be_visible()
    expect(page.get_by_role("button", name="Show contents")).to_have_count(0)
    open_page(page, console, f"sessions/{made['session']}?tenant=acme&subject=ada")
    expect(page.get_by_text("need the permission to read")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("API key or token")).to_be_visible()


def test_names_of_tenants_stay_text(desktop: Page, console: Console) -> None:
    made = console.turn(key="sw_hostile", text="<b onmouseover=alert(1)>bold</b>")
    log_in(desktop, console, "sw_reads")
    for address in ("turns", f"turns/{made['turn']}", "sessions"):
        open_page(desktop, console, address)
        expect(desktop.locator("h1")).to_be_visible()
        if address != "sessions":
            expect(desktop.get_by_text("onerror=").first).to_be_visible()
    desktop.get_by_label("Tenant").fill("<img src=x onerror=alert(1)>")
    desktop.get_by_label("Subject").fill("<script>alert(1)</script>")
    desktop.get_by_role("button", name="Find").click()
    expect(desktop.locator(".notice")).to_contain_text("<script>alert(1)</script> of <img")
    assert desktop.evaluate("window.stolen") is None


def test_a_long_name_pushes_nothing_out_of_the_window(desktop: Page, console: Console) -> None:
    console.turn("sw_hostile")
    login = f"{console.url}/console/api/login"
    assert desktop.context.request.post(login, data={"credential": "sw_reads"}).ok
    open_page(desktop, console, "turns")
    table = desktop.get_by_role("region", name="Turns")
    expect(table.locator("tbody")).to_contain_text("<script>")
    assert table.evaluate("(each) => each.scrollWidth <= each.clientWidth")


def test_times_are_of_one_place_and_minutes_have_sixty_seconds(
    browser: Browser, local: Console
) -> None:
    context = browser.new_context(timezone_id="Pacific/Kiritimati")  # 14 hours ahead of UTC
    try:
        page = context.new_page()
        open_page(page, local, "now")
        script = "(name) => import(`/console/assets/format.js`).then(%s)"
        shown = page.evaluate(script % "(m) => m.time(Date.UTC(2026, 0, 1, 12, 30) / 1000)")
        assert shown == "2026-01-02 02:30:00"
        durations = page.evaluate(script % "(m) => [59994, 59996, 119600].map(m.duration)")
        assert durations == ["59.99 s", "1 min 0 s", "2 min 0 s"]
    finally:
        context.close()


def test_all_flows_by_keyboard_alone(desktop: Page, local: Console) -> None:
    made = local.turn(key="", text="By keyboard")
    open_page(desktop, local, "now")
    expect(desktop.get_by_role("heading", name="Now")).to_be_visible()

    def tab_to(what: str, *, most: int = 80) -> None:
        for _ in range(most):
            desktop.keyboard.press("Tab")
            focused = desktop.evaluate(
                "() => { const e = document.activeElement;"
                " return `${e.ariaLabel || ''} ${e.name || ''} ${e.textContent}`; }"
            )
            if what in focused:
                return
        raise AssertionError(f"{what} cannot be reached")

    tab_to("Skip to the content")
    tab_to("Turns")
    desktop.keyboard.press("Enter")
    expect(desktop.get_by_role("heading", name="Turns", level=1)).to_be_visible()
    tab_to("session")
    desktop.keyboard.type(made["session"])
    desktop.keyboard.press("Enter")
    expect(desktop.locator("table.rows tbody tr")).to_have_count(1)
    tab_to("Turn of")
    desktop.keyboard.press("Enter")
    expect(desktop.locator("table.waterfall")).to_be_visible()
    tab_to("Show contents")
    desktop.keyboard.press("Enter")
    expect(desktop.locator("table.events")).to_be_visible()
    tab_to("Replay")
    desktop.keyboard.press("Enter")
    expect(desktop.locator(".played .said")).to_contain_text("Found")


def test_nothing_is_fetched_from_elsewhere(desktop: Page, local: Console) -> None:
    asked: set[str] = set()
    desktop.on("request", lambda request: asked.add(request.url))
    for address in ("now", "turns", "sessions", "reports"):
        open_page(desktop, local, address)
        expect(desktop.locator("h1")).to_be_visible()
    assert all(each.startswith(local.url + "/console/") for each in asked), json.dumps(list(asked))


def test_the_page_connects_again_when_the_stream_ends(desktop: Page, local: Console) -> None:
    streams: list[str] = []
    desktop.on(
        "request",
        lambda request: streams.append(request.url) if request.url.endswith("/now") else None,
    )
    cut = "event: history\ndata: {}\n\n"
    desktop.route(
        "**/api/now",
        lambda route: route.fulfill(content_type="text/event-stream", body=cut),
        times=2,
    )
    open_page(desktop, local, "now")
    expect(desktop.get_by_role("heading", name="Now")).to_contain_text("live")
    expect(desktop.locator(".plot canvas")).to_have_count(6)
    assert len(streams) == 3


@pytest.mark.parametrize(
    ("address", "field", "request_"),
    [("turns", "Subject", "**/api/turns*"), ("sessions", "Tenant", "**/api/sessions*")],
)
def test_what_is_typed_stays_while_the_page_loads(
    desktop: Page, local: Console, address: str, field: str, request_: str
) -> None:
    local.turn(key="", text="While it loads")
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    desktop.route(request_, hold, times=1)
    with desktop.expect_request(request_):
        open_page(desktop, local, address)
    desktop.get_by_label(field).fill("typed meanwhile")
    with desktop.expect_response(request_):
        held[0].continue_()
    expect(desktop.locator("table tbody tr").first).to_be_visible()
    expect(desktop.get_by_label(field)).to_have_value("typed meanwhile")
