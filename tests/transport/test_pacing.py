"""Streams are read less often while the event loop is busy, and only then."""

import asyncio
import time
from collections.abc import Callable
from itertools import pairwise

from seawall.timers import TimingWheel
from seawall.transport.connection import Connection
from seawall.transport.pacing import ReadPacer

MAX = 0.05


class Work:
    """A clock of the loop's work that runs at a share of the time."""

    def __init__(self) -> None:
        self.share = 0.0
        self._at = time.monotonic()
        self._worked = 0.0

    def __call__(self) -> float:
        now = time.monotonic()
        self._worked += self.share * (now - self._at)
        self._at = now
        return self._worked

    def change(self, share: float) -> None:
        self()
        self.share = share


class Stream:
    """A stream that rests when the pacer says so."""

    def __init__(self) -> None:
        self.passed_at = 0.0
        self.resumed = 0

    def read_on(self) -> None:
        self.resumed += 1


def rests(pacer: ReadPacer, stream: Stream) -> bool:
    """Whether it rests after two pieces that come one after the other."""
    return pacer.rest(stream) or pacer.rest(stream)


async def until(condition: Callable[[], bool], pacer: ReadPacer) -> None:
    """Ask for each piece of a stream, until the condition is met."""
    async with asyncio.timeout(10):
        while not condition():
            pacer.rest(Stream())
            await asyncio.sleep(0.005)


async def test_nothing_rests_while_the_loop_has_time() -> None:
    work = Work()
    pacer = ReadPacer(MAX, work=work)
    work.change(0.85)
    measured = time.monotonic() + 0.3
    await until(lambda: time.monotonic() > measured, pacer)
    assert pacer.delay == 0.0
    assert not rests(pacer, Stream())


async def test_a_loop_with_much_time_is_measured_ten_times_a_second() -> None:
    measured: list[float] = []

    def work() -> float:
        measured.append(time.monotonic())
        return 0.3 * measured[-1]

    pacer = ReadPacer(MAX, work=work)
    pacer.rest(Stream())
    async with asyncio.timeout(10):
        while len(measured) < 8:  # noqa: ASYNC110 - there is no event of it
            await asyncio.sleep(0.02)
    between = [after - before for before, after in pairwise(measured)][2:]
    assert min(between) > 0.05
    assert sum(between) > 0.07 * len(between)


async def test_measuring_ends_after_a_second_and_begins_again_with_a_piece() -> None:
    """A connection asks only while there is a delay, or nothing is measured."""
    work = Work()
    pacer = ReadPacer(MAX, work=work)
    assert not pacer.measuring
    assert not pacer.rest(Stream())
    assert pacer.measuring
    async with asyncio.timeout(10):
        while pacer.measuring:  # noqa: ASYNC110 - there is no event of it
            await asyncio.sleep(0.02)
    work.change(1.0)
    assert not pacer.rest(Stream())
    async with asyncio.timeout(10):
        while not pacer.delay:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)


async def test_the_delay_grows_up_to_its_maximum_and_shrinks_again() -> None:
    work = Work()
    pacer = ReadPacer(MAX, work=work)
    work.change(1.0)
    await until(lambda: pacer.delay > 0.0, pacer)
    assert pacer.delay < MAX / 2
    await until(lambda: pacer.delay == MAX, pacer)
    work.change(0.5)
    await until(lambda: pacer.delay == 0.0, pacer)


async def test_the_delay_is_short_unless_turns_wait_for_their_start() -> None:
    work, waited = Work(), 0.0
    pacer = ReadPacer(0.5, waited=lambda: waited, work=work)
    work.change(1.0)
    await until(lambda: pacer.delay == 0.05, pacer)
    saturated = time.monotonic() + 0.3
    await until(lambda: time.monotonic() > saturated or pacer.delay > 0.05, pacer)
    assert pacer.delay == 0.05
    waited = 1.0
    await until(lambda: pacer.delay > 0.2, pacer)
    waited = 0.0  # but there is no time yet
    reached, saturated = pacer.delay, time.monotonic() + 0.3
    await until(lambda: time.monotonic() > saturated or pacer.delay < reached, pacer)
    assert pacer.delay == reached
    work.change(0.95)
    await until(lambda: pacer.delay == 0.05, pacer)


async def test_turns_that_wait_for_a_slot_only_do_not_delay_text() -> None:
    work = Work()
    pacer = ReadPacer(0.5, waited=lambda: 10.0, work=work)
    work.change(0.94)
    await until(lambda: pacer.delay == 0.05, pacer)
    measured = time.monotonic() + 0.3
    await until(lambda: time.monotonic() > measured or pacer.delay > 0.05, pacer)
    assert pacer.delay == 0.05


async def test_a_stream_that_rests_is_resumed_once() -> None:
    work = Work()
    pacer = ReadPacer(MAX, work=work)
    work.change(1.0)
    await until(lambda: pacer.delay > 0.0, pacer)
    first, second = Stream(), Stream()
    assert rests(pacer, first)
    assert rests(pacer, second)
    assert (first.resumed, second.resumed) == (0, 0)
    async with asyncio.timeout(10):
        while not second.resumed:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)
    work.change(0.0)
    await asyncio.sleep(0.1)
    assert (first.resumed, second.resumed) == (1, 1)


