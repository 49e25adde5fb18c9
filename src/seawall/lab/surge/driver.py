"""Runs a scenario on the current event loop.

In an open loop a turn's clock starts when the turn is due, so that a late driver or server cannot
hide the delay (coordinated omission: Tene, "How NOT to Measure Latency", 2013). In a closed loop it
starts when the turn is sent, since no turn is due before the previous one was answered; a stall of
the server then shows only in the turns that are already in flight.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

from seawall.lab.statistics import Percentiles, percentiles
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
_LIVE_SECONDS = 0.9
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
    live: bool = False,
) -> SurgeResult:
    """Run a scenario to its end.

    Args:
        scenario: What to run.
        progress: Called five times a second.
        token: Signs a token for a subject, in place of the scenario's tokens.
        on_outcome: Called with every outcome. The result then has no outcomes, so that memory does
            not grow in runs of hours.
        until: Ends a closed loop, in place of its duration.
        stop: Ends everything at once. The result then covers the turns that had ended, and nothing
            is read back.
        live: Whether the progress has times to the first text, which are sorted each second.

    Raises:
        OSError: The server's name cannot be resolved.
        ConfigError: No turn is due at all.
    """
    driver = _Driver(scenario, token, on_outcome, live=live)
    return await driver.run(progress, until, stop or asyncio.Event())


class _Driver:
    def __init__(
        self,
        scenario: Scenario,
        token: Callable[[str], str] | None,
        on_outcome: OutcomeCallback | None,
        *,
        live: bool,
    ) -> None:
        self._scenario = scenario
        self._sign = token
        self._on_outcome = on_outcome
        self._endpoint = Endpoint.parse(scenario.url + _PATHS[scenario.api])
        self._wheel = TimingWheel(0.05)
        self._connector = Connector(
            self._endpoint.origin,
            lambda: Connection(scenario.api, self._end, self._forget),
            self._wheel,
        )
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
        self._live = live
        self._live_first: Percentiles | None = None
        self._live_at = 0.0

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
        for turn in list(self._in_flight.values()):
            if turn.timer is not None:
                turn.timer.cancel()
        for connection in [*self._free, *self._asked.values()]:
            connection.close()
        for _ in range(3):  # iterations in which the event loop drops closed transports
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
        """Build all turns of an open loop before it starts, to keep the loop itself short."""
        turns = []
        for number, (due, index) in enumerate(arrivals(load.crowds, self._scenario.seed)):
            crowd = load.crowds[index]
            token = crowd.tokens[number % len(crowd.tokens)] if crowd.tokens else ""
            if self._sign is not None:
                token = self._sign(f"customer-{number}")
            turn = self._new_turn(number, token)
            turn.outcome.crowd, turn.outcome.due = crowd.name, due
            turns.append(turn)
        self._expected = len(turns)
        return turns

    def _new_turn(self, number: int, token: str, session: str = "") -> PendingTurn:
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

    async def _drive_open(self, turns: list[PendingTurn]) -> None:
        """Send every turn when it is due, then wait until the last one has ended."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            for number, turn in enumerate(turns):
                ahead = self._began + turn.outcome.due - loop.time()
                if ahead > 0.0005:
                    await asyncio.sleep(ahead)
                elif not number % 64:
                    await asyncio.sleep(0)  # let the loop read responses even if sending is late
                self._send(turn, self._began + turn.outcome.due, group)
            while self._in_flight:
                ended = self._ended[next(iter(self._in_flight))] = loop.create_future()
                await ended

    def _send(self, turn: PendingTurn, since: float, group: asyncio.TaskGroup) -> None:
        turn.since = since
        self._sent += 1
        self._in_flight[turn.outcome.number] = turn
        self._peak = max(self._peak, len(self._in_flight))
        if self._free:
            connection, _ = self._free.popitem()
            self._reached(turn)
            self._ask(connection, turn)
        else:
            group.create_task(self._connect(turn))

    def _reached(self, turn: PendingTurn) -> None:
        """Note how late the driver started the turn."""
        late = max(0.0, asyncio.get_running_loop().time() - turn.since)
        turn.outcome.late = late
        self._late.append(late)

    async def _connect(self, turn: PendingTurn) -> None:
        """Open a connection for the turn, within the user's patience."""
        number, deadline = turn.outcome.number, turn.since + self._scenario.patience
        try:
            connection = await self._connector.open(number, deadline, partial(self._reached, turn))
        except NoConnection as error:
            self._give_up(turn, str(error))
        else:
            self._ask(connection, turn)

    def _ask(self, connection: Connection, turn: PendingTurn) -> None:
        turn.timer = self._wheel.call_at(
            turn.since + self._scenario.patience, partial(connection.fail, "no answer in time")
        )
        self._asked[turn.outcome.number] = connection
        connection.ask(turn)

    def _give_up(self, turn: PendingTurn, reason: str) -> None:
        turn.outcome.error = reason
        turn.outcome.total = asyncio.get_running_loop().time() - turn.since
        self._count(turn)

    def _end(self, turn: PendingTurn, connection: Connection, *, keep: bool) -> None:
        if keep and self._scenario.keep_alive:
            self._free[connection] = None
        else:
            connection.close()
        self._count(turn)

    def _forget(self, connection: Connection) -> None:
        self._free.pop(connection, None)

    def _count(self, turn: PendingTurn) -> None:
        self._asked.pop(turn.outcome.number, None)
        if self._stopped:
            return
        if turn.timer is not None:
            turn.timer.cancel()
            turn.timer = None  # it references the connection
        outcome = turn.outcome
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
            for user in range(load.users):
                group.create_task(self._virtual_user(user, load, until, numbers))

    async def _virtual_user(
        self, user: int, load: Closed, until: asyncio.Event, numbers: Iterator[int]
    ) -> None:
        loop = asyncio.get_running_loop()
        chance = random.Random(f"{self._scenario.seed} {user}")  # noqa: S311 - a simulation
        token, signed_at = self._token(user, load), time.monotonic()
        session, left = "", 0
        await _pause(chance.random() * load.ramp_up, until)
        async with asyncio.TaskGroup() as group:
            while not until.is_set():
                if self._sign is not None and time.monotonic() - signed_at > _TOKEN_SECONDS:
                    token, signed_at = self._token(user, load), time.monotonic()
                turn = self._new_turn(next(numbers), token, session if left else "")
                outcome = turn.outcome
                outcome.crowd, outcome.due = f"customer-{user}", loop.time() - self._began
                ended = self._ended[outcome.number] = loop.create_future()
                self._send(turn, loop.time(), group)
                await ended
                left = left - 1 if left else load.turns - 1
                pause = chance.random() * load.think
                if outcome.error:
                    left = 0
                    pause = max(pause, _after_error(turn))
                session = outcome.session
                if pause:
                    await _pause(pause, until)

    def _token(self, user: int, load: Closed) -> str:
        if self._sign is not None:
            return self._sign(f"customer-{user}")
        return load.tokens[user % len(load.tokens)] if load.tokens else ""

    async def _tick(self, progress: Callable[[Progress], None]) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            progress(self._progress())

    def _progress(self) -> Progress:
        seconds = asyncio.get_running_loop().time() - self._began
        streaming = sum(each.outcome.first_text is not None for each in self._in_flight.values())
        if self._live and seconds - self._live_at >= _LIVE_SECONDS:
            self._live_at = seconds
            known = (each.outcome.first_text for each in self._in_flight.values())
            self._live_first = percentiles(
                [*self._first, *(each for each in known if each is not None)]
            )
        return Progress(
            seconds=round(seconds, 2),
            turns=self._expected,
            sent=self._sent,
            streaming=streaming,
            completed=self._completed,
            failed=self._failed,
            refused=self._refused,
            first_text=self._live_first,
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


def _after_error(turn: PendingTurn) -> float:
    """Seconds until the user sends the next turn after an error, as `Retry-After` says."""
    wanted = turn.retry_after
    return _AFTER_ERROR_SECONDS if wanted is None else min(wanted, _LONGEST_RETRY_SECONDS)
