"""Contract of the model port: the same scenarios for every adapter."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from itertools import pairwise
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from seawall.errors import DeadlineExceeded, Problem, UpstreamFailed, UpstreamThrottled
from seawall.models import (
    DirectText,
    Finish,
    Model,
    ModelEvent,
    ModelRequest,
    Prompt,
    Text,
    ToolCalls,
)
from seawall.transport.http_client import HttpClient
from seawall.turn import ToolCall, Usage, UserMessage
from tests.models.player import Player, Recording, playing
from tests.models.wire import WIRES, Call, Spent, Wire

T = TypeVar("T")

REQUEST = ModelRequest(Prompt("Be brief."), (UserMessage("Where is my order?"),), 200, 0.5)
TEXTS = ("On its ", "way. ", "Ünïcödé 🚢 ", "\n\ndata: {}\n\n", "Done.")
CALLS = (
    Call("toolu_1", "find_order", ('{"order": "#W1', '23"}')),
    Call("toolu_2", "opening_hours", ('{"city"', ': "Ålesund"', "}")),
    Call("toolu_3", "today", ()),
)

each_wire = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)


class _SinkModel:
    """A model whose text goes to a sink, every third piece of which it does not take."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.warm = model.warm
        self.close = model.close

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        taken: list[Text] = []
        count = 0

        def sink(text: str) -> bool:
            nonlocal count
            count += 1
            if count % 3:
                taken.append(Text(text))
            return count % 3 != 0

        direct = structs.replace(request, sink=DirectText(sink))
        async with aclosing(self._model.stream(direct, deadline=deadline)) as events:
            async for event in events:
                while taken:
                    yield taken.pop(0)
                yield event


class _SinkWire:
    """A wire of which text is passed to a sink."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.name = wire.name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire, name)

    def model(self, url: str, client: HttpClient) -> Model:
        return _SinkModel(self._wire.model(url, client))


each_way = pytest.mark.parametrize(
    "wire",
    [*WIRES, *map(_SinkWire, WIRES)],
    ids=[each.name for each in WIRES] + [f"{each.name}, sink" for each in WIRES],
)


async def ask(
    model: Model, request: ModelRequest = REQUEST, seconds: float = 20
) -> list[ModelEvent]:
    deadline = asyncio.get_running_loop().time() + seconds
    async with aclosing(model.stream(request, deadline=deadline)) as stream:
        return [plain(event) async for event in stream]


def plain(event: ModelEvent) -> ModelEvent:
    """Calls without their origin, which contains the address of the test's server."""
    if not isinstance(event, ToolCalls):
        return event
    calls = tuple(ToolCall(each.id, each.name, each.arguments) for each in event.calls)
    return ToolCalls(calls, event.unfinished)


async def with_model(
    wire: Wire, recording: Recording, do: Callable[[Model, Player, HttpClient], Awaitable[T]]
) -> T:
    async with playing(recording) as player:
        client = HttpClient()
        model = wire.model(player.url, client)
        try:
            return await do(model, player, client)
        finally:
            await model.close()
            await client.close()


async def answer_to(wire: Wire, recording: Recording) -> list[ModelEvent]:
    return await with_model(wire, recording, lambda model, *_: ask(model))


async def problem_of(wire: Wire, recording: Recording) -> Problem:
    with pytest.raises(UpstreamFailed) as raised:
        await answer_to(wire, recording)
    return raised.value


