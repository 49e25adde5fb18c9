"""Which logins count as ended, as the store says or cannot say."""

import asyncio
import secrets

import pytest

from seawall.console import logins as module
from seawall.console.access import Login
from seawall.console.logins import Logins
from seawall.errors import StoreUnavailable
from seawall.storage.counters import Addition, Count, Counters, MemoryCounters


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Store(MemoryCounters):
    """Counters that can be made to fail, and count how often they are read."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.fails = False
        self.reads = 0

    async def read(self, counter: str, window: str) -> dict[str, int]:
        self.reads += 1
        if self.fails:
            raise StoreUnavailable("It does not answer.")
        return await super().read(counter, window)

    async def add(self, addition: Addition) -> Count:
        if self.fails:
            raise StoreUnavailable("It does not answer.")
        return await super().add(addition)


class Worker(Logins):
    def __init__(self, store: Store, clock: Clock) -> None:
        async def counters() -> Counters:
            return store

        super().__init__(counters, seconds=1.0, clock=clock)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Store:
    return Store(clock)


def login(clock: Clock, subject: str = "ada", seconds: float = 604_800.0) -> Login:
    return Login("acme", subject, ("a",), clock() + seconds, secrets.token_hex(8), clock())


class SlowStore(Store):
    """Counters whose answers wait until they may go."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.answers = asyncio.Event()
        self.answers.set()

    async def read(self, counter: str, window: str) -> dict[str, int]:
        found = await super().read(counter, window)
        await self.answers.wait()
        return found


async def test_an_answer_from_before_the_end_does_not_count_after_it(clock: Clock) -> None:
    store = SlowStore(clock)
    worker, ended = Worker(store, clock), login(clock)
    store.answers.clear()
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(worker.is_valid(ended))
        await asyncio.sleep(0)
        await worker.end(ended)
        store.answers.set()
    assert asked.result()  # it was asked before
    assert not await worker.is_valid(ended)


async def test_an_answer_that_comes_late_revives_no_login(clock: Clock) -> None:
    store = SlowStore(clock)
    worker, ended = Worker(store, clock), login(clock)
    store.answers.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.is_valid(ended))
        await asyncio.sleep(0)
        await worker.end(ended)
        late, store.answers = store.answers, asyncio.Event()
        store.answers.set()
        assert not await worker.is_valid(ended)
        late.set()
    assert not await worker.is_valid(ended)


async def test_one_login_is_ended_and_no_other(store: Store, clock: Clock) -> None:
    here, there = Worker(store, clock), Worker(store, clock)
    first, second = login(clock), login(clock)
    for worker in (here, there):
        assert await worker.is_valid(first)
        assert await worker.is_valid(second)
    await here.end(first)
    assert not await here.is_valid(first)
    clock.now += module._FRESH_SECONDS
    assert not await there.is_valid(first)
    assert await here.is_valid(second)
    assert await there.is_valid(second)
    assert [each.login for each in there.seen().logins] == [second]
    clock.now += 6.9 * 86_400
    await here.end(second)  # which removes what has expired from the counters
    assert not await Worker(store, clock).is_valid(first)


@pytest.mark.parametrize("days", [0.0, 0.4, 1.5, 6.9])
async def test_all_logins_of_a_subject_until_now(store: Store, clock: Clock, days: float) -> None:
    here, there = Worker(store, clock), Worker(store, clock)
    earlier, other = login(clock), login(clock, "bob")
    clock.now += days * 86_400
    await here.end_all("acme", "ada")
    clock.now += 0.01
    later = login(clock)
    for worker in (here, there):
        assert not await worker.is_valid(earlier)
        assert await worker.is_valid(later)
        assert await worker.is_valid(other)
    await here.end_all("acme", "ada")
    await there.end_all("acme", "ada")  # at the same moment: not until twice that
    clock.now += 2.0
    assert not await here.is_valid(later)
    assert not await there.is_valid(later)
    assert await there.is_valid(login(clock))


async def test_what_others_call_themselves_does_not_matter(store: Store, clock: Clock) -> None:
    worker = Worker(store, clock)
    await worker.end_all("a", "cmeada")
    await worker.end_all("acmea", "da")
    clock.now -= 1.0
    assert await worker.is_valid(login(clock))


async def test_a_cookie_from_before_its_time_was_kept_is_ended_too(
    store: Store, clock: Clock
) -> None:
    old = Login("acme", "ada", (), clock() + 600, "an-old-one")
    worker = Worker(store, clock)
    assert await worker.is_valid(old)
    await worker.end_all("acme", "ada")
    assert not await worker.is_valid(old)


async def test_the_store_is_asked_once_a_second_and_may_fail_for_a_while(
    store: Store, clock: Clock
) -> None:
    worker, one = Worker(store, clock), login(clock)
    for _ in range(100):
        assert await worker.is_valid(one)
    assert store.reads == 2
    store.fails = True
    clock.now += module._STALE_SECONDS - 1.0
    assert await worker.is_valid(one)
    with pytest.raises(StoreUnavailable):
        await worker.is_valid(login(clock))  # one that it does not know
    clock.now += 2.0
    with pytest.raises(StoreUnavailable):
        await worker.is_valid(one)
    with pytest.raises(StoreUnavailable):
        await worker.end(one)
    store.fails = False
    assert await worker.is_valid(one)


async def test_an_ended_login_stays_so_while_the_store_fails(store: Store, clock: Clock) -> None:
    worker, one = Worker(store, clock), login(clock)
    await worker.end(one)
    assert not await worker.is_valid(one)
    store.fails = True
    clock.now += 10.0
    assert not await worker.is_valid(one)


async def test_what_a_worker_has_seen_is_bounded(store: Store, clock: Clock) -> None:
    worker = Worker(store, clock)
    everyone = [login(clock) for _ in range(module._MAX_SEEN + 50)]
    for each in everyone:
        await worker.is_valid(each)
    seen = [each.login for each in worker.seen().logins]
    assert seen == list(reversed(everyone[50:]))
    clock.now += 604_800
    assert worker.seen().logins == []
