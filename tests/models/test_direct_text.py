"""Text that goes to a sink: the same answer, whatever connection, reader and sink do."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import cycle, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct, structs

from seawall.errors import DeadlineExceeded, Problem
from seawall.models import (
    CHARACTERS_PER_TOKEN,
    DirectText,
    Finish,
    Model,
    ModelEvent,
    ModelRequest,
    Progress,
    Prompt,
    Text,
    ToolCalls,
)
from seawall.models.metering import MeteredModel
from seawall.models.resilient import ResilientModel
from seawall.models.upstream import Upstream
from seawall.settings import ResilienceSettings
from seawall.timers import TimingWheel
from seawall.transport.connection import Connection
from seawall.transport.http_client import Response
from seawall.turn import Usage, UserMessage
from tests.models.wire import WIRES, Call, Wire
from tests.properties import examples

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
_TEXTS = ("On ", "its ", "way. ", "Ünï 🚢 ", "\n\ndata: {}\n\n", "Done", ".")
_CALLS = (Call("toolu_1", "find_order", ('{"order": ', '"#W1"}')),)


class _Transport:
    """A transport from which a test delivers what it wants."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.reading = asyncio.Event()
        self.reading.set()
        self.closed = False
        connection.connection_made(self)  # type: ignore[arg-type]  # what is used of one

    def write(self, data: bytes) -> None:
        """The request."""

    def pause_reading(self) -> None:
        self.reading.clear()

    def resume_reading(self) -> None:
        self.reading.set()

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.lose(None)

    def lose(self, error: Exception | None) -> None:
        if not self.closed:
            self.closed = True
            self.reading.set()
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, error)


class _Delivery(Struct):
    """What an upstream sends for one request.

    Attributes:
        parts: Of the response, as they are received.
        pauses: Rounds of the event loop after each of them, in turn.
        reset: Whether the connection ends by an error.
    """

    parts: Sequence[bytes]
    pauses: Sequence[int]
    reset: bool = False


class _Client:
    """An HTTP client that plays deliveries, one for each request."""

    def __init__(self, *deliveries: _Delivery) -> None:
        self.deliveries = list(deliveries)

    @asynccontextmanager
    async def stream(self, *_: object, **options: Any) -> AsyncGenerator[Response, None]:
        loop = asyncio.get_running_loop()
        connection = Connection(loop, TimingWheel(0.05), 65_536)
        transport = _Transport(connection)
        connection.send(b"", deadline=options["deadline"])
        sending = loop.create_task(_deliver(transport, self.deliveries.pop(0)))
        try:
            await connection.head()
            yield Response(connection)
        finally:
            connection.finish()
            sending.cancel()
            await asyncio.wait([sending])


async def _deliver(transport: _Transport, delivery: _Delivery) -> None:
    pauses = cycle(delivery.pauses)
    for part in delivery.parts:
        await transport.reading.wait()
        if transport.closed:
            return
        transport.connection.data_received(part)
        for _ in range(next(pauses)):
            await asyncio.sleep(0)
    await transport.reading.wait()
    transport.lose(ConnectionResetError() if delivery.reset else None)


class _Bill:
    """Implements `Meter`."""

    def __init__(self) -> None:
        self.usage = Usage()

    def charge(self, model: str, usage: Usage, cost: int, *, estimated: bool) -> None:
        del model, cost, estimated
        self.usage += usage


class _Outcome(Struct):
    """How a call ended, and what there was of it."""

    text: str = ""
    reasoning: str = ""
    calls: list[str] = []
    finish: Finish | None = None
    failure: str = ""
    usage: Usage = Usage()


async def _outcome(
    model: Model,
    takes: Sequence[bool] | None,
    pauses: Sequence[int] = (0,),
    *,
    seconds: float = 5.0,
) -> _Outcome:
    """Call a model.

    Args:
        model: The model.
        takes: Whether the sink takes a piece, in turn; None for no sink.
        pauses: Rounds of the event loop that the reader lets pass after an event, in turn.
        seconds: Until the deadline.
    """
    outcome, bill = _Outcome(calls=[]), _Bill()
    waits, taking = cycle(pauses), cycle(takes or ())
    busy = False

    def sink(text: str) -> bool:
        assert text
        assert not busy, "text overtakes an event"
        taken = next(taking)
        if taken:
            outcome.text += text
        return taken

    request = ModelRequest(Prompt("Be brief."), (UserMessage("hello"),), meter=bill)
    if takes is not None:
        request = structs.replace(request, sink=DirectText(sink))
    deadline = asyncio.get_running_loop().time() + seconds
    try:
        async with aclosing(model.stream(request, deadline=deadline)) as events:
            async for event in events:
                busy = True
                for _ in range(next(waits)):
                    await asyncio.sleep(0)
                if isinstance(event, Text):
                    outcome.text += event.text
                elif isinstance(event, Progress):
                    outcome.reasoning += event.reasoning
                elif isinstance(event, ToolCalls):
                    outcome.calls += [f"{each.name}{each.arguments}" for each in event.calls]
                else:
                    outcome.finish = event
                busy = False
    except Problem as problem:
        outcome.failure = type(problem).__name__
    outcome.usage = bill.usage
    return outcome


