"""Tools of clients through chat completions and the turns API, by OpenAI's own client."""

import asyncio
import json
from typing import Any

import pytest
from msgspec import UNSET
from pydantic import BaseModel, Field

from seawall.models import ModelRequest
from seawall.turn import (
    AssistantMessage,
    SessionKey,
    ToolCall,
    ToolMessage,
    TurnRecord,
    UserMessage,
)
from tests.hosts.client_tools import WEATHER, Clients, asking, steps

KIEL = ("weather", {"city": "Kiel"})
ROME = ("weather", {"city": "Rome"})
ORDER = ("look_up", {"order": "#W1"})


def said(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def followed(messages: list[dict[str, Any]], message: Any, *contents: str) -> list[dict[str, Any]]:
    """The conversation with the assistant's message and the results of its calls."""
    returned = [
        {"role": "tool", "tool_call_id": call.id, "content": content}
        for call, content in zip(message.tool_calls, contents, strict=True)
    ]
    return [*messages, message.model_dump(exclude_none=True), *returned]


async def create(clients: Clients, messages: object, name: str = "ann", **more: Any) -> Any:
    more = {"model": "open", "tools": [WEATHER]} | more
    return await clients.openai(name).chat.completions.create(messages=messages, **more)


async def stored(clients: Clients, session: str, subject: str = "ann") -> list[TurnRecord]:
    key = SessionKey("acme", subject, session)
    return list(reversed((await clients.app.engine.store.turns(key, limit=50)).turns))


async def test_a_call_goes_out_and_its_result_continues_the_turn(tmp_path: Any) -> None:
    async with asking(tmp_path) as clients:
        messages = said(steps([KIEL]))
        first = await create(clients, messages)
        choice = first.choices[0]
        (call,) = choice.message.tool_calls
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
        assert (call.function.name, json.loads(call.function.arguments)) == KIEL
        assert [each.name for each in clients.asked.prompt.tools] == ["look_up", "weather"]
        second = await create(clients, followed(messages, choice.message, "sunny"))
        assert second.choices[0].message.content == "Results: sunny"
        assert second.choices[0].finish_reason == "stop"
        assert second.id != first.id  # clients take one id for one message
        (turn,) = await stored(clients, call.id.partition("_ses_")[2].join(("ses_", "")))
        assert turn.status == "completed"
        assert isinstance(turn.messages[2], ToolMessage)


@pytest.mark.parametrize("with_session", [False, True])
async def test_streamed_with_own_calls_beside_and_over_several_rounds(
    tmp_path: Any, with_session: bool
) -> None:
    async with asking(tmp_path) as clients:
        messages = said(steps([KIEL, ORDER, ROME], [ORDER], [ROME, KIEL], text="All. "))
        more: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
        if with_session:
            opened = await create(clients, said("Hello"))
            session = "_".join(opened.id.split("_")[1:]).partition(".")[0]
            more["extra_headers"] = {"seawall-session": session}
        rounds: list[list[str]] = []
        text, used = "", 0
        while True:
            calls: dict[int, dict[str, str]] = {}
            async for chunk in await create(clients, messages, **more):
                used += chunk.usage.completion_tokens if chunk.usage else 0
                if not chunk.choices:
                    continue
                delta, reason = chunk.choices[0].delta, chunk.choices[0].finish_reason
                text += delta.content or ""
                for each in delta.tool_calls or ():
                    made = calls.setdefault(each.index, {"id": "", "name": "", "arguments": ""})
                    made["id"] += each.id or ""
                    made["name"] += each.function.name or ""
                    made["arguments"] += each.function.arguments or ""
            if not calls:
                break
            assert reason == "tool_calls"
            rounds.append([json.loads(each["arguments"])["city"] for each in calls.values()])
            asked: dict[str, Any] = {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": c["id"], "type": "function", "function": {
                        "name": c["name"], "arguments": c["arguments"]}}
                    for c in calls.values()
                ],
            }  # fmt: skip
            results = [
                {"role": "tool", "tool_call_id": c["id"], "content": f"{c['arguments']}!"}
                for c in calls.values()
            ]
            messages = [*messages, asked, *results]
        assert rounds == [["Kiel", "Rome"], ["Rome", "Kiel"]]
        assert clients.looked_up == ["#W1", "#W1"]
        assert text.startswith('All. Results: {"city":"Kiel"}!; #W1 is delivered; ')
        assert reason == "stop"
        # Each answer has the tokens of its own model calls, so that their sum is the turn's.
        of_turn = 3 + 1 + 2 + len(text.split(" "))
        assert used == of_turn
        turns = await stored(clients, _session_of(calls, messages))
        assert len(turns) == (2 if with_session else 1)
        assert turns[-1].usage.completion_tokens == of_turn


