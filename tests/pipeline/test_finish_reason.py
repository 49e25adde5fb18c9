"""Why an answer ended, from what is stored; and events that are not stored."""

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


def test_it_is_stored_with_the_turn() -> None:
    stored = msgspec.json.decode(msgspec.json.encode(RECORD), type=TurnRecord)
    last = list(replay(stored, "s"))[-1]
    assert isinstance(last, TurnCompleted)
    assert last.finish_reason == "length"
    assert b'"finish_reason":"length"' in msgspec.json.encode(last)


def test_turns_of_before_have_none_and_count_as_ended() -> None:
    old = msgspec.json.decode(msgspec.json.encode(RECORD))
    del old["finish_reason"]
    stored = msgspec.json.decode(msgspec.json.encode(old), type=TurnRecord)
    last = list(replay(stored, "s"))[-1]
    assert b'"finish_reason":"stop"' in msgspec.json.encode(last)


def test_calls_are_stored_with_what_their_provider_wants_back() -> None:
    plain, signed = ToolCall("a", "f", "{}"), ToolCall("a", "f", "{}", "here", '{"x":"sig"}')
    assert msgspec.json.encode(plain) == b'{"id":"a","name":"f","arguments":"{}"}'
    assert msgspec.json.decode(msgspec.json.encode(signed), type=ToolCall) == signed


def test_reasoning_moves_no_position_on() -> None:
    told: list[Event] = [
        TurnStarted("t", "s", True),
        ReasoningDelta("hm"),
        TextDelta("Hi"),
        ReasoningDelta("so"),
        TextDelta(" there"),
    ]
    kept = [event for event in told if not isinstance(event, ReasoningDelta)]
    assert sum(map(width, told)) == sum(map(width, kept))
    for after in range(10):
        again = [
            each for each in events_after(told, after) if not isinstance(each[1], ReasoningDelta)
        ]
        assert again == list(events_after(kept, after))
