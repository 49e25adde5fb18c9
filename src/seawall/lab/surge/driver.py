"""Drives a scenario to its end, in this process, on this event loop.

Open loop: a customer's clock starts when he is due, so that a driver or server that is late cannot
hide it (coordinated omission: Tene, "How NOT to Measure Latency", 2013). Closed loop: it starts
when he asks, as it must where nobody comes before somebody was answered; so a stall of the server
is seen only by those who wait for an answer already.
"""

import asyncio
import random
import ssl
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

from seawall.lab.statistics import percentiles
from seawall.lab.surge.arrivals import arrivals
from seawall.lab.surge.connection import Connection, Visit, request_bytes
from seawall.lab.surge.durable import read_back
from seawall.lab.surge.health import HealthWatch
from seawall.lab.surge.outcome import Durability, Outcome, Progress, SurgeResult, summarise
from seawall.lab.surge.scenario import Api, Closed, Open, Scenario
from seawall.transport.endpoint import Endpoint
from seawall.transport.wheel import Wheel

__all__ = ["drive"]

_CONNECTING = 512  # connections being made at once; the rest of the crowd stands in line
_TICK_SECONDS = 0.2
_TOKEN_SECONDS = 1_200.0
_PATHS: dict[Api, str] = {"turns": "/v1/turns", "chat": "/v1/chat/completions"}

Heard = Callable[[Outcome], None]


async def drive(
    scenario: Scenario,
    *,
    progress: Callable[[Progress], None] | None = None,
    token: Callable[[str], str] | None = None,
    heard: Heard | None = None,
    until: asyncio.Event | None = None,
) -> SurgeResult:
    """Drive it to its end.

    progress: told five times a second. token: signs for a subject, in place of the scenario's
    tokens. heard: told of every outcome; then the result does not keep them, so that a crowd may
    ask for hours. until: ends a closed loop, in place of its time.

    Raises:
        OSError: the server's name is not known.
    """
    driver = _Driver(scenario, token, heard)
    return await driver.run(progress, until)


