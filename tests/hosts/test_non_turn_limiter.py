"""Requests that are not turns get a bounded part of a busy worker's time, in fair order."""

import asyncio
import time

from seawall.hosts.http.non_turn_limiter import NonTurnLimiter


class Connection:
    """Asks again as soon as it is answered; an answer costs a tenth of a millisecond."""

    def __init__(self, limiter: NonTurnLimiter) -> None:
        self.limiter = limiter
        self.answers = 0
        self.asking = True

    def ask(self) -> None:
        if self.asking and self.limiter.admit(self):
            self.proceed()

    def proceed(self) -> None:
        until = time.perf_counter() + 1e-4
        while time.perf_counter() < until:
            pass
        self.answers += 1
        self.limiter.charge(application=False)
        self.limiter.record_cost(1e-4, application=False)
        asyncio.get_running_loop().call_soon(self.ask)


async def flooded(limiter: NonTurnLimiter, seconds: float) -> tuple[list[int], int]:
    """Answers of each of ten connections, and rounds of other work in that time."""
    connections = [Connection(limiter) for _ in range(10)]
    for each in connections:
        each.ask()
    rounds, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        until = time.perf_counter() + 1e-4
        while time.perf_counter() < until:
            pass
        rounds += 1
        await asyncio.sleep(0)
    for each in connections:
        each.asking = False
        limiter.forget(each)
    return [each.answers for each in connections], rounds


async def test_a_busy_worker_keeps_most_of_its_time() -> None:
    answers, rounds = await flooded(NonTurnLimiter(lambda: True), 1.0)
    assert 0 < sum(answers) < 0.35 * rounds
    assert max(answers) - min(answers) <= 2 + 0.2 * max(answers)


async def test_a_worker_without_turns_answers_all() -> None:
    answers, rounds = await flooded(NonTurnLimiter(lambda: False), 0.5)
    assert sum(answers) > 2 * rounds


async def test_delayed_requests_are_answered_after_the_turns() -> None:
    busy = True
    limiter = NonTurnLimiter(lambda: busy)
    for _ in range(200):
        limiter.charge(application=True)
    waiting = Connection(limiter)
    waiting.ask()
    await asyncio.sleep(0.01)
    assert limiter.is_delayed(waiting)
    busy = False
    await asyncio.sleep(0.1)
    assert waiting.answers
    waiting.asking = False
    await asyncio.sleep(0.01)


class Broken(Connection):
    def proceed(self) -> None:
        raise RuntimeError("the answer cannot be sent")


async def test_a_failing_connection_leaves_the_others_queued() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, __: None)
    busy = True
    limiter = NonTurnLimiter(lambda: busy)
    for _ in range(200):
        limiter.charge(application=True)
    Broken(limiter).ask()
    waiting = Connection(limiter)
    waiting.ask()
    busy = False
    await asyncio.sleep(0.1)
    assert waiting.answers
    waiting.asking = False
    await asyncio.sleep(0.01)


async def test_a_turn_on_a_proxy_connection_has_priority_over_a_flood() -> None:
    limiter = NonTurnLimiter(lambda: True)
    flood = [Connection(limiter) for _ in range(300)]
    for each in flood:
        each.ask()
    await asyncio.sleep(0.02)
    turn = Connection(limiter)
    turn.asking = False
    before = sum(each.answers for each in flood)
    for _ in range(100):  # so that the turn is delayed, too
        limiter.charge(application=True)
    assert not limiter.admit(turn, turn=True)
    for _ in range(200):
        await asyncio.sleep(0.001)
        if turn.answers:
            break
    assert turn.answers == 1
    assert sum(each.answers for each in flood) - before < 30
    for each in flood:
        each.asking = False
        limiter.forget(each)
