"""Quirks known of one provider's servers, tested with all adapters: calls, ids, odd formats."""

import json
import re
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from seawall.errors import UpstreamFailed
from seawall.models import Finish, ModelRequest, Progress, Prompt, Text, ToolCalls, ToolSpec
from seawall.models.assembly import Assembly
from seawall.turn import AssistantMessage, Message, ToolCall, ToolMessage, UserMessage
from tests.models.player import Recording
from tests.models.test_contract import TEXTS, answer_to, each_wire, problem_of, text_of
from tests.models.test_oracles import sent
from tests.models.wire import WIRES, Call, Wire, frame, sse

ANTHROPIC, BEDROCK, OPENAI, RESPONSES = WIRES
WHOLE = Call("toolu_1", "find_order", ('{"order": ', '"#W1"}'))
UNFINISHED = ['{"ord', "", '{"order": "#W1"', '{"order": "#W1', '{"order": 1', "[", '"']


@each_wire
@pytest.mark.parametrize("piece", UNFINISHED)
async def test_a_truncated_call_is_unfinished(wire: Wire, piece: str) -> None:
    cut = Call("toolu_2", "cancel_order", (piece,) if piece else ())
    events = await answer_to(wire, Recording(wire.answer(TEXTS[:1], [WHOLE, cut], end="length")))
    asked, finish = events[-2:]
    assert isinstance(asked, ToolCalls)
    assert [each.id for each in asked.calls] == ["toolu_1"]
    assert [(each.id, each.arguments) for each in asked.unfinished] == [("toolu_2", piece)]
    assert isinstance(finish, Finish)
    assert finish.reason == "length"


@each_wire
@pytest.mark.parametrize("piece", ['{"ord', '{"order": 1', "oops"])
async def test_a_call_with_arguments_that_are_no_json_is_unfinished(wire: Wire, piece: str) -> None:
    asked = (
        await answer_to(wire, Recording(wire.answer((), [Call("a", "cancel_order", (piece,))])))
    )[-2]
    assert isinstance(asked, ToolCalls)
    assert (asked.calls, len(asked.unfinished)) == ((), 1)


@each_wire
async def test_a_filtered_answer_has_no_calls(wire: Wire) -> None:
    chunks = wire.answer(("I cannot",), [WHOLE], end="content_filter")
    events = await answer_to(wire, Recording(chunks))
    assert not any(isinstance(each, ToolCalls) for each in events)
    assert isinstance(events[-1], Finish)
    assert events[-1].reason == "content_filter"


@each_wire
async def test_pieces_of_a_call_are_progress(wire: Wire) -> None:
    events = await answer_to(wire, Recording(wire.answer((), [WHOLE]), seconds=0.02))
    assert len([each for each in events if isinstance(each, Progress)]) >= 2


def thinking(wire: Wire) -> bytes:
    if wire is OPENAI:
        return b'data: {"choices": [{"delta": {"reasoning_content": "hm"}}]}\n\n'
    if wire is RESPONSES:
        return sse({"type": "response.reasoning_text.delta", "delta": "hm"})
    if wire is ANTHROPIC:
        delta = {"type": "thinking_delta", "thinking": "hm"}
        return sse({"type": "content_block_delta", "index": 0, "delta": delta})
    reasoning = {"contentBlockIndex": 7, "delta": {"reasoningContent": {"text": "hm"}}}
    return bedrock("contentBlockDelta", reasoning)


def bedrock(kind: str, data: object) -> bytes:
    headers = {":event-type": kind, ":message-type": "event"}
    return frame(headers, json.dumps(data).encode())


@each_wire
async def test_reasoning_is_separate_from_text(wire: Wire) -> None:
    chunks = wire.answer(TEXTS)
    events = await answer_to(
        wire, Recording([*chunks[:1], thinking(wire), thinking(wire), *chunks[1:]])
    )
    thought = [each.reasoning for each in events if isinstance(each, Progress)]
    assert "".join(thought) == "hmhm"
    assert text_of(events) == "".join(TEXTS)