def text_of(events: list[ModelEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


@each_way
async def test_text_usage_and_end(wire: Wire) -> None:
    spent = Spent(read=1_000, written=42, from_cache=700, to_cache=200)
    events = await answer_to(wire, Recording(wire.answer(TEXTS, spent=spent)))
    assert text_of(events) == "".join(TEXTS)
    assert events[-1] == Finish("stop", Usage(1_000, 42, 1, 700, 200))
    assert [type(event) for event in events[:-1]] == [Text] * (len(events) - 1)


@each_wire
@pytest.mark.parametrize("period", [1, 2, 3])
async def test_a_sink_takes_text_in_its_order(wire: Wire, period: int) -> None:
    """Each `period`th piece is refused, and so yielded; what follows may be taken again."""
    words = tuple(f"{number} " for number in range(20))
    seen: list[str] = []
    offered = taken = 0

    def sink(text: str) -> bool:
        nonlocal offered, taken
        offered += 1
        if offered % period == period - 1:
            return False
        taken += 1
        seen.append(text)
        return True

    async def do(model: Model, *_: object) -> list[ModelEvent]:
        events: list[ModelEvent] = []
        deadline = asyncio.get_running_loop().time() + 20
        stream = model.stream(structs.replace(REQUEST, sink=DirectText(sink)), deadline=deadline)
        async with aclosing(stream) as running:
            async for event in running:
                events.append(plain(event))
                if isinstance(event, Text):
                    seen.append(event.text)
        return events

    recording = Recording(wire.answer(words, CALLS), seconds=0.002)
    events = await with_model(wire, recording, do)
    assert "".join(seen) == "".join(words)
    assert bool(taken) == (period > 1)
    assert offered
    assert events[-2:] == (await answer_to(wire, Recording(wire.answer(words, CALLS))))[-2:]


@each_way
async def test_tool_calls_in_parallel_with_text_before_them(wire: Wire) -> None:
    events = await answer_to(wire, Recording(wire.answer(TEXTS[:2], CALLS)))
    assert text_of(events) == "On its way. "
    assert events[-2:] == [
        ToolCalls(
            (
                ToolCall("toolu_1", "find_order", '{"order": "#W123"}'),
                ToolCall("toolu_2", "opening_hours", '{"city": "Ålesund"}'),
                ToolCall("toolu_3", "today", "{}"),
            )
        ),
        Finish("tool_calls", Usage(120, 30, 1)),
    ]


@each_way
@pytest.mark.parametrize("end", ["length", "content_filter"])
async def test_finish_reasons(wire: Wire, end: str) -> None:
    events = await answer_to(wire, Recording(wire.answer(TEXTS[:1], end=end)))
    assert isinstance(events[-1], Finish)
    assert events[-1].reason == end


@each_way
async def test_unknown_events_are_skipped(wire: Wire) -> None:
    chunks = wire.answer(TEXTS, CALLS)
    noisy = [piece for event in chunks for piece in (*wire.noise(), event)]
    assert text_of(await answer_to(wire, Recording(noisy))) == "".join(TEXTS)
    quiet = await answer_to(wire, Recording(chunks))
    assert (await answer_to(wire, Recording(noisy)))[-2:] == quiet[-2:]


@each_wire
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "upstream-refused"),
        (401, "upstream-refused"),
        (403, "upstream-refused"),
        (404, "upstream-refused"),
        (408, "upstream-failed"),
        (424, "upstream-failed"),
        (429, "upstream-throttled"),
        (500, "upstream-failed"),
        (503, "upstream-failed"),
        (529, "upstream-throttled"),
    ],
)
async def test_refusals(wire: Wire, status: int, code: str) -> None:
    body = b'{"error": {"message": "a secret of theirs"}}'
    problem = await problem_of(wire, Recording([body], status, {"retry-after": "7"}))
    assert problem.code == code
    assert "secret" not in problem.detail
    assert str(status) in problem.detail
    if status in (429, 529):
        assert isinstance(problem, UpstreamThrottled)
        assert problem.retry_after == 7


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (way, code)
        for wire in WIRES
        for way in (wire, _SinkWire(wire))
        for code in wire.statuses_in_stream
    ],
    ids=lambda value: value if isinstance(value, str) else f"{type(value).__name__} {value.name}",
)
async def test_errors_in_mid_answer(wire: Wire, code: str) -> None:
    problem = await problem_of(wire, Recording([*wire.answer(TEXTS)[:4], wire.error(code)]))
    assert problem.code == wire.statuses_in_stream[code]
    assert "secret" not in problem.detail


@each_way
async def test_an_answer_that_breaks_off_anywhere_fails(wire: Wire) -> None:
    """Neither a cut connection nor a body that just ends is accepted as an answer."""
    chunks = wire.answer(TEXTS[:2], CALLS[:1])
    ends = 3 if wire.name == "openai" else 2 if wire.name in ("bedrock", "anthropic") else 1
    for count in range(len(chunks) - ends + 1):
        for cut in (True, False):
            problem = await problem_of(wire, Recording(chunks[:count], cut=cut))
            assert problem.code == "upstream-failed"


