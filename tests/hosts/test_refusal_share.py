"""Refused turns: a share of their own, idle time on top, and no effect on probes."""

import asyncio
import time

from seawall.hosts.http.non_turn_limiter import NonTurnLimiter

COST = 1e-4  # seconds of processor time of an answer


def work(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


class Client:
    """A connection whose every turn is refused; it asks again as soon as it is answered."""

    def __init__(self, limiter: NonTurnLimiter) -> None:
        self.limiter = limiter
        self.answers = 0
        self.asking = True

    def ask(self) -> None:
        if self.asking and self.limiter.admit_refusal(self):
            self.proceed()

    def proceed(self) -> None:
        work(COST)
        self.answers += 1
        self.limiter.charge_refusal()
        self.limiter.record_cost(COST, application=False)
        asyncio.get_running_loop().call_soon(self.ask)


class Probe:
    def __init__(self) -> None:
        self.answers = 0

    def proceed(self) -> None:
        self.answers += 1


async def refused(limiter: NonTurnLimiter, *, turn_seconds: float, seconds: float = 1.0) -> float:
    """The share of the time that refusals get beside turns, which take `turn_seconds` a pass."""
    clients = [Client(limiter) for _ in range(10)]
    for each in clients:
        each.ask()
    used, end = time.thread_time(), time.monotonic() + seconds
    while time.monotonic() < end:
        work(turn_seconds)
        await asyncio.sleep(0 if turn_seconds else 0.001)
    for each in clients:
        each.asking = False
        limiter.forget(each)
    answers = [each.answers for each in clients]
    assert max(answers) - min(answers) <= 2 + 0.2 * max(answers)
    return sum(answers) * COST / (time.thread_time() - used)


async def test_a_saturated_worker_keeps_most_of_its_time_for_turns() -> None:
    assert 0 < await refused(NonTurnLimiter(lambda: True), turn_seconds=4e-3) < 0.35


async def test_an_idle_worker_answers_far_more_refusals_than_their_share() -> None:
    """Regression: a server at its limit of turns, but idle, answered refusals after seconds."""
    limiter = NonTurnLimiter(lambda: True)
    began = time.monotonic()
    clients = [Client(limiter) for _ in range(10)]
    for each in clients:
        each.ask()
    while sum(each.answers for each in clients) < 500:
        await asyncio.sleep(0.001)
        assert time.monotonic() - began < 10.0
    for each in clients:
        each.asking = False
        limiter.forget(each)


async def test_probes_do_not_wait_behind_refusals() -> None:
    limiter = NonTurnLimiter(lambda: True)
    for _ in range(10_000):
        limiter.charge_refusal()
    client, probe = Client(limiter), Probe()
    client.ask()
    assert limiter.is_delayed(client)
    assert limiter.admit(probe)
    limiter.forget(client)