def _session_of(_: object, messages: list[dict[str, Any]]) -> str:
    named = next(each["tool_call_id"] for each in messages if each["role"] == "tool")
    return str(named.split("_", 3)[3])


async def test_the_same_results_again_are_answered_the_same(tmp_path: Any) -> None:
    async with asking(tmp_path) as clients:
        messages = said(steps([KIEL], [ROME]))
        first = (await create(clients, messages)).choices[0].message
        returned = followed(messages, first, "sunny")
        second = await create(clients, returned)
        third = await create(clients, followed(returned, second.choices[0].message, "rain"))
        assert third.choices[0].message.content == "Results: sunny; rain"
        asked = len(clients.model.requests)
        again = await create(clients, returned)
        assert again.choices[0].message.tool_calls == second.choices[0].message.tool_calls
        assert (again.id, again.usage) == (second.id, second.usage)
        assert again.choices[0].finish_reason == "tool_calls"
        final = await create(clients, followed(returned, second.choices[0].message, "rain"))
        assert (final.id, final.choices, final.usage) == (third.id, third.choices, third.usage)
        assert len(clients.model.requests) == asked


@pytest.mark.parametrize("stream", [False, True])
async def test_a_retry_gets_what_an_approval_beside_the_call_has_led_to(
    tmp_path: Any, stream: bool
) -> None:
    """As a retry of a turn that paused for approval alone."""
    async with asking(tmp_path) as clients:
        messages = said(steps([KIEL, ("refund", {"order": "#1"})], [ROME]))
        first = await create(clients, messages, model="careful")
        returned = followed(messages, first.choices[0].message, "sunny")
        body = {"model": "careful", "messages": returned, "tools": [WEATHER], "stream": stream}
        waiting = await clients.post("/v1/chat/completions", body)
        assert "This waits for approval: refund" in waiting.text
        path = first.seawall["approvals"][0]["decide"]
        approved = await clients.post(path, {"decision": "approve"})
        assert approved.status_code == 200
        async with asyncio.timeout(10):  # the turn goes on as soon as it is decided
            again = await clients.post("/v1/chat/completions", body)
            while "Rome" not in again.text:
                again = await clients.post("/v1/chat/completions", body)
        assert "This waits for approval" not in again.text
        assert "tool_calls" in again.text
        assert len(await stored(clients, _session_of({}, returned))) == 1


async def test_a_retry_of_the_first_request_gets_the_calls_again(tmp_path: Any) -> None:
    async with asking(tmp_path) as clients:
        messages, headers = said(steps([KIEL])), {"idempotency-key": "k"}
        first = await create(clients, messages, extra_headers=headers)
        await create(clients, followed(messages, first.choices[0].message, "sunny"))
        again = await create(clients, messages, extra_headers=headers)
        assert again.choices == first.choices
        assert again.choices[0].finish_reason == "tool_calls"
        streamed = await create(clients, messages, extra_headers=headers, stream=True)
        chunks = [each async for each in streamed]
        assert chunks[-1].choices[0].finish_reason == "tool_calls"
        assert "Results" not in str(chunks)


async def test_a_conversation_that_the_client_keeps_has_its_calls(tmp_path: Any) -> None:
    async with asking(tmp_path) as clients:
        messages = said(steps([KIEL, ROME]))
        message = (await create(clients, messages)).choices[0].message
        messages = followed(messages, message, "sunny", "rain")
        answer = (await create(clients, messages)).choices[0].message
        messages = [*messages, answer.model_dump(exclude_none=True), *said("And now?")]
        await create(clients, messages)
        user, asked, *returned, answered, last = clients.asked.messages
        assert isinstance(user, UserMessage)
        assert isinstance(asked, AssistantMessage)
        assert [each.id for each in asked.tool_calls] == [each.id for each in message.tool_calls]
        assert [each.content for each in returned if isinstance(each, ToolMessage)] == [
            "sunny", "rain"
        ]  # fmt: skip
        assert [each.call_id for each in returned if isinstance(each, ToolMessage)] == [
            each.id for each in asked.tool_calls
        ]
        assert answered == AssistantMessage("Results: sunny; rain")
        assert last == UserMessage("And now?")


