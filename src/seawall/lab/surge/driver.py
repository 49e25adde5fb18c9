"""Drives a scenario to its end, in this process, on this event loop.

Open loop: a customer's clock starts when he is due, so that a driver or server that is late cannot
hide it (coordinated omission: Tene, "How NOT to Measure Latency", 2013). Closed loop: it starts
when he asks, as it must where nobody comes before somebody was answered; so a stall of the server
is seen only by those who wait for an answer already.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

from seawall.lab.statistics import percentiles
from seawall.lab.surge.connection import Connection, PendingTurn, request_bytes
from seawall.lab.surge.connector import Connector, NoConnection
from seawall.lab.surge.health import HealthWatch
from seawall.lab.surge.outcome import (
    Durability,
    Interrupted,
    Outcome,
    Progress,
    SurgeResult,
    summarise,
)
from seawall.lab.surge.read_back import read_back
from seawall.lab.surge.scenario import Api, Closed, Open, Scenario, arrivals
from seawall.timers import TimingWheel
from seawall.transport.http_client import Endpoint

__all__ = ["drive"]

_TICK_SECONDS = 0.2
_TOKEN_SECONDS = 1_200.0
_AFTER_ERROR_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 30.0
_PATHS: dict[Api, str] = {"turns": "/v1/turns", "chat": "/v1/chat/completions"}

OutcomeCallback = Callable[[Outcome], None]


async def drive(
    scenario: Scenario,
    *,
    progress: Callable[[Progress], None] | None = None,
    token: Callable[[str], str] | None = None,
    on_outcome: OutcomeCallback | None = None,
    until: asyncio.Event | None = None,
    stop: asyncio.Event | None = None,
) -> SurgeResult:
    """Drive it to its end.

    progress: told five times a second. token: signs for a subject, in place of the scenario's
    tokens. heard: told of every outcome; then the result does not keep them, so that a crowd may
    ask for hours. until: ends a closed loop, in place of its time. stop: ends everything at once;
    the result is of the turns that were over by then, and nothing is read back.

    Raises:
        OSError: the server's name is not known.
        ConfigError: nobody comes at all.
    """
    driver = _Driver(scenario, token, on_outcome)
    return await driver.run(progress, until, stop or asyncio.Event())


class _Driver:
    def __init__(
        self,
        scenario: Scenario,
        token: Callable[[str], str] | None,
        on_outcome: OutcomeCallback | None,
    ) -> None:
        self._scenario = scenario
        self._sign = token
        self._on_outcome = on_outcome
        self._endpoint = Endpoint.parse(scenario.url + _PATHS[scenario.api])
        self._connector = Connector(
            self._endpoint.origin, lambda: Connection(scenario.api, self._end, self._forget)
        )
        self._wheel = TimingWheel(0.05)
        self._free: dict[Connection, None] = {}
        self._done: list[Outcome] = []
        self._ended: dict[int, asyncio.Future[None]] = {}
        self._began = 0.0
        self._expected = 0
        self._sent = self._completed = self._failed = self._refused = 0
        self._in_flight: dict[int, PendingTurn] = {}
        self._asked: dict[int, Connection] = {}
        self._stopped = False
        self._peak = 0
        self._late: list[float] = []
        self._first: list[float] = []

    async def run(
        self,
        progress: Callable[[Progress], None] | None,
        until: asyncio.Event | None,
        stop: asyncio.Event,
    ) -> SurgeResult:
        loop = asyncio.get_running_loop()
        await self._connector.resolve()
        load = self._scenario.load
        prepared = self._prepare(load) if isinstance(load, Open) else []
        watch = HealthWatch()
        self._began = loop.time()
        async with asyncio.TaskGroup() as group:
            watching: list[asyncio.Task[Any]] = [group.create_task(watch.run())]
            if progress is not None:
                watching.append(group.create_task(self._tick(progress)))
            if isinstance(load, Open):
                driving = group.create_task(self._drive_open(prepared))
            else:
                over = until or asyncio.Event()
                if until is None:
                    loop.call_later(load.seconds, over.set)
                driving = group.create_task(self._drive_closed(load, over))
            stopping = group.create_task(stop.wait())
            watching.append(stopping)
            await asyncio.wait([driving, stopping], return_when=asyncio.FIRST_COMPLETED)
            self._stopped = not driving.done()
            driving.cancel()
            for task in watching:
                task.cancel()
        seconds = loop.time() - self._began
        if progress is not None:
            progress(self._progress())
        limits = [f"{turns} turns: {limit}" for limit, turns in self._connector.limits.items()]
        health = watch.health(self._late, percentiles(self._first).p50, limits)
        interrupted = Interrupted(self._expected - self._sent, len(self._in_flight))
        for visit in list(self._in_flight.values()):
            if visit.timer is not None:
                visit.timer.cancel()
        for connection in [*self._free, *self._asked.values()]:
            connection.close()
        for _ in range(3):  # the loop's rounds in which it lets go of what was closed
            await asyncio.sleep(0)
        return summarise(
            self._done,
            loop="open" if isinstance(load, Open) else "closed",
            seconds=seconds,
            peak_in_flight=self._peak,
            connections=self._connector.opened,
            driver=health,
            durability=None if self._stopped else await self._durability(),
            interrupted=interrupted if self._stopped else None,
        )

    def _prepare(self, load: Open) -> list[PendingTurn]:
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

    def _visit(self, number: int, token: str, session: str = "") -> PendingTurn:
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
            return PendingTurn(outcome, request, None, 0.0)
        plan = scenario.simulated.plan(text)
        outcome.model_first, outcome.model_total = plan.first_token, plan.duration
        return PendingTurn(outcome, request, plan.text, 0.0)

    async def _drive_open(self, visits: list[PendingTurn]) -> None:
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
            while self._in_flight:
                ended = self._ended[next(iter(self._in_flight))] = loop.create_future()
                await ended

    def _send(self, visit: PendingTurn, since: float, group: asyncio.TaskGroup) -> None:
        visit.since = since
        self._sent += 1
        self._in_flight[visit.outcome.number] = visit
        self._peak = max(self._peak, len(self._in_flight))
        if self._free:
            connection, _ = self._free.popitem()
            self._reached(visit)
            self._ask(connection, visit)
        else:
            group.create_task(self._connect(visit))

    def _reached(self, visit: PendingTurn) -> None:
        """The driver got to this customer."""
        late = max(0.0, asyncio.get_running_loop().time() - visit.since)
        visit.outcome.late = late
        self._late.append(late)

    async def _connect(self, visit: PendingTurn) -> None:
        """Open a connection for the visit, within the patience of its customer."""
        number, deadline = visit.outcome.number, visit.since + self._scenario.patience
        try:
            connection = await self._connector.open(number, deadline, partial(self._reached, visit))
        except NoConnection as error:
            self._give_up(visit, str(error))
        else:
            self._ask(connection, visit)

    def _ask(self, connection: Connection, visit: PendingTurn) -> None:
        visit.timer = self._wheel.call_at(
            visit.since + self._scenario.patience, partial(connection.fail, "no answer in time")
        )
        self._asked[visit.outcome.number] = connection
        connection.ask(visit)

    def _give_up(self, visit: PendingTurn, reason: str) -> None:
        visit.outcome.error = reason
        visit.outcome.total = asyncio.get_running_loop().time() - visit.since
        self._count(visit)

    def _end(self, visit: PendingTurn, connection: Connection, *, keep: bool) -> None:
        if keep and self._scenario.keep_alive:
            self._free[connection] = None
        else:
            connection.close()
        self._count(visit)

    def _forget(self, connection: Connection) -> None:
        self._free.pop(connection, None)

    def _count(self, visit: PendingTurn) -> None:
        self._asked.pop(visit.outcome.number, None)
        if self._stopped:
            return
        if visit.timer is not None:
            visit.timer.cancel()
            visit.timer = None  # it holds the connection
        outcome = visit.outcome
        del self._in_flight[outcome.number]
        if outcome.error and outcome.refused:
            self._refused += 1
        elif outcome.error:
            self._failed += 1
        else:
            self._completed += 1
            if outcome.first_text is not None:
                self._first.append(outcome.first_text)
        ended = self._ended.pop(outcome.number, None)
        if ended is not None and not ended.done():
            ended.set_result(None)
        if self._on_outcome is None:
            self._done.append(outcome)
        else:
            self._on_outcome(outcome)

    async def _drive_closed(self, load: Closed, until: asyncio.Event) -> None:
        numbers = count()
        async with asyncio.TaskGroup() as group:
            for customer in range(load.users):
                group.create_task(self._virtual_user(customer, load, until, numbers))

    async def _virtual_user(
        self, customer: int, load: Closed, until: asyncio.Event, numbers: Iterator[int]
    ) -> None:
        loop = asyncio.get_running_loop()
        chance = random.Random(f"{self._scenario.seed} {customer}")  # noqa: S311 - a simulation
        token, signed_at = self._token(customer, load), time.monotonic()
        session, left = "", 0
        await _pause(chance.random() * load.ramp_up, until)
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
                pause = chance.random() * load.think
                if outcome.error:
                    left = 0
                    pause = max(pause, _after_error(visit))
                session = outcome.session
                if pause:
                    await _pause(pause, until)

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
        streaming = sum(each.outcome.first_text is not None for each in self._in_flight.values())
        return Progress(
            seconds=round(seconds, 2),
            turns=self._expected,
            sent=self._sent,
            streaming=streaming,
            completed=self._completed,
            failed=self._failed,
            refused=self._refused,
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


def _after_error(visit: PendingTurn) -> float:
    """Seconds until its customer asks again, so that a server in trouble is not stormed."""
    wanted = visit.retry_after
    return _AFTER_ERROR_SECONDS if wanted is None else min(wanted, _LONGEST_RETRY_SECONDS)
