"""What a server of tools asks the user: through the turns API, and onward to an MCP client."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import mcp_types as types
import pytest

from tests.hosts.test_effects_api import Caller, keys_of_callers
from tests.hosts.test_mcp import stock_client
from tests.servers import ServerProcess, running

SCRIPT = [[["find_shop", {"city": "Bern"}]], "all done"]


@contextmanager
def serving(folder: Path) -> Iterator[ServerProcess]:
    environment = {
        "SEAWALL_SESSIONS__PATH": str(folder / "sessions.db"),
        "SEAWALL_SESSIONS__ORPHAN_SCAN_SECONDS": "0.2",
        "SEAWALL_SESSIONS__LEASE_SECONDS": "1",
        "SEAWALL_SERVER__PORT": "0",
        "SEAWALL_SERVER__WORKERS": "1",
        "SEAWALL_IDENTITY__API_KEYS": keys_of_callers(),
    }
    source = "tests.hosts.asking_app:app"
    with running("serve", source, "--json", environment=environment, log=folder / "log") as server:
        yield server


def results(happened: list[dict[str, Any]]) -> list[str]:
    return [each["content"] for each in happened if each["type"] == "tool.returned"]


async def test_the_user_answers_after_the_server_was_killed(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        async with httpx2.AsyncClient(base_url=server.url, timeout=20) as client:
            answer = await Caller(client, "ann").ask(*SCRIPT)
            assert answer.status_code == 202, answer.text
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(20)
    paused = answer.json()
    [wait] = paused["approvals"]
    assert (wait["kind"], wait["tool"], wait["role"]) == ("input", "find_shop", None)
    question = wait["question"]
    assert (question["number"], question["source"]) == (1, "shops")
    assert question["schema"]["properties"]["street"]["default"] == "Main Street 0"
    accepted: dict[str, Any] = {"decision": "accept", "question": 1}
    with serving(tmp_path) as server:
        async with httpx2.AsyncClient(base_url=server.url, timeout=20) as client:
            ann = Caller(client, "ann")
            listed = (await ann.get("/v1/approvals")).json()["approvals"]
            assert [(each["question"], each["may_decide"]) for each in listed] == [(question, True)]
            for name, status in (("bob", 404), ("max", 404), ("eve", 404)):
                stranger = Caller(client, name)
                assert (await stranger.get("/v1/approvals")).json()["approvals"] == []
                refused = await stranger.post(wait["decide"], accepted | {"content": {}})
                assert refused.status_code == status
            wrong: list[tuple[dict[str, Any], int]] = [
                ({"decision": "approve"}, 404),
                ({"decision": "accept"}, 422),
                (accepted, 422),
                (accepted | {"content": {"street": 7}}, 422),
                (accepted | {"content": {"street": "x", "more": 1}}, 422),
                (accepted | {"question": 2, "content": {"street": "x"}}, 409),
                ({"decision": "decline", "question": 1, "content": {}}, 422),
            ]
            for body, status in wrong:
                refused = await ann.post(wait["decide"], body)
                assert refused.status_code == status, refused.text
            decided = await ann.post(
                wait["decide"], accepted | {"content": {"street": "Main Street 7"}}
            )
            assert decided.status_code == 200, decided.text
            happened = await ann.events(decided.json())
            assert results(happened) == ["the shop of Bern near Main Street 7 (accept)"]
            assert happened[-1]["type"] == "turn.completed"
            [requested] = [each for each in happened if each["type"] == "approval.requested"]
            assert requested["question"] == question


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (({"street": "Main Street 7"},), "near Main Street 7 (accept)"),
        (({"street": 7}, {"street": "Main Street 8"}), "near Main Street 8 (accept)"),
        (("decline",), "near no street (decline)"),
        (("cancel",), "near no street (cancel)"),
    ],
)
async def test_the_client_of_an_agent_is_asked(
    answers: tuple[Any, ...], said: str, tmp_path: Path
) -> None:
    """What does not fit the form is asked again."""
    asked: list[types.ElicitRequestParams] = []
    left = list(answers)

    async def ask(_: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        asked.append(params)
        answer = left.pop(0)
        if isinstance(answer, str):
            return types.ElicitResult(action=answer)  # type: ignore[arg-type]  # one of two
        return types.ElicitResult(action="accept", content=answer)

    with serving(tmp_path) as server:
        async with stock_client(server.url, elicitation_callback=ask) as client:
            result = await client.call_tool("finder", {"message": json.dumps(SCRIPT)})
            assert result.structured_content is not None
            assert result.structured_content["status"] == "completed"
            session = result.structured_content["session"]
        async with httpx2.AsyncClient(base_url=server.url, timeout=20) as http:
            found = await Caller(http, "ann").get(f"/v1/sessions/{session}")
            shown = found.json()["turns"][0]
    assert len(asked) == len(answers)
    first = asked[0]
    assert isinstance(first, types.ElicitRequestFormParams)
    assert first.message == "shops asks, for finder to use find_shop: Where to?"
    assert first.requested_schema["properties"]["street"]["type"] == "string"
    [content] = [each["content"] for each in shown["messages"] if each["role"] == "tool"]
    assert content.endswith(said)


def frames(answer: httpx2.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    data = (each.removeprefix("data: ") for each in answer.text.split("\n\n") if each)
    return [json.loads(each) for each in data if each != "[DONE]"]


def test_user_interfaces_are_asked(tmp_path: Path) -> None:
    """AG-UI's interrupt is answered with the values of the form; the AI SDK is shown what waits."""
    text = json.dumps(SCRIPT)
    message = {"id": "m1", "role": "user", "content": text}
    run = {"threadId": "t", "runId": "r1", "messages": [message]}
    part = {"type": "text", "text": text}
    chat = {"id": "c", "messages": [{"id": "m1", "role": "user", "parts": [part]}]}
    headers = {"authorization": "Bearer sw_ann"}
    with (
        serving(tmp_path) as server,
        httpx2.Client(base_url=server.url, headers=headers, timeout=20) as client,
    ):
        (interrupt,) = frames(client.post("/v1/ag-ui", json=run))[-1]["outcome"]["interrupts"]
        assert interrupt["reason"] == "input_required"
        assert "street" in interrupt["responseSchema"]["properties"]
        answers = ({"street": 7}, {"street": "Main Street 7"})
        ends = []
        for number, payload in enumerate(answers, 2):
            entry = {"interruptId": interrupt["id"], "status": "resolved", "payload": payload}
            body = run | {"runId": f"r{number}", "resume": [entry]}
            ends.append(frames(client.post("/v1/ag-ui", json=body)))
        assert ends[0][-1]["code"] == "invalid-field"
        (result,) = (each for each in ends[1] if each["type"] == "TOOL_CALL_RESULT")
        assert result["content"] == "the shop of Bern near Main Street 7 (accept)"

        shown = frames(client.post("/v1/ui/chat", json=chat))
        (wait,) = (each["data"] for each in shown if each["type"] == "data-wait")
        assert (wait["kind"], wait["question"]["number"]) == ("input", 1)
        verdict = {"decision": "decline", "question": 1}
        assert client.post(wait["decide"], json=verdict).status_code == 200
        resumed = client.get("/v1/ui/chat/c/stream")
        if resumed.status_code == 200:  # or it is done already
            assert frames(resumed)[-1]["messageMetadata"]["status"] == "completed"
