"""The finish reason of stored turns; events that are not stored."""

import msgspec

from seawall.events import Event, ReasoningDelta, TextDelta, TurnCompleted, TurnStarted
from seawall.pipeline.replay import events_after, replay, width
from seawall.turn import AssistantMessage, ToolCall, TurnRecord, Usage, UserMessage

RECORD = TurnRecord(
    id="trn_s.1",
    number=1,
    created_at=0.0,
    agent="helper",
    intent=None,
    messages=(UserMessage("hello"), AssistantMessage("Once upon")),
    usage=Usage(1, 2, 1),
    finish_reason="length",
)


def test_the_finish_reason_is_stored_with_the_turn() -> None:
    stored = msgspec.json.decode(msgspec.json.encode(RECORD), type=TurnRecord)
    last = list(replay(stored, "s"))[-1]
    assert isinstance(last, TurnCompleted)
    assert last.finish_reason == "length"
    assert b'"finish_reason":"length"' in msgspec.json.encode(last)


def test_older_turns_without_a_finish_reason_count_as_stop() -> None:
    old = msgspec.json.decode(msgspec.json.encode(RECORD))
    del old["finish_reason"]
    stored = msgspec.json.decode(msgspec.json.encode(old), type=TurnRecord)
    last = list(replay(stored, "s"))[-1]
    assert b'"finish_reason":"stop"' in msgspec.json.encode(last)


def test_calls_are_stored_with_their_provider_data() -> None:
    plain, signed = ToolCall("a", "f", "{}"), ToolCall("a", "f", "{}", "here", '{"x":"sig"}')
    assert msgspec.json.encode(plain) == b'{"id":"a","name":"f","arguments":"{}"}'
    assert msgspec.json.decode(msgspec.json.encode(signed), type=ToolCall) == signed


def test_reasoning_does_not_advance_the_position() -> None:
    streamed: list[Event] = [
        TurnStarted("t", "s", True),
        ReasoningDelta("hm"),
        TextDelta("Hi"),
        ReasoningDelta("so"),
        TextDelta(" there"),
    ]
    kept = [event for event in streamed if not isinstance(event, ReasoningDelta)]
    assert sum(map(width, streamed)) == sum(map(width, kept))
    for after in range(10):
        again = [
            each
            for each in events_after(streamed, after)
            if not isinstance(each[1], ReasoningDelta)
        ]
        assert again == list(events_after(kept, after))
