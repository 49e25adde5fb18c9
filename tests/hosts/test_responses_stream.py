"""Streams of the Responses API, against the types of two clients and of the open specification."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.errors import TurnCancelled, UpstreamFailed
from seawall.events import (
    AgentSelected,
    ApprovalRequested,
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCalled,
    ToolReturned,
    TurnCompleted,
    TurnPaused,
    TurnQueued,
    TurnResumed,
    TurnStarted,
    UsageReported,
)
from seawall.hosts.http.responses_body import DEFAULTS
from seawall.hosts.http.responses_ids import ResponseKey, response_key, turn_key, turn_of_item
from seawall.hosts.http.responses_stream import DONE, ResponseStream
from seawall.pipeline.replay import attempt_offset
from seawall.turn import Usage

TURN = "trn_ses_1.abc"
KEY = ResponseKey(TURN)
STARTED = TurnStarted(TURN, "ses_1", new=True)
SELECTED = AgentSelected("orders", "requested")
USED = UsageReported(Usage(10, 5, 2, 4, 1))
PAUSED = TurnPaused(TURN, "ses_1", 1, ("c1",), Usage(7, 3, 1))
Sent = list[dict[str, Any]]


def completed(reason: str = "stop") -> TurnCompleted:
    return TurnCompleted(TURN, "ses_1", 1, "orders", False, {}, finish_reason=reason)


def requested(kind: str, role: str | None = None) -> ApprovalRequested:
    effect = f"{TURN}.1" if kind == "client" else ""
    return ApprovalRequested(TURN, "c1", "refund", "{}", 2e9, role, kind, None, effect)


def stream(
    events: Iterable[Event], *, after: int = -1, key: ResponseKey = KEY, **options: Any
) -> tuple[bytes, ResponseStream]:
    made = ResponseStream(key, DEFAULTS | options, own={"refund", "look"}, after=after)
    frames = b""
    for each in events:
        if isinstance(each, TurnQueued):
            frames += made.queue(each)
        else:
            frames += made.begin() if isinstance(each, TurnStarted) else made.take(each)
    return frames, made


def parsed(frames: bytes) -> Sent:
    """The events of a stream; each has its type as name, and numbers only grow."""
    sent = []
    for frame in frames.removesuffix(DONE).decode().split("\n\n")[:-1]:
        if frame.startswith(":"):
            continue
        name, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        sent.append(event)
    numbers = [each["sequence_number"] for each in sent]
    assert numbers == sorted(set(numbers))
    return sent


def whole(events: Sequence[Event], **options: Any) -> Sent:
    frames, made = stream(events, **options)
    return parsed(frames + made.end())


def check_types(sent: Sent) -> None:
    """Check events against the types of OpenAI's client, strictly."""
    import openai.types.responses as official  # noqa: PLC0415 - slow to import
    from pydantic import TypeAdapter  # noqa: PLC0415 - likewise

    adapter: TypeAdapter[Any] = TypeAdapter(official.ResponseStreamEvent)
    for each in sent:
        adapter.validate_python(each)


def check_open_types(sent: Sent) -> None:
    """Check events against types that were generated from the open specification."""
    import openresponses_types.types as spec  # noqa: PLC0415 - slow to import

    kinds = {
        next(iter(kind.model_fields["type"].annotation)).value: kind
        for name, kind in vars(spec).items()
        if name.endswith("StreamingEvent")
    }
    for each in sent:
        kinds[each["type"]].model_validate(each)


TEXTS = (STARTED, SELECTED, TextDelta("Hel"), TextDelta("lo"), USED, completed())
CALLS = (STARTED, SELECTED, ToolCalled("c1", "get", "{}"), requested("client"), PAUSED)
OWN = (
    STARTED,
    SELECTED,
    TextDelta("Let me look."),
    ToolCalled("c1", "look", '{"at":1}'),
    ToolReturned("c1", "look", "seen", False),
    ToolCalled("c2", "refund", "{}"),
    ToolReturned("c2", "refund", "No.", True),
    TextDelta("Done."),
    USED,
    completed(),
)
APPROVAL = (STARTED, SELECTED, ToolCalled("c1", "refund", "{}"), requested("approval"), PAUSED)
THOUGHT = (STARTED, SELECTED, ReasoningDelta("Hm"), ReasoningDelta("m."), *TEXTS[2:])
QUEUED = (TurnQueued(TURN, "slot", 2, 1.0), TurnQueued(TURN, "slot", 1, 0.5), *TEXTS)