async def test_long_answers_and_results_can_be_sent_back(tmp_path: Any) -> None:
    async with asking(tmp_path) as clients:
        messages = said(steps([KIEL]))
        message = (await create(clients, messages)).choices[0].message
        messages = followed(messages, message, "x" * 32_000)
        answer = (await create(clients, messages)).choices[0].message
        assert len(answer.content) > clients.app.settings.server.max_text_characters
        messages = [*messages, answer.model_dump(exclude_none=True), *said("And now?")]
        assert (await create(clients, messages)).choices[0].message.content == "You said And now?"


CALL: dict[str, Any] = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ASSISTANT = {"role": "assistant", "content": None, "tool_calls": [CALL]}


@pytest.mark.parametrize(
    ("history", "field"),
    [
        ([{"role": "tool", "content": "x", "tool_call_id": "a"}], "messages[0].tool_call_id"),
        ([{"role": "tool", "content": "x"}], "messages[0].tool_call_id"),
        ([ASSISTANT], "messages[0].tool_calls"),
        ([ASSISTANT, ASSISTANT], "messages[0].tool_calls"),
        ([ASSISTANT | {"tool_calls": [CALL, CALL]}], "messages[0].tool_calls[1].id"),
        (
            [ASSISTANT, *[{"role": "tool", "content": "x", "tool_call_id": "a"}] * 2],
            "messages[2].tool_call_id",
        ),
        (
            [ASSISTANT | {"tool_calls": [CALL | {"type": "custom"}]}],
            "messages[0].tool_calls[0].type",
        ),
        ([ASSISTANT | {"tool_calls": [CALL | {"id": "x" * 257}]}], "messages[0].tool_calls[0].id"),
        ([{"role": "function", "content": "x", "name": "f"}], "messages[0].role"),
    ],
)  # fmt: skip
async def test_no_call_is_parted_from_its_result(
    tmp_path: Any, history: list[object], field: str
) -> None:
    async with asking(tmp_path) as clients:
        body = {"model": "open", "messages": [*history, *said("hi")]}
        refused = await clients.post("/v1/chat/completions", body)
        assert (refused.status_code, refused.json()["field"]) == (422, field)
        assert clients.model.requests == []


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f"} | function}


NAMED = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": "closed", "tools": [WEATHER]}, "tools"),
        ({"tools": [tool(name="a b")]}, "tools[0].function.name"),
        ({"tools": [tool(name="x" * 65)]}, "tools[0].function.name"),
        ({"tools": [tool(name="required")]}, "tools[0].function.name"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].function.name"),
        ({"tools": [tool(name="look_up")]}, "tools[0].function.name"),
        ({"tools": [tool(name="hand_off")]}, "tools[0].function.name"),
        ({"model": "front", "tools": [WEATHER, tool(name="look_up")]}, "tools[1].function.name"),
        ({"tools": [tool()] * 129}, "tools"),
        ({"tools": [tool(description="x" * 70_000)]}, "tools"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [tool(parameters={"type": "array"})]}, "tools[0].function.parameters.type"),
        (
            {"tools": [tool(parameters={"properties": []})]},
            "tools[0].function.parameters.properties",
        ),
        (
            {"tools": [tool(parameters={"properties": {"a": {"if": {}}}}, strict=True)]},
            "tools[0].function.parameters.properties.a.if",
        ),
        ({"tools": [tool(parameters={"$ref": "http://x"})]}, "tools[0].function.parameters"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": NAMED}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": NAMED}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": "weather"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "custom"}}, "tool_choice"),
        (
            {
                "tools": [WEATHER],
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [tool()]},
                },
            },
            "tool_choice.allowed_tools.tools[0]",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_wrong_tools_are_refused_by_name(
    tmp_path: Any, body: dict[str, Any], field: str, stream: bool
) -> None:
    async with asking(tmp_path) as clients:
        sent = {"model": "open", "messages": said("hi"), "stream": stream} | body
        refused = await clients.post("/v1/chat/completions", sent)
        assert (refused.status_code, refused.json()["field"]) == (422, field), refused.text
        assert clients.model.requests == []


