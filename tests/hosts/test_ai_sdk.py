"""User interfaces made with the AI SDK, by its own client: `ai`, unmodified."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.hosts.test_effects_api import keys_of_callers
from tests.parts import require, ui_clients
from tests.servers import ServerProcess, running

PROGRAM = Path(__file__).with_name("ai_sdk.mjs")
Happened = dict[str, Any]


@contextmanager
def serving(folder: Path, workers: int = 1) -> Iterator[ServerProcess]:
    environment = {
        "SEAWALL_SESSIONS__PATH": str(folder / "sessions.db"),
        "SEAWALL_SERVER__PORT": "0",
        "SEAWALL_SERVER__WORKERS": str(workers),
        "SEAWALL_SERVER__MAX_MESSAGES": "20",
        "SEAWALL_SESSIONS__ORPHAN_SCAN_SECONDS": "0.2",
        "SEAWALL_IDENTITY__API_KEYS": keys_of_callers(),
    }
    source = "tests.hosts.ui_app:app"
    with running("serve", source, "--json", environment=environment, log=folder / "log") as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("ai-sdk")) as server:
        yield server


@pytest.fixture(scope="module")
def happened(server: ServerProcess) -> Happened:
    """What the client saw, by scenario of its program."""
    require(ui_clients.missing())
    return ui_clients.run(PROGRAM, server.url, "sw_ann")


def answers(chat: Happened) -> list[Happened]:
    return [each for each in chat["messages"] if each["role"] == "assistant"]


def types(message: Happened) -> list[str]:
    return [each["type"] for each in message["parts"]]


def call(message: Happened) -> Happened:
    (found,) = (each for each in message["parts"] if each["type"] == "dynamic-tool")
    assert isinstance(found, dict)
    return found


def test_a_chat_is_a_session_and_a_regenerated_answer_is_the_first(happened: Happened) -> None:
    chat = happened["turns"]
    first, second = answers(chat)
    assert types(first) == ["step-start", "text"]
    assert first["parts"][1] == {"type": "text", "text": "Hello. ", "state": "done"}
    assert types(second) == ["step-start", "dynamic-tool", "step-start", "text"]
    made = call(second)
    assert (made["state"], made["output"]) == ("output-available", "refunded 5 to ")
    assert made["input"] == {"order": "chat-turns", "amount": 5, "card": "[redacted]"}
    metadata = second["metadata"]
    assert (metadata["session"], metadata["version"]) == ("chat-turns", 2)
    assert (metadata["agent"], metadata["status"]) == ("only", "completed")
    assert metadata["usage"]["model_calls"] == 2
    assert metadata["turn"] == second["id"]
    assert (first["metadata"]["replayed"], metadata["replayed"]) == (False, True)
    assert [each["finishReason"] for each in chat["finished"]] == ["stop"] * 3
    assert (chat["errors"], chat["status"]) == ([], "ready")


@pytest.mark.parametrize(
    ("scenario", "state"), [("approve", "output-available"), ("reject", "output-denied")]
)
def test_an_approval_continues_the_same_message(
    happened: Happened, scenario: str, state: str
) -> None:
    chat = happened[scenario]
    (asked,) = answers({"messages": chat["asked"]})
    assert call(asked)["state"] == "approval-requested"
    assert asked["metadata"]["status"] == "paused"
    decided, further = answers(chat)
    assert decided["id"] == asked["id"]
    assert types(decided) == ["step-start", "dynamic-tool", "step-start", "text"]
    assert call(decided)["state"] == state
    assert (decided["metadata"]["status"], further["metadata"]["version"]) == ("completed", 2)
    reasons = [each["finishReason"] for each in chat["finished"]]
    assert (reasons, chat["errors"]) == (["tool-calls", "stop", "stop"], [])


def test_tools_of_the_page_are_run_by_the_page(happened: Happened) -> None:
    chat = happened["clientTools"]
    assert [(each["toolName"], each["input"]) for each in chat["ran"]] == [
        ("locate", {"exact": True}), ("note", {"text": "x"}), ("locate", {"exact": False})
    ]  # fmt: skip
    message, further = answers(chat)
    parts = [each for each in message["parts"] if each["type"] == "dynamic-tool"]
    assert [each["toolName"] for each in parts] == ["locate", "done", "note", "locate"]
    assert [each["state"] for each in parts] == [
        "output-available", "output-available", "output-error", "output-available"
    ]  # fmt: skip
    assert parts[0]["output"]["town"] == "Kiel"
    assert [each.get("providerExecuted") for each in parts] == [None, True, None, None]
    assert message["parts"][-1]["text"] == "finished"
    assert [each["finishReason"] for each in chat["finished"]] == [
        "tool-calls", "tool-calls", "stop", "stop"
    ]  # fmt: skip
    assert (message["metadata"]["version"], further["metadata"]["version"]) == (1, 2)
    assert message["metadata"]["usage"]["model_calls"] == 3
    assert chat["errors"] == []


def test_a_tool_of_the_page_with_the_name_of_an_own_one_is_refused(happened: Happened) -> None:
    (error,) = happened["refusedTools"]["errors"]
    assert json.loads(error)["field"] == "tools[0].name"


def test_tools_through_the_compatible_provider(happened: Happened) -> None:
    seen = happened["compatibleTools"]
    assert (seen["whole"], seen["text"]) == ("found", "found")
    assert seen["outputs"] == [[{"town": "Kiel"}, {"town": "the North"}], [{"town": "Kiel"}], []]
    assert seen["streamedSteps"] == 3
    assert seen["usage"]["outputTokens"] == 2 + 1 + 1  # each model call is counted once


def test_what_others_decide_is_shown(happened: Happened) -> None:
    (message,) = answers(happened["others"])
    assert call(message)["state"] == "input-available"
    wait = message["parts"][-1]
    assert (wait["type"], wait["data"]["role"], wait["data"]["tool"]) == (
        "data-wait", "manager", "grant",
    )  # fmt: skip
    assert wait["data"]["decide"] == f"/v1/turns/{message['id']}/approvals/c0-0"


def test_sources_of_a_result_are_parts_of_the_message(happened: Happened) -> None:
    (message,) = answers(happened["sources"])
    assert types(message) == [
        "step-start", "dynamic-tool", "source-url", "source-document", "step-start", "text",
    ]  # fmt: skip
    assert message["parts"][2:4] == [
        {
            "type": "source-url",
            "sourceId": "c0-0-1",
            "url": "https://shop.example/returns#costs",
            "title": "Returns > Costs",
        },
        {
            "type": "source-document",
            "sourceId": "c0-0-2",
            "mediaType": "application/pdf",
            "title": "Hours",
            "filename": "hours.pdf",
        },
    ]


def test_a_turn_that_failed_is_tried_again(happened: Happened) -> None:
    failed, retried = happened["error"]["failed"], happened["error"]["retried"]
    assert (failed["status"], failed["errors"]) == ("error", ["The model failed."])
    assert failed["data"][-1]["data"]["code"] == "upstream-failed"
    (answer,) = answers(retried)
    assert answer["parts"][-1]["text"] == "done"
    assert (retried["status"], answer["metadata"]["version"]) == ("ready", 1)


def test_a_refusal_names_the_field(happened: Happened) -> None:
    (error,) = happened["refused"]["errors"]
    problem = json.loads(error)
    assert (problem["code"], problem["field"]) == ("unknown-agent", "agent")


def test_stopping_ends_the_turn(happened: Happened) -> None:
    chat = happened["stop"]
    assert chat["active"] is None
    assert (chat["finished"], chat["errors"]) == ([{"isAbort": True}], [])


def test_a_turn_is_cancelled_by_another_request(happened: Happened) -> None:
    chat = happened["cancel"]
    assert (chat["code"], chat["status"], chat["errors"]) == (204, "ready", [])
    assert call(answers(chat)[0])["state"] == "input-available"


def test_a_background_turn_is_resumed(happened: Happened) -> None:
    chat = happened["resume"]
    assert chat["left"]["finished"] == [{"isAbort": True}]
    (answer,) = answers(chat)
    assert types(answer) == ["step-start", "dynamic-tool", "step-start", "text"]
    assert (answer["parts"][-1]["text"], answer["metadata"]["version"]) == ("done", 1)
    assert (chat["after"]["messages"], chat["after"]["status"]) == ([], "ready")


def test_a_page_that_is_loaded_again_shows_what_waits(happened: Happened) -> None:
    first, second = (happened["resumePaused"][each] for each in ("first", "second"))
    assert second["messages"] == first["messages"]
    assert call(answers(second)[0])["state"] == "approval-requested"


def test_a_stream_is_read_without_a_page(happened: Happened) -> None:
    assert happened["read"]["parts"][-1]["text"] == "Hello."


def test_its_provider_speaks_chat_completions(happened: Happened) -> None:
    assert happened["compatible"] == {"whole": "Hello.", "text": "Hello again.", "reason": "stop"}


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx2.Client]:
    headers = {"authorization": "Bearer sw_bob"}
    with httpx2.Client(base_url=server.url, headers=headers, timeout=20) as client:
        yield client


def user(text: object = '["Hello."]', **more: object) -> Happened:
    return {"id": "m1", "role": "user", "parts": [{"type": "text", "text": text}], **more}


def decision(wait: str, **approval: object) -> Happened:
    part = {"type": "dynamic-tool", "state": "approval-responded"}
    return {"role": "assistant", "parts": [part | {"approval": {"id": wait, **approval}}]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"messages": [user()]}, "id"),
        ({"id": "not an id", "messages": [user()]}, "id"),
        ({"id": "c" * 65, "messages": [user()]}, "id"),
        ({"id": "c"}, "messages"),
        ({"id": "c", "messages": []}, "messages"),
        ({"id": "c", "messages": [user()] * 21}, "messages"),
        ({"id": "c", "messages": "all"}, "messages"),
        ({"id": "c", "messages": [user()], "agent": "a b"}, "agent"),
        ({"id": "c", "messages": [user()], "trigger": "other"}, "trigger"),
        ({"id": "c", "messages": [user(id="")]}, "messages[0].id"),
        ({"id": "c", "messages": [user(id="m" * 129)]}, "messages[0].id"),
        ({"id": "c", "messages": [user(" ")]}, "messages[0].parts"),
        ({"id": "c", "messages": [user("a\0b")]}, "messages[0].parts"),
        ({"id": "c", "messages": [user(parts=[])]}, "messages[0].parts"),
        ({"id": "c", "messages": [user(5)]}, "messages[0].parts[0].text"),
        ({"id": "c", "messages": [user(parts=[7])]}, "messages[0].parts[0]"),
        (
            {"id": "c", "messages": [user(parts=[{"type": "file", "url": "data:,x"}])]},
            "messages[0].parts[0].url",
        ),
        ({"id": "c", "messages": [user(role="system")]}, "messages[0].role"),
        ({"id": "c", "messages": [user(role="assistant")]}, "messages[0].role"),
        (
            {"id": "c", "messages": [decision("trn_d.1/c", approved=True)]},
            "messages[0].parts[0].approval.id",
        ),
        (
            {"id": "c", "messages": [decision("nothing", approved=True)]},
            "messages[0].parts[0].approval.id",
        ),
        (
            {"id": "c", "messages": [decision("trn_c.1/c")]},
            "messages[0].parts[0].approval.approved",
        ),
        (
            {"id": "c", "messages": [decision("trn_c.1/c", approved=True, reason="x" * 2_001)]},
            "messages[0].parts[0].approval.reason",
        ),
    ],
)
def test_a_bad_body_names_its_field(client: httpx2.Client, body: object, field: str) -> None:
    answer = client.post("/v1/ui/chat", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text


def test_chats_are_the_callers_own(client: httpx2.Client, server: ServerProcess) -> None:
    body = {"id": "own", "messages": [user('[[["refund", {"order": "own", "amount": 50}]], "x"]')]}
    answer = client.post("/v1/ui/chat", json=body)
    assert answer.headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert answer.headers["seawall-session"] == "own"
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    (wait,) = (
        each["approvalId"]
        for each in map(json.loads, lines[:-1])
        if each["type"] == "tool-approval-request"
    )
    body = {"id": "own", "messages": [decision(wait, approved=True)]}
    with httpx2.Client(base_url=server.url, timeout=20) as other:
        for key, status in (("sw_max", 404), ("sw_eve", 404), ("wrong", 401)):
            headers = {"authorization": f"Bearer {key}"}
            assert other.post("/v1/ui/chat", json=body, headers=headers).status_code == status
        for key, status in (("sw_max", 204), ("sw_eve", 204), ("wrong", 401)):
            headers = {"authorization": f"Bearer {key}"}
            assert other.get("/v1/ui/chat/own/stream", headers=headers).status_code == status
    assert "refunded 50" in client.post("/v1/ui/chat", json=body).text
    again = client.post("/v1/ui/chat", json=body)
    assert again.json()["code"] in ("already-decided", "turn-not-found")


def test_another_text_under_the_same_id_is_refused(client: httpx2.Client) -> None:
    assert client.post("/v1/ui/chat", json={"id": "edit", "messages": [user()]}).status_code == 200
    edited = client.post("/v1/ui/chat", json={"id": "edit", "messages": [user('["Other."]')]})
    assert (edited.status_code, edited.json()["code"]) == (422, "idempotency-key-reused")
    fresh = client.post(
        "/v1/ui/chat",
        json={"id": "edit", "messages": [user('["Other."]')]},
        headers={"idempotency-key": "other"},
    )
    assert "Other." in fresh.text


def test_there_is_nothing_else_below(client: httpx2.Client) -> None:
    assert client.get("/v1/ui/chat/c/stream").status_code == 204
    assert client.get("/v1/ui/chat/a%20b/stream").status_code == 422
    assert client.get("/v1/ui/chat/c").status_code == 404
    assert client.get("/v1/ui/chat/c/d/stream").status_code == 404
    assert client.get("/v1/ui/chat").status_code == 405


def parts(answer: httpx2.Response) -> list[Happened]:
    frames = answer.text.removesuffix("data: [DONE]\n\n").split("\n\n")
    return [json.loads(each.removeprefix("data: ")) for each in frames if each]


def test_any_process_resumes_and_decides(tmp_path: Path) -> None:
    """Each request is of a new connection, to either of two processes."""
    headers = {"authorization": "Bearer sw_ann"}
    with serving(tmp_path, workers=2) as server:

        def request(method: str, path: str, **more: Any) -> httpx2.Response:
            return httpx2.request(
                method, f"{server.url}/v1/ui/chat{path}", headers=headers, timeout=20, **more
            )

        text = '[[["refund", {"order": "both", "amount": 50}]], "done"]'
        body = {"id": "both", "messages": [user(text)], "background": True}
        asked = parts(request("POST", "", json=body))
        for _ in range(6):
            assert [each["type"] for each in parts(request("GET", "/both/stream"))] == [
                each["type"] for each in asked
            ]
        wait = next(each for each in asked if each["type"] == "tool-approval-request")
        body = {"id": "both", "messages": [decision(wait["approvalId"], approved=True)]}
        decided = parts(request("POST", "", json=body))
        assert [each["type"] for each in decided] == [
            "start", "tool-output-available", "start-step", "text-start", "text-delta", "text-end",
            "finish-step", "finish",
        ]  # fmt: skip
        assert decided[0]["messageId"] == asked[0]["messageId"]
        assert request("GET", "/both/stream").status_code == 204


async def test_two_first_messages_at_once_are_two_turns(server: ServerProcess) -> None:
    headers = {"authorization": "Bearer sw_bob"}
    async with httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=20) as client:
        bodies = [
            {"id": "twice", "messages": [user('[[["wait", {"seconds": 0.2}]], "x"]', id=name)]}
            for name in ("m1", "m2")
        ]
        asked = [client.post("/v1/ui/chat", json=each) for each in bodies]
        ends = [parts(each)[-1] for each in await asyncio.gather(*asked)]
    versions = {each["messageMetadata"]["version"] for each in ends}
    assert versions == {1, 2}