class Broken(Stream):
    """A stream that cannot be resumed."""

    def read_on(self) -> None:
        raise OSError("of the transport")


async def test_a_stream_that_cannot_be_resumed_leaves_none_at_rest() -> None:
    reported: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    work = Work()
    pacer = ReadPacer(MAX, work=work)
    work.change(1.0)
    await until(lambda: pacer.delay > 0.0, pacer)
    streams = [Stream(), Broken(), Stream()]
    assert all(rests(pacer, each) for each in streams)
    async with asyncio.timeout(10):
        while not streams[2].resumed:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)
    assert [type(each) for each in reported] == [OSError]


async def test_a_stream_of_pieces_that_are_far_apart_does_not_rest() -> None:
    work = Work()
    pacer = ReadPacer(MAX, work=work)
    work.change(1.0)
    await until(lambda: pacer.delay == MAX, pacer)
    stream = Stream()
    assert not pacer.rest(stream)
    for _ in range(3):
        await asyncio.sleep(3 * MAX)
        assert not pacer.rest(stream)
    assert pacer.rest(stream)


async def test_a_stream_that_had_nothing_to_read_after_its_rest_does_not_rest_again() -> None:
    work = Work()
    pacer = ReadPacer(MAX, work=work)
    work.change(1.0)
    await until(lambda: pacer.delay == MAX, pacer)
    idle, ready = Stream(), Stream()
    ready.read_on = lambda: again.append(pacer.rest(ready))  # type: ignore[method-assign]
    again: list[bool] = []
    assert rests(pacer, idle)
    assert rests(pacer, ready)
    async with asyncio.timeout(10):
        while not again:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.005)
    assert again[0]
    assert idle.resumed == 1
    await asyncio.sleep(MAX)
    assert not pacer.rest(idle)


async def test_the_work_of_the_thread_is_measured() -> None:
    pacer = ReadPacer(MAX)
    pacer.rest(Stream())
    async with asyncio.timeout(10):
        while not pacer.delay:
            pacer.rest(Stream())
            await asyncio.sleep(0)  # the loop never waits
        while pacer.delay:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.05)
    pacer.close()


class Upstream:
    """A server that writes its pieces when it is asked to."""

    def __init__(self) -> None:
        self.writer: asyncio.StreamWriter

    async def answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")

    def write(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))


async def pieces_until_rest(
    connection: Connection, upstream: Upstream, taken: list[bytes]
) -> list[bytes]:
    """Send one piece after another until the connection reads no more; those that were sent."""
    sent: list[bytes] = []
    assert connection._transport is not None
    while connection._transport.is_reading():
        sent.append(b"piece")
        upstream.write(sent[-1])
        while len(taken) < len(sent):  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0)
    return sent


async def test_a_body_that_is_passed_on_rests_and_nothing_is_lost() -> None:
    work, upstream = Work(), Upstream()
    pacer = ReadPacer(MAX, work=work)
    work.change(1.0)
    await until(lambda: pacer.delay == MAX, pacer)
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(upstream.answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    _, connection = await loop.create_connection(
        lambda: Connection(loop, TimingWheel(), 65_536, pacer), "127.0.0.1", port
    )
    taken: list[bytes] = []

    def take(data: bytes) -> bool:
        taken.append(data)
        return not data.endswith(b"!")

    async with asyncio.timeout(10):
        connection.send(b"GET / HTTP/1.1\r\n\r\n", deadline=loop.time() + 10)
        await connection.head()
        forwarding = asyncio.ensure_future(connection.forward(take))
        await asyncio.sleep(0)
        sent = await pieces_until_rest(connection, upstream, taken)
        for piece in (b"three", b"four", b"five!"):
            upstream.write(piece)
        await forwarding
        assert taken == [*sent, b"threefourfive!"]
        upstream.writer.write(b"0\r\n\r\n")
        assert await connection.read() == b""
    assert connection.finish()
    upstream.writer.close()
    server.close()


async def test_a_connection_that_is_closed_while_it_rests_stays_closed() -> None:
    work, upstream = Work(), Upstream()
    pacer = ReadPacer(MAX, work=work)
    work.change(1.0)
    await until(lambda: pacer.delay == MAX, pacer)
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(upstream.answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    _, connection = await loop.create_connection(
        lambda: Connection(loop, TimingWheel(), 65_536, pacer), "127.0.0.1", port
    )
    taken: list[bytes] = []

    def take(data: bytes) -> bool:
        taken.append(data)
        return True

    async with asyncio.timeout(10):
        connection.send(b"GET / HTTP/1.1\r\n\r\n", deadline=loop.time() + 10)
        await connection.head()
        forwarding = asyncio.ensure_future(connection.forward(take))
        await asyncio.sleep(0)
        await pieces_until_rest(connection, upstream, taken)
        forwarding.cancel()
        assert not connection.finish()
        await asyncio.sleep(3 * MAX)
    assert not connection.open
    upstream.writer.close()
    server.close()
