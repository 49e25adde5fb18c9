"""The console of two workers whose sessions are in DynamoDB."""

import json
import os
from collections.abc import Iterator

import httpx2
import pytest
from playwright.sync_api import expect

from tests.console.people import CONSOLE, People, people_of
from tests.dynamodb_local import ENVIRONMENT
from tests.servers import ServerProcess
from tests.widget.conftest import caller, serving


@pytest.fixture(scope="module")
def server(dynamodb: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with serving(
            tmp_path_factory.mktemp("dynamodb"),
            **CONSOLE,
            SERVER__WORKERS="2",
            SESSIONS__STORE="dynamodb",
            SESSIONS__TABLE=f"console-{os.urandom(6).hex()}",
            SESSIONS__ENDPOINT=dynamodb,
            SESSIONS__REGION=ENVIRONMENT["AWS_REGION"],
            SESSIONS__CREATE_TABLE="true",
        ) as server:
            yield server


@pytest.fixture(scope="module")
def people(server: ServerProcess) -> Iterator[People]:
    with people_of(server) as people:
        yield people


def ask(server: ServerProcess, *steps: object) -> dict[str, str]:
    """The answer to ann's message, which is a script for the model."""
    with caller(server, "ann") as client:
        answer: dict[str, str] = client.post("/v1/turns", json={"text": json.dumps(steps)}).json()
    return answer


def test_now_turns_and_a_conversation(people: People, server: ServerProcess) -> None:
    answer = ask(server, "A tide is the sea's rise and fall.")
    with people.page("meg", "now") as page:
        expect(page.get_by_role("heading", name="Now")).to_contain_text("live")
        expect(page.locator(".figure", has_text="2 workers")).to_be_visible()
        page.get_by_role("link", name="Turns").click()
        page.get_by_label("Session").fill(answer["session"])
        page.get_by_role("button", name="Find").click()
        row = page.locator("table.rows tbody tr")
        expect(row).to_have_count(1)
        expect(row).to_contain_text("ann")
        row.locator("a").first.click()
        stages = page.locator("table.waterfall tbody tr")
        expect(stages.filter(has_text="commit")).to_have_count(1)
        page.get_by_role("button", name="Show contents").click()
        expect(page.locator("table.events")).to_contain_text("turn.completed")
        page.goto(f"{server.url}/console/#/sessions?tenant=acme&subject=ann")
        page.get_by_role("link", name=answer["session"]).click()
        page.get_by_role("button", name="Show the conversation").click()
        expect(page.locator(".said.assistant")).to_contain_text("A tide is")


def test_a_call_and_an_effect_are_decided(people: People, server: ServerProcess) -> None:
    paused = ask(server, [["grant", {"order": "y-1"}]], "ok")
    assert ask(server, [["lose", {"order": "y-2"}]], "ok")["code"] == "effect-unknown"
    with people.page("meg", "decide") as page:
        call = page.get_by_role("article").filter(has_text="y-1")
        call.get_by_role("button", name="Approve").click()
        expect(call).to_contain_text("Decided: approve.")
    with people.page("olga", "decide") as page:
        effect = page.get_by_role("article").filter(has_text="y-2")
        effect.get_by_label("yes, it is done").check()
        effect.get_by_label("Result for the model").fill("It arrived.")
        effect.get_by_role("button", name="Record").click()
        expect(effect).to_contain_text("It is recorded.")
    with caller(server, "ann") as ann:
        ann.get(f"/v1/turns/{paused['turn']}/events")
        turns = ann.get(f"/v1/sessions/{paused['session']}").json()["turns"]
    results = [each for turn in turns for each in turn["messages"] if each["role"] == "tool"]
    assert [each["content"] for each in results] == ["granted"]


def test_an_ended_login_is_none_for_both_workers(server: ServerProcess) -> None:
    address = f"{server.url}/console/api"
    headers = {"connection": "close"}  # so that the kernel spreads the requests
    with httpx2.Client(base_url=address, headers=headers, timeout=20) as meg:
        assert meg.post("/login", json={"credential": "sw_meg"}).status_code == 204
        meg.headers["x-console-token"] = meg.get("/me").json()["token"]
        assert meg.get("/turns").status_code == 200
        megs = {"tenant": "acme", "subject": "meg"}
        assert meg.post("/logins/end", json=megs).status_code == 204
        assert {meg.get("/turns").status_code for _ in range(12)} == {401}
