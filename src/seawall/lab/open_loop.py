"""The open-loop driver: turns arrive when they are due, whether or not others were answered.

Runs as a process of its own: `python -m seawall.lab.open_loop`, with a `Load` as JSON on standard
input; writes a `LoadResult` as JSON to standard output. A turn's clock starts when it is due, so
that a driver or server that is late cannot hide it (the coordinated omission of Tene, 2013).

Connections are kept and used again, as those of a load balancer are. Made to be cheap: thousands
of refusals a second, beside the streams, on a part of one processor; how much, it reports itself.
"""

import asyncio
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence

import httptools
import msgspec
from msgspec import Struct

from seawall.lab.driver import request_bytes
from seawall.lab.loop import raise_file_limit, run
from seawall.lab.sim_reply import SimTimes, plan_reply
from seawall.lab.visit import Api
from seawall.transport.endpoint import Endpoint, Origin
from seawall.transport.wheel import Wheel

__all__ = ["Crowd", "Load", "LoadResult", "Seen", "drive_load"]

_TEXTS = 256
_SATURATED = 0.85
_LATE_MS = 50.0
_FIRST = {"turns": b'"text.delta"', "chat": b'"content":"['}
_LAST = {"turns": b'"turn.completed"', "chat": b"[DONE]"}


class Crowd(Struct, frozen=True, kw_only=True):
    """Turns of one kind of customers.

    rate: arrivals a second (Poisson), from second `start` on for `seconds`. at_once: as many more
    at `start`. tokens: theirs, in turns; empty for anonymous.
    """

    name: str
    tokens: list[str] = []
    rate: float = 0.0
    start: float = 0.0
    seconds: float = 0.0
    at_once: int = 0


class Load(Struct, frozen=True, kw_only=True):
    """What to drive. patience: seconds that a customer waits. seed, times: of the model."""

    url: str
    crowds: list[Crowd]
    api: Api = "turns"
    seed: int = 0
    times: SimTimes = SimTimes()
    patience: float = 30.0


class Seen(Struct, array_like=True):
    """What one customer saw; seconds. due: from the start of the load. took, first_text: from due.

    end: "ok", "refused" (status 503 or 429), or what went wrong.
    """

    crowd: str
    due: float
    end: str = ""
    took: float = 0.0
    first_text: float = 0.0


class LoadResult(Struct, frozen=True, kw_only=True):
    """What came of it, and of the driver itself.

    late_ms: how late turns were sent off, 99th percentile. cpu_share: of one processor.
    saturated: the driver may have been the bottleneck, because it was late or used nearly all.
    """

    seen: list[Seen]
    seconds: float
    cpu_share: float
    late_ms: float
    connections: int
    saturated: bool


class _Driver:
    def __init__(self, load: Load) -> None:
        endpoint = Endpoint.parse(
            load.url + ("/v1/turns" if load.api == "turns" else "/v1/chat/completions")
        )
        texts = [f"Where is my order? I am customer {number}." for number in range(_TEXTS)]
        self.marks = [plan_reply(load.seed, each, load.times).chunks[0].encode() for each in texts]
        self.requests = {
            crowd.name: [
                request_bytes(
                    endpoint,
                    load.api,
                    text,
                    crowd.tokens[number % len(crowd.tokens)] if crowd.tokens else "",
                )
                for number, text in enumerate(texts)
            ]
            for crowd in load.crowds
        }
        self.origin: Origin = endpoint.origin
        self.first, self.last = _FIRST[load.api], _LAST[load.api]
        self.patience = load.patience
        self.wheel = Wheel(0.05)
        self.idle: list[_Line] = []
        self.lines = 0
        self.done: list[Seen] = []
        self.late: list[float] = []
        self.began = 0.0
        self.left = 0  # known when everybody has been sent off
        self.through = asyncio.Event()

    async def drive(self, arrivals: Sequence[Seen]) -> None:
        """Send off everybody when due, then wait until the last one is answered."""
        loop = asyncio.get_running_loop()
        self.began = loop.time()
        async with asyncio.TaskGroup() as group:
            for number, seen in enumerate(arrivals):
                ahead = self.began + seen.due - loop.time()
                if ahead > 0.0005:
                    await asyncio.sleep(ahead)
                elif not number % 64:
                    await asyncio.sleep(0)  # whoever is behind must not be deaf as well
                self.late.append(max(0.0, loop.time() - self.began - seen.due))
                if self.idle:
                    self.idle.pop().send(seen, number % _TEXTS)
                else:
                    group.create_task(self._open(seen, number % _TEXTS))
            self.left = len(arrivals) - len(self.done)
            if self.left:
                await self.through.wait()

    async def _open(self, seen: Seen, number: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.patience):
                _, line = await loop.create_connection(
                    lambda: _Line(self), self.origin.host, self.origin.port
                )
        except (OSError, TimeoutError) as error:
            self.end(seen, f"cannot connect: {type(error).__name__}")
            return
        self.lines += 1
        line.send(seen, number)

    def end(self, seen: Seen, how: str) -> None:
        """The customer is through."""
        seen.end = how
        seen.took = asyncio.get_running_loop().time() - self.began - seen.due
        self.done.append(seen)
        self.left -= 1
        if self.left == 0:
            self.through.set()


