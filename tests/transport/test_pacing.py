"""Streams are read at shared times, and less often in an overload."""

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import uvloop

from seawall.transport.connection import ConnectionBroken
from seawall.transport.http_client import Endpoint, HttpClient, Response
from seawall.transport.pacing import ReadPacer
from seawall.transport.tls import tls_context
from tests.certificates import Authority

PROMPT = 0.048


class Work:
    """A clock of the loop's work that runs at a share of the time."""

    def __init__(self) -> None:
        self.share = 0.0
        self.looked_at: list[float] = []
        self._at = time.monotonic()
        self._worked = 0.0

    def __call__(self) -> float:
        now = time.monotonic()
        self.looked_at.append(now)
        self._worked += self.share * (now - self._at)
        self._at = now
        return self._worked

    def change(self, share: float) -> None:
        self()
        self.share = share


class Stream:
    """A stream that has a piece to read, a number of times, after each rest."""

    def __init__(self, pacer: ReadPacer, pieces: int = 1) -> None:
        self.passed_at = 0.0
        self.pieces = pieces
        self.read = asyncio.Event()
        self.rested: list[bool] = []
        self._pacer = pacer

    def ask(self) -> bool:
        """Have a piece passed on."""
        self.rested.append(self._pacer.rest(self))
        return self.rested[-1]

    def begin(self) -> bool:
        """Have two pieces passed on, one after the other: whether it rests."""
        self.ask()
        return self.ask()

    def read_now(self) -> None:
        self.pieces -= 1
        self.read.set()
        if self.pieces > 0:
            self.ask()


async def until(condition: Callable[[], bool], pacer: ReadPacer) -> None:
    """Have streams rest one after another, until the condition is met."""
    async with asyncio.timeout(10):
        while not condition():
            Stream(pacer).begin()
            await asyncio.sleep(0.005)


async def test_streams_are_read_together_while_the_loop_has_time() -> None:
    pacer = ReadPacer(0.5, work=Work())
    streams = [Stream(pacer, pieces=1_000) for _ in range(5)]
    passes: list[int] = []

    def count() -> None:
        passes.append(sum(each.pieces for each in streams))
        if passes[-1] > 0:
            loop.call_soon(count)

    loop = asyncio.get_running_loop()
    for stream in streams:
        assert stream.begin()
        await asyncio.sleep(0.002)
    for stream in streams:  # all rest by now; some may have been read while others began
        stream.pieces = 3
    loop.call_soon(count)
    async with asyncio.timeout(10):
        while passes[-1:] != [0]:  # noqa: ASYNC110 - there is no event of it
            await asyncio.sleep(PROMPT)
    assert list(dict.fromkeys(passes)) == [15, 10, 5, 0]


async def test_many_streams_leave_the_event_loop_time_in_between() -> None:
    pacer = ReadPacer(0.5, work=Work())
    streams = [Stream(pacer) for _ in range(500)]
    assert all(each.begin() for each in streams)
    seen: set[int] = set()
    async with asyncio.timeout(10):
        while not streams[-1].read.is_set():
            seen.add(sum(each.read.is_set() for each in streams))
            await asyncio.sleep(0)
    assert len(seen) > 4


async def test_the_load_is_measured_ten_times_a_second_while_streams_rest() -> None:
    work = Work()
    pacer = ReadPacer(0.5, work=work)
    stream = Stream(pacer, pieces=1_000)
    assert stream.begin()
    async with asyncio.timeout(10):
        while len(work.looked_at) < 8:  # noqa: ASYNC110 - there is no event of it
            await asyncio.sleep(0.02)
    between = [after - before for before, after in pairwise(work.looked_at)][1:]
    assert min(between) > 0.05
    stream.pieces = 0
    async with asyncio.timeout(10):
        measured = -1
        while measured != len(work.looked_at):  # it ends when no stream rests any more
            measured = len(work.looked_at)
            await asyncio.sleep(0.3)
    assert Stream(pacer).begin()
    assert len(work.looked_at) == measured + 1


