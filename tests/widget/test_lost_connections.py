"""The connection is lost in the middle of an answer: nothing is lost, nothing is repeated."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.parts.browser import new_page
from tests.servers import ServerProcess
from tests.widget.conftest import Chat, caller
from tests.widget.cutting_proxy import CuttingProxy, open_proxy
from tests.widget.shop import Shop

_CUTS = 20


@pytest.fixture(scope="module")
def proxy(server: ServerProcess) -> Iterator[CuttingProxy]:
    with open_proxy(server.url) as proxy:
        yield proxy


@pytest.fixture
def cut_chat(context: BrowserContext, proxy: CuttingProxy, shop: Shop) -> Iterator[Chat]:
    shop.who = "ann"
    shop.embed(proxy.url)
    with new_page(context) as page:
        # Waits between attempts are not what is tested.
        page.add_init_script(
            "Math.random = () => 0; const later = setTimeout;"
            "globalThis.setTimeout = (f, ms) => later(f, ms >= 400 && ms < 9000 ? 20 : ms)"
        )
        page.goto(shop.url)
        chat = Chat(page)
        chat.open()
        yield chat


def stored_text(server: ServerProcess, session: str, number: int) -> str:
    with caller(server, "ann") as ann:
        turns: list[dict[str, Any]] = ann.get(f"/v1/sessions/{session}").json()["turns"]
    (turn,) = (each for each in turns if each["number"] == number)
    (text,) = (each["text"] for each in turn["messages"] if each["role"] == "assistant")
    return str(text)


# What the page shows of an answer, as text again: the part of Markdown that the answer has.
_SHOWN = """element => [...element.children].map(block => block.tagName === "UL"
  ? [...block.children].map(item => "- " + item.innerHTML).join("\\n") : block.innerHTML)
  .join("\\n\\n")
  .replaceAll(/<\\/?strong>/g, "**")"""


def test_cut_at_random_moments_of_one_answer(
    cut_chat: Chat, proxy: CuttingProxy, server: ServerProcess
) -> None:
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")
    random_ = random.Random(seed)
    # Of the first stream perhaps nothing comes through, or a part of its head.
    proxy.cuts = [random_.randrange(40, 500)] + [
        random_.randrange(250, 900) for _ in range(_CUTS - 1)
    ]
    proxy.made = 0
    cut_chat.say("words 200")
    expect(cut_chat.page.get_by_role("button", name="Send")).to_be_visible(timeout=60_000)
    assert proxy.made == _CUTS
    shown = cut_chat.answers().last.evaluate(_SHOWN)
    stored = stored_text(server, cut_chat.session, 1)
    assert shown == stored
    assert stored.count("🦀🦀") == 20
    cut_chat.say("Still here?")
    cut_chat.expect_answer("Still here?")
    with caller(server, "ann") as ann:
        assert ann.get(f"/v1/sessions/{cut_chat.session}").json()["version"] == 2


def test_cut_before_the_answer_began(
    cut_chat: Chat, proxy: CuttingProxy, server: ServerProcess
) -> None:
    proxy.closed = True
    proxy.cut_all()
    cut_chat.say("Are you there?")
    expect(cut_chat.log).to_contain_text("The connection was lost. Reconnecting…")
    proxy.closed = False
    cut_chat.expect_answer("Are you there?")
    with caller(server, "ann") as ann:
        assert ann.get(f"/v1/sessions/{cut_chat.session}").json()["version"] == 1


def test_cut_while_a_call_waits_and_while_it_runs(
    cut_chat: Chat, proxy: CuttingProxy, server: ServerProcess
) -> None:
    cut_chat.run(
        [["refund", {"order": "cut-1", "amount": 50}]],
        [["slow", {"order": "cut-1", "seconds": 0.5}]],
        [["done", {"order": "cut-1"}]],
        "It is done.",
    )
    approve = cut_chat.page.get_by_role("button", name="Approve")
    expect(approve).to_be_visible()
    proxy.cut_all()
    approve.click()
    expect(cut_chat.log).to_contain_text("Working: slow")
    proxy.cut_all()
    cut_chat.expect_answer("It is done.")
    with caller(server, "ann") as ann:
        (turn,) = ann.get(f"/v1/sessions/{cut_chat.session}").json()["turns"]
    results = [each["content"] for each in turn["messages"] if each["role"] == "tool"]
    assert results[-1] == "2"  # each of the two was done once