@each_wire
async def test_a_finished_answer_need_not_close_its_body(wire: Wire) -> None:
    events = await answer_to(wire, Recording(wire.answer(TEXTS), hangs=True))
    assert text_of(events) == "".join(TEXTS)


@each_wire
async def test_leading_blanks_wait_for_text(wire: Wire) -> None:
    events = await answer_to(
        wire, Recording(wire.answer(("\n", " ", "Hi", " there")), seconds=0.02)
    )
    texts = [each.text for each in events if isinstance(each, Text)]
    assert texts[0].startswith("\n Hi")
    assert "".join(texts) == "\n Hi there"


ODD_ANTHROPIC: Sequence[dict[str, Any]] = (
    {"type": "message_start", "message": None},
    {"type": "message_start", "message": {"usage": None}},
    {"type": "content_block_start", "index": 0, "content_block": None},
    {"type": "content_block_start", "index": "0", "content_block": {"type": "text", "text": None}},
    {"type": "content_block_delta", "index": 0, "delta": None},
    {"type": "content_block_delta", "index": None, "delta": {"type": "text_delta", "text": None}},
    {"type": "content_block_delta", "index": 0, "delta": {"partial_json": None}},
    {"type": "message_delta", "delta": None, "usage": None},
    {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": None}},
    {"type": "error_of_tomorrow", "error": None},
)
ODD_RESPONSES: Sequence[dict[str, Any]] = (
    {"type": "response.output_item.added", "output_index": None, "item": None},
    {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message"}},
    {"type": "response.output_item.done", "item": {"type": None, "arguments": None}},
    {"type": "response.output_text.delta", "delta": None},
    {"type": "response.output_text.delta", "delta": ""},
    {"type": "response.reasoning_text.delta", "delta": None},
)
ODD_BEDROCK: Sequence[tuple[str, Any]] = (
    ("contentBlockStart", {"contentBlockIndex": None, "start": None}),
    ("contentBlockStart", {"start": {"toolUse": None}}),
    ("contentBlockDelta", {"delta": None}),
    ("contentBlockDelta", {"delta": {"text": None, "toolUse": None, "reasoningContent": None}}),
    ("metadata", {"usage": None}),
    ("metadata", {"usage": {"inputTokens": None, "outputTokens": "many"}}),
    ("contentBlockDelta", None),
    ("contentBlockDelta", "ping"),
)


def odd(wire: Wire) -> list[bytes]:
    plain = [b"data:\n\n", b": keepalive\n\n", b"data: null\n\n", b"data: [1]\n\n"]
    if wire is ANTHROPIC:
        named = [sse(each) for each in ODD_ANTHROPIC]
        return [*named, *(sse(each, named=False) for each in ODD_ANTHROPIC), *plain]
    if wire is RESPONSES:
        return [*(sse(each) for each in ODD_RESPONSES), *plain]
    if wire is BEDROCK:
        return [bedrock(kind, data) for kind, data in ODD_BEDROCK]
    return [*plain, b'data: {"choices": null, "usage": null, "error": null}\n\n']


@each_wire
async def test_null_is_absent_and_non_objects_are_skipped(wire: Wire) -> None:
    chunks = wire.answer(TEXTS)
    events = await answer_to(
        wire, Recording([piece for each in chunks for piece in (*odd(wire), each)])
    )
    assert text_of(events) == "".join(TEXTS)


@pytest.mark.parametrize("wire", [ANTHROPIC, RESPONSES], ids=lambda wire: wire.name)
async def test_events_need_no_name(wire: Wire) -> None:
    nameless = [each[each.index(b"data:") :] for each in wire.answer(TEXTS, [WHOLE])]
    events = await answer_to(wire, Recording(nameless))
    assert text_of(events) == "".join(TEXTS)
    assert isinstance(events[-2], ToolCalls)


@pytest.mark.parametrize("wire", [ANTHROPIC, BEDROCK], ids=lambda wire: wire.name)
async def test_blocks_of_one_index_are_calls_of_their_own(wire: Wire) -> None:
    calls: list[bytes] = []
    for each in ("a", "b"):
        use = {"toolUseId": each, "name": "find_order"}
        if wire is BEDROCK:
            calls.append(bedrock("contentBlockStart", {"start": {"toolUse": use}}))
            piece = {"toolUse": {"input": '{"order": 1}'}}
            calls.append(bedrock("contentBlockDelta", {"delta": piece}))
        else:
            block = {"type": "tool_use", "id": each, "name": "find_order", "input": {"order": 1}}
            calls.append(sse({"type": "content_block_start", "index": 0, "content_block": block}))
    asked = (await answer_to(wire, Recording([*calls, *wire.answer(())])))[-2]
    assert isinstance(asked, ToolCalls)
    assert [(each.id, json.loads(each.arguments)) for each in asked.calls] == [
        ("a", {"order": 1}),
        ("b", {"order": 1}),
    ]


def history(*calls: ToolCall) -> tuple[Message, ...]:
    results = [ToolMessage(each.id, each.name, "found") for each in calls]
    return (UserMessage("Where?"), AssistantMessage("", calls), *results)


FOREIGN = [
    "call_abcdef0123456789",
    "functions.find_order:0",
    "a b/ü",
    "x" * 200,
    "",
    "toolu_1",
    "abcDEF123",
]
RULES = {
    "openai": "[a-zA-Z0-9]{9}",
    "responses": "[a-zA-Z0-9_-]{1,64}",
    "anthropic": "[a-zA-Z0-9_-]{1,64}",
    "bedrock": "[a-zA-Z0-9_-]{1,64}",
}


def ids_in(document: object, names: tuple[str, ...]) -> list[str]:
    """The values under these keys, in the order of the document."""
    if isinstance(document, dict):
        here = [document[name] for name in names if isinstance(document.get(name), str)]
        return [*here, *(i for each in document.values() for i in ids_in(each, names))]
    if isinstance(document, list):
        return [found for each in document for found in ids_in(each, names)]
    return []


@each_wire
async def test_ids_of_other_providers_fit_and_agree(wire: Wire) -> None:
    calls = [ToolCall(each, "find_order", "{}", "elsewhere", '{"x": "sig"}') for each in FOREIGN]
    steps = [part for each in calls for part in history(each)]
    spec = ToolSpec("find_order", "", {"type": "object", "properties": {}})
    request = ModelRequest(Prompt("Be brief.", (spec,)), (*steps, *steps, UserMessage("And?")))
    document: Any = (await sent(wire, request)).document
    keys = ("tool_call_id", "call_id", "tool_use_id", "toolUseId", "id")
    found = ids_in(document, keys)
    assert len(found) == 4 * len(FOREIGN)
    called, answered = found[::2], found[1::2]
    assert called == answered
    assert len(set(called)) == 2 * len(FOREIGN)  # unique, though the conversation repeats them
    assert all(re.fullmatch(RULES[wire.name], each) for each in called)
    assert "sig" not in json.dumps(document)
    assert document == (await sent(wire, request)).document  # the same each time, for prompt caches


@each_wire
async def test_invalid_tool_names_are_replaced(wire: Wire) -> None:
    call = ToolCall("a", "functions.find order?", '{"half')
    request = ModelRequest(Prompt("Be brief."), (*history(call), UserMessage("And?")))
    text = json.dumps((await sent(wire, request)).document)
    assert "functions_find_order_" in text
    assert "functions.find" not in text


POISONED: tuple[Message, ...] = (
    UserMessage("Hello"),
    AssistantMessage(""),
    UserMessage(" "),
    AssistantMessage(" \n"),
    UserMessage("Hello?"),
    *history(ToolCall("a", "find_order", ""))[1:2],
    ToolMessage("a", "find_order", " "),
    UserMessage("And?"),
)


@each_wire
async def test_blanks_of_stored_sessions_are_not_sent(wire: Wire) -> None:
    document: Any = (await sent(wire, ModelRequest(Prompt("  "), POISONED))).document

    def blank(value: object) -> bool:
        if isinstance(value, dict):
            texts = [value[key] for key in ("text", "content", "output") if key in value]
            bare = value.get("role") == "assistant" and not value.get("tool_calls")
            return (
                any(isinstance(each, str) and not each.strip() for each in texts)
                or (bare and value.get("content", "") is None)
                or any(blank(each) for each in value.values())
            )
        return isinstance(value, list) and any(blank(each) for each in value)

    assert not blank(document)


class Piece(msgspec.Struct):
    index: int | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None


def assembled(*pieces: Piece, reason: str = "tool_calls") -> list[tuple[str, str]]:
    assembly = Assembly("test")
    for each in pieces:
        assembly.call(each.index, call_id=each.call_id, name=each.name, arguments=each.arguments)
    assembly.finish(reason)
    asked, _ = assembly.end()
    return [(each.name, each.arguments) for each in asked.calls] if asked is not None else []


@pytest.mark.parametrize(
    ("pieces", "calls"),
    [
        # Interleaved, distinguished by their ids only.
        (
            [
                Piece(0, "a", "f", '{"x":'),
                Piece(0, "b", "g", '{"y":'),
                Piece(0, "a", None, "1}"),
                Piece(0, "b", None, "2}"),
            ],
            [("f", '{"x":1}'), ("g", '{"y":2}')],
        ),
        # Another id for each piece of one call.
        (
            [Piece(0, "a", "f", '{"x":'), Piece(0, "b", None, "1"), Piece(0, "c", None, "}")],
            [("f", '{"x":1}')],
        ),
        (
            [Piece(0, "a", "f", ""), Piece(0, "b", None, '{"x":'), Piece(0, "c", None, "1}")],
            [("f", '{"x":1}')],
        ),
        # The name in each piece.
        (
            [Piece(0, None, "f", '{"x":'), Piece(0, None, "f", "1}")],
            [("f", '{"x":1}')],
        ),
        # A new name, and the same name again, after complete arguments.
        (
            [Piece(0, None, "f", "{}"), Piece(0, None, "g", "{}"), Piece(0, None, "g", "{}")],
            [("f", "{}"), ("g", "{}"), ("g", "{}")],
        ),
        # Calls without arguments.
        (
            [Piece(None, None, "f", ""), Piece(None, None, "g", None)],
            [("f", "{}"), ("g", "{}")],
        ),
        # One id for calls of different indexes.
        (
            [Piece(0, "same", "f", "{}"), Piece(1, "same", "g", "{}")],
            [("f", "{}"), ("g", "{}")],
        ),
        # By their indexes, as documented, in any order.
        (
            [
                Piece(1, "b", "g", "{"),
                Piece(0, "a", "f", "{"),
                Piece(1, arguments="}"),
                Piece(0, arguments="}"),
            ],
            [("g", "{}"), ("f", "{}")],
        ),
        # No name at all: there is nothing to call.
        ([Piece(0, "a", None, "{}")], []),
    ],
)
def test_pieces_are_assembled_to_calls(pieces: list[Piece], calls: list[tuple[str, str]]) -> None:
    assert assembled(*pieces) == calls


def test_generated_ids_are_unique() -> None:
    assembly = Assembly("test")
    for index in range(64):
        assembly.call(index, call_id="same" if index % 2 else None, name="f")
    assembly.finish("stop")
    asked, _ = assembly.end()
    assert asked is not None
    assert len({each.id for each in asked.calls}) == 64


def test_checks_for_complete_arguments_are_bounded() -> None:
    assembly = Assembly("test")
    assembly.call(0, name="f", arguments='{"x": "')
    for _ in range(100_000):
        assembly.call(0, name="f", arguments="}")
    with pytest.raises(UpstreamFailed):
        for _ in range(1 << 20):
            assembly.call(0, name="f", arguments="}")


def finished(reason: str, *later: str) -> str:
    assembly = Assembly("test")
    for each in (reason, *later):
        assembly.finish(each)
    return assembly.end()[1].reason


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["content_filter: RECITATION"], "content_filter"),
        (["FinishReason.MAX_TOKENS"], "length"),
        (["maxTokens"], "length"),
        (["end-turn"], "stop"),
        (["of_tomorrow"], "other"),
        (["length", "stop"], "length"),
        (["stop", "content_filter"], "content_filter"),
        (["null", "stop"], "stop"),
    ],
)
def test_finish_reasons_of_other_servers(words: list[str], reason: str) -> None:
    assert finished(*words) == reason