def _chunked(events: Sequence[bytes], *, end: bool = True) -> bytes:
    """A response of these events; without its end, the connection breaks."""
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in events)
    return _HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunks + (b"0\r\n\r\n" if end else b"")


def _cut(data: bytes, places: Sequence[float]) -> list[bytes]:
    at = sorted({0, len(data), *(int(each * len(data)) for each in places)})
    return [data[begin:end] for begin, end in pairwise(at)]


class _Course(Struct):
    """How an answer is received and read.

    Attributes:
        places: Where it is cut, as parts of its length.
        pauses: Of its delivery.
        reset: As of `_Delivery`.
        reading: Pauses of its reader.
        takes: Whether the sink takes a piece, in turn.
    """

    places: list[float]
    pauses: list[int]
    reset: bool
    reading: list[int]
    takes: list[bool]

    def delivery(self, sent: bytes) -> _Delivery:
        return _Delivery(_cut(sent, self.places), self.pauses, self.reset)


_pauses = st.lists(st.integers(0, 3), min_size=1, max_size=8)
_courses = st.builds(
    _Course,
    places=st.lists(st.floats(0, 1, exclude_max=True), max_size=40),
    pauses=_pauses,
    reset=st.booleans(),
    reading=_pauses,
    takes=st.lists(st.booleans(), min_size=1, max_size=5),
)
_wires = st.sampled_from(WIRES)


@st.composite
def _answers(draw: st.DrawFn) -> tuple[Wire, list[bytes]]:
    """A provider and an answer of it: with calls, reasoning, an error in the middle, or none."""
    wire = draw(_wires)
    calls = _CALLS if draw(st.booleans()) else ()
    events = wire.answer(_TEXTS, calls)
    for noise in wire.noise():
        events.insert(draw(st.integers(0, len(events) - 1)), noise)
    if draw(st.integers(0, 3)) == 0:
        events.insert(draw(st.integers(0, len(events))), wire.error("server_error"))
    return wire, events


