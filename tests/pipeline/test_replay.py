"""Events replayed from a stored turn, and resumed at any position."""

from hypothesis import given
from hypothesis import strategies as st

from seawall.agents import HAND_OFF
from seawall.events import AgentSelected, Event, TextDelta, ToolReturned, TurnCompleted, TurnStarted
from seawall.pipeline.replay import events_after, replay, width
from seawall.turn import (
    AssistantMessage,
    Message,
    Source,
    ToolCall,
    ToolMessage,
    TurnRecord,
    Usage,
    UserMessage,
)

names = st.sampled_from(["find", "cancel", HAND_OFF])


sources = st.sampled_from([(), (Source("Page", url="https://shop.example"),)])


@st.composite
def records(draw: st.DrawFn) -> TurnRecord:
    """A turn of some steps with tools, and an answer."""
    messages: list[Message] = [UserMessage("hello")]
    for step in range(draw(st.integers(0, 3))):
        calls = tuple(
            ToolCall(f"{step}.{index}", name, "{}")
            for index, name in enumerate(draw(st.lists(names, min_size=1, max_size=3)))
        )
        messages.append(AssistantMessage(draw(st.text(max_size=5)), calls))
        messages += [
            ToolMessage(call.id, call.name, "refunds", draw(st.booleans()), sources=draw(sources))
            for call in calls
        ]
    messages.append(AssistantMessage(draw(st.text(min_size=1, max_size=20))))
    return TurnRecord(
        id="trn_s.1",
        number=draw(st.integers(1, 3)),
        created_at=0.0,
        agent="refunds",
        intent=draw(st.sampled_from([None, "refund"])),
        messages=tuple(messages),
        usage=Usage(1, 2, 1),
        first_agent="shop",
    )


def _emitted(events: list[Event]) -> tuple[str, list[Event]]:
    """The text, and everything else in order."""
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    return text, [event for event in events if not isinstance(event, TextDelta)]


@given(records(), st.data())
def test_a_stream_resumes_at_any_position(record: TurnRecord, data: st.DataObject) -> None:
    """However a stream was cut and wherever it broke off: nothing twice, nothing lost."""
    whole = list(replay(record, "s"))
    length = sum(map(width, whole))
    returned = [each.sources for each in whole if isinstance(each, ToolReturned)]
    stored = [each.sources for each in record.messages if isinstance(each, ToolMessage)]
    assert returned == stored
    broke_off = data.draw(st.integers(0, length))
    pieces: list[Event] = []
    for event in whole:
        if isinstance(event, TextDelta):
            pieces += [TextDelta(character) for character in event.text]
        else:
            pieces.append(event)
    assert sum(map(width, pieces)) == length
    got = pieces[:broke_off]  # every piece is of width one
    rest = list(events_after(iter(whole), broke_off))
    assert _emitted([*got, *(event for _, event in rest)]) == _emitted(whole)
    positions = [position for position, _ in rest]
    assert positions == sorted(set(positions))
    assert not rest or positions[-1] == length


@given(records())
def test_a_replay_begins_and_ends_like_the_turn(record: TurnRecord) -> None:
    events = list(replay(record, "s"))
    assert events[0] == TurnStarted(record.id, "s", record.number == 1)
    last = events[-1]
    assert isinstance(last, TurnCompleted)
    assert (last.version, last.replayed) == (record.number, True)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == record.answer
    selected = [event for event in events if isinstance(event, AgentSelected)]
    assert selected[0].agent == "shop"
    assert all(event.reason == "handoff" for event in selected[1:])