@pytest.mark.parametrize("word", ["function_call_filter: MALFORMED_FUNCTION_CALL", "Error", "null"])
def test_an_aborted_answer_fails(word: str) -> None:
    with pytest.raises(UpstreamFailed):
        finished(word)


@pytest.mark.parametrize(
    "pieces",
    [
        ("{}", '{"x":1}'),
        ("{}", '{"x"', ":1}"),
        ('{ "x": 1 }', '{"x"', ":1}"),
        ('{"x"', ":1}", '{"x":1}'),
    ],
)
def test_arguments_that_are_sent_twice(pieces: tuple[str, ...]) -> None:
    chunks = [Piece(0, "a", "f", pieces[0]), *(Piece(0, arguments=each) for each in pieces[1:])]
    assert assembled(*chunks) == [("f", '{"x":1}')]


@pytest.mark.parametrize("reason", ["", "of_tomorrow", "length"])
def test_a_call_without_arguments_needs_an_end_that_is_known(reason: str) -> None:
    assert assembled(Piece(0, "a", "f", ""), reason=reason) == []
    assert assembled(Piece(0, "a", "f", "{}"), reason=reason) == [("f", "{}")]


ERRORS = (
    (b'event: error\ndata: {"type": "rate_limit_error", "message": "slow"}\n\n', "throttled"),
    (b'event: error\ndata: {"error": {"type": "overloaded_error"}}\n\n', "throttled"),
    (b'data: {"error": {"code": "invalid_api_key", "message": "no"}}\n\n', "refused"),
    (b"event: error\ndata: upstream connect error\n\n", "failed"),
)


