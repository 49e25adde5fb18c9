"""Turns that are followed while they run."""

import asyncio
import gc
import tracemalloc
import weakref
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.errors import Problem, UpstreamFailed
from seawall.events import (
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCalled,
    ToolReturned,
    TurnQueued,
    TurnStarted,
)
from seawall.pipeline.live import FailedTurn, LiveTurn, LiveTurns
from seawall.pipeline.replay import width
from seawall.requests import new_request, session_of, time_of
from seawall.turn import Principal, TurnRequest

ADA = Principal("acme", "ada")


async def _read(live: LiveTurn | FailedTurn, after: int = 0) -> tuple[str, int]:
    text, last = "", after
    async with aclosing(live.follow(after)) as events:
        async for position, event in events:
            assert isinstance(event, TextDelta)
            text += event.text
            last = position
    return text, last


def _start(turns: LiveTurns, request: TurnRequest, pieces: list[str]) -> LiveTurn:
    async def execute(live: LiveTurn) -> None:
        live.owner = ADA
        for piece in pieces:
            await asyncio.sleep(0)
            await live.emit(TextDelta(piece))

    return turns.start(request, execute)


async def test_all_followers_receive_the_same_events() -> None:
    turns = LiveTurns()
    live = _start(turns, new_request("hello"), ["one ", "two ", "three"])
    followers = (_read(live, after) for after in (0, 2, 5, 99))
    heard = list(await asyncio.gather(*followers))
    assert heard == [("one two three", 13), ("e two three", 13), ("wo three", 13), ("", 99)]
    assert await _read(live) == ("one two three", 13)
    assert turns.get(live.id) is None


async def test_waiting_is_shown_in_order_and_only_as_it_is_now() -> None:
    """It has no position, comes before the first event as well, and changes no position."""
    turns = LiveTurns()
    step = asyncio.Event()
    waits = [TurnQueued("t", "slot", position, 1.0) for position in (3, 2, 1)]
    later = TurnQueued("t", "quota", 1, 2.0)

    async def execute(live: LiveTurn) -> None:
        live.owner = ADA
        for each in waits:
            await live.emit(each)
            step.set()
            await asyncio.sleep(0.01)
        live.start_at(2)
        await live.emit(TurnStarted("t", "s", True), later, TextDelta("one "), TextDelta("two"))

    live = turns.start(new_request("hello"), execute)

    async def read(after: int = 0) -> list[tuple[int, Event]]:
        async with aclosing(live.follow(after)) as events:
            return [each async for each in events]

    early = asyncio.create_task(read())
    await step.wait()
    heard = await early
    begin = 1_000_000_000
    assert heard[:3] == [(0, each) for each in waits]
    rest = [(begin + 1, TurnStarted("t", "s", True)), (begin + 1, later)]
    assert heard[3:] == [*rest, (begin + 8, TextDelta("one two"))]
    assert (await read())[1:] == heard[3:], "the late follower hears of the last wait only"
    assert await read(begin + 3) == [(begin + 8, TextDelta("e two"))]
    assert await read(begin + 1) == [(begin + 1, later), (begin + 8, TextDelta("one two"))]


async def test_reasoning_reaches_all_who_follow() -> None:
    """It has no position: every piece is shown once, between the same events, also to the late."""
    turns = LiveTurns()
    begun, go_on = asyncio.Event(), asyncio.Event()
    first: list[Event] = [
        TurnStarted("t", "s", True),
        ReasoningDelta("Let me "),
        ReasoningDelta("see. "),
    ]
    then: list[Event] = [
        TextDelta("one"),
        ReasoningDelta("And "),
        ReasoningDelta("two."),
        TextDelta("two"),
    ]

    async def execute(live: LiveTurn) -> None:
        live.owner = ADA
        for each in first:
            await live.emit(each)
        begun.set()
        await go_on.wait()
        for each in then:
            await live.emit(each)
            await asyncio.sleep(0)

    live = turns.start(new_request("hello"), execute)

    async def read(after: int = 0) -> list[tuple[int, Event]]:
        async with aclosing(live.follow(after)) as events:
            return [each async for each in events]

    early = asyncio.create_task(read())
    await begun.wait()
    await asyncio.sleep(0)
    go_on.set()
    expected = list(zip((1, 1, 1, 4, 4, 4, 7), first + then, strict=True))
    assert await early == expected
    assert await read() == expected
    assert await read(4) == expected[6:], "where a stream broke off, it is not repeated"
    assert await read(2) == [(4, TextDelta("ne")), *expected[4:]]


@pytest.mark.parametrize("background", [False, True])
async def test_a_turn_without_followers_is_cancelled_unless_in_the_background(
    background: bool,
) -> None:
    turns = LiveTurns()
    ended: list[str] = []

    async def execute(live: LiveTurn) -> None:
        live.owner = ADA
        try:
            await live.emit(TextDelta("a"))
            await asyncio.sleep(0.2)
            ended.append("done")
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    live = turns.start(new_request("hello", background=background), execute)

    async def follow_once() -> Event:
        async with aclosing(live.follow()) as events:
            return (await anext(events))[1]

    first, second = follow_once(), follow_once()
    assert list(await asyncio.gather(first, second)) == [TextDelta("a")] * 2
    await live.wait(cancel=False)
    assert ended == ["done" if background else "cancelled"]


