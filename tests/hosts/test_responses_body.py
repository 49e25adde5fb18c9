"""Bodies of the Responses API: whatever is sent is read or refused by name, and nothing is lost."""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.config import ServerSettings
from seawall.errors import InvalidRequest, UnknownAgent
from seawall.hosts.http.chat_body import chat_request, returned_contents
from seawall.hosts.http.responses_body import Asked, ResponsesBody, asked, renamed
from seawall.hosts.http.responses_input import references
from seawall.turn import AssistantMessage, ToolMessage, TurnRequest, UserMessage

SETTINGS = ServerSettings(max_messages=12)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=6)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
kinds = st.sampled_from(
    ["message", "function_call", "function_call_output", "mcp_approval_response", "reasoning",
     "item_reference", "mcp_call", "input_text", "input_image", "input_file", "function", "mcp",
     "allowed_tools", "json_schema", "other"]
)  # fmt: skip
names = st.sampled_from(
    ["role", "content", "call_id", "name", "arguments", "output", "id", "text", "image_url",
     "file_data", "approval_request_id", "approve", "tools", "mode", "parameters", "schema"]
)  # fmt: skip
likely = st.sampled_from(["user", "assistant", "system", "hello", "{}", "c1", "get", True])


def objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(kinds, st.dictionaries(names, st.one_of(likely, values), max_size=5)).map(
        lambda made: {"type": made[0], **made[1]}
    )


items = objects(st.one_of(json_values, st.lists(objects(json_values), max_size=3)))
bodies = st.fixed_dictionaries(
    {
        "model": st.just("auto"),
        "input": st.one_of(st.text(max_size=5), st.lists(items, max_size=6)),
    },
    optional={
        "instructions": st.text(max_size=5),
        "tools": st.lists(items, max_size=3),
        "tool_choice": st.one_of(st.sampled_from(["auto", "none", "required"]), items),
        "text": st.fixed_dictionaries({"format": items}),
        "conversation": st.sampled_from(["c", {"id": "c"}]),
        "store": st.booleans(),
    },
)


@given(bodies)
def test_a_body_is_read_or_refused(given_body: dict[str, Any]) -> None:
    """No value is a defect, and what is named is in the body."""
    read: Asked | None = None
    try:
        body = msgspec.convert(given_body, ResponsesBody)
    except msgspec.ValidationError:
        return
    try:
        references(body.input)
        read = asked(body, SETTINGS, {})
        if read.chat.messages and not read.answers and not returned_contents(read.chat, SETTINGS):
            chat_request(read.chat, session=None, key=None, settings=SETTINGS, instructed=True)
    except (InvalidRequest, UnknownAgent) as problem:
        field = renamed(problem, read).field or ""
        assert re.split(r"[.\[]", field)[0] in given_body, field


def request_of(*given_items: dict[str, Any], **more: Any) -> TurnRequest:
    body = msgspec.convert({"model": "auto", "input": list(given_items), **more}, ResponsesBody)
    read = asked(body, SETTINGS, {})
    return chat_request(read.chat, session=None, key=None, settings=SETTINGS, instructed=True)


texts = st.text("abc", min_size=1, max_size=5)
rounds = st.lists(st.tuples(texts, st.integers(0, 3), texts), min_size=1, max_size=2)


@given(rounds)
def test_a_history_has_all_of_its_items(made: list[tuple[str, int, str]]) -> None:
    """Each call with its result, in the order in which they were sent."""
    sent: list[dict[str, Any]] = []
    expected: list[object] = []
    for number, (question, calls, said) in enumerate(made):
        sent.append({"role": "user", "content": question})
        expected.append(question)
        called = [f"c{number}-{index}" for index in range(calls)]
        for each in called:
            call = {"type": "function_call", "call_id": each, "name": "get", "arguments": "{}"}
            sent += [{"type": "reasoning", "id": "rs_1", "summary": []}, call]
        sent += [
            {"type": "function_call_output", "call_id": each, "output": f"of {each}"}
            for each in called
        ]
        expected += [called, *(f"of {each}" for each in called)] if called else []
        sent.append({"type": "message", "role": "assistant", "content": said})
        expected.append(said)
    if len(sent) + 1 > SETTINGS.max_messages:
        return
    request = request_of(*sent, {"role": "user", "content": "now"})
    seen: list[object] = []
    for message in request.history:
        if isinstance(message, ToolMessage):
            seen.append(message.content)
        elif isinstance(message, AssistantMessage) and message.tool_calls:
            seen.append([each.id for each in message.tool_calls])
        else:
            assert isinstance(message, UserMessage | AssistantMessage)
            seen.append(message.text)
    assert (seen, request.text) == (expected, "now")


def test_calls_of_one_round_after_another_are_two_steps() -> None:
    call = {"type": "function_call", "name": "get", "arguments": "{}"}
    output = {"type": "function_call_output", "output": "x"}
    request = request_of(
        {"role": "user", "content": "a"},
        *(call | {"call_id": "c1"}, output | {"call_id": "c1"}),
        *(call | {"call_id": "c2"}, output | {"call_id": "c2"}),
        {"role": "user", "content": "b"},
    )
    steps = [each for each in request.history if isinstance(each, AssistantMessage)]
    assert [[call.id for call in each.tool_calls] for each in steps] == [["c1"], ["c2"]]


@pytest.mark.parametrize("where", ["instructions", "message"])
def test_instructions_are_options(where: str) -> None:
    hello = {"role": "user", "content": "hi"}
    if where == "instructions":
        request = request_of(hello, instructions="Be brief.")
    else:
        request = request_of({"role": "developer", "content": "Be brief."}, hello)
    assert request.options is not None
    assert request.options.instructions == "Be brief."
    assert request.history == ()
