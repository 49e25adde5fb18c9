"""The page Talk in a browser."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.console.people import CONSOLE, People, people_of
from tests.parts.browser import DESKTOP, PHONE, serious, wrong
from tests.servers import ServerProcess
from tests.widget.conftest import caller, serving

SIZES = {"desktop": DESKTOP, "phone": PHONE}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("talk")
    files = {"BLOBS__STORE": "files", "BLOBS__PATH": str(folder / "files")}
    with serving(folder, **CONSOLE, **files) as server:
        yield server


@pytest.fixture(scope="module")
def people(server: ServerProcess) -> Iterator[People]:
    with people_of(server) as people:
        yield people


def say(page: Page, text: str) -> None:
    field = page.get_by_label("Message")
    field.fill(text)
    expect(page.get_by_role("button", name="Send")).to_be_enabled()  # the turn before has ended
    field.press("Enter")


def answers(page: Page) -> list[str]:
    return page.locator(".said.assistant .rich").all_inner_texts()


def test_tools_and_approvals_are_shown_as_they_happen(people: People) -> None:
    with people.page("meg", "talk") as page:
        steps = [
            [["done", {"order": "t-1"}]],
            [["refund", {"order": "t-1", "amount": 50}]],
            "It is **done**.",
        ]
        say(page, json.dumps(steps))
        expect(page.locator("details.tool summary").first).to_have_text("done answered")
        card = page.locator(".card")
        expect(card).to_contain_text("May the agent do this? refund")
        expect(card.locator("dt")).to_have_text(["amount", "card", "order"])
        expect(page.get_by_label("Message")).to_be_disabled()
        assert serious(page) == []
        card.get_by_role("button", name="Approve").click()
        expect(page.locator(".said.assistant .rich")).to_have_text("It is done.")
        expect(page.locator(".rich strong")).to_have_text("done")
        events = page.get_by_role("region", name="Events of the last turn").locator("tbody tr")
        types = [json.loads(row.locator("td").last.inner_text())["type"] for row in events.all()]
        assert types[0] == "turn.started"
        assert types[-1] == "turn.completed"
        assert "approval.requested" in types
        assert "turn.resumed" in types
        page.get_by_role("link", name="course of this turn").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Turn")
        page.go_back()  # the conversation is still there
        expect(page.locator(".said.assistant .rich")).to_have_text("It is done.")


def test_stop_and_retry(people: People) -> None:
    with people.page("meg", "talk") as page:
        page.get_by_label("Agent").select_option("other")
        say(page, "words 2000")
        expect(page.locator(".rich")).to_contain_text("answer")
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("alert")).to_contain_text("Stopped.")
        page.get_by_role("button", name="New conversation").click()
        page.get_by_label("Agent").select_option("only")
        say(page, json.dumps(["FAIL", "never"]))
        page.get_by_role("button", name="Try again").click()
        expect(page.locator(".rich")).to_have_text("done")
        assert page.locator(".said.user").count() == 1


@pytest.mark.parametrize(
    "look",
    [("phone", False), pytest.param(("desktop", True), marks=pytest.mark.long)],
)
def test_it_is_accessible_and_fits(people: People, look: tuple[str, bool]) -> None:
    size, dark = look
    with people.page("meg", "talk", SIZES[size], dark=dark) as page:
        attack = "<img src=x onerror=window.hacked=1>"
        say(page, f"# Title\n\n- one {attack}\n\n`code` https://shop.example/a")
        expect(page.locator(".rich li")).to_have_text(f"one {attack}")
        say(page, json.dumps([[["lose", {"order": "t-2"}]], "x"]))
        expect(page.get_by_role("alert")).to_contain_text("It is not certain")
        assert wrong(page) == []
        assert page.evaluate("window.hacked") is None


def test_an_image_is_sent_with_a_message(
    people: People, server: ServerProcess, tmp_path: Path
) -> None:
    picture = tmp_path / "box.png"
    with people.page("meg", "talk") as page:
        page.screenshot(path=picture, clip={"x": 0, "y": 0, "width": 32, "height": 32})
        page.get_by_label("Files").set_input_files(picture)
        say(page, "What is this?")
        expect(page.locator(".said.assistant .rich")).to_have_text("What is this?")
        expect(page.locator(".said.user")).to_contain_text("box.png")
        href = page.get_by_role("link", name="session", exact=True).get_attribute("href")
    session = str(href).split("/")[2].split("?")[0]
    with caller(server, "meg") as meg:
        (turn,) = meg.get(f"/v1/sessions/{session}").json()["turns"]
    assert turn["messages"][0]["attachments"][0]["name"] == "box.png"


def test_keyboard_only(people: People) -> None:
    with people.page("meg", "talk") as page:
        expect(page.get_by_label("Message")).to_be_visible()
        _tab_to(page, "textarea")
        page.keyboard.type(json.dumps([[["refund", {"order": "t-3", "amount": 50}]], "Then not."]))
        page.keyboard.press("Enter")
        reject = page.get_by_role("button", name="Reject")
        expect(reject).to_be_visible()
        _tab_to(page, "button.danger")
        page.keyboard.press("Enter")
        expect(page.locator(".said.assistant .rich")).to_have_text("Then not.")


def _tab_to(page: Page, selector: str) -> None:
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    pytest.fail(f"{selector} is not reached by the keyboard")


def test_who_logs_in_next_does_not_see_the_conversation(people: People) -> None:
    with people.page("meg", "talk") as page:
        say(page, json.dumps(["A secret of meg"]))
        expect(page.locator(".said.assistant .rich")).to_have_text("A secret of meg")
        page.get_by_role("button", name="Log out").click()
        page.get_by_label("API key or token").fill("sw_max")
        page.get_by_role("button", name="Log in with it").click()
        expect(page.get_by_text("max of acme")).to_be_visible()
        expect(page.get_by_label("Message")).to_be_enabled()
        assert "secret" not in page.locator("main").inner_text()