async def test_a_schema_that_refers_to_itself_often_is_refused_at_once(tmp_path: Any) -> None:
    defs = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    bomb = {"$defs": defs | {"d40": {}}, "properties": {"a": {"$ref": "#/$defs/d0"}}}
    async with asking(tmp_path) as clients, asyncio.timeout(5):
        body = {"model": "open", "messages": said("hi"), "tools": [tool(parameters=bomb)]}
        refused = await clients.post("/v1/chat/completions", body)
        assert (refused.status_code, refused.json()["field"]) == (
            422,
            "tools[0].function.parameters",
        )


def _nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


SAID = {"model": "open", "messages": said("hi")}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", SAID | {"tools": [tool(parameters={"properties": "DEEP"})]}),
        (
            "/v1/chat/completions",
            SAID
            | {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"const": "DEEP"}},
                }
            },
        ),
        (
            "/v1/turns",
            {"agent": "open", "text": "hi", "tools": [{"name": "f", "parameters": {"x": "DEEP"}}]},
        ),
    ],
)
async def test_deep_nesting_is_the_clients_fault(
    tmp_path: Any, path: str, body: dict[str, Any]
) -> None:
    """What was just not too deep to be decoded was too deep to be encoded on a fuller stack."""
    async with asking(tmp_path) as clients:
        headers = {"authorization": "Bearer sw_ann"}
        for levels in (130, *range(900, 1_000, 3), 20_000):
            sent = json.dumps(body).replace('"DEEP"', _nested(levels))
            refused = await clients.http.post(path, content=sent, headers=headers)
            assert refused.status_code == 400, (levels, refused.text)
            assert "nested too deeply" in refused.json()["detail"]
        assert clients.model.requests == []
        text = '[{"' * 300
        taken = await clients.post("/v1/turns", {"text": text, "agent": "open"})
        assert taken.status_code == 200, "brackets in a text are no nesting"


async def test_wrong_results_are_refused_by_name(tmp_path: Any) -> None:
    async with asking(tmp_path) as clients:
        messages = said(steps([KIEL, ROME]))
        message = (await create(clients, messages)).choices[0].message
        right = followed(messages, message, "sunny", "rain")
        call = message.tool_calls[0].id

        async def refused(
            changed: list[dict[str, Any]], name: str = "ann", model: str = "open", **more: str
        ) -> Any:
            body = {"model": model, "messages": changed, "tools": [WEATHER]}
            answer = await clients.post("/v1/chat/completions", body, name, **more)
            return answer.status_code, answer.json().get("field")

        def last(**changed: object) -> list[dict[str, Any]]:
            return [*right[:-1], right[-1] | changed]

        where = "messages[3].tool_call_id"
        assert await refused(right[:-1]) == (422, "messages")  # one is missing
        assert await refused(last(tool_call_id="call_x")) == (404, where)
        unknown = call.replace("call_1", "call_7")
        assert await refused(last(tool_call_id=unknown)) == (404, where)
        assert await refused(last(tool_call_id=call)) == (422, "messages[2].tool_call_id")
        assert await refused(last(content="x" * 32_769)) == (422, "messages[3].content")
        assert await refused(last(content="x\0")) == (422, "messages[3].content")
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        assert await refused(last(content=[image])) == (422, "messages[3].content")
        assert await refused(right, model="nobody") == (404, "model")
        other = (await create(clients, messages)).choices[0].message
        assert await refused(last(tool_call_id=other.tool_calls[0].id)) == (422, where)
        for name in ("bob", "eve"):  # another subject, and that of another tenant
            assert await refused(right, name) == (404, "messages[2].tool_call_id")
        assert await refused(right, seawall_session="ses_other") == (
            422,
            "messages[2].tool_call_id",
        )
        assert (await create(clients, right)).choices[0].message.content == "Results: sunny; rain"
        changed = await refused(last(content="snow"))
        assert changed == (409, "messages[3].content")


