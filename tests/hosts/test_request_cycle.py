"""A request of our own server, answered with and without messages of ASGI."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from seawall.errors import Overloaded
from seawall.hosts.http.exchange import ClientDisconnected, Exchange
from seawall.hosts.http.request_cycle import RequestCycle
from seawall.hosts.http.shutdown import Shutdown
from seawall.timers import TimingWheel

DATE = b"date: Sun, 29 Nov 2026 22:00:00 GMT\r\n"


class _Connection:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.transport = cast("asyncio.Transport", self)
        self.drained: asyncio.Future[None] | None = None

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def resume_body(self) -> None:
        pass

    def may_keep_alive(self, status: int) -> bool:
        return status < 500

    def date_line(self) -> bytes:
        return DATE

    def response_written(self, cycle: RequestCycle) -> None:
        pass


def _cycle(connection: _Connection, method: str = "POST") -> RequestCycle:
    scope: dict[str, Any] = {"method": method, "headers": [], "path": "/"}
    cycle = RequestCycle(scope, connection, http_1_0=False, expects_continue=False)
    cycle.feed_body(b"{}")
    cycle.body_complete = True
    return cycle


@asynccontextmanager
async def _exchange(*, direct: bool) -> AsyncGenerator[tuple[RequestCycle, Exchange]]:
    """A request whose body was read, in the hands of an application."""
    given = asyncio.get_running_loop().create_future()
    end = asyncio.Event()

    async def application(scope: dict[str, Any], *channels: Any) -> None:
        if not direct:
            scope.pop("seawall.output")
        exchange = Exchange(scope, *channels, wheel=TimingWheel(), shutdown=Shutdown())
        assert await exchange.body(limit=2, seconds=1.0) == b"{}"
        given.set_result(exchange)
        await end.wait()

    cycle = _cycle(_Connection())
    running = asyncio.create_task(cycle.run(application))
    try:
        yield cycle, await given
    finally:
        end.set()
        await running


both = pytest.mark.parametrize("direct", [True, False])


@both
async def test_work_is_awaited_while_the_client_is_connected(*, direct: bool) -> None:
    async with _exchange(direct=direct) as (cycle, exchange):
        done: list[int] = []

        async def work() -> None:
            await asyncio.sleep(0)
            done.append(1)

        await exchange.while_connected(work())
        cycle.disconnect()  # too late for what is done
        await asyncio.sleep(0)
    assert done == [1]


@both
@pytest.mark.parametrize("before", [True, False])
async def test_work_is_cancelled_when_the_client_disconnects(*, direct: bool, before: bool) -> None:
    async with _exchange(direct=direct) as (cycle, exchange):
        outcome: list[str] = []

        async def work() -> None:
            try:
                await asyncio.sleep(20)
            except asyncio.CancelledError:
                outcome.append("cancelled")
                raise

        asyncio.get_running_loop().call_soon(cycle.disconnect)
        if before:
            await asyncio.sleep(0)
        with pytest.raises(ClientDisconnected):
            await exchange.while_connected(work())
        assert outcome == ["cancelled"]
        await asyncio.sleep(0)  # the task itself is not cancelled any more


@both
@pytest.mark.parametrize("ending", ["returns", "fails"])
async def test_a_disconnect_is_reported_however_the_work_ends(*, direct: bool, ending: str) -> None:
    async with _exchange(direct=direct) as (cycle, exchange):

        async def work() -> None:
            try:
                await asyncio.sleep(20)
            except asyncio.CancelledError:
                if ending == "fails":
                    raise Overloaded("x") from None

        asyncio.get_running_loop().call_later(0.01, cycle.disconnect)
        with pytest.raises(ClientDisconnected):
            await exchange.while_connected(work())
        await asyncio.sleep(0)


@both
async def test_errors_of_the_work_are_raised(*, direct: bool) -> None:
    async with _exchange(direct=direct) as (_, exchange):

        async def work() -> None:
            await asyncio.sleep(0)
            raise Overloaded("x")

        with pytest.raises(Overloaded):
            await exchange.while_connected(work())


@both
async def test_other_cancellations_pass(*, direct: bool) -> None:
    async with _exchange(direct=direct) as (_, exchange):
        waiting = asyncio.create_task(exchange.while_connected(asyncio.sleep(20)))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_a_cancellation_and_a_disconnect_together() -> None:
    async with _exchange(direct=True) as (cycle, exchange):
        waiting = asyncio.create_task(exchange.while_connected(asyncio.sleep(20)))
        await asyncio.sleep(0)
        waiting.cancel()
        cycle.disconnect()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert waiting.cancelling() == 1


def test_head_and_first_part_are_one_write_and_so_are_last_part_and_end() -> None:
    connection = _Connection()
    cycle = _cycle(connection)
    cycle.start(200, [(b"Content-Type", b"text/event-stream"), (b"transfer-encoding", b"x")])
    cycle.write(b"a")
    cycle.write(b"bc")
    cycle.write(b"")
    cycle.end(b"d")
    assert connection.written == [
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n%b"
        b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n" % DATE,
        b"2\r\nbc\r\n",
        b"1\r\nd\r\n0\r\n\r\n",
    ]
    assert (cycle.status, cycle.size, cycle.complete) == (200, 4, True)


def test_a_response_without_a_body() -> None:
    connection = _Connection()
    cycle = _cycle(connection, "HEAD")
    cycle.start(503, [(b"content-length", b"3")])
    cycle.end(b"abc")
    head = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 3\r\n%bconnection: close\r\n\r\n"
    assert connection.written == [head % DATE]
    assert cycle.size == 0


@pytest.mark.parametrize(
    "header",
    [
        (b"a b", b"x"),
        (b"", b"x"),
        (b"a", b"x\r\nb: c"),
        (b"a\n", b"x"),
        (b"a", b"\0"),
        (b"a:", b""),
    ],
)
def test_a_header_that_would_break_the_head_is_refused(header: tuple[bytes, bytes]) -> None:
    connection = _Connection()
    cycle = _cycle(connection)
    with pytest.raises(RuntimeError, match="cannot be sent"):
        cycle.start(200, [(b"x-fine", b"1"), header])
    assert not cycle.started
    assert connection.written == []


@pytest.mark.parametrize(
    "misuse",
    [
        lambda cycle: cycle.write(b"x"),
        lambda cycle: (cycle.start(200, []), cycle.end(b""), cycle.write(b"x")),
        lambda cycle: (cycle.start(200, []), cycle.end(b""), cycle.end(b"")),
        lambda cycle: (cycle.start(200, []), cycle.start(200, [])),
        lambda cycle: (cycle.start(200, [(b"content-length", b"1")]), cycle.write(b"xy")),
        lambda cycle: (cycle.start(200, [(b"content-length", b"2")]), cycle.end(b"x")),
    ],
)
def test_parts_in_another_order_are_refused(misuse: Callable[[RequestCycle], object]) -> None:
    with pytest.raises(RuntimeError):
        misuse(_cycle(_Connection()))


async def test_a_forgotten_head_is_not_kept_and_the_request_keeps_its_id_and_origin() -> None:
    headers = [(b"authorization", b"Bearer secret"), (b"origin", b"https://shop.example")]
    scope = {"method": "POST", "headers": headers, "path": "/"}
    connection = _Connection()
    cycle = RequestCycle(scope, connection, http_1_0=False, expects_continue=False)
    cycle.body_complete = True
    named: list[str] = []

    async def application(scope: dict[str, Any], *channels: Any) -> None:
        exchange = Exchange(scope, *channels, wheel=TimingWheel(), shutdown=Shutdown())
        named.append(exchange.request.id)
        exchange.forget_head()
        assert exchange.headers == {b"origin": b"https://shop.example"}
        raise RuntimeError

    await cycle.run(application)
    assert headers == []  # which the connection has as well
    assert b"x-request-id: " + named[0].encode() in b"".join(connection.written)