@pytest.mark.parametrize("wire", [ANTHROPIC, OPENAI, RESPONSES], ids=lambda wire: wire.name)
@pytest.mark.parametrize(("error", "kind"), ERRORS)
async def test_errors_in_mid_answer(wire: Wire, error: bytes, kind: str) -> None:
    chunks = wire.answer(TEXTS[:2])
    for ending in (chunks[4:], [b"data: [DONE]\n\n"]):
        problem = await problem_of(wire, Recording([*chunks[:4], error, *ending]))
        assert problem.code == f"upstream-{kind}"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (b'error: {"code": 500, "message": "KV cache is full", "type": "server_error"}', "failed"),
        (b'error: {"code": 429, "message": "no slot", "type": "unavailable_error"}', "throttled"),
        (b'data: {"errors": [{"code": 429, "message": "x"}], "success": false}', "throttled"),
        (b'data: {"choices": [], "x_groq": {"error": "over capacity"}}', "failed"),
        (b'data: {"detail": "Internal error"}', "failed"),
        (b'data: {"text": "NETWORK ERROR", "error_code": 50004}', "failed"),
        (b'data: {"type": "error", "status": 400, "code": "bad"}', "refused"),
    ],
)
async def test_an_error_before_done_fails(error: bytes, kind: str) -> None:
    """llama.cpp's server writes a field of its own, and `[DONE]` behind it."""
    begun = b'data: {"choices": [{"delta": {"content": "All is"}}]}\n\n'
    problem = await problem_of(OPENAI, Recording([begun, error + b"\n\n", b"data: [DONE]\n\n"]))
    assert problem.code == f"upstream-{kind}"


