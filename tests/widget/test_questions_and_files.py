"""The widget asks what a tool asks, and sends files."""

from pathlib import Path

from playwright.sync_api import BrowserContext, Route, expect

from tests.hosts.test_effects_api import keys_of_callers
from tests.parts.browser import new_page, serious
from tests.servers import running
from tests.widget.conftest import Chat, caller, serving
from tests.widget.shop import Shop


def test_a_question_is_a_form(context: BrowserContext, shop: Shop, tmp_path: Path) -> None:
    environment = {
        "SEAWALL_SESSIONS__PATH": str(tmp_path / "sessions.db"),
        "SEAWALL_SERVER__PORT": "0",
        "SEAWALL_SERVER__WORKERS": "1",
        "SEAWALL_SERVER__CORS__ORIGINS": '["*"]',
        "SEAWALL_IDENTITY__API_KEYS": keys_of_callers(),
    }
    source = "tests.hosts.asking_app:app"
    with (
        running("serve", source, "--json", environment=environment, log=tmp_path / "log") as server,
        new_page(context) as page,
    ):
        shop.who = "ann"
        shop.embed(server.url)
        page.goto(shop.url)
        chat = Chat(page)
        chat.open()
        chat.run([["find_shop", {"city": "Bern"}]], "all done")
        card = page.get_by_role("group", name="A question from shops")
        street = card.get_by_role("textbox")
        expect(street).to_have_value("Main Street 0")
        assert serious(page) == []
        street.fill("Main Street 7")
        card.get_by_role("button", name="Send answer").click()
        chat.expect_answer("all done")
        chat.run([["find_shop", {"city": "Basel"}]], "not done")
        page.get_by_role("button", name="Decline").last.click()
        chat.expect_answer("not done")
        with caller(server, "ann") as ann:
            turns = ann.get(f"/v1/sessions/{chat.session}").json()["turns"]
    results = [m["content"] for turn in turns for m in turn["messages"] if m["role"] == "tool"]
    assert "Main Street 7" in results[1]
    assert "Main Street" not in results[0]


def test_files_go_with_a_message(context: BrowserContext, shop: Shop, tmp_path: Path) -> None:
    blobs = {"BLOBS__STORE": "files", "BLOBS__PATH": str(tmp_path / "files")}
    picture, wrong = tmp_path / "box.png", tmp_path / "box.exe"
    wrong.write_bytes(b"MZ\x00\x01")
    with serving(tmp_path, **blobs) as server, new_page(context) as page:
        shop.who = "ann"
        shop.embed(server.url, options="data-files")
        page.goto(shop.url)
        page.screenshot(path=picture, clip={"x": 0, "y": 0, "width": 32, "height": 32})
        chat = Chat(page)
        chat.open()
        chooser = page.locator("seawall-chat input[type=file]")
        chooser.set_input_files(wrong)
        expect(page.locator("seawall-chat .chosen")).to_contain_text("box.exe")
        held: list[Route] = []

        def hold(route: Route) -> None:
            held.append(route)

        page.route("**/v1/files*", hold, times=1)
        with page.expect_request("**/v1/files*"):
            chat.say("What is this?")
        chat.input.fill("Typed meanwhile.")
        held[0].continue_()
        expect(page.get_by_role("alert")).to_have_text("A file cannot be sent.")
        expect(chat.input).to_have_value("What is this?\nTyped meanwhile.")
        chat.input.fill("What is this?")
        chooser.set_input_files(picture)
        assert serious(page) == []
        chat.input.press("Enter")
        chat.expect_answer("What is this?")
        expect(chat.log.locator(".message.you")).to_contain_text("box.png")
        page.reload()
        expect(chat.log.locator(".message.you")).to_contain_text("box.png")
        with caller(server, "ann") as ann:
            (turn,) = ann.get(f"/v1/sessions/{chat.session}").json()["turns"]
        assert turn["messages"][0]["attachments"][0]["name"] == "box.png"