async def test_wrong_results_of_user_interfaces_are_refused_by_name(tmp_path: Any) -> None:
    tools = [WEATHER["function"]]
    async with asking(tmp_path) as clients:
        text = {"type": "text", "text": steps([KIEL])}
        asked = {"role": "user", "id": "m", "parts": [text]}
        chat: dict[str, Any] = {"id": "chat", "agent": "open", "messages": [asked], "tools": tools}
        begun = json.loads((await clients.post("/v1/ui/chat", chat)).text.split("\n")[0][6:])
        part = {"type": "dynamic-tool", "toolCallId": "c0.0", "state": "output-available"}

        async def page(*parts: dict[str, Any], name: str = "ann") -> Any:
            message = {"role": "assistant", "id": begun["messageId"], "parts": parts}
            refused = await clients.post("/v1/ui/chat", chat | {"messages": [message]}, name)
            return refused.status_code, refused.json()["field"]

        once, again = part | {"output": "sunny"}, part | {"output": "rain"}
        other = "messages[0].parts[1].toolCallId"
        assert await page(once, again) == (422, other)
        assert await page(part | {"output": "\0"}) == (422, "messages[0].parts[0].output")
        assert await page(once, name="bob") == (404, "messages[0].id")
        decided = {"state": "approval-responded", "approval": {"approved": True}}
        decided["approval"] |= {"id": f"{begun['messageId']}/c0.0"}  # type: ignore[operator]
        named = "messages[0].parts[0].approval.id"
        assert await page(part | decided) == (404, named)
        assert await page(part | decided, name="bob") == (404, named)

        async def run(body: dict[str, Any], name: str = "ann") -> Any:
            message = {"role": "tool", "toolCallId": "c0.0", "content": "sunny"}
            body = {"threadId": "chat", "runId": "r", "messages": [message]} | body
            refused = await clients.post("/v1/ag-ui", body, name)
            problem = json.loads(refused.text.splitlines()[-2][6:])["metadata"]["problem"]
            return problem["status"], problem["field"]

        assert await run({}, "bob") == (404, "threadId")
        resume = {"interruptId": f"{begun['messageId']}/approval/c0.0", "status": "cancelled"}
        assert await run({"resume": [resume]}, "bob") == (404, "resume[0].interruptId")
        message = {"role": "tool", "toolCallId": "c0.0", "content": "\0"}
        assert await run({"messages": [message]}) == (422, "messages[0].content")


async def test_two_answers_at_once(tmp_path: Any) -> None:
    async with asking(tmp_path) as clients:
        messages = said(steps([KIEL]))
        message = (await create(clients, messages)).choices[0].message
        bodies = [
            {"model": "open", "tools": [WEATHER], "messages": followed(messages, message, content)}
            for content in ("sunny", "rain", "sunny", "rain")
        ]
        answers = await asyncio.gather(
            *(clients.post("/v1/chat/completions", each) for each in bodies)
        )
        texts = [
            each.json()["choices"][0]["message"]["content"]
            for each in answers
            if each.status_code == 200
        ]
        assert len(set(texts)) == 1
        assert len(texts) == 2
        assert [each.status_code for each in answers].count(409) == 2
        assert len(clients.model.requests) == 2


async def test_a_message_that_comes_before_the_results(tmp_path: Any) -> None:
    async with asking(tmp_path) as clients:
        message = (await create(clients, said(steps([KIEL])))).choices[0].message
        session = message.tool_calls[0].id.split("_", 3)[3]
        headers = {"seawall-session": session}
        await create(clients, said("Never mind."), extra_headers=headers)
        (result,) = [each for each in clients.asked.messages if isinstance(each, ToolMessage)]
        assert "has not returned" in result.content
        late = await create(clients, followed(said(steps([KIEL])), message, "sunny"))
        assert late.choices[0].message.content == "Results: sunny"
        await create(clients, said("And?"), extra_headers=headers)
        (result,) = [each for each in clients.asked.messages if isinstance(each, ToolMessage)]
        assert result.content == "sunny"


