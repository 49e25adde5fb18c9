"""The widget on a shop's page, used by a customer."""

import httpx2
from playwright.sync_api import expect

from tests.servers import ServerProcess
from tests.widget.conftest import Chat, caller


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
