"""Turns that are followed while they run."""

import asyncio
from contextlib import aclosing

import pytest

from seawall.errors import Problem, UpstreamFailed
from seawall.events import Event, TextDelta
from seawall.pipeline.identifiers import new_request, session_of, time_of
from seawall.pipeline.live import LiveTurn, LiveTurns
from seawall.turn import Principal, TurnRequest

ADA = Principal("acme", "ada")


async def _read(live: LiveTurn, after: int = 0) -> tuple[str, int]:
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


def test_all_who_follow_hear_the_same_from_where_they_began() -> None:
    async def scenario() -> None:
        turns = LiveTurns()
        live = _start(turns, new_request("hello"), ["one ", "two ", "three"])
        followers = (_read(live, after) for after in (0, 2, 5, 99))
        heard = list(await asyncio.gather(*followers))
        assert heard == [("one two three", 13), ("e two three", 13), ("wo three", 13), ("", 99)]
        assert await _read(live) == ("one two three", 13)
        assert turns.running(live.id) is None

    asyncio.run(scenario())


@pytest.mark.parametrize("background", [False, True])
def test_the_last_who_leaves_ends_it_unless_it_is_in_the_background(background: bool) -> None:
    async def scenario() -> None:
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

        async def leave() -> Event:
            async with aclosing(live.follow()) as events:
                return (await anext(events))[1]

        first, second = leave(), leave()
        assert list(await asyncio.gather(first, second)) == [TextDelta("a")] * 2
        await live.wait(cancel=False)
        assert ended == ["done" if background else "cancelled"]

    asyncio.run(scenario())


def test_a_failure_is_told_to_its_owner_also_later() -> None:
    async def scenario() -> None:
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

    asyncio.run(scenario())


def test_closing_waits_and_then_insists() -> None:
    async def scenario() -> None:
        turns = LiveTurns()
        quick = _start(turns, new_request("quick", background=True), ["a"])

        async def execute(_: LiveTurn) -> None:
            await asyncio.sleep(60)

        slow = turns.start(new_request("slow", background=True), execute)
        async with asyncio.timeout(5):
            await turns.close(0.2)
        assert (quick.over, quick.problem, slow.over) == (True, None, True)
        assert slow.problem is not None

    asyncio.run(scenario())


def test_a_turns_id_names_its_session() -> None:
    request = new_request("hello")
    assert session_of(request.id) == request.session
    assert session_of(new_request("hello", session="a_b-c").id) == "a_b-c"
    assert time_of(request.id) > 1.7e9
    assert [session_of(each) for each in ("", "trn_", "trn_x", "x.y", "trn_.y", "trn_x.")] == [
        None
    ] * 6