async def test_results_that_come_too_late(tmp_path: Any) -> None:
    async with asking(tmp_path, client_seconds=0.3) as clients:
        messages = said(steps([KIEL, ORDER]))
        answer = await create(clients, messages)
        message = answer.choices[0].message
        session = message.tool_calls[0].id.split("_", 3)[3]
        async with asyncio.timeout(10):
            while (await stored(clients, session))[0].status in ("paused", "open"):  # noqa: ASYNC110 - a scan
                await asyncio.sleep(0.05)
        (turn,) = await stored(clients, session)
        assert turn.status == "interrupted"
        assert turn.journal is not UNSET
        assert "weather" in turn.journal.problem["detail"]
        assert turn.journal.problem["code"] == "client-absent"
        assert len(clients.model.requests) == 1  # no client reads an answer, so no model is asked
        body = {"model": "open", "messages": followed(messages, message, "sunny")}
        late = await clients.post("/v1/chat/completions", body)
        assert (late.status_code, late.json()["field"]) == (409, "messages[2].content")
        further = await create(clients, said("hi"), extra_headers={"seawall-session": session})
        assert further.choices[0].message.content == "You said hi"
        results = [each for each in clients.asked.messages if isinstance(each, ToolMessage)]
        assert [each.failed for each in results] == [True, False]


async def test_the_choice_reaches_the_model_for_the_first_call_of_a_request(tmp_path: Any) -> None:
    async with asking(tmp_path) as clients:
        for choice, wanted in (("required", "required"), (NAMED, "weather")):
            messages = said(steps([ORDER] if wanted == "required" else [KIEL], [ROME]))
            clients.model.requests.clear()
            first = await create(clients, messages, tool_choice=choice)
            while (message := first.choices[0].message).tool_calls:
                messages = followed(messages, message, "sunny")
                first = await create(clients, messages, tool_choice="auto")
            choices = [each.tool_choice for each in clients.model.requests]
            assert choices == [wanted, "auto", "auto"]
        messages = said(steps([KIEL]))
        first = await create(clients, messages, tool_choice="required")
        clients.model.requests.clear()
        raw = await clients.post(
            "/v1/chat/completions",
            {
                "model": "open",
                "tools": [WEATHER],
                "tool_choice": "required",
                "messages": followed(messages, first.choices[0].message, "sunny"),
            },
        )
        assert [each.tool_choice for each in clients.model.requests] == ["required"]
        assert (raw.status_code, raw.json()["code"]) == (502, "invalid-output")


async def test_no_tool_of_the_client_is_called_if_it_says_none(tmp_path: Any) -> None:
    async with asking(tmp_path) as clients:
        answer = await create(clients, said(steps([ORDER])), tool_choice="none")
        assert answer.choices[0].message.content == "Results: #W1 is delivered"
        assert [each.name for each in clients.asked.prompt.tools] == ["look_up"]
        await create(clients, said("hi"), tool_choice="none", model="bare")
        assert (clients.asked.tool_choice, len(clients.asked.prompt.tools)) == ("none", 1)
        await create(
            clients,
            said("hi"),
            model="bare",
            tools=[WEATHER, tool()],
            tool_choice={
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [NAMED]},
            },
        )
        assert [each.name for each in clients.asked.prompt.tools] == ["weather"]


async def test_one_call_at_a_time_if_the_client_says_so(tmp_path: Any) -> None:
    async with asking(tmp_path) as clients:
        more: dict[str, Any] = {"parallel_tool_calls": False}
        messages = said(steps([KIEL, ROME]))
        first = (await create(clients, messages, **more)).choices[0].message
        assert len(first.tool_calls) == 1
        assert not clients.asked.parallel_tool_calls
        second = await create(clients, followed(messages, first, "sunny"), **more)
        assert second.choices[0].message.tool_calls is not None or "sunny" in str(second)


async def test_the_options_of_the_request_with_results_apply_from_there(tmp_path: Any) -> None:
    other = tool(name="other", description="Another.")
    async with asking(tmp_path) as clients:
        messages = said(steps([KIEL], [("other", {})]))
        message = (await create(clients, messages)).choices[0].message
        messages = followed(messages, message, "sunny")
        answer = await create(clients, messages, tools=[other], max_tokens=77)
        assert [each.name for each in clients.asked.prompt.tools] == ["look_up", "other"]
        assert clients.asked.max_tokens == 77
        message = answer.choices[0].message
        assert message.tool_calls[0].function.name == "other"
        messages = followed(messages, message, "done")
        raw = await clients.post("/v1/chat/completions", {"model": "open", "messages": messages})
        assert raw.json()["choices"][0]["message"]["content"] == "Results: sunny; done"
        assert [each.name for each in clients.asked.prompt.tools] == ["look_up"]