class _Driver:
    def __init__(
        self, scenario: Scenario, token: Callable[[str], str] | None, heard: Heard | None
    ) -> None:
        self._scenario = scenario
        self._sign = token
        self._heard = heard
        self._endpoint = Endpoint.parse(scenario.url + _PATHS[scenario.api])
        self._tls = ssl.create_default_context() if self._endpoint.origin.secure else None
        self._address: tuple[str, int] = ("", 0)
        self._connecting = asyncio.Semaphore(_CONNECTING)
        self._wheel = Wheel(0.05)
        self._free: dict[Connection, None] = {}
        self._done: list[Outcome] = []
        self._ended: dict[int, asyncio.Future[None]] = {}
        self._began = 0.0
        self._expected = 0
        self._sent = self._completed = self._failed = self._streaming_done = 0
        self._running: dict[int, Visit] = {}
        self._peak = self._connections = 0
        self._late: list[float] = []
        self._first: list[float] = []

    async def run(
        self, progress: Callable[[Progress], None] | None, until: asyncio.Event | None
    ) -> SurgeResult:
        loop = asyncio.get_running_loop()
        origin = self._endpoint.origin
        found = await loop.getaddrinfo(origin.host, origin.port, type=1)
        self._address = (str(found[0][4][0]), origin.port)
        load = self._scenario.load
        prepared = self._prepare(load) if isinstance(load, Open) else []
        watch = HealthWatch()
        self._began = loop.time()
        async with asyncio.TaskGroup() as group:
            watching = [group.create_task(watch.run())]
            if progress is not None:
                watching.append(group.create_task(self._tick(progress)))
            if isinstance(load, Open):
                await self._drive_open(prepared)
            else:
                over = until or asyncio.Event()
                if until is None:
                    loop.call_later(load.seconds, over.set)
                await self._drive_closed(load, over)
            for task in watching:
                task.cancel()
        seconds = loop.time() - self._began
        if progress is not None:
            progress(self._progress())
        health = watch.health(self._late, percentiles(self._first).p50)
        for connection in list(self._free):
            connection.close()
        for _ in range(3):  # the loop's rounds in which it lets go of what was closed
            await asyncio.sleep(0)
        return summarise(
            self._done,
            loop="open" if isinstance(load, Open) else "closed",
            seconds=seconds,
            peak_in_flight=self._peak,
            connections=self._connections,
            driver=health,
            durability=await self._durability(),
        )

    def _prepare(self, load: Open) -> list[Visit]:
        """All turns of an open loop before it begins: there will be no time then."""
        visits = []
        for number, (due, index) in enumerate(arrivals(load.crowds, self._scenario.seed)):
            crowd = load.crowds[index]
            token = crowd.tokens[number % len(crowd.tokens)] if crowd.tokens else ""
            if self._sign is not None:
                token = self._sign(f"customer-{number}")
            visit = self._visit(number, token)
            visit.outcome.crowd, visit.outcome.due = crowd.name, due
            visits.append(visit)
        self._expected = len(visits)
        return visits

    def _visit(self, number: int, token: str, session: str = "") -> Visit:
        scenario = self._scenario
        text = scenario.question(number)
        request = request_bytes(
            self._endpoint,
            scenario.api,
            text,
            token,
            session=session,
            model=scenario.model,
            keep_alive=scenario.keep_alive,
        )
        outcome = Outcome(number)
        if scenario.simulated is None:
            return Visit(outcome, request, None, 0.0)
        plan = scenario.simulated.plan(text)
        outcome.model_first, outcome.model_total = plan.first_token, plan.duration
        return Visit(outcome, request, plan.text, 0.0)

    async def _drive_open(self, visits: list[Visit]) -> None:
        """Send off everybody when due, then wait until the last one is through."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            for number, visit in enumerate(visits):
                ahead = self._began + visit.outcome.due - loop.time()
                if ahead > 0.0005:
                    await asyncio.sleep(ahead)
                elif not number % 64:
                    await asyncio.sleep(0)  # whoever is behind must not be deaf as well
                self._send(visit, self._began + visit.outcome.due, group)
            while self._running:
                ended = self._ended[next(iter(self._running))] = loop.create_future()
                await ended

    def _send(self, visit: Visit, since: float, group: asyncio.TaskGroup) -> None:
        visit.since = since
        late = max(0.0, asyncio.get_running_loop().time() - since)
        visit.outcome.late = late
        self._late.append(late)
        self._sent += 1
        self._running[visit.outcome.number] = visit
        self._peak = max(self._peak, len(self._running))
        if self._free:
            connection, _ = self._free.popitem()
            self._ask(connection, visit)
        else:
            group.create_task(self._connect(visit))

    async def _connect(self, visit: Visit) -> None:
        """Open a connection for the visit, within the patience of its customer."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(visit.since + self._scenario.patience):
                async with self._connecting:
                    _, connection = await loop.create_connection(
                        lambda: Connection(self._scenario.api, self._end, self._forget),
                        *self._address,
                        ssl=self._tls,
                        server_hostname=self._endpoint.origin.host if self._tls else None,
                    )
        except TimeoutError:
            self._give_up(visit, "no connection in time")
        except OSError as error:
            self._give_up(visit, f"cannot connect: {error.strerror or error}")
        else:
            self._connections += 1
            self._ask(connection, visit)

    def _ask(self, connection: Connection, visit: Visit) -> None:
        visit.timer = self._wheel.call_at(
            visit.since + self._scenario.patience, partial(connection.fail, "no answer in time")
        )
        connection.ask(visit)

    def _give_up(self, visit: Visit, reason: str) -> None:
        visit.outcome.error = reason
        visit.outcome.total = asyncio.get_running_loop().time() - visit.since
        self._count(visit)

    def _end(self, visit: Visit, connection: Connection, *, keep: bool) -> None:
        if keep and self._scenario.keep_alive:
            self._free[connection] = None
        else:
            connection.close()
        self._count(visit)

    def _forget(self, connection: Connection) -> None:
        self._free.pop(connection, None)

    def _count(self, visit: Visit) -> None:
        if visit.timer is not None:
            visit.timer.cancel()
        outcome = visit.outcome
        del self._running[outcome.number]
        if outcome.error:
            self._failed += 1
        else:
            self._completed += 1
            if outcome.first_text is not None:
                self._first.append(outcome.first_text)
        ended = self._ended.pop(outcome.number, None)
        if ended is not None and not ended.done():
            ended.set_result(None)
        if self._heard is None:
            self._done.append(outcome)
        else:
            self._heard(outcome)

    async def _drive_closed(self, load: Closed, until: asyncio.Event) -> None:
        numbers = count()
        async with asyncio.TaskGroup() as group:
            for customer in range(load.customers):
                group.create_task(self._customer(customer, load, until, numbers))

    async def _customer(
        self, customer: int, load: Closed, until: asyncio.Event, numbers: Iterator[int]
    ) -> None:
        loop = asyncio.get_running_loop()
        chance = random.Random(f"{self._scenario.seed} {customer}")  # noqa: S311 - a simulation
        token, signed_at = self._token(customer, load), time.monotonic()
        session, left = "", 0
        await _pause(chance.random() * load.settle, until)
        async with asyncio.TaskGroup() as group:
            while not until.is_set():
                if self._sign is not None and time.monotonic() - signed_at > _TOKEN_SECONDS:
                    token, signed_at = self._token(customer, load), time.monotonic()
                visit = self._visit(next(numbers), token, session if left else "")
                outcome = visit.outcome
                outcome.crowd, outcome.due = f"customer-{customer}", loop.time() - self._began
                ended = self._ended[outcome.number] = loop.create_future()
                self._send(visit, loop.time(), group)
                await ended
                left = left - 1 if left else load.turns - 1
                if outcome.error:
                    left = 0
                session = outcome.session
                if load.think:
                    await _pause(chance.random() * load.think, until)

    def _token(self, customer: int, load: Closed) -> str:
        if self._sign is not None:
            return self._sign(f"customer-{customer}")
        return load.tokens[customer % len(load.tokens)] if load.tokens else ""

    async def _tick(self, progress: Callable[[Progress], None]) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            progress(self._progress())

    def _progress(self) -> Progress:
        seconds = asyncio.get_running_loop().time() - self._began
        streaming = sum(each.outcome.first_text is not None for each in self._running.values())
        return Progress(
            round(seconds, 2), self._expected, self._sent, streaming, self._completed, self._failed
        )

    async def _durability(self) -> Durability | None:
        scenario = self._scenario
        if not scenario.read_back or scenario.api != "turns":
            return None
        return await read_back(scenario, self._done, self._sign)


async def _pause(seconds: float, until: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await until.wait()
    except TimeoutError:
        return