@each_way
async def test_an_event_in_another_format_fails(wire: Wire) -> None:
    chunks = wire.answer(TEXTS)
    problem = await problem_of(wire, Recording([*chunks[:3], wire.broken(), *chunks[3:]]))
    assert problem.code == "upstream-failed"
    problem = await problem_of(wire, Recording([b"<html>Bad gateway</html>" * 10]))
    assert problem.code == "upstream-failed"


@each_way
async def test_an_endless_answer_is_bounded(wire: Wire) -> None:
    chunks = wire.answer(("x" * 100_000,) * 12)
    assert "more than" in (await problem_of(wire, Recording(chunks))).detail
    many = tuple(Call(f"id_{n}", "today", ()) for n in range(65))
    assert "64 tool calls" in (await problem_of(wire, Recording(wire.answer((), many)))).detail


@each_way
async def test_closing_the_stream_closes_the_connection(wire: Wire) -> None:
    """By closing the generator."""

    async def do(model: Model, player: Player, client: HttpClient) -> None:
        deadline = asyncio.get_running_loop().time() + 20
        stream = model.stream(REQUEST, deadline=deadline)
        assert isinstance(await anext(stream), Text)
        await stream.aclose()
        async with asyncio.timeout(10):
            await player.left.wait()
        assert client.open_streams == 0

    await with_model(wire, Recording(wire.answer(TEXTS)[:6], hangs=True), do)


@each_way
async def test_a_cancelled_task_closes_the_connection(wire: Wire) -> None:
    async def do(model: Model, player: Player, client: HttpClient) -> None:
        task = asyncio.create_task(ask(model))
        async with asyncio.timeout(10):
            await player.requested.wait()
        task.cancel()
        async with asyncio.timeout(10):
            await player.left.wait()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.open_streams == 0

    await with_model(wire, Recording(wire.answer(TEXTS)[:6], hangs=True), do)


@each_way
async def test_a_stream_meets_its_deadline(wire: Wire) -> None:
    async def do(model: Model, player: Player, _: HttpClient) -> None:
        with pytest.raises(DeadlineExceeded):
            await ask(model, seconds=0.2)
        async with asyncio.timeout(10):
            await player.left.wait()

    await with_model(wire, Recording(wire.answer(TEXTS)[:6], hangs=True), do)


@each_way
async def test_the_connection_is_reused(wire: Wire) -> None:
    async def do(model: Model, player: Player, client: HttpClient) -> None:
        await model.warm()
        for _ in range(3):
            await ask(model)
        assert len(player.requests) == 3
        assert client.open_streams == 0

    await with_model(wire, Recording(wire.answer(TEXTS)), do)


@each_wire
async def test_warm_never_raises_for_an_unreachable_model(wire: Wire) -> None:
    client = HttpClient()
    await wire.model("http://127.0.0.1:9", client).warm()
    await client.close()


@each_wire
@given(cuts=st.lists(st.integers(0, 10_000), max_size=30))
def test_bytes_may_be_split_anywhere(wire: Wire, cuts: list[int]) -> None:
    whole = b"".join(wire.answer(TEXTS, CALLS))
    positions = sorted({0, len(whole), *(cut % len(whole) for cut in cuts)})
    pieces = [whole[start:end] for start, end in pairwise(positions)]
    check_pieces(wire, pieces)


@each_wire
def test_byte_by_byte(wire: Wire) -> None:
    whole = b"".join(wire.answer(TEXTS, CALLS))
    check_pieces(wire, [whole[at : at + 1] for at in range(len(whole))])


def check_pieces(wire: Wire, pieces: list[bytes]) -> None:
    reader = wire.reader()
    assert "".join([reader.feed(piece) for piece in pieces]) == "".join(TEXTS)
    calls, finish = reader.end()
    assert calls is not None
    assert [(call.id, call.arguments) for call in calls.calls] == [
        (call.id, "".join(call.pieces) or "{}") for call in CALLS
    ]
    assert finish.usage == Usage(120, 30, 1)
