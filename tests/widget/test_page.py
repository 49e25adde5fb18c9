"""The widget in pages that do not make it easy, and for users of keyboards and screen readers."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import BrowserContext, Route, expect

from tests.parts.browser import DESKTOP, PHONE, new_page, wrong
from tests.servers import ServerProcess
from tests.widget.conftest import Chat, caller
from tests.widget.shop import Shop

HOSTILE = [
    "* { all: unset !important; display: none }",
    """body * , seawall-chat { all: unset !important; display: none !important;
       visibility: hidden !important; opacity: 0 !important;
       pointer-events: none !important; position: static !important;
       transform: scale(0) !important; clip-path: inset(50%) !important; width: 0 !important;
       height: 0 !important; font-size: 0 !important; color: transparent !important;
       z-index: -1 !important; filter: opacity(0) !important; zoom: 0.01 !important }""",
    """body { transform: translateX(-4000px); overflow: hidden; filter: blur(9px) }
       button, textarea, input, p, div, form { display: none !important }
       :root { color-scheme: only dark; font-size: 1px; letter-spacing: 9em }""",
]
SIZES = {"desktop": DESKTOP, "phone": PHONE}


@contextmanager
def opened(
    context: BrowserContext, shop: Shop, size: tuple[int, int], *, dark: bool = False
) -> Iterator[Chat]:
    with new_page(context, size, dark=dark) as page:
        page.goto(shop.url)
        chat = Chat(page)
        chat.open()
        yield chat


@pytest.mark.parametrize("style", HOSTILE)
def test_a_hostile_style_leaves_it_usable(
    context: BrowserContext, server: ServerProcess, shop: Shop, style: str
) -> None:
    shop.embed(server.url, style=style)
    with opened(context, shop, DESKTOP) as chat:
        chat.say("Can you read this?")
        chat.expect_answer("Can you read this?")
        box = chat.answers().last.bounding_box()
        assert box is not None
        assert 880 < box["x"] < 940
        assert box["height"] > 15
        styles = "e => { const s = getComputedStyle(e); return [s.fontSize, s.letterSpacing] }"
        assert chat.answers().last.evaluate(styles) == ["15px", "normal"]
        chat.run([["refund", {"order": "h-1", "amount": 50}]], "Then not.")
        chat.page.get_by_role("button", name="Reject").click()  # a click that reaches it
        chat.expect_answer("Then not.")
        chat.page.get_by_role("button", name="Close chat").click()
        expect(chat.page.get_by_role("button", name="Open chat")).to_be_focused()


LOOKS = [
    ("phone", True),  # others are looked at beside it
    pytest.param(("desktop", False), marks=pytest.mark.long),
    pytest.param(("desktop", True), marks=pytest.mark.long),
    pytest.param(("phone", False), marks=pytest.mark.long),
]


@pytest.mark.parametrize("look", LOOKS)
def test_it_is_accessible(
    context: BrowserContext, server: ServerProcess, shop: Shop, look: tuple[str, bool]
) -> None:
    size, dark = look
    shop.embed(server.url)
    with opened(context, shop, SIZES[size], dark=dark) as chat:
        chat.say(
            "# Title\n\nSome `code` and a list:\n\n1. one\n2. two\n\n```\nx = 1\n```\n\nhttps://shop.example/a"
        )
        expect(chat.log.locator("ol li")).to_have_count(2)
        chat.expect_idle()
        chat.run([["lose", {"order": "a-1"}]], "x")
        expect(chat.log).to_contain_text("It is not certain")
        chat.run([["refund", {"order": "a-2", "amount": 50}]], "Then not.")
        expect(chat.page.get_by_role("button", name="Reject")).to_be_visible()
        assert wrong(chat.page) == []
        if size == "phone":
            box = chat.page.get_by_role("dialog").bounding_box()
            assert box == {"x": 0, "y": 0, "width": PHONE[0], "height": PHONE[1]}
        chat.page.get_by_role("button", name="Close chat").click()
        assert wrong(chat.page) == []


@pytest.mark.parametrize("size", SIZES)
def test_it_is_used_with_the_keyboard_only(
    context: BrowserContext, server: ServerProcess, shop: Shop, size: str
) -> None:
    shop.embed(server.url)
    with new_page(context, SIZES[size]) as page:
        page.goto(shop.url)
        chat = Chat(page)
        keys = page.keyboard
        keys.press("Tab")
        expect(page.get_by_role("button", name="Open chat")).to_be_focused()
        keys.press("Enter")
        expect(chat.input).to_be_focused()
        keys.type("line one")
        keys.press("Shift+Enter")
        keys.type("line two")
        keys.press("Enter")
        expect(chat.answers().last).to_have_text("line oneline two")
        expect(page.get_by_role("status")).to_have_text("line one line two")  # spoken as a whole
        expect(chat.input).to_be_focused()
        keys.type(json.dumps([[["refund", {"order": "k-1", "amount": 50}]], "Then not."]))
        keys.press("Enter")
        reject = page.get_by_role("button", name="Reject")
        expect(reject).to_be_visible()
        expect(page.get_by_role("status")).to_contain_text("May the assistant do this?")
        for _ in range(12):
            keys.press("Tab")
            if reject.evaluate("e => e.getRootNode().activeElement === e"):
                break
        keys.press("Space")
        chat.expect_answer("Then not.")
        expect(chat.input).to_be_focused()
        keys.type("words 2000")  # it goes on until it is stopped
        keys.press("Enter")
        stop = page.get_by_role("button", name="Stop")
        expect(stop).to_be_visible()
        keys.press("Tab")
        expect(stop).to_be_focused()
        keys.press("Enter")
        chat.expect_idle()
        expect(chat.input).to_be_focused()
        if size == "phone":  # the focus stays in the panel that covers the page
            for _ in range(20):
                keys.press("Tab")
                assert page.evaluate("document.activeElement.localName") == "seawall-chat"
        keys.press("Escape")
        expect(page.get_by_role("button", name="Open chat")).to_be_focused()
        expect(page.get_by_role("dialog")).to_be_hidden()


def test_it_shows_the_session_of_its_own_user_only(
    context: BrowserContext, server: ServerProcess, shop: Shop
) -> None:
    with caller(server, "bob") as bob:
        other = bob.post("/v1/turns", json={"text": "a secret of bob"}).json()
    shop.embed(server.url)
    with opened(context, shop, DESKTOP) as chat:
        chat.say("mine")
        chat.expect_answer("mine")
        chat.page.evaluate(
            """({session, turn}) => {
              const pending = {turn, text: "?", key: "k", session};
              for (const key of Object.keys({...sessionStorage}))
                sessionStorage.setItem(key, JSON.stringify({session, open: true, pending}));
            }""",
            other,
        )
        answers: list[tuple[str, int]] = []
        chat.page.on("response", lambda each: answers.append((each.url, each.status)))
        chat.page.reload()
        chat.expect_idle()
        expect(chat.log).to_contain_text("This conversation has ended.")
        assert "secret" not in chat.log.inner_text()
        asked = [status for url, status in answers if "/v1/" in url]
        assert set(asked) == {404}
        chat.say("a new one")
        chat.expect_answer("a new one")
        assert chat.session != other["session"]


def test_a_message_of_one_user_is_not_sent_by_the_next_one_in_the_tab(
    context: BrowserContext, server: ServerProcess, shop: Shop
) -> None:
    shop.embed(server.url)
    user = "ann"
    sent: list[str] = []

    def give_token(route: Route) -> None:
        claims = base64.urlsafe_b64encode(json.dumps({"sub": f"{user} ÿ>?"}).encode()).decode()
        route.fulfill(json={"token": f"e30.{claims.rstrip('=')}.x", "expires_in": 300})

    def lose(route: Route) -> None:
        sent.append(route.request.post_data or "")
        route.abort()

    with new_page(context) as page:
        page.route("**/token", give_token)
        page.route("**/v1/**", lose)
        page.goto(shop.url)
        chat = Chat(page)
        chat.open()
        chat.say("A secret of ann")
        expect(chat.log).to_contain_text("Reconnecting")
        page.reload()  # ann's tab goes on
        expect(chat.log).to_contain_text("A secret of ann")
        expect(chat.log).to_contain_text("Reconnecting")
        assert any("A secret of ann" in each for each in sent)
        user = "bob"
        page.goto("about:blank")
        sent.clear()
        page.goto(shop.url)
        chat.say("Mine")
        expect(chat.log).to_contain_text("Reconnecting")
        expect(chat.log).not_to_contain_text("A secret of ann")
    assert sent
    assert not any("A secret of ann" in each for each in sent)


def test_texts_are_never_markup(context: BrowserContext, server: ServerProcess, shop: Shop) -> None:
    attack = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
    attacks = [
        attack,
        f"**{attack}**",
        f"`{attack}`",
        f"- {attack}",
        f"[{attack}](https://a.example/{attack})",
        "[x](javascript:window.hacked=1)",
        "[x](data:text/html,<script>1</script>)",
        '[x](https://a.example/" onmouseover="window.hacked=1)',
        f"```html\n{attack}\n```",
    ]
    shop.embed(
        server.url,
        options=f"data-title-text='{attack}' data-greeting='{attack}'".replace("'", "&#39;"),
    )
    shop.page = shop.page.replace("&#39;", "'")
    with opened(context, shop, DESKTOP) as chat:
        chat.say("\n\n".join(attacks))
        chat.expect_idle()
        chat.run([["refund", {"order": attack, "amount": 50, attack: 1}]], attack)
        card = chat.page.get_by_role("group")
        if card.count():  # the tool has no such argument: the model is shown its mistake
            chat.page.get_by_role("button", name="Reject").click()
        chat.expect_idle()
        chat.run([["refund", {"order": attack, "amount": 50}]], attack)
        chat.page.get_by_role("button", name="Reject").click()
        chat.expect_answer(attack)
        chat.page.wait_for_timeout(200)
        assert chat.page.evaluate("window.hacked") is None
        shadow = "document.querySelector('seawall-chat').shadowRoot"
        assert (
            chat.page.evaluate(f"{shadow}.querySelectorAll('img, script, iframe, object').length")
            == 0
        )
        links = chat.page.evaluate(
            f"[...{shadow}.querySelectorAll('a')].map(each => each.protocol)"
        )
        assert set(links) <= {"https:"}
        names = f"[...{shadow}.querySelectorAll('*')].flatMap(each => each.getAttributeNames())"
        assert not [each for each in chat.page.evaluate(names) if each.startswith("on")]


def test_a_strict_policy_of_the_page_allows_it(
    context: BrowserContext, server: ServerProcess, shop: Shop
) -> None:
    with caller(server, "ann") as ann:
        tag = ann.get("/seawall-chat.js").headers["etag"].strip('"')
    policy = f"default-src 'none'; script-src {server.url}; connect-src {server.url} 'self'"
    shop.embed(server.url, options=f'integrity="{tag}" crossorigin')
    shop.page = shop.page.replace(
        "<title>", f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>'
    ).replace("<style></style>", "")
    faults: list[str] = []
    with new_page(context) as page:
        page.on("console", lambda each: faults.append(each.text))
        page.goto(shop.url)
        chat = Chat(page)
        chat.open()
        chat.say("Allowed?")
        chat.expect_answer("Allowed?")
    assert [each for each in faults if "favicon" not in each] == []


def test_inline_in_the_page_with_its_colours_and_words(
    context: BrowserContext, server: ServerProcess, shop: Shop
) -> None:
    body = """<div style="width: 500px; --seawall-accent: rgb(120, 0, 80); --seawall-height: 300px">
      <seawall-chat inline token-function="shopToken" agent="other"
        labels='{"send": "Senden", "message": "Ihre Nachricht"}'></seawall-chat></div>
      <script>window.shopToken = async () => "sw_bob";</script>"""
    shop.embed(server.url, body=body)
    with new_page(context) as page:
        page.goto(shop.url)
        expect(page.locator("seawall-chat")).to_have_count(1)
        page.get_by_role("textbox", name="Ihre Nachricht").fill("Guten Tag")
        send = page.get_by_role("button", name="Senden")
        assert send.evaluate("e => getComputedStyle(e).backgroundColor") == "rgb(120, 0, 80)"
        send.click()
        expect(page.get_by_role("log").locator(".text")).to_have_text("Guten Tag")
        box = page.locator("seawall-chat").bounding_box()
        assert box is not None
        assert (box["width"], box["height"]) == (500, 300)
        assert page.get_by_role("region").count() == 1
    with caller(server, "bob") as bob:
        sessions = bob.get("/v1/sessions").json()["sessions"]
        assert "other" in {each["agent"] for each in sessions}
