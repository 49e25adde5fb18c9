import msgspec
from hypothesis import given
from hypothesis import strategies as st

from seawall.agents.window import (
    Summary,
    Window,
    WindowBound,
    history_window,
    leaving,
    moved,
    notes_of_tools,
    stored_notes,
    stored_window,
    summary_messages,
    turn_tokens,
    with_summary,
)
from seawall.turn import (
    AssistantMessage,
    Message,
    ToolCall,
    ToolMessage,
    TurnRecord,
    Usage,
    UserMessage,
)


def _record(number: int, size: int, *, calls: bool = False) -> TurnRecord:
    called = (
        AssistantMessage("", (ToolCall(f"c{number}", "look_up", "{}"),)),
        ToolMessage(f"c{number}", "look_up", "found"),
    )
    return TurnRecord(
        id=f"t{number}",
        number=number,
        created_at=0.0,
        agent="a",
        intent=None,
        messages=(
            UserMessage(f"{number}:" + "x" * size),
            *(called if calls else ()),
            AssistantMessage("y"),
        ),
        usage=Usage(),
    )


sizes = st.lists(st.tuples(st.integers(0, 600), st.booleans()), min_size=1, max_size=40)
bounds = st.builds(WindowBound, st.integers(0, 12), st.integers(0, 500))


@given(sizes, bounds)
def test_the_window_drops_whole_turns_from_the_front_in_blocks(
    turns: list[tuple[int, bool]], bound: WindowBound
) -> None:
    session: list[TurnRecord] = []
    window = Window()
    before: tuple[Message, ...] = ()
    for number, (size, calls) in enumerate(turns, 1):
        session.append(_record(number, size, calls=calls))
        loaded = session[-max(1, bound.turns) :]
        following = moved(window, loaded, bound)
        messages = history_window(loaded, following.start)
        shown = [each for each in loaded if each.number >= following.start]
        # Within the bound, and of whole turns up to the newest: every call has its result.
        assert len(shown) <= bound.turns
        assert sum(map(turn_tokens, shown)) <= bound.tokens
        assert messages == tuple(message for each in shown for message in each.messages)
        called = [
            call.id
            for each in messages
            if isinstance(each, AssistantMessage)
            for call in each.tool_calls
        ]
        assert called == [each.call_id for each in messages if isinstance(each, ToolMessage)]
        if following.start == window.start:  # what was sent before is the beginning of this
            assert messages[: len(before)] == before
        else:
            assert following.start > window.start
            half = len(shown) <= bound.turns / 2
            assert len(shown) <= 1 or (half and sum(map(turn_tokens, shown)) <= bound.tokens / 2)
        # Whoever loads the session decides the same.
        notes = stored_notes({"basket": "7"}, following)
        assert notes_of_tools(notes) == {"basket": "7"}
        assert stored_window(notes) == following
        assert moved(following, loaded, bound) == following
        window, before = following, messages


@given(sizes, bounds)
def test_what_will_leave_the_window_is_known_before_it_does(
    turns: list[tuple[int, bool]], bound: WindowBound
) -> None:
    session = [_record(n, size, calls=calls) for n, (size, calls) in enumerate(turns, 1)]
    window = moved(Window(), session, bound)
    last = leaving(window, session, bound)
    assert 0 <= last <= session[-1].number
    if window.start > 1:
        assert last == window.start - 1
    if last:
        covered = with_summary(window, Summary(last, "all of it"))
        shown = covered.summary if window.start > 1 else covered.ready
        assert shown is not None
        assert leaving(covered, session, bound) in {0, *range(last + 1, len(session) + 1)}
        # The prefix stays until the window is full; then the summary takes the place of its turns.
        assert moved(covered, session, bound).start == covered.start


@given(sizes, bounds)
def test_no_turn_is_lost_where_each_summary_is_in_time(
    turns: list[tuple[int, bool]], bound: WindowBound
) -> None:
    session: list[TurnRecord] = []
    window = Window()
    for number, (size, calls) in enumerate(turns, 1):
        session.append(_record(number, size, calls=calls))
        loaded = session[-max(1, bound.turns) :]
        window = moved(window, loaded, bound)
        shown = [each for each in loaded if each.number >= window.start]
        assert sum(map(turn_tokens, shown)) <= bound.tokens
        assert (window.summary.through if window.summary else 0) < window.start
        last = leaving(window, loaded, bound)
        if last:
            window = with_summary(window, Summary(last, f"until {last}"))
        covered = window.summary.through if window.summary else 0
        assert covered == window.start - 1
        text = msgspec.json.encode(summary_messages(window)).decode()
        assert (f"until {covered}" in text) == bool(covered)


def test_a_steady_conversation_keeps_its_prefix_for_half_a_window() -> None:
    bound, window, starts = WindowBound(20, 100_000), Window(), list[int]()
    session = [_record(number, 100) for number in range(1, 201)]
    for count in range(1, 201):
        window = moved(window, session[max(0, count - 20) : count], bound)
        starts.append(window.start)
    assert starts[:20] == [1] * 20
    assert len(set(starts)) == 18  # it moved 17 times, where it used to move 180 times


def test_notes_of_an_older_version_are_no_window() -> None:
    assert stored_window({"seawall.window": "text of a tool"}) == Window()
    assert stored_notes({"seawall.window": "x", "a": "b"}, Window()) == {"a": "b"}