async def test_prompts_with_the_same_tools_are_the_same(tmp_path: Any) -> None:
    async with asking(tmp_path) as clients:
        await create(clients, said("hi"))
        first = clients.asked.prompt
        await create(clients, said("hello"))
        assert clients.asked.prompt is first  # an adapter encodes it once
        await create(clients, said("hello"), tools=[tool()])
        assert clients.asked.prompt is not first
        for number in range(40):
            await create(clients, said("hello"), tools=[tool(name=f"f{number}")])
        await create(clients, said("hello"))
        assert clients.asked.prompt is not first  # a bounded number is kept


@pytest.mark.parametrize("given", ['{"city": 5}', '{"town": "Kiel"}', "[]", '{"city"'])
async def test_strict_arguments_are_checked_before_they_go_out(tmp_path: Any, given: str) -> None:
    strict = {"type": "function", "function": WEATHER["function"] | {"strict": True}}  # type: ignore[operator]
    async with asking(tmp_path) as clients:
        answer = await create(clients, said(steps([("weather", given)], [KIEL])), tools=[strict])
        (call,) = answer.choices[0].message.tool_calls
        assert json.loads(call.function.arguments) == {"city": "Kiel"}
        assert isinstance(clients.asked.messages[-1], ToolMessage)
        assert clients.asked.messages[-1].failed
        assert clients.asked.prompt.tools[-1].strict


class Forecast(BaseModel):
    """The weather."""

    city: str
    degrees: float = Field(description="Celsius.")


async def test_parse_and_structured_output_with_tools(tmp_path: Any) -> None:
    import openai  # noqa: PLC0415 - slow to import

    def script(request: ModelRequest) -> str | tuple[ToolCall, ...]:
        if request.tool_choice == "Forecast":
            return (ToolCall("1", "Forecast", '{"city": "Kiel", "degrees": 7}'),)
        if isinstance(request.messages[-1], ToolMessage):
            return '{"city": "Kiel", "degrees": 7.5}'
        return (ToolCall("1", "weather", '{"city": "Kiel"}'),)

    async with asking(tmp_path, script) as clients:
        parse = clients.openai().chat.completions.parse
        parsed = await parse(
            model="open",
            messages=said("Kiel?"),
            tools=[openai.pydantic_function_tool(Forecast)],
            tool_choice={"type": "function", "function": {"name": "Forecast"}},
        )
        (call,) = parsed.choices[0].message.tool_calls
        assert call.function.parsed_arguments == Forecast(city="Kiel", degrees=7)
        strict = {"type": "function", "function": WEATHER["function"] | {"strict": True}}  # type: ignore[operator]
        more: dict[str, Any] = {"model": "open", "tools": [strict], "response_format": Forecast}
        asked = await parse(messages=said("Kiel?"), **more)
        message = asked.choices[0].message
        returned = [
            *said("Kiel?"),
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": message.tool_calls[0].id, "type": "function", "function": {
                    "name": "weather", "arguments": message.tool_calls[0].function.arguments}}]},
            {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "7.5"},
        ]  # fmt: skip
        answered = await parse(messages=returned, **more)
        assert answered.choices[0].message.parsed == Forecast(city="Kiel", degrees=7.5)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("agent", "made"), [("open", "ignored"), ("bare", "appended"), ("strict", "")]
)
async def test_instructions_of_clients_by_policy(
    tmp_path: Any, agent: str, made: str, stream: bool
) -> None:
    messages = [
        {"role": "system", "content": "Speak French."},
        *said("hi"),
        {"role": "assistant", "content": "Hello"},
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        *said("and?"),
    ]
    async with asking(tmp_path) as clients:
        body = {"model": agent, "messages": messages, "stream": stream}
        answer = await clients.post("/v1/chat/completions", body)
        if not made:
            assert (answer.status_code, answer.json()["field"]) == (422, "messages[0].role")
            assert clients.model.requests == []
            return
        assert answer.status_code == 200
        assert answer.headers["seawall-client-instructions"] == made
        shown = clients.asked.prompt.instructions
        assert shown.startswith("Help.")
        assert ("Speak French.\n\nBe brief." in shown) == (made == "appended")
        assert [type(each).__name__ for each in clients.asked.messages] == [
            "UserMessage", "AssistantMessage", "UserMessage"
        ]  # fmt: skip
        plain = await clients.post("/v1/chat/completions", {"model": agent, "messages": said("x")})
        assert "seawall-client-instructions" not in plain.headers
        turn = {"text": "hi", "agent": agent, "instructions": "Be kind.", "stream": stream}
        own = await clients.post("/v1/turns", turn)
        assert own.headers["seawall-client-instructions"] == made
        assert ("Be kind." in clients.asked.prompt.instructions) == (made == "appended")