@pytest.mark.parametrize("events", [TEXTS, CALLS, OWN, APPROVAL, THOUGHT, QUEUED])
def test_events_are_of_the_client_s_types(events: Sequence[Event]) -> None:
    check_types(whole(events))


@pytest.mark.parametrize("events", [TEXTS, CALLS, THOUGHT, QUEUED])
def test_events_are_of_the_open_specification(events: Sequence[Event]) -> None:
    check_open_types(whole(events))


def test_a_text_is_one_item() -> None:
    assert [each["type"].removeprefix("response.") for each in whole(TEXTS)] == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta",
        "output_text.delta", "output_text.done", "content_part.done", "output_item.done",
        "completed",
    ]  # fmt: skip


def test_own_calls_are_items_that_no_client_runs() -> None:
    sent = whole(OWN)
    added_up = [each["item"] for each in sent if each["type"] == "response.output_item.done"]
    final = sent[-1]["response"]["output"]
    assert final == added_up
    assert [each["type"] for each in final] == ["message", "mcp_call", "mcp_call", "message"]
    assert (final[1]["output"], final[1]["error"]) == ("seen", None)
    assert (final[2]["output"], final[2]["status"]) == (None, "failed")
    assert final[2]["error"]["content"] == [{"type": "text", "text": "No."}]


def test_a_call_of_the_client_s_tool_completes_the_response() -> None:
    final = whole(CALLS)[-1]["response"]
    (call,) = final["output"]
    assert (final["status"], call["type"], call["arguments"]) == (
        "completed", "function_call", "{}",
    )  # fmt: skip
    assert call["call_id"] == "call_1_abc_ses_1"
    assert final["usage"]["input_tokens"] == 7


def test_an_approval_is_explained_and_requested() -> None:
    final = whole(APPROVAL)[-1]["response"]
    said, asked = final["output"]
    assert said["content"][0]["text"].startswith("This waits for approval: refund (decide at /v1/")
    assert (asked["type"], asked["name"]) == ("mcp_approval_request", "refund")
    assert final["seawall"]["status"] == "paused"


@pytest.mark.parametrize(
    ("kind", "role", "said"),
    [("approval", "manager", "This waits for approval"), ("person", None, "A person has this")],
)
def test_what_others_decide_is_explained(kind: str, role: str | None, said: str) -> None:
    (item,) = whole((STARTED, SELECTED, requested(kind, role), PAUSED))[-1]["response"]["output"]
    assert item["content"][0]["text"].startswith(said)


def test_nothing_follows_a_pause() -> None:
    later = (*CALLS, AgentSelected("other", "handoff"), TextDelta("later"), USED, completed())
    assert whole(later) == whole(CALLS)