@each_wire
@pytest.mark.parametrize("kind", ["text/event-stream", "text/plain", "application/problem+json"])
@pytest.mark.parametrize("body", [[b"\n", b'{"error": {"code": 429}}'], [b"<html>Log in</html>"]])
async def test_a_document_in_place_of_a_stream_is_logged(
    wire: Wire, kind: str, body: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    played = Recording(body, headers={"content-type": kind}, seconds=0.02)
    code = (await problem_of(wire, played)).code
    assert code == ("upstream-throttled" if len(body) > 1 else "upstream-failed")
    assert "answered 200" in caplog.text
    assert body[-1].decode() in caplog.text


def responses(*events: dict[str, Any]) -> Recording:
    return Recording([sse(each) for each in events])


def message(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": list(parts)}


HELLO = message({"type": "output_text", "text": "Hello"})
REFUSAL = message({"type": "refusal", "refusal": "I cannot."})
DELTA: dict[str, Any] = {"type": "response.output_text.delta", "delta": "Hello"}


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ([{"type": "response.output_item.done", "output_index": 0, "item": HELLO}], "Hello"),
        ([{"type": "response.output_text.done", "text": "Hello"}], "Hello"),
        ([DELTA, {"type": "response.output_text.done", "text": "Hello"}], "Hello"),
        (
            [
                {**DELTA, "output_index": 0},
                {"type": "response.output_item.done", "item": HELLO},
                {"type": "response.output_item.done", "output_index": 1, "item": HELLO},
            ],
            "HelloHello",
        ),
        ([], "Hello"),
        ([{"type": "response.output_item.done", "item": REFUSAL}], "I cannot."),
    ],
)
async def test_responses_that_stream_no_deltas(events: list[dict[str, Any]], text: str) -> None:
    end = {"type": "response.completed", "response": {"status": "completed", "output": [HELLO]}}
    answered = await answer_to(RESPONSES, responses(*events, end))
    assert text_of(answered) == text
    assert isinstance(answered[-1], Finish)
    assert answered[-1].reason == ("content_filter" if "cannot" in text else "stop")


