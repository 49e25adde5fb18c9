"""User interfaces that speak AG-UI, by the protocol's own client: `@ag-ui/client`, unmodified.

The client validates every event, and the order in which they come.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from seawall.errors import TurnCancelled
from seawall.events import (
    ApprovalRequested,
    Event,
    ReasoningDelta,
    TextDelta,
    TurnPaused,
    TurnQueued,
    TurnStarted,
)
from seawall.hosts.http.ag_ui_stream import RunStream
from seawall.turn import Question
from tests.hosts.test_ai_sdk import serving
from tests.parts import require, ui_clients
from tests.servers import ServerProcess

PROGRAM = Path(__file__).with_name("ag_ui.mjs")
TEXT = ["TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"]
CALL = ["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END"]
Happened = dict[str, Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("ag-ui")) as server:
        yield server


@pytest.fixture(scope="module")
def happened(server: ServerProcess) -> Happened:
    """What the client saw, by scenario of its program."""
    require(ui_clients.missing())
    return ui_clients.run(PROGRAM, server.url, "sw_ann")


def test_a_thread_is_a_session(happened: Happened) -> None:
    first, second, third = (happened["turns"][each] for each in ("first", "second", "third"))
    assert first["types"] == ["RUN_STARTED", *TEXT, "RUN_FINISHED"]
    assert second["types"] == ["RUN_STARTED", *CALL, "TOOL_CALL_RESULT", *TEXT, "RUN_FINISHED"]
    assert first["last"]["runId"] == "run-1"
    assert second["last"]["outcome"] == {"type": "success"}
    assert [each["last"]["result"]["version"] for each in (first, second, third)] == [1, 2, 3]
    assert second["last"]["usage"][0]["totalTokens"] > 0
    messages = happened["turns"]["messages"]
    roles = ["user", "assistant", "user", "assistant", "tool", "assistant"]
    assert [each["role"] for each in messages] == roles
    (made,) = messages[3]["toolCalls"]
    assert json.loads(made["function"]["arguments"])["card"] == "[redacted]"
    assert (messages[4]["content"], messages[5]["content"]) == ("refunded 5 to ", "done")
    assert len({each["id"] for each in messages}) == len(messages)


@pytest.mark.parametrize(
    ("scenario", "result"),
    [
        ("approve", "refunded 50 to "),
        ("reject", "refund was rejected, not executed: no"),
        ("cancelled", "refund was rejected, not executed: The user has not answered."),
        ("edit", "refunded 20 to 1"),
    ],
)
def test_an_interrupt_is_an_approval(happened: Happened, scenario: str, result: str) -> None:
    seen = happened[scenario]
    assert seen["paused"]["types"] == ["RUN_STARTED", *CALL, "RUN_FINISHED"]
    (interrupt,) = seen["interrupts"]
    assert (interrupt["reason"], interrupt["toolCallId"]) == ("tool_call", "c0-0")
    assert interrupt["responseSchema"]["required"] == ["approved"]
    assert seen["after"]["types"] == ["RUN_STARTED", "TOOL_CALL_RESULT", *TEXT, "RUN_FINISHED"]
    (returned,) = (each for each in seen["messages"] if each["role"] == "tool")
    assert returned["content"].endswith(result)
    assert seen["next"]["last"]["result"]["version"] == 2


def test_tools_of_the_page_are_run_by_the_page(happened: Happened) -> None:
    seen = happened["clientTools"]
    assert seen["first"]["types"] == [
        "RUN_STARTED", *CALL, *CALL, "TOOL_CALL_RESULT", "RUN_FINISHED"
    ]  # fmt: skip
    assert seen["first"]["last"]["outcome"] == {"type": "success"}
    assert seen["interrupts"] == []
    assert seen["second"]["types"] == ["RUN_STARTED", *CALL, "RUN_FINISHED"]
    assert seen["third"]["types"] == ["RUN_STARTED", *TEXT, "RUN_FINISHED"]
    roles = ["user", "assistant", "tool", "tool", "assistant", "tool", "assistant", "user"]
    assert [each["role"] for each in seen["messages"]][: len(roles)] == roles
    assert seen["messages"][6]["content"] == "found"
    assert [seen[each]["last"]["result"]["version"] for each in ("third", "next")] == [1, 2]
    assert len({each["id"] for each in seen["messages"]}) == len(seen["messages"])


def test_an_approval_beside_a_tool_of_the_page(happened: Happened) -> None:
    seen = happened["clientToolsAndApproval"]
    assert seen["first"]["last"]["outcome"]["type"] == "interrupt"
    assert seen["second"]["types"] == ["RUN_STARTED", "TOOL_CALL_RESULT", *TEXT, "RUN_FINISHED"]
    assert seen["messages"][-1]["content"] == "both"


def test_a_wrong_answer_is_an_error_of_the_run(happened: Happened) -> None:
    for name, field in (
        ("invalid", "resume[0].payload.approved"),
        ("unknown", "resume[0].interruptId"),
    ):
        seen = happened["wrong"][name]
        assert seen["types"] == ["RUN_STARTED", "RUN_ERROR"]
        assert seen["last"]["metadata"]["problem"]["field"] == field


def test_what_others_decide_can_be_looked_at(happened: Happened) -> None:
    seen = happened["others"]
    assert seen["waiting"]["last"]["outcome"] == {"type": "interrupt", "interrupts": seen["first"]}
    assert seen["code"] == 200
    types = ["RUN_STARTED", "TOOL_CALL_RESULT", *TEXT, "RUN_FINISHED"]
    assert seen["granted"]["types"] == types
    assert seen["messages"][-1]["content"] == "done"


def test_failures(happened: Happened) -> None:
    assert happened["error"]["last"]["code"] == "upstream-failed"
    assert "unknown-agent" in happened["refused"]["error"]
    assert '"field":"tools[0].name"' in happened["refusedTools"]["error"]


def test_a_run_is_stopped(happened: Happened) -> None:
    assert happened["stop"]["last"]["result"]["version"] == 1
    cancelled = happened["cancel"]
    assert (cancelled["code"], cancelled["last"]["outcome"]) == (204, {"type": "cancelled"})


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx2.Client]:
    headers = {"authorization": "Bearer sw_bob"}
    with httpx2.Client(base_url=server.url, headers=headers, timeout=20) as client:
        yield client


def run_input(content: object = '["Hello."]', **more: object) -> Happened:
    messages = [{"id": "1", "role": "user", "content": content}]
    return {"threadId": "t", "runId": "r", "messages": messages, **more}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"runId": "r", "messages": []}, "threadId"),
        (run_input(threadId="a b"), "threadId"),
        (run_input(runId=""), "runId"),
        (run_input(runId="r" * 129), "runId"),
        (run_input(messages=[]), "messages"),
        (run_input(messages=[{"role": "user", "content": "x"}] * 21), "messages"),
        (run_input(messages=[{"role": "assistant", "content": "x"}]), "messages[0].role"),
        (run_input(5), "messages[0].content"),
        (run_input(" "), "messages[0].content"),
        (run_input("a\0b"), "messages[0].content"),
        (run_input([{"type": "image"}]), "messages[0].content[0].source"),
        (run_input(["x"]), "messages[0].content[0]"),
        (run_input(tools=[{"name": "a b"}]), "tools[0].name"),
        (run_input(tools=[{"name": "refund"}]), "tools[0].name"),
        (run_input(tools=[{}]), "tools[0].name"),
        (run_input(messages=[{"role": "tool", "content": "x"}]), "messages[0].toolCallId"),
        (
            run_input(messages=[{"role": "tool", "toolCallId": "x", "content": 1}]),
            "messages[0].content",
        ),
        (run_input(context=[{"value": "x"}]), "context"),
        (run_input(state={"x": 1}), "state"),
        (run_input(forwardedProps={"background": 1}), "forwardedProps.background"),
        (run_input(resume=[{"interruptId": "x", "status": "maybe"}]), "resume[0].status"),
        (run_input(resume=[{"interruptId": "x", "status": "cancelled"}] * 101), "resume"),
    ],
)
def test_a_bad_body_names_its_field(client: httpx2.Client, body: object, field: str) -> None:
    answer = client.post("/v1/ag-ui", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text


def test_a_run_is_answered_once(client: httpx2.Client) -> None:
    body = run_input([{"type": "text", "text": '["Hello."]'}], threadId="once")
    first, second = (events(client.post("/v1/ag-ui/only", json=body)) for _ in range(2))
    assert (first[-1]["result"]["replayed"], second[-1]["result"]["replayed"]) == (False, True)
    assert first[-1]["result"]["turn"] == second[-1]["result"]["turn"]
    assert client.get("/v1/ag-ui").status_code == 405
    assert client.post("/v1/ag-ui/a/b", json=body).status_code == 404
    assert client.post("/v1/ag-ui/a%20b", json=body).status_code == 422


def test_threads_are_the_callers_own(client: httpx2.Client, server: ServerProcess) -> None:
    asked = run_input('[[["refund", {"order": "t", "amount": 50}]], "x"]', threadId="own")
    (interrupt,) = events(client.post("/v1/ag-ui", json=asked))[-1]["outcome"]["interrupts"]
    entry = {"interruptId": interrupt["id"], "status": "resolved", "payload": {"approved": True}}
    body = run_input(threadId="own", runId="r2", resume=[entry])
    with httpx2.Client(base_url=server.url, timeout=20) as other:
        for key in ("sw_max", "sw_eve"):
            answer = other.post("/v1/ag-ui", json=body, headers={"authorization": f"Bearer {key}"})
            assert events(answer)[-1]["code"] == "turn-not-found"
        answer = other.post("/v1/ag-ui", json=body, headers={"authorization": "Bearer wrong"})
        assert answer.status_code == 401
    assert "refunded 50" in client.post("/v1/ag-ui", json=body).text
    again = events(client.post("/v1/ag-ui", json=body))
    assert again[-1]["code"] in ("already-decided", "turn-not-found")


def events(answer: httpx2.Response) -> list[Happened]:
    assert answer.status_code == 200, answer.text
    return frames(answer.content)


def frames(data: bytes) -> list[Happened]:
    return [json.loads(each.removeprefix(b"data: ")) for each in data.split(b"\n\n") if each]


def translated(stream: RunStream, *happened: Event) -> list[Happened]:
    return frames(b"".join(map(stream.take, happened)))


def test_reasoning_and_waiting_are_shown() -> None:
    stream = RunStream("t", "r")
    seen = translated(
        stream,
        TurnQueued("trn_t.1", "slot", 3, 1.5),
        TurnStarted("trn_t.1", "t", True),
        ReasoningDelta("Well"),
        TextDelta("Yes."),
    )
    assert [each["type"] for each in seen] == [
        "RUN_STARTED", "CUSTOM", "REASONING_START", "REASONING_MESSAGE_START",
        "REASONING_MESSAGE_CONTENT", "REASONING_MESSAGE_END", "REASONING_END",
        "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT",
    ]  # fmt: skip
    assert seen[1]["value"] == {"waits_for": "slot", "position": 3, "seconds": 1.5}
    ends = frames(stream.fail(TurnCancelled("The turn was cancelled.")))
    assert [each["type"] for each in ends] == ["TEXT_MESSAGE_END", "RUN_FINISHED"]


def test_a_question_is_an_interrupt_with_its_form() -> None:
    stream = RunStream("t", "r")
    form = {"type": "object", "properties": {"city": {"type": "string"}}}
    question = Question("shops", "Which city?", form, number=2)
    asked = ApprovalRequested("trn_t.1", "c1", "find", "{}", 0.0, kind="input", question=question)
    translated(
        stream, TurnStarted("trn_t.1", "t", True), asked, TurnPaused("trn_t.1", "t", 1, ("c1",))
    )
    (end,) = frames(stream.end())
    (interrupt,) = end["outcome"]["interrupts"]
    assert interrupt["id"] == "trn_t.1/input/2/c1"
    assert (interrupt["reason"], interrupt["message"]) == ("input_required", "Which city?")
    assert interrupt["responseSchema"] == form