@pytest.mark.parametrize(
    ("reason", "named"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_answer_that_was_cut_off_is_incomplete(reason: str, named: str) -> None:
    sent = whole((*TEXTS[:-1], completed(reason)))
    assert sent[-1]["type"] == "response.incomplete"
    final = sent[-1]["response"]
    assert (final["status"], final["incomplete_details"]) == ("incomplete", {"reason": named})
    assert final["completed_at"] is None
    check_types(sent)


def test_a_failure_closes_what_was_open() -> None:
    frames, made = stream(TEXTS[:3])
    sent = parsed(frames + made.fail(UpstreamFailed("It broke.")))
    final = sent[-1]["response"]
    assert (sent[-1]["type"], final["status"]) == ("response.failed", "failed")
    assert final["error"] == {"code": "upstream-failed", "message": "It broke."}
    assert final["output"][0]["status"] == "incomplete"
    frames, made = stream(TEXTS[:3])
    cancelled = parsed(frames + made.fail(TurnCancelled("Enough.")))[-1]["response"]
    assert (cancelled["status"], cancelled["error"]) == ("cancelled", None)


def test_tokens_are_of_this_response() -> None:
    made = ResponseStream(KEY, DEFAULTS, own=(), before=Usage(4, 1, 1, 4, 0))
    made.begin()
    for each in TEXTS[1:]:
        made.take(each)
    made.end()
    assert made.response()["usage"] == {
        "input_tokens": 6,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 1},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 10,
    }


def test_what_follows_an_interruption_is_not_taken_for_what_was_known() -> None:
    cut_off, again = (TextDelta("One two thr"),), (TextDelta("Another text."),)
    resumed = TurnResumed(TURN, 2, 30)
    known = parsed(stream((STARTED, SELECTED, *OWN[3:5], *cut_off))[0])[-1]["sequence_number"]
    events = (STARTED, SELECTED, *OWN[3:5], resumed, *again, USED, completed())
    frames, made = stream(events, after=known)
    rest = parsed(frames + made.end())
    assert "".join(each.get("delta", "") for each in rest) == "Another text."
    made = ResponseStream(KEY, DEFAULTS, own=(), after=known)  # run again from its beginning
    frames = made.begin(first=attempt_offset(2)) + made.take(again[0])
    assert [each["type"] for each in parsed(frames)][:2] == [
        "response.created", "response.in_progress",
    ]  # fmt: skip


def test_a_continuation_is_numbered_from_its_beginning() -> None:
    frames, made = stream((STARTED, TurnResumed(TURN, 2, 5), *TEXTS[2:]))
    assert parsed(frames + made.end()) == whole((STARTED, *TEXTS[2:]))


texts = st.text(min_size=1, max_size=6)
steps = st.lists(
    st.one_of(
        st.lists(texts, min_size=1, max_size=4),
        st.sampled_from(["look", "refund"]),
    ),
    max_size=5,
)


def events_of(made: list[list[str] | str], *, joined: bool, queued: bool) -> list[Event]:
    events: list[Event] = [TurnQueued(TURN, "slot", 1, 1.0)] if queued else []
    events += [STARTED, SELECTED]
    for index, step in enumerate(made):
        if isinstance(step, str):
            events.append(ToolCalled(f"c{index}", step, "{}"))
            events.append(ToolReturned(f"c{index}", step, "x", False))
        else:
            events += map(TextDelta, ["".join(step)] if joined else step)
    return [*events, USED, completed()]


def received(sent: Sent) -> tuple[str, list[str]]:
    """The text of the pieces, and the other events; "queued" comes only to a stream that waited."""
    text = "".join(e["delta"] for e in sent if e["type"] == "response.output_text.delta")
    others = ("response.output_text.delta", "response.queued", "response.created")
    return text, [json.dumps(e, sort_keys=True) for e in sent if e["type"] not in others]


@given(steps, st.booleans(), st.data())
def test_a_stream_is_resumed_anywhere(
    made: list[list[str] | str], queued: bool, data: st.DataObject
) -> None:
    """Whatever pieces the text came in, and comes in again."""
    first = whole(events_of(made, joined=False, queued=queued))
    known = data.draw(st.integers(0, len(first) - 1))
    after = first[known]["sequence_number"]
    frames, again = stream(events_of(made, joined=True, queued=False), after=after)
    rest = parsed(frames + again.end())
    assert all(each["sequence_number"] > after for each in rest)
    before_text, before = received(first[: known + 1])
    rest_text, others = received(rest)
    all_text, everything = received(first)
    assert before_text + rest_text == all_text
    if known > 0 or not queued:
        assert before + others == everything


@given(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True), st.just(0) | st.integers(2, 99_999))
def test_an_id_names_turn_and_attempt(session: str, attempt: int) -> None:
    key = ResponseKey(f"trn_{session}.0a1b", attempt)
    assert response_key(key.id) == key
    assert turn_of_item(f"msg_{key.suffix}-12") == key.turn
    if attempt:
        assert turn_key(key.turn, attempt_offset(attempt)) == key