@pytest.mark.parametrize("ids", [{}, {"call_id": None, "id": "fc_1"}, {"call_id": "call_1"}])
@pytest.mark.parametrize("index", [{}, {"output_index": 0}])
async def test_a_call_of_the_responses_api_is_one(
    ids: dict[str, Any], index: dict[str, Any]
) -> None:
    item = {"type": "function_call", "name": "find_order", "arguments": "", **ids}
    whole = {**item, "arguments": '{"order": 1}', "status": "completed"}
    called = "response.function_call_arguments"
    cut = [{"type": "response.output_item.added", **index, "item": item}]
    cut += [
        {"type": "response.output_item.done", **index, "item": {**item, "status": "incomplete"}}
    ]
    for events in (cut[:1], cut):
        asked = (await answer_to(RESPONSES, responses(*events, {"type": "response.completed"})))[-2]
        assert isinstance(asked, ToolCalls)
        assert (asked.calls, len(asked.unfinished)) == ((), 1)
    begun = {"type": "response.output_item.added", **index, "item": item}
    done = {"type": "response.output_item.done", **index, "item": whole}
    end = {"type": "response.completed", "response": {"output": [whole]}}
    for between in (
        [{"type": f"{called}.delta", **index, "delta": '{"order": 1}'}],
        [{"type": f"{called}.done", **index, "arguments": '{"order": 1}'}],
        [],
    ):
        for events in ([begun, *between, done, end], [done, end], [end]):
            asked = (await answer_to(RESPONSES, responses(*events)))[-2]
            assert isinstance(asked, ToolCalls)
            assert [each.arguments for each in asked.calls] == ['{"order": 1}']
            assert not asked.unfinished


@pytest.mark.parametrize("wire", [ANTHROPIC, OPENAI, RESPONSES], ids=lambda wire: wire.name)
@pytest.mark.parametrize("end", [b"", b"\n", b"\r"])
async def test_the_last_event_needs_no_blank_line(wire: Wire, end: bytes) -> None:
    chunks = wire.answer(TEXTS, [WHOLE])
    whole = b"".join(chunks[:-1] if wire is OPENAI else chunks).rstrip() + end
    events = await answer_to(wire, Recording([whole]))
    assert text_of(events) == "".join(TEXTS)
    assert isinstance(events[-2], ToolCalls)
    assert (
        await problem_of(wire, Recording([*chunks[:4], chunks[4].rstrip()[:-4]]))
    ).code == "upstream-failed"
    if wire is OPENAI:
        both = b'data: {"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]}'
        assert text_of(await answer_to(wire, Recording([both]))) == "Hi"
