"""The page Decide in a browser: calls, effects, conversations; and two who decide at once."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.console.people import CONSOLE, People, people_of
from tests.parts.browser import DESKTOP, PHONE, serious, wrong
from tests.servers import ServerProcess
from tests.widget.conftest import caller, serving

SIZES = {"desktop": DESKTOP, "phone": PHONE}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("decide"), **CONSOLE) as server:
        yield server


@pytest.fixture(scope="module")
def people(server: ServerProcess) -> Iterator[People]:
    with people_of(server) as people:
        yield people


def ask(server: ServerProcess, name: str, *steps: object) -> dict[str, object]:
    """The answer to a user's message, which is a script for the model."""
    text = json.dumps(steps) if steps else "person"
    with caller(server, name) as client:
        answer: dict[str, object] = client.post("/v1/turns", json={"text": text}).json()
    return answer


def result(server: ServerProcess, name: str, answer: dict[str, object]) -> str:
    """What the model was given as the result of the last call, once the turn has ended."""
    with caller(server, name) as client:
        client.get(f"/v1/turns/{answer['turn']}/events")
        turns = client.get(f"/v1/sessions/{answer['session']}").json()["turns"]
    (turn,) = (each for each in turns if each["id"] == answer["turn"])
    return str([each["content"] for each in turn["messages"] if each["role"] == "tool"][-1])


def card(page: Page, text: str) -> Locator:
    return page.get_by_role("article").filter(has_text=text)


def test_a_call_is_approved_edited_or_rejected(people: People, server: ServerProcess) -> None:
    asked = {
        order: ask(server, "ann", [["grant", {"order": order}]], "ok")
        for order in ("d-1", "d-2", "d-3")
    }
    with people.page("meg", "decide") as page:
        expect(page.get_by_role("status").first).to_contain_text("Calls that wait: 3.")
        assert serious(page) == []
        card(page, "d-1").get_by_role("button", name="Approve").click()
        expect(card(page, "d-1")).to_contain_text("Decided: approve.")
        rejected = card(page, "d-2")
        rejected.get_by_label("Note").fill("Not this one.")
        rejected.get_by_role("button", name="Reject").click()
        expect(rejected).to_contain_text("Decided: reject.")
        edited = card(page, "d-3")
        edited.get_by_role("button", name="Edit").click()
        edited.get_by_label("Arguments").fill('{"order": }')
        edited.get_by_role("button", name="Approve as edited").click()
        expect(edited.get_by_role("alert")).to_have_text("The arguments are not valid JSON.")
        edited.get_by_label("Arguments").fill('{"order": 7}')
        edited.get_by_role("button", name="Approve as edited").click()
        expect(edited.get_by_role("alert")).to_be_visible()  # what the tool does not accept
        edited.get_by_label("Arguments").fill('{"order": "d-4"}')
        edited.get_by_role("button", name="Approve as edited").click()
        expect(edited).to_contain_text("Decided: edit.")
        expect(page.get_by_role("status").first).to_contain_text("Calls that wait: 0.")
    assert result(server, "ann", asked["d-1"]) == "granted"
    assert "Not this one." in result(server, "ann", asked["d-2"])
    assert result(server, "ann", asked["d-3"]).endswith("granted")


def test_the_second_of_two_is_told_so(people: People, server: ServerProcess) -> None:
    ask(server, "ann", [["grant", {"order": "d-5"}]], "ok")
    with (
        people.page("meg", "decide") as first,
        people.page("max", "decide") as second,
    ):
        approve = card(first, "d-5").get_by_role("button", name="Approve")
        reject = card(second, "d-5").get_by_role("button", name="Reject")
        expect(approve).to_be_visible()
        expect(reject).to_be_visible()
        approve.click()
        expect(card(first, "d-5")).to_contain_text("Decided: approve.")
        reject.click()
        expect(card(second, "d-5").get_by_role("alert")).to_have_text(
            "Another decision was first, or it is too late: this is decided."
        )
        # A new one appears by itself.
        ask(server, "ann", [["grant", {"order": "d-6"}]], "ok")
        expect(card(second, "d-6")).to_be_visible()
        card(second, "d-6").get_by_role("button", name="Reject").click()


