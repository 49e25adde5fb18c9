"""Admission gate with real tasks."""

import asyncio
import contextlib

import pytest

from seawall.admission.gate import AdmissionGate, sample_load
from seawall.errors import Overloaded
from seawall.settings import AdmissionSettings


def _now() -> float:
    return asyncio.get_running_loop().time()


def _gate(in_flight: int, queued: int, wait_seconds: float = 5.0) -> AdmissionGate:
    return AdmissionGate(
        AdmissionSettings(in_flight=in_flight, queued=queued, wait_seconds=wait_seconds)
    )


async def test_the_bound_holds_and_every_turn_is_admitted() -> None:
    async def scenario() -> tuple[int, int]:
        gate = _gate(5, 100)
        active = peak = done = 0

        async def turn(number: int) -> None:
            nonlocal active, peak, done
            async with gate.slot(f"t{number % 3}", background=False, deadline=_now() + 5.0):
                active += 1
                peak = max(peak, active)
                await asyncio.sleep(0.002)
                active -= 1
                done += 1

        async with asyncio.TaskGroup() as group:
            for number in range(60):
                group.create_task(turn(number))
        assert (gate.in_flight, gate.queued) == (0, 0)
        return peak, done

    assert await scenario() == (5, 60)


async def test_beyond_the_queue_the_refusal_is_immediate_and_counted() -> None:
    gate = _gate(1, 0)
    asked = []

    def claimed() -> str:
        asked.append(1)
        return "acme"

    gate.check(claimed)
    assert not asked  # while there is room no token is read
    async with gate.slot("acme", background=False, deadline=_now() + 5.0):
        with pytest.raises(Overloaded) as refused:
            gate.check(claimed)
        assert refused.value.retry_after is not None
        with pytest.raises(Overloaded):
            async with gate.slot("acme", background=False, deadline=_now() + 5.0):
                pytest.fail("there is no room")
    gate.check(claimed)
    assert gate.refused["full"] == 2
    assert not asked  # nor if no turn could be admitted


async def test_retry_after_has_jitter() -> None:
    async def scenario() -> set[float | None]:
        gate = _gate(1, 0)
        async with gate.slot("acme", background=False, deadline=_now() + 5.0):
            return {gate.refusal(lambda: "acme") for _ in range(50)}

    seconds = await scenario()
    assert len(seconds) > 5
    assert all(each is not None and 1.0 <= each <= 2.0 for each in seconds)


async def test_waiting_ends_at_the_deadline_with_a_refusal() -> None:
    gate = _gate(1, 5)
    async with gate.slot("acme", background=False, deadline=_now() + 5.0):
        with pytest.raises(Overloaded):
            async with gate.slot("acme", background=False, deadline=_now() + 0.02):
                pytest.fail("there is no room")
        assert gate.queued == 0
    assert gate.in_flight == 0
    assert gate.refused["waited"] == 1


async def test_a_cancelled_turn_releases_its_slot() -> None:
    gate = _gate(2, 50)

    async def turn() -> None:
        async with gate.slot("acme", background=False, deadline=_now() + 5.0):
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(turn()) for _ in range(40)]
    for step in range(40):
        await asyncio.sleep(0.001)
        if step % 3:
            tasks[step].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (gate.in_flight, gate.queued) == (0, 0)
    async with gate.slot("acme", background=False, deadline=_now() + 1.0):
        assert gate.in_flight == 1


async def test_a_slot_granted_to_a_cancelled_turn_goes_to_the_next() -> None:
    gate = _gate(1, 5)
    first = gate.slot("acme", background=False, deadline=_now() + 5.0)
    await first.__aenter__()
    served: list[str] = []

    async def turn(name: str) -> None:
        async with gate.slot("acme", background=False, deadline=_now() + 5.0):
            served.append(name)

    one = asyncio.create_task(turn("one"))
    two = asyncio.create_task(turn("two"))
    three = asyncio.create_task(turn("three"))
    await asyncio.sleep(0)
    one.cancel()  # before the slot is granted
    await first.__aexit__(None, None, None)
    two.cancel()  # after
    await asyncio.gather(one, two, three, return_exceptions=True)
    assert served == ["three"]
    assert (gate.in_flight, gate.queued) == (0, 0)