async def test_the_delay_is_short_unless_turns_wait_for_their_start() -> None:
    work, waited = Work(), 0.0
    pacer = ReadPacer(0.5, waited=lambda: waited, work=work)
    work.change(1.0)
    saturated = time.monotonic() + 0.3
    await until(lambda: time.monotonic() > saturated or pacer.delay > PROMPT, pacer)
    assert pacer.delay == PROMPT
    waited = 1.0
    await until(lambda: pacer.delay > 0.2, pacer)
    waited = 0.0  # but there is no time yet
    reached, saturated = pacer.delay, time.monotonic() + 0.3
    await until(lambda: time.monotonic() > saturated or pacer.delay < reached, pacer)
    assert pacer.delay == reached
    work.change(0.95)
    await until(lambda: pacer.delay == PROMPT, pacer)


async def test_the_delay_grows_where_pieces_are_far_apart() -> None:
    work = Work()
    pacer = ReadPacer(0.5, waited=lambda: 1.0, work=work)
    work.change(1.0)
    async with asyncio.timeout(10):
        while pacer.delay < 0.2:
            Stream(pacer).ask()  # the piece before is longer ago than any delay
            await asyncio.sleep(0.005)


async def test_the_delay_has_a_maximum() -> None:
    work = Work()
    pacer = ReadPacer(0.2, waited=lambda: 10.0, work=work)
    work.change(1.0)
    await until(lambda: pacer.delay == 0.2, pacer)
    pieces = Stream(pacer, pieces=2)
    began = time.monotonic()
    assert pieces.begin()
    await asyncio.wait_for(pieces.read.wait(), 10)
    assert time.monotonic() - began > 0.15
    assert ReadPacer(0.01, work=work).delay == 0.01


async def test_turns_that_wait_for_a_slot_only_do_not_delay_text() -> None:
    work = Work()
    pacer = ReadPacer(0.5, waited=lambda: 10.0, work=work)
    work.change(0.94)
    measured = time.monotonic() + 0.3
    await until(lambda: time.monotonic() > measured or pacer.delay > PROMPT, pacer)
    assert pacer.delay == PROMPT


@pytest.mark.parametrize("share", [0.1, 0.8])
async def test_a_stream_that_rests_is_read_once(share: float) -> None:
    work = Work()
    pacer = ReadPacer(0.5, work=work)
    work.change(share)
    measured = time.monotonic() + 0.2
    await until(lambda: time.monotonic() > measured, pacer)
    first, second = Stream(pacer), Stream(pacer)
    assert first.begin()
    assert second.begin()
    assert not first.read.is_set()
    await asyncio.wait_for(second.read.wait(), 10)
    await asyncio.sleep(3 * PROMPT)
    assert (first.pieces, second.pieces) == (0, 0)


class Broken(Stream):
    """A stream that cannot be read."""

    def read_now(self) -> None:
        raise OSError("of the transport")


async def test_a_stream_that_cannot_be_read_leaves_none_at_rest() -> None:
    reported: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    pacer = ReadPacer(0.5, work=Work())
    streams = [Stream(pacer), Broken(pacer), Stream(pacer)]
    assert all(each.begin() for each in streams)
    await asyncio.wait_for(streams[2].read.wait(), 10)
    assert [type(each) for each in reported] == [OSError]


async def test_a_stream_of_pieces_that_are_far_apart_does_not_rest() -> None:
    pacer = ReadPacer(0.5, work=Work())
    stream = Stream(pacer)
    for _ in range(3):
        assert not stream.ask()
        await asyncio.sleep(3 * PROMPT)
    assert not stream.ask()
    assert stream.ask()


async def test_a_stream_that_had_nothing_to_read_after_its_rest_does_not_rest_again() -> None:
    pacer = ReadPacer(0.5, work=Work())
    idle, ready = Stream(pacer, pieces=1), Stream(pacer, pieces=2)
    assert idle.begin()
    assert ready.begin()
    await asyncio.wait_for(ready.read.wait(), 10)
    assert ready.rested[-1]
    await asyncio.sleep(2 * PROMPT)
    assert not idle.ask()