def test_an_effect_is_reconciled(people: People, server: ServerProcess) -> None:
    failed = ask(server, "ann", [["lose", {"order": "d-7"}]], "ok")
    assert failed["code"] == "effect-unknown"
    with people.page("olga", "decide") as page:
        effect = card(page, "d-7")
        effect.get_by_label("yes, it is done").check()
        effect.get_by_label("Result for the model").fill("It arrived.")
        effect.get_by_role("button", name="Record").click()
        expect(effect).to_contain_text("It is recorded.")
    with caller(server, "olga") as olga:
        assert olga.get("/v1/effects").json()["effects"] == []


@pytest.mark.parametrize(
    "look",
    [("phone", False), pytest.param(("desktop", True), marks=pytest.mark.long)],
)
def test_a_conversation_is_answered_and_handed_back(
    people: People, server: ServerProcess, look: tuple[str, bool]
) -> None:
    size, dark = look
    waiting = ask(server, "ann")
    with people.page("meg", "decide", SIZES[size], dark=dark) as page:
        conversation = card(page, "hand over").or_(card(page, "asked for it")).first
        conversation.locator("summary").click()
        expect(conversation.locator(".said.user")).to_contain_text("person")
        conversation.get_by_label("Message").fill("I am Meg. <img src=x onerror=window.hacked=1>")
        conversation.get_by_role("button", name="Send to the user").click()
        expect(conversation).to_contain_text("Sent.")
        with caller(server, "ann") as ann:
            body = {"text": "It is broken.", "session": waiting["session"]}
            assert ann.post("/v1/turns", json=body).json()["finish_reason"] == "person"
        expect(conversation.locator(".said.user")).to_have_count(2)  # it is live
        expect(conversation.locator(".said.assistant").first).to_contain_text("I am Meg. <img")
        assert page.evaluate("window.hacked") is None
        assert wrong(page) == []
        conversation.get_by_label("Message").fill("Solved.")
        conversation.get_by_role("button", name="Hand back").click()
        expect(conversation).to_contain_text("The assistant continues.")
    assert result(server, "ann", waiting) == "Solved."


def test_a_long_list_says_that_there_is_more(people: People, server: ServerProcess) -> None:
    orders = [f"d-{number}" for number in range(21, 26)]
    for order in orders:
        ask(server, "ann", [["grant", {"order": order}]], "ok")

    def shorten(route: Route) -> None:  # pages of two in place of a hundred
        route.continue_(url=route.request.url.replace("limit=100", "limit=2"))

    with people.page("meg", "now") as page:
        page.route("**/v1/approvals?*", shorten)
        page.get_by_role("link", name="Decide").click()
        expect(page.get_by_role("status").first).to_contain_text("Calls that wait: 2 or more.")
        assert serious(page) == []
        more = page.get_by_role("button", name="More: Calls that wait")
        more.click()
        expect(page.get_by_role("status").first).to_contain_text("Calls that wait: 4 or more.")
        note = card(page, orders[0]).get_by_label("Note")
        note.fill("Typed before more came.")
        more.click()
        expect(page.get_by_role("status").first).to_contain_text("Calls that wait: 5.")
        expect(more).to_have_count(0)
        expect(note).to_have_value("Typed before more came.")
        for order in orders:
            card(page, order).get_by_role("button", name="Reject").click()
            expect(card(page, order)).to_contain_text("Decided: reject.")