async def test_the_turns_api_has_it_all(tmp_path: Any) -> None:
    async with asking(tmp_path) as clients:
        definition = WEATHER["function"]
        body = {
            "text": steps([KIEL, ORDER, ROME]),
            "agent": "open",
            "tools": [definition],
            "tool_choice": "weather",
        }
        paused = await clients.post("/v1/turns", body)
        assert (paused.status_code, paused.json()["approvals"]) == (202, [])
        assert clients.asked.tool_choice == "weather"
        first, second = paused.json()["client_calls"]
        assert (first["tool"], json.loads(first["arguments"])) == KIEL
        for name in ("bob", "eve"):
            other = await clients.post(first["return"], {"content": "x"}, name)
            assert (other.status_code, other.json()["code"]) == (404, "turn-not-found")
        wrong = await clients.post(first["return"], {"content": 5})
        assert (wrong.status_code, wrong.json()["field"]) == (422, "content")
        long = await clients.post(first["return"], {"content": "x" * 40_000})
        assert (long.status_code, long.json()["field"]) == (422, "content")
        missing = await clients.post(first["return"] + "x", {"content": "x"})
        assert (missing.status_code, missing.json()["code"]) == (404, "turn-not-found")
        failed = {"content": "no network", "failed": True}
        for _ in range(2):  # the same again changes nothing
            answer = await clients.post(second["return"], failed)
            assert answer.status_code == 200, answer.text
        changed = await clients.post(second["return"], {"content": "other"})
        assert (changed.status_code, changed.json()["code"]) == (409, "already-decided")
        last = await clients.post(first["return"], {"content": "sunny"})
        headers = {"authorization": "Bearer sw_ann", "last-event-id": "0"}
        async with asyncio.timeout(10):
            shown = await clients.http.get(last.json()["events"], headers=headers)
        assert "Results: sunny; #W1 is delivered; !no network" in shown.text
        called = [each for each in shown.text.splitlines() if '"type":"tool.called"' in each]
        assert ['"by_client":true' in each for each in called] == [True, False, True]


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"tools": [{"name": "f", "kind": "x"}]}, "tools[0].kind"),
        ({"tools": [{"description": "x"}]}, "tools[0].name"),
        ({"tools": [{"name": 5}]}, "tools[0].name"),
        ({"tools": [{"name": "look_up"}]}, "tools[0].name"),
        ({"tools": [{"name": "f"}], "tool_choice": "g"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"instructions": "\0x"}, "instructions"),
        ({"instructions": "x", "agent": "strict"}, "instructions"),
    ],
)
async def test_the_turns_api_refuses_by_name(
    tmp_path: Any, more: dict[str, Any], field: str
) -> None:
    async with asking(tmp_path) as clients:
        refused = await clients.post("/v1/turns", {"text": "hi", "agent": "open"} | more)
        assert (refused.status_code, refused.json()["field"]) == (422, field), refused.text


async def test_an_agent_that_takes_over_has_the_tools_if_it_takes_them(tmp_path: Any) -> None:
    over = ("hand_off", {"agent": "open"})
    async with asking(tmp_path) as clients:
        messages = said(steps([over], [KIEL]))
        answer = await create(clients, messages, model="front")
        assert [each.name for each in clients.asked.prompt.tools] == ["look_up", "weather"]
        message = answer.choices[0].message
        done = await create(clients, followed(messages, message, "sunny"), model="front")
        assert done.choices[0].message.content == "Results: open; sunny"