class _Line(asyncio.Protocol):
    """A connection, one request at a time."""

    __slots__ = ("_driver", "_mark", "_parser", "_right", "_seen", "_tail", "_timer", "_transport")

    def __init__(self, driver: _Driver) -> None:
        self._driver = driver
        self._seen: Seen | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream transport, always

    def send(self, seen: Seen, number: int) -> None:
        """Ask."""
        if self._transport.is_closing():
            self._driver.end(seen, "connection closed")
            return
        self._seen = seen
        self._mark = self._driver.marks[number]
        self._right = False
        self._tail = b""
        self._timer = self._driver.wheel.call_at(
            self._driver.began + seen.due + self._driver.patience, self._late
        )
        self._transport.write(self._driver.requests[seen.crowd][number])

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._finish("not HTTP")

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        seen = self._seen
        if seen is None:
            return
        self._tail = self._tail[-64:] + body
        if not seen.first_text and self._driver.first in self._tail:
            loop = asyncio.get_running_loop()
            seen.first_text = loop.time() - self._driver.began - seen.due
        if not self._right and self._mark in self._tail:
            self._right = True

    def on_message_complete(self) -> None:
        """See httptools."""
        status = self._parser.get_status_code()
        if status in (429, 503):
            how = "refused"
        elif status != 200:
            how = f"status {status}"
        elif self._driver.last not in self._tail:
            how = "cut off"
        else:
            how = "ok" if self._right else "wrong answer"
        keep = self._parser.should_keep_alive()
        self._finish(how, keep=keep)

    def connection_lost(self, _: Exception | None) -> None:
        if self in self._driver.idle:
            self._driver.idle.remove(self)
        self._finish("connection lost")

    def _late(self) -> None:
        self._finish("no answer in time")

    def _finish(self, how: str, *, keep: bool = False) -> None:
        seen, self._seen = self._seen, None
        if seen is None:
            return
        self._timer.cancel()
        self._driver.end(seen, how)
        if keep:
            self._driver.idle.append(self)
        else:
            self._transport.abort()


def _arrivals(load: Load) -> list[Seen]:
    chance = random.Random(load.seed)  # noqa: S311 - a simulation, not a secret

    def times(crowd: Crowd) -> Iterator[float]:
        yield from [crowd.start] * crowd.at_once
        due = crowd.start
        while crowd.rate and (due := due + chance.expovariate(crowd.rate)) < (
            crowd.start + crowd.seconds
        ):
            yield due

    found = [Seen(crowd.name, due) for crowd in load.crowds for due in times(crowd)]
    return sorted(found, key=lambda seen: seen.due)


async def drive_load(load: Load) -> LoadResult:
    """Drive a load to its end."""
    driver = _Driver(load)
    arrivals = _arrivals(load)
    cpu, began = time.process_time(), time.monotonic()
    await driver.drive(arrivals)
    seconds, spent = time.monotonic() - began, time.process_time() - cpu
    busy = arrivals[-1].due + 1.0 if arrivals else 1.0
    late = sorted(driver.late)
    late_ms = late[int(0.99 * (len(late) - 1))] * 1e3 if late else 0.0
    for each in driver.done:
        for field in ("due", "took", "first_text"):
            setattr(each, field, round(getattr(each, field), 4))
    share = spent / min(seconds, busy)
    return LoadResult(
        seen=driver.done,
        seconds=round(seconds, 2),
        cpu_share=round(share, 3),
        late_ms=round(late_ms, 1),
        connections=driver.lines,
        saturated=share > _SATURATED or late_ms > _LATE_MS,
    )


def main() -> None:
    """Drive the load that stands on standard input."""
    raise_file_limit()
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    result = msgspec.json.encode(run(drive_load(load)))
    with os.fdopen(sys.stdout.fileno(), "wb", closefd=False) as out:
        out.write(result)  # whole, also where standard output is not buffered


if __name__ == "__main__":
    main()