async def test_a_small_tenant_is_admitted_and_the_displaced_turn_is_refused() -> None:
    async def scenario() -> list[str]:
        gate = _gate(1, 3)
        ends: list[str] = []

        async def turn(tenant: str) -> None:
            try:
                async with gate.slot(tenant, background=False, deadline=_now() + 5.0):
                    await asyncio.sleep(0.005)
                    ends.append(tenant)
            except Overloaded:
                ends.append(f"{tenant} refused")

        async with asyncio.TaskGroup() as group:
            for tenant in ("big", "big", "big", "big", "small"):
                group.create_task(turn(tenant))
        assert gate.refused["displaced"] == 1
        return ends

    assert sorted(await scenario()) == ["big", "big", "big", "big refused", "small"]


async def test_a_higher_limit_admits_waiting_turns() -> None:
    gate = AdmissionGate(
        AdmissionSettings(in_flight=10, queued=10, min_in_flight=1, lag_seconds=0.1)
    )
    at = 0.0
    slots = [gate.slot("acme", background=False, deadline=_now() + 60) for _ in range(11)]
    for each in slots[:4]:
        await each.__aenter__()
    while gate.limit > 4:
        at += 0.1
        gate._queue.started = 1
        gate.sample(at=at, lag=0.5, memory=0)
    assert gate.limit == 3
    assert gate.lag > 0.1
    waiting = asyncio.create_task(slots[4].__aenter__())
    await asyncio.sleep(0)
    assert (gate.in_flight, gate.queued) == (4, 1)
    for _ in range(100):
        at += 0.1
        gate.sample(at=at, lag=0.0, memory=0)
    await waiting
    assert (gate.in_flight, gate.queued) == (5, 0)


async def test_how_many_wait_for_the_identity_provider_is_bounded() -> None:
    gate = _gate(1, 1)
    with gate.awaiting_identity(), gate.awaiting_identity(), pytest.raises(Overloaded):  # noqa: SIM117
        with gate.awaiting_identity():
            pytest.fail("two wait already")
    with gate.awaiting_identity():
        pass


async def test_waiting_turns_report_their_position_and_no_slot_is_lost_meanwhile() -> None:
    """Also if the reader of reports is slow, or the turn is cancelled while it reports."""
    gate = _gate(1, 100, wait_seconds=60.0)
    step = asyncio.Event()
    heard: list[list[int]] = [[] for _ in range(5)]
    done: list[int] = []

    async def turn(number: int) -> None:
        async def report(position: int, seconds: float) -> None:
            assert seconds > 0
            heard[number].append(position)
            await asyncio.sleep(0.05 * number)
            if number == 4:
                await asyncio.sleep(60)

        async with gate.slot("a", background=False, deadline=_now() + 90, report=report):
            if number == 0:
                await step.wait()
            done.append(number)

    tasks = []
    for number in range(5):
        tasks.append(asyncio.create_task(turn(number)))
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        while not heard[4]:  # noqa: ASYNC110 - reports come about once a second
            await asyncio.sleep(0.05)
        assert heard == [[], [1], [2], [3], [4]]
        tasks[4].cancel()
        await asyncio.wait([tasks[4]])
        step.set()
        await asyncio.gather(*tasks[:4])
    assert done == [0, 1, 2, 3]
    assert (gate.in_flight, gate.queued) == (0, 0)


