"""The widget on a shop's page, used by a customer."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.parts.browser import new_page
from tests.servers import ServerProcess
from tests.widget.conftest import Chat, caller, serving
from tests.widget.shop import Shop


def eventually(check: Callable[[], bool], page: Page, seconds: float = 15.0) -> None:
    """Wait until something is so, while the page goes on."""
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until, "it did not happen in time"
        page.wait_for_timeout(50)


def count(server: ServerProcess, order: str) -> int:
    """How often an order was changed."""
    script = json.dumps([[["done", {"order": order}]], "done"])
    with caller(server, "bob") as bob:
        session = bob.post("/v1/turns", json={"text": script}).json()["session"]
        stored = bob.get(f"/v1/sessions/{session}").json()["turns"][0]["messages"]
    (result,) = (each["content"] for each in stored if each["role"] == "tool")
    return int(result)


def waiting(client: httpx2.Client, order: str) -> dict[str, Any]:
    """The one call that waits for a decision about an order."""
    waits: list[dict[str, Any]] = client.get("/v1/approvals").json()["approvals"]
    (wait,) = (each for each in waits if order in each["arguments"])
    return wait


def test_a_message_is_answered(chat: Chat, server: ServerProcess) -> None:
    chat.say("Hello **there**, see https://shop.example/a and [b](javascript:alert(1))")
    chat.expect_answer("Hello there, see https://shop.example/a and [b](javascript:alert(1))")
    link = chat.answers().get_by_role("link")
    assert link.get_attribute("href") == "https://shop.example/a"
    chat.run([["done", {"order": "x"}]], "again")
    chat.expect_answer("again")
    with caller(server, "ann") as ann:
        stored = ann.get(f"/v1/sessions/{chat.session}").json()
    assert stored["version"] == 2


def test_consent_is_asked_with_the_arguments(chat: Chat, server: ServerProcess) -> None:
    refund = {"order": "w-1", "amount": 50, "card": "4111"}
    chat.run([["refund", refund]], "It is done.")
    card = chat.page.get_by_role("group", name="May the assistant do this?")
    expect(card).to_contain_text("refund")
    expect(card.locator("dd")).to_have_text(["50", "[redacted]", "w-1"])
    expect(chat.input).to_be_disabled()
    card.get_by_role("button", name="Approve").click()
    chat.expect_answer("It is done.")
    expect(card).to_contain_text("You have approved this.")
    assert count(server, "w-1") == 1


def test_a_rejected_call_is_not_made(chat: Chat, server: ServerProcess) -> None:
    chat.run([["refund", {"order": "w-2", "amount": 50}]], "Then not.")
    chat.page.get_by_role("button", name="Reject").click()
    chat.expect_answer("Then not.")
    expect(chat.log).to_contain_text("You have rejected this.")
    assert count(server, "w-2") == 0


def test_a_decision_of_others_is_waited_for(chat: Chat, server: ServerProcess) -> None:
    chat.run([["grant", {"order": "w-3"}]], "Granted, then.")
    card = chat.page.get_by_role("group", name="grant")
    expect(card).to_contain_text("This waits for: manager.")
    expect(card.get_by_role("button", name="Approve")).to_have_count(0)
    with caller(server, "meg") as meg:
        wait = waiting(meg, "w-3")
        assert meg.post(wait["decide"], json={"decision": "approve"}).status_code == 200
    chat.expect_answer("Granted, then.")
    expect(card).to_contain_text("Done.")


def test_what_was_decided_in_another_tab_is_said(chat: Chat, server: ServerProcess) -> None:
    chat.run([["refund", {"order": "w-4", "amount": 50}]], "So be it.")
    approve = chat.page.get_by_role("button", name="Approve")
    expect(approve).to_be_visible()
    with caller(server, "ann") as ann:
        wait = waiting(ann, "w-4")
        # The page does not see it before its own decision.
        chat.page.route("**/events", lambda route: route.abort())
        assert ann.post(wait["decide"], json={"decision": "reject"}).status_code == 200
        approve.click()
        expect(chat.page.get_by_role("alert")).to_have_text(re.compile("decided|wrong"))
        chat.page.unroute("**/events")
    chat.expect_answer("So be it.")
    assert count(server, "w-4") == 0


def test_an_expired_call_goes_on(chat: Chat) -> None:
    chat.run([["expiring", {"order": "w-5"}]], "Too late.")
    expect(chat.page.get_by_role("group", name="May the assistant do this?")).to_be_visible()
    chat.expect_answer("Too late.")
    expect(chat.log).to_contain_text("Not done.")


def test_a_person_takes_over_and_hands_back(chat: Chat, server: ServerProcess) -> None:
    chat.say("person")
    expect(chat.page.get_by_role("group", name="A person will answer you here.")).to_be_visible()
    with caller(server, "ann") as ann:
        (turn,) = ann.get(f"/v1/sessions/{chat.session}").json()["turns"]
    path = f"/v1/sessions/{chat.session}/messages"
    with caller(server, "meg") as meg:
        said = {"turn": turn["id"], "text": "I am Meg. <b onclick=x>Hi</b>"}
        assert meg.post(path, json=said).status_code == 200
        person = chat.log.locator(".message.person")
        expect(person).to_have_text("SupportI am Meg. <b onclick=x>Hi</b>")
        chat.say("It is broken.")
        expect(chat.answers().last).to_have_text("Please wait.")
        chat.page.reload()
        expect(chat.log.locator(".message.person")).to_have_count(1)
        expect(chat.log.locator(".message.you")).to_have_count(2)
        back = {"turn": turn["id"], "return": True, "text": "Solved."}
        assert meg.post(path, json=back).status_code == 200
    answer = chat.log.locator(".turn", has=chat.page.get_by_role("group")).locator(".text")
    expect(answer).to_contain_text("Solved.")
    chat.expect_idle()


def test_a_reload_continues_the_answer(chat: Chat) -> None:
    chat.say("Hi")
    chat.expect_answer("Hi")
    chat.say("words 60")
    expect(chat.answers().last).to_contain_text("unusual".replace("u", "ü", 1))
    chat.page.reload()
    expect(chat.answers().last.locator("li")).to_have_count(6)
    chat.expect_idle()
    assert chat.log.locator(".message.you").all_text_contents() == ["You: Hi", "You: words 60"]
    assert chat.answers().last.inner_text().count("answer") == 6


def test_a_reload_continues_a_turn_that_waits(chat: Chat) -> None:
    chat.run([["refund", {"order": "w-6", "amount": 50}]], "It is done.")
    approve = chat.page.get_by_role("button", name="Approve")
    expect(approve).to_be_visible()
    chat.page.evaluate(  # as in a browser that has kept the session only
        "for (const [key, value] of Object.entries({...sessionStorage}))"
        " sessionStorage.setItem(key, JSON.stringify({...JSON.parse(value), pending: null}))"
    )
    chat.page.reload()
    approve.click()
    chat.expect_answer("It is done.")
    expect(chat.log.locator(".message.you")).to_have_count(1)


def test_stop_ends_the_turn(chat: Chat) -> None:
    chat.say("words 2000")
    expect(chat.answers().last).to_contain_text("answer")
    chat.page.get_by_role("button", name="Stop").click()
    chat.expect_idle()
    expect(chat.log).to_contain_text("Stopped.")
    expect(chat.input).to_be_focused()
    chat.say("And now?")
    chat.expect_answer("And now?")


def test_a_retry_does_not_repeat_what_was_done(chat: Chat, server: ServerProcess) -> None:
    chat.run([["refund", {"order": "w-7", "amount": 5}]], "FAIL")
    retry = chat.page.get_by_role("button", name="Try again")
    retry.click()
    chat.expect_answer("done")
    assert count(server, "w-7") == 1
    expect(chat.log.locator(".message.you")).to_have_count(1)


def test_an_effect_of_unknown_outcome_is_not_repeated(chat: Chat) -> None:
    chat.run([["lose", {"order": "w-8"}]], "Hm.")
    expect(chat.log).to_contain_text("It is not certain whether this was done.")
    expect(chat.page.get_by_role("button", name="Try again")).to_be_hidden()
    chat.expect_idle()


def test_the_place_in_the_queue_is_shown(
    context: BrowserContext, shop: Shop, tmp_path: Path
) -> None:
    limits = {"ADMISSION__IN_FLIGHT": "1", "ADMISSION__QUEUED": "4"}
    with serving(tmp_path, **limits) as busy, new_page(context) as page:
        shop.embed(busy.url)
        page.goto(shop.url)
        chat = Chat(page)
        chat.open()
        with caller(busy, "bob") as bob:
            body = {"text": "words 250", "background": True}
            assert bob.post("/v1/turns", json=body).status_code == 202
        chat.say("My turn?")
        expect(chat.log).to_contain_text(re.compile(r"You are number 1 in the queue, about \d+ s"))
        chat.expect_answer("My turn?")


@pytest.mark.parametrize("seconds", [300, 1])
def test_the_token_is_kept_in_memory_only(chat: Chat, shop: Shop, seconds: int) -> None:
    shop.seconds = seconds
    chat.page.reload()
    shop.tokens = 0
    for text in ("one", "two"):
        chat.say(text)
        chat.expect_answer(text)
        chat.page.wait_for_timeout(600)
    assert shop.tokens == (1 if seconds == 300 else 2)
    kept = chat.page.evaluate(
        "JSON.stringify([{...sessionStorage}, {...localStorage}, document.cookie])"
    )
    assert "sw_ann" not in kept
    assert "one" not in kept  # nor what was said, once it is answered


def test_a_refused_token_is_fetched_again(chat: Chat, shop: Shop) -> None:
    chat.say("one")
    chat.expect_answer("one")
    refused: list[str] = []

    def refuse(route: Route) -> None:
        if not refused:
            refused.append(route.request.headers["authorization"])
            route.fulfill(status=401, body="{}", headers={"access-control-allow-origin": "*"})
        else:
            route.continue_()

    chat.page.route("**/v1/turns", refuse)
    before = shop.tokens
    chat.say("two")
    chat.expect_answer("two")
    assert shop.tokens == before + 1
    shop.who = "nobody"
    chat.page.reload()
    chat.expect_idle()  # Enter does nothing while the conversation is loaded
    chat.say("three")
    expect(chat.log).to_contain_text("You are not signed in")