@examples(30, 3_000)
@given(_answers(), _courses, st.floats(0, 1))
async def test_an_answer_is_the_same_with_a_sink(
    answer: tuple[Wire, list[bytes]], course: _Course, whole: float
) -> None:
    wire, events = answer
    sent = _chunked(events)
    if whole < 0.5:
        sent = sent[: int(2 * whole * len(sent))]
    delivery = course.delivery(sent)

    def model() -> Model:
        made = wire.model("http://localhost", _Client(delivery))  # type: ignore[arg-type]
        return MeteredModel("test", made, price=None)

    direct = await _outcome(model(), course.takes, course.reading)
    plain = await _outcome(model(), None)
    full = "".join(_TEXTS)
    for each in (direct, plain):
        assert full.startswith(each.text)
    assert direct.failure == plain.failure
    if not plain.failure:
        assert direct == plain
    else:  # what was written is charged, whichever way it went
        written = len(direct.text) + len(direct.reasoning)
        assert direct.usage.completion_tokens == -(-written // CHARACTERS_PER_TOKEN)


@pytest.mark.parametrize("sink", [True, False])
@pytest.mark.parametrize("rest", [b"zz\r\n", b"0\r\n\r\n", b"0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"])
async def test_what_follows_a_complete_answer_does_not_matter(rest: bytes, *, sink: bool) -> None:
    """Though it is received with the end of the answer, and is not HTTP."""
    (wire,) = (each for each in WIRES if each.name == "openai")
    events = wire.answer(_TEXTS)
    begun, all_of_it = _chunked(events[:3], end=False), _chunked(events, end=False)
    parts = [begun, all_of_it.removeprefix(begun) + rest]
    client = _Client(_Delivery(parts, (9,)))
    model = wire.model("http://localhost", client)  # type: ignore[arg-type]
    outcome = await _outcome(model, (True,) if sink else None)
    assert outcome.text == "".join(_TEXTS)
    assert outcome.failure == ""
    assert outcome.finish is not None


@examples(30, 3_000)
@given(_wires, _courses, st.floats(0, 1))
async def test_an_answer_that_breaks_off_is_resumed_behind_what_the_sink_took(
    wire: Wire, course: _Course, broken: float
) -> None:
    sent = _chunked(wire.answer(_TEXTS))
    first = course.delivery(sent[: max(1, int(broken * len(sent)))])
    client = _Client(first, course.delivery(sent))
    adapter = wire.model("http://localhost", client)  # type: ignore[arg-type]
    upstream = Upstream(
        "test",
        MeteredModel("test", adapter, price=None),
        ResilienceSettings(resume=True, backoff_seconds=1e-6, backoff_cap_seconds=1e-6),
        max_concurrency=1,
        wheel=TimingWheel(0.05),
    )
    outcome = await _outcome(ResilientModel((upstream,)), course.takes, course.reading)
    assert outcome.failure == ""
    assert outcome.text == "".join(_TEXTS)
    assert outcome.usage.model_calls in (1, 2)


@examples(30, 1_000)
@given(_wires, _courses, _courses)
async def test_a_hedge_does_not_mix_two_answers(
    wire: Wire, first: _Course, second: _Course
) -> None:
    sent = _chunked(wire.answer(_TEXTS))
    usual = _Delivery([sent], (1,))
    client = _Client(*[usual] * 60)
    upstream = Upstream(
        "test",
        MeteredModel("test", wire.model("http://localhost", client), price=None),  # type: ignore[arg-type]
        ResilienceSettings(hedge_share=1.0),
        max_concurrency=9,
        wheel=TimingWheel(0.05),
    )
    model = ResilientModel((upstream,))
    while upstream.first_token_quantile() is None:
        await _outcome(model, None)
    slow = [50 * each for each in first.pauses]
    delivery = structs.replace(first.delivery(sent), pauses=slow)
    client.deliveries = [delivery, second.delivery(sent)]
    outcome = await _outcome(model, first.takes, first.reading)
    assert outcome.failure == ""
    assert outcome.text == "".join(_TEXTS)
    assert upstream.in_flight == 0
    assert outcome.usage.model_calls == 2 - len(client.deliveries)


class _Steady:
    """A model that writes a word every hundredth of a second, and may hang then."""

    words = 0
    hangs = False

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(0.02)
        yield Text("word ")
        for _ in range(self.words):
            if clock() > deadline:
                raise DeadlineExceeded("Too late.")
            await asyncio.sleep(0.01)
            if request.sink is None or not request.sink("word "):
                yield Text("word ")
        if self.hangs:
            await asyncio.sleep(10)
        yield Finish("stop", Usage(3, 2, 1))

    async def warm(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize("sink", [True, False])
async def test_a_model_that_writes_until_the_deadline_is_not_slow(*, sink: bool) -> None:
    """It is no failure for the circuit breaker: the answer is long."""
    model = _Steady()
    upstream = Upstream(
        "test", model, ResilienceSettings(), max_concurrency=9, wheel=TimingWheel(0.05)
    )
    resilient = ResilientModel((upstream,))
    while upstream.first_token_quantile() is None:
        await _outcome(resilient, None)
    model.words = 1_000
    outcome = await _outcome(resilient, (True,) if sink else None, seconds=0.3)
    assert outcome.failure == "DeadlineExceeded"
    assert upstream.attempts["left"] == 1
    assert upstream.attempts["late"] == 0


@pytest.mark.parametrize("sink", [True, False])
async def test_each_piece_has_its_own_time(*, sink: bool) -> None:
    """An answer may take longer than its pieces may; a model that hangs behind them is noticed."""
    model = _Steady()
    model.words, model.hangs = 40, True
    settings = ResilienceSettings(between_tokens_seconds=0.15)
    upstream = Upstream("test", model, settings, max_concurrency=9, wheel=TimingWheel(0.02))
    outcome = await _outcome(ResilientModel((upstream,)), (True,) if sink else None)
    assert outcome.text == 41 * "word "
    assert outcome.failure == "UpstreamTimedOut"
    assert upstream.attempts["late"] == 1