def test_what_leaves_the_first_page_has_not_gone(people: People, server: ServerProcess) -> None:
    """Of a session that is older than the others, what is new comes first in the list."""
    older = ask(server, "ann", "hello")["session"]
    orders = ["d-31", "d-32", "d-33"]
    for order in orders:
        ask(server, "ann", [["grant", {"order": order}]], "ok")

    def shorten(route: Route) -> None:  # pages of two in place of a hundred
        route.continue_(url=route.request.url.replace("limit=100", "limit=2"))

    with people.page("meg", "now") as page:
        page.route("**/v1/approvals?*", shorten)
        page.get_by_role("link", name="Decide").click()
        expect(card(page, "d-32")).to_be_visible()
        with caller(server, "ann") as ann:
            text = json.dumps([[["grant", {"order": "d-34"}]], "ok"])
            ann.post("/v1/turns", json={"text": text, "session": older})
        expect(card(page, "d-34")).to_be_visible()
        for _ in range(2):
            page.wait_for_event("response", lambda each: "/v1/handovers" in each.url)
        expect(page.get_by_text("does not wait any more")).to_have_count(0)
        for order in ("d-34", "d-31", "d-32"):
            card(page, order).get_by_role("button", name="Reject").click()
            expect(card(page, order)).to_contain_text("Decided: reject.")
        card(page, "d-33").get_by_role("button", name="Reject").click()
        expect(page.get_by_text("does not wait any more")).to_have_count(4)


def test_a_card_leads_to_the_session_of_its_user(people: People, server: ServerProcess) -> None:
    ask(server, "ann", [["grant", {"order": "d-10"}]], "ok")
    with people.page("meg", "decide") as page:
        card(page, "d-10").get_by_role("link", name="ann").click()
        page.get_by_role("button", name="Show the conversation").click()
        expect(page.locator(".said.user")).to_contain_text("d-10")
    with caller(server, "meg") as meg:  # so that other tests find it decided
        waits = meg.get("/v1/approvals").json()["approvals"]
        (wait,) = (each for each in waits if "d-10" in each["arguments"])
        meg.post(wait["decide"], json={"decision": "reject"})


def test_keyboard_only(people: People, server: ServerProcess) -> None:
    asked = ask(server, "ann", [["grant", {"order": "d-9"}]], "ok")
    with people.page("meg", "decide") as page:
        expect(card(page, "d-9")).to_be_visible()
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent") == "Approve":
                break
        page.keyboard.press("Enter")
        expect(card(page, "d-9")).to_contain_text("Decided: approve.")
    assert result(server, "ann", asked) == "granted"


def test_roles_of_the_console_are_kept(server: ServerProcess) -> None:
    """A user without a permission does not decide by a role that the API would accept."""
    waiting = ask(server, "ann", [["grant", {"order": "d-8"}]], "ok")
    path = str(waiting["approvals"][0]["decide"])  # type: ignore[index] # a paused turn
    handed_over = ask(server, "ann")

    @contextmanager
    def client(name: str) -> Iterator[httpx2.Client]:
        with httpx2.Client(base_url=f"{server.url}/console/api", timeout=20) as made:
            assert made.post("/login", json={"credential": f"sw_{name}"}).status_code == 204
            made.headers["x-console-token"] = made.get("/me").json()["token"]
            yield made

    with client("olga") as olga:  # may operate, not approve; and has no role of the tool's
        assert olga.get("/v1/approvals").json()["approvals"] == []
        assert olga.post(path, json={"decision": "approve"}).status_code == 404
        assert olga.get("/v1/handovers").json()["handovers"] == []
    with caller(server, "ann") as ann:
        assert ann.get("/v1/handovers").json()["handovers"][-1]["may_answer"] is False
    with caller(server, "eve") as eve:  # of another tenant
        assert eve.get("/v1/handovers").json()["handovers"] == []
    with client("meg") as meg:
        (listed,) = (
            x
            for x in meg.get("/v1/handovers").json()["handovers"]
            if x["turn"] == handed_over["turn"]
        )
        assert listed["may_answer"] is True
        del meg.headers["x-console-token"]
        assert meg.post(path, json={"decision": "approve"}).status_code == 403  # forged
        assert meg.get("/v1/handovers?limit=0").status_code == 422
    with httpx2.Client(base_url=f"{server.url}/console/api", timeout=20) as nobody:
        assert nobody.post("/login", json={"credential": "sw_ann"}).status_code == 403
        assert nobody.get("/v1/handovers").status_code == 401