async def test_a_failure_is_reported_to_its_owner_later() -> None:
    turns = LiveTurns()

    async def execute(live: LiveTurn) -> None:
        live.owner = ADA
        await live.emit(TextDelta("a"))
        raise UpstreamFailed("The model failed.")

    live = turns.start(new_request("hello", background=True), execute)
    with pytest.raises(UpstreamFailed):
        await _read(live)
    found = turns.find(live.id, ADA)
    assert found is not None
    with pytest.raises(Problem, match="The model failed"):
        await _read(found)
    assert turns.find(live.id, Principal("other", "ada")) is None


async def test_closing_waits_and_then_cancels() -> None:
    turns = LiveTurns()
    quick = _start(turns, new_request("quick", background=True), ["a"])

    async def execute(_: LiveTurn) -> None:
        await asyncio.sleep(60)

    slow = turns.start(new_request("slow", background=True), execute)
    async with asyncio.timeout(5):
        await turns.close(0.2)
    assert (quick.finished, quick.problem, slow.finished) == (True, None, True)
    assert slow.problem is not None


def test_a_turn_id_contains_its_session() -> None:
    request = new_request("hello")
    assert session_of(request.id) == request.session
    assert session_of(new_request("hello", session="a_b-c").id) == "a_b-c"
    assert time_of(request.id) > 1.7e9
    assert [session_of(each) for each in ("", "trn_", "trn_x", "x.y", "trn_.y", "trn_x.")] == [
        None
    ] * 6


class _Large(str):
    """A text of which it can be seen whether it is still referred to."""

    __slots__ = ("__weakref__",)


async def test_only_the_problem_of_a_failed_turn_is_kept() -> None:
    """Neither its events, nor what the frames of its traceback or its causes refer to."""
    turns = LiveTurns()
    referred: list[weakref.ref[_Large]] = []

    async def execute(live: LiveTurn) -> None:
        live.owner = ADA
        read = _Large("x" * (1 << 20))
        referred.append(weakref.ref(read))
        await live.emit(ToolReturned("1", "read", read, failed=False))
        try:
            raise ValueError(read)
        except ValueError as error:
            raise UpstreamFailed("The model failed.") from error

    live = turns.start(new_request("hello", idempotency_key="k"), execute)
    name = live.id
    await live.wait(cancel=False)
    del live
    gc.collect()
    assert [each() for each in referred] == [None]
    found = turns.find(name, ADA)
    assert found is not None
    for _ in range(2):  # however often it is asked for, its traceback does not grow
        with pytest.raises(UpstreamFailed, match="The model failed") as raised:
            await anext(found.follow(7))
        assert raised.value.__cause__ is None


@pytest.mark.parametrize("detail", ["The model failed.", "é" * 1_000_000])
def test_failed_turns_are_bounded_in_bytes_and_time(detail: str) -> None:
    class Loop(asyncio.SelectorEventLoop):
        ahead = 0.0

        def time(self) -> float:
            return super().time() + self.ahead

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        turns = LiveTurns()

        async def fail(live: LiveTurn) -> None:
            live.owner = ADA
            raise UpstreamFailed(detail, field=detail)

        names = []
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(2_000):
            live = turns.start(new_request("hello", idempotency_key="k"), fail)
            names.append(live.id)
            await live.wait(cancel=False)
        del live
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert after - before < 3 << 20
        assert turns.find(names[0], ADA) is None
        assert turns.find(names[-1], ADA) is not None
        loop.ahead = 3_600.0
        assert turns.find(names[-1], ADA) is None

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(scenario())


@given(data=st.data())
def test_a_follower_misses_nothing_however_texts_are_joined(data: st.DataObject) -> None:
    """Pieces are emitted while it reads; it receives each position once, in order."""
    event = st.text(max_size=9).map(TextDelta) | st.just(ToolCalled("1", "t", "{}"))
    rounds = data.draw(st.lists(st.lists(event, max_size=3), max_size=12))
    emitted = [each for events in rounds for each in events]
    total = sum(map(width, emitted))
    after = data.draw(st.integers(0, total))

    async def scenario() -> None:
        turns = LiveTurns()

        async def execute(live: LiveTurn) -> None:
            for events in rounds:
                await live.emit(*events)
                await asyncio.sleep(0)

        live = turns.start(new_request("hello", background=True), execute)
        heard: list[tuple[int, Event]] = []
        async with aclosing(live.follow(after)) as events:
            async for position, each in events:
                heard.append((position, each))
                if data.draw(st.booleans()):
                    await asyncio.sleep(0)
        position = after
        for end, each in heard:
            position += width(each)
            assert end == position
        assert position == total
        text = "".join(each.text if isinstance(each, TextDelta) else "\0" for each in emitted)
        rest = "".join(each.text if isinstance(each, TextDelta) else "\0" for _, each in heard)
        assert rest == text[after:]

    asyncio.run(scenario())