async def test_turns_that_start_within_a_second_are_not_reported() -> None:
    """Hundreds start in a second: of those that wait, only the last hear of it."""
    gate = _gate(1, 1_000, wait_seconds=60.0)
    heard: dict[int, list[tuple[int, float]]] = {}

    async def turn(number: int) -> None:
        async def report(position: int, seconds: float) -> None:
            heard.setdefault(number, []).append((position, seconds))

        async with gate.slot("a", background=False, deadline=_now() + 90, report=report):
            await asyncio.sleep(0.005)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for number in range(1_000):  # for five seconds: it has waited for one with a report or two
            group.create_task(turn(number))
    assert 999 in heard
    assert min(heard) > 40  # 20 and more started in a second, and 20 and more were left alone
    for reports in heard.values():
        positions = [position for position, _ in reports]
        assert positions == sorted(positions, reverse=True)
        assert all(seconds >= 1.0 for _, seconds in reports)


async def test_no_token_is_read_while_every_turn_may_wait() -> None:
    gate = _gate(1, 2)
    asked = []

    def claimed() -> str:
        asked.append(1)
        return "acme"

    async with (
        asyncio.TaskGroup() as group,
        gate.slot("acme", background=False, deadline=_now() + 5.0),
    ):
        for waiting in range(2):
            assert gate.queued == waiting
            gate.check(claimed)
            group.create_task(_pass_through(gate))
            await asyncio.sleep(0)
        assert not asked
        with pytest.raises(Overloaded):
            gate.check(claimed)
        assert asked  # another tenant could have displaced one


async def _pass_through(gate: AdmissionGate) -> None:
    async with gate.slot("acme", background=False, deadline=_now() + 5.0):
        pass


class _Reporting(AdmissionGate):
    """Counts the rounds of reports."""

    rounds = 0

    def _wake_to_report(self) -> None:
        self.rounds += 1
        super()._wake_to_report()


async def test_reports_are_made_once_a_second_however_often_turns_begin_to_wait() -> None:
    gate = _Reporting(AdmissionSettings(in_flight=1, queued=10, wait_seconds=60.0))

    async def report(_position: int, _seconds: float) -> None:
        return

    async def wait(seconds: float) -> None:
        slot = gate.slot("a", background=False, deadline=_now() + 90, report=report)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), slot:
                raise AssertionError("the slot is taken")

    async with gate.slot("a", background=False, deadline=_now() + 90):
        for _ in range(4):
            await wait(0.1)
        assert not gate.queued
        await wait(2.2)
    assert 1 <= gate.rounds <= 3


class _Sampled(AdmissionGate):
    """Counts its samples."""

    def __init__(self) -> None:
        super().__init__(AdmissionSettings(in_flight=1, queued=1))
        self.samples = 0
        self.many = asyncio.Event()

    def sample(self, *, at: float, lag: float, memory: int) -> None:
        super().sample(at=at, lag=lag, memory=memory)
        self.samples += 1
        if self.samples >= 10:
            self.many.set()


async def test_without_turns_samples_are_rare_and_a_turn_has_them_taken_at_once() -> None:
    gate, began = _Sampled(), _now()
    sampling = asyncio.create_task(sample_load(gate))
    await asyncio.sleep(2.5)
    assert 1 <= gate.samples <= _now() - began + 1
    async with gate.slot("acme", background=False, deadline=_now() + 60), asyncio.timeout(4):
        await gate.many.wait()
    sampling.cancel()


async def test_a_blocked_loop_is_watched_after_its_turns_have_ended() -> None:
    gate = _gate(1, 1)
    for number in range(20):
        gate.sample(at=_now() + number, lag=1.0, memory=0)
    assert not gate.idle
    for number in range(20, 60):
        gate.sample(at=_now() + number, lag=0.0, memory=0)
    assert gate.idle


async def test_how_long_turns_wait_is_known_while_any_waits() -> None:
    gate = _gate(1, 10)
    waits: list[float] = []

    async def turn(name: str) -> None:
        async with gate.slot(name, background=False, deadline=_now() + 10.0):
            waits.append(gate.waited)
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(turn(f"t{number}"))
    first, second, third = waits
    assert (first, third) == (0.0, 0.0)  # of the first none had waited, of the third none waits
    assert second >= 0.09