async def test_the_work_of_the_thread_is_measured() -> None:
    pacer = ReadPacer(0.5, waited=lambda: 10.0)
    async with asyncio.timeout(10):
        while pacer.delay == PROMPT:
            Stream(pacer).begin()
            await asyncio.sleep(0)  # the loop never waits
        while pacer.delay > PROMPT:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.05)
    pacer.close()


class Upstream:
    """A server that writes its pieces when it is asked to, behind a relay of bytes.

    Attributes:
        url: Of the relay.
        slowly: Whether the relay passes on half of what it gets at first, and the rest later.
    """

    def __init__(self, *, framed: bool) -> None:
        """Create an upstream.

        Args:
            framed: Whether its body is in chunks, and does not end with the connection.
        """
        self.url = ""
        self._framed = framed
        self.slowly = False
        self._writer: asyncio.StreamWriter
        self._writers: list[asyncio.StreamWriter] = []
        self._relaying: asyncio.Task[object] | None = None
        self._port = 0

    @asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None) -> AsyncGenerator[None, None]:
        """Serve until the block ends, with TLS if there is a context."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=tls)
        relay = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        port = relay.sockets[0].getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/"
        async with server, relay:
            yield
            for writer in self._writers:
                writer.transport.abort()
            if self._relaying is not None:
                await self._relaying

    def write(self, data: bytes) -> None:
        self._writer.write(b"%x\r\n%b\r\n" % (len(data), data) if self._framed else data)

    def end(self) -> None:
        self._writer.write(b"0\r\n\r\n")

    def abort(self) -> None:
        self._writer.transport.abort()

    def reset(self) -> None:
        """Have the relay reset its connection, instead of closing it."""
        relayed = self._writers[0]
        linger = struct.pack("ii", 1, 0)
        relayed.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        relayed.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self._writer = writer
        self._writers.append(writer)
        framing = b"transfer-encoding: chunked\r\n" if self._framed else b""
        writer.write(b"HTTP/1.1 200 OK\r\n%b\r\n" % framing)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._relaying = asyncio.current_task()
        there_reader, there = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, there]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pass_on(reader, there))
            group.create_task(self._pass_on(there_reader, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                if self.slowly:
                    writer.write(data[: len(data) // 2])
                    await asyncio.sleep(2.5 * PROMPT)
                    data = data[len(data) // 2 :]
                writer.write(data)
        except ConnectionError:
            pass
        writer.transport.abort()


class Body:
    """A body that is passed on in pieces, and that has come to rest.

    Attributes:
        taken: The pieces.
        reading: For each whether the event loop read it.
    """

    def __init__(self, upstream: Upstream, response: Response) -> None:
        self.upstream = upstream
        self.response = response
        self.taken: list[bytes] = []
        self.reading: list[bool] = []
        self.forwarding: asyncio.Future[None]

    def take(self, data: bytes) -> bool:
        self.taken.append(data)
        raw = self.response._connection._raw
        self.reading.append(raw is not None and raw.is_reading())
        return not data.endswith(b"!")

    async def come_to_rest(self) -> None:
        """Have pieces passed on until the connection is not read by the event loop."""
        self.forwarding = asyncio.ensure_future(self.response.forward(self.take))
        await asyncio.sleep(0)
        raw = self.response._connection._raw
        assert raw is not None
        sent = 0
        while raw.is_reading():
            sent += 1
            self.upstream.write(b"piece")
            while len(self.taken) < sent:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0)
        self.taken.clear()
        self.reading.clear()


Scenario = Callable[[Body], Awaitable[None]]


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest, tmp_path: Path) -> Authority | None:
    return Authority(tmp_path) if request.param == "tls" else None


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, tls: Authority | None) -> Callable[..., None]:
    """Run a scenario with a body at rest, on each event loop."""

    async def scene(scenario: Scenario, *, framed: bool) -> None:
        context = tls_context(str(tls.file)) if tls is not None else None
        client = HttpClient(ssl_context=context, pacer=ReadPacer(0.5, work=Work()))
        upstream = Upstream(framed=framed)
        deadline = asyncio.get_running_loop().time() + 10
        async with upstream.serving(tls.server() if tls is not None else None):
            endpoint = Endpoint.parse(upstream.url)
            async with client.stream("GET", endpoint, deadline=deadline) as response:
                body = Body(upstream, response)
                await body.come_to_rest()
                await scenario(body)
            await client.close()

    def start(scenario: Scenario, *, framed: bool = True) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(scene(scenario, framed=framed))

    return start


def test_a_body_that_is_passed_on_rests_and_nothing_is_lost(
    run: Callable[..., None],
) -> None:
    async def scenario(body: Body) -> None:
        for piece in (b"three", b"four", b"five!"):
            body.upstream.write(piece)
        await body.forwarding
        assert body.taken == [b"threefourfive!"]
        body.upstream.end()
        assert await body.response.read_some() == b""

    run(scenario)


def test_what_comes_after_the_sink_is_full_is_read(run: Callable[..., None]) -> None:
    async def scenario(body: Body) -> None:
        body.upstream.write(b"full!")
        await body.forwarding
        assert body.response._connection._raw is not None
        body.upstream.write(b"more")
        assert await body.response.read_some() == b"more"

    run(scenario)


def test_a_body_goes_on_after_a_time_without_pieces(run: Callable[..., None]) -> None:
    async def scenario(body: Body) -> None:
        await asyncio.sleep(3 * PROMPT)
        body.upstream.write(b"late!")
        await body.forwarding
        assert body.taken == [b"late!"]

    run(scenario)


def test_a_piece_that_arrives_in_parts_is_read(run: Callable[..., None]) -> None:
    """Half of a record of TLS is no piece, and no reason not to read the other half."""

    async def scenario(body: Body) -> None:
        body.upstream.slowly = True
        body.upstream.write(b"in parts!")
        await body.forwarding
        assert b"".join(body.taken) == b"in parts!"

    run(scenario)


def test_much_at_rest_is_not_read_in_steps_of_the_delay(run: Callable[..., None]) -> None:
    async def scenario(body: Body) -> None:
        text = bytes(2_000_000) + b"!"
        body.upstream.write(text)
        await body.forwarding
        assert b"".join(body.taken) == text
        assert (body.reading[0], any(body.reading)) == (False, True)

    run(scenario)


def test_the_end_of_a_connection_at_rest_is_noticed(run: Callable[..., None]) -> None:
    async def scenario(body: Body) -> None:
        body.upstream.abort()
        with pytest.raises(ConnectionBroken):
            await body.forwarding

    run(scenario)


@pytest.mark.parametrize("framed", [True, False])
def test_a_connection_that_is_reset_at_rest_is_broken(
    run: Callable[..., None], framed: bool
) -> None:
    """Also where the end of the connection is the end of the body: a reset is none."""

    async def scenario(body: Body) -> None:
        body.upstream.reset()
        with pytest.raises(ConnectionBroken, match="reset by peer"):
            await body.forwarding

    run(scenario, framed=framed)


def test_a_body_without_a_length_ends_at_rest(run: Callable[..., None]) -> None:
    async def scenario(body: Body) -> None:
        body.upstream.write(b"last")
        await asyncio.sleep(PROMPT / 8)
        body.upstream.abort()
        await body.forwarding
        assert body.taken == [b"last"]
        assert await body.response.read_some() == b""

    run(scenario, framed=False)


def test_a_connection_that_is_closed_while_it_rests_stays_closed(
    run: Callable[..., None],
) -> None:
    async def scenario(body: Body) -> None:
        body.forwarding.cancel()
        connection = body.response._connection
        assert not connection.finish()
        await asyncio.sleep(3 * PROMPT)
        assert not connection.open

    run(scenario)


def test_a_connection_is_used_again_after_a_rest(run: Callable[..., None]) -> None:
    async def scenario(body: Body) -> None:
        body.upstream.write(b"last")
        body.upstream.end()
        await body.forwarding
        assert body.taken == [b"last"]
        assert await body.response.read_some() == b""
        connection = body.response._connection
        assert connection.finish()
        assert connection._raw is not None
        assert connection._raw.is_reading()

    run(scenario)
