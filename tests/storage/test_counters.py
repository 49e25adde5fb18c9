"""What every adapter of counters must do; each is run through all of it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from seawall.budgets.refill import Refill
from seawall.budgets.shared_bucket import SharedBucket
from seawall.errors import StoreUnavailable
from seawall.storage.counters import Addition, Count, Counters, MemoryCounters
from seawall.storage.port import SessionStore
from seawall.transport.http_client import Endpoint, HttpClient
from seawall.turn import Principal, SessionKey
from tests.cli.stores import everything, fill
from tests.faulty_server import DROP, Answer, Request, serving
from tests.storage.stores import NAMES, dynamodb_store, make_store, new_location

NEVER = 4_000_000_000.0

Open = Callable[[], Awaitable[Counters]]


async def opened_counters(store: SessionStore) -> Counters:
    counters = store.counters()
    await counters.open()
    return counters


@pytest.fixture(params=[*NAMES, "memory"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def another(kind: str, endpoint: str) -> AsyncGenerator[Open, None]:
    """Opens counters; every call is another process on the same store."""
    location, shared = new_location(kind), MemoryCounters()
    async with AsyncExitStack() as stack:

        async def another() -> Counters:
            if kind == "memory":
                return shared
            store = make_store(kind, location, endpoint)
            await store.open()
            stack.push_async_callback(store.close)
            return await opened_counters(store)

        yield another


def some(amounts: dict[str, int], window: str = "w1", **changes: Any) -> Addition:
    values: dict[str, Any] = {"counter": "c", "window": window, "expires_at": NEVER}
    return Addition(amounts=amounts, **(values | changes))


async def test_an_addition_is_visible_to_all_processes(another: Open) -> None:
    one, two = await another(), await another()
    assert await one.read("c", "w1") == {}
    assert await one.add(some({"tokens": 5})) == Count({"tokens": 5}, {"tokens": 5})
    counted = await two.add(some({"tokens": 7, "requests": 1}))
    assert counted == Count({"tokens": 7, "requests": 1}, {"tokens": 12, "requests": 1})
    assert await one.read("c", "w1") == {"tokens": 12, "requests": 1}
    assert await two.add(some({"tokens": -10})) == Count(
        {"tokens": -10}, {"tokens": 2, "requests": 1}
    )


async def test_as_much_is_added_as_fits(another: Open) -> None:
    counters = await another()
    limits = {"tokens": 100, "requests": 3}
    first = await counters.add(some({"tokens": 80, "requests": 2}, limits=limits))
    assert first.granted == {"tokens": 80, "requests": 2}
    second = await counters.add(some({"tokens": 80, "requests": 1}, limits=limits))
    assert second == Count({"tokens": 20, "requests": 1}, {"tokens": 100, "requests": 3})
    third = await counters.add(some({"tokens": 1, "requests": 1}, limits=limits))
    assert third == Count({"tokens": 0, "requests": 0}, {"tokens": 100, "requests": 3})
    forced = await counters.add(some({"tokens": 5}))
    assert forced.used["tokens"] == 105
    back = await counters.add(some({"tokens": -50}, limits=limits))
    assert back == Count({"tokens": -50}, {"tokens": 55, "requests": 3})
    larger = await counters.add(some({"tokens": 1_000}, limits=limits))
    assert larger.granted == {"tokens": 45}


async def test_counters_and_windows_do_not_touch_each_other(another: Open) -> None:
    counters = await another()
    names = [("a", "b#c"), ("a#b", "c"), ("a%23b", "c"), ("a", "b"), ("O#a", "b"), ("ä", "\n")]
    for index, (counter, window) in enumerate(names, 1):
        await counters.add(some({"n": index}, window, counter=counter))
    for index, (counter, window) in enumerate(names, 1):
        assert await counters.read(counter, window) == {"n": index}


async def test_large_amounts_are_exact(another: Open) -> None:
    counters = await another()
    large = 10**18
    assert (await counters.add(some({"money": large}))).used == {"money": large}
    counted = await counters.add(some({"money": 1}, limits={"money": large + 1}))
    assert counted == Count({"money": 1}, {"money": large + 1})


async def test_pods_at_the_same_time_do_not_exceed_a_limit_together(another: Open) -> None:
    pods = [await another() for _ in range(3)]
    wanted = [(pod, amount) for pod in pods for amount in (1, 7, 20, 33, 50)]
    counted = await asyncio.gather(
        *(pod.add(some({"n": amount}, limits={"n": 150})) for pod, amount in wanted)
    )
    assert sum(each.granted["n"] for each in counted) <= 150
    assert await pods[0].read("c", "w1") == {"n": sum(each.granted["n"] for each in counted)}
    rest = await pods[0].add(some({"n": 1_000}, limits={"n": 150}))
    assert rest.used == {"n": 150}


@pytest.mark.parametrize("name", NAMES)
async def test_sessions_and_counters_do_not_see_each_other(name: str, request: Any) -> None:
    endpoint = request.getfixturevalue("dynamodb") if name == "dynamodb" else ""
    store = make_store(name, new_location(name), endpoint)
    await store.open()
    counters = await opened_counters(store)
    key = SessionKey("acme", "ada", "s1")
    await fill(store, [key], 1, "hello")
    await counters.add(some({"n": 3}, counter="budget/acme"))
    assert set(await everything(store)) == {key}
    assert await store.erase(Principal("acme", "ada")) == 1
    assert await counters.read("budget/acme", "w1") == {"n": 3}
    await store.close()


async def test_expired_windows_are_purged(tmp_path: Any) -> None:
    """In SQLite by the next window's first addition; DynamoDB does it by the item's `ttl`."""
    del tmp_path
    store = make_store("sqlite", new_location("sqlite"), "")
    await store.open()
    counters = await opened_counters(store)
    await counters.add(some({"n": 1}, "old", expires_at=1.0))
    await counters.add(some({"n": 1}, "new"))
    assert await counters.read("c", "old") == {}
    assert await counters.read("c", "new") == {"n": 1}
    await store.close()


async def test_an_addition_whose_answer_is_lost_counts_once(dynamodb: str) -> None:
    http = HttpClient()
    lost = 0

    async def handle(request: Request) -> Answer:
        nonlocal lost
        real = await http.request(
            "POST",
            Endpoint.parse(dynamodb),
            headers=[
                (each.encode(), request.headers[each].encode())
                for each in ("content-type", "x-amz-target", "x-amz-date", "authorization")
            ],
            body=request.body,
            deadline=asyncio.get_running_loop().time() + 10,
            limit=1 << 20,
        )
        if b"UpdateItem" in request.headers["x-amz-target"].encode() and lost < 2:
            lost += 1
            return DROP
        return Answer(real.status, real.body)

    async with serving(handle) as server:
        store = dynamodb_store(server.url, new_location("dynamodb"))
        await store.open()
        counters = await opened_counters(store)
        counted = await counters.add(some({"n": 5}, limits={"n": 8}))
        assert (counted, lost) == (Count({"n": 5}, {"n": 5}), 2)
        assert await counters.read("c", "w1") == {"n": 5}
        await store.close()
    await http.close()


async def test_counters_of_a_missing_table_are_unavailable(dynamodb: str) -> None:
    store = dynamodb_store(dynamodb, new_location("dynamodb"))
    await store.open()
    counters = await opened_counters(store)
    store.table.name = "another-table"
    missing = await opened_counters(store)
    with pytest.raises(StoreUnavailable):
        await missing.add(some({"n": 1}))
    assert await counters.read("c", "w1") == {}
    await store.close()


async def test_a_token_bucket_stands_on_every_adapter(another: Open) -> None:
    """Two processes share one; its numbers are those of a limit of ten billions a minute."""
    now = 1_800_000_000.0
    refills = {"tokens": Refill(10_000_000_000, 10_000_000_000), "requests": Refill(60, 60)}
    one, two = [
        SharedBucket(await another(), "quota/q", refills, seconds=20.0, clock=lambda: now)
        for _ in range(2)
    ]
    needs = {"tokens": 100_000_000, "requests": 1}

    async def spent() -> int:
        made = 0
        while True:
            before = made
            for bucket in (one, two):
                await bucket.ask(needs)
                assert not bucket.degraded
                made += bucket.take(needs)
            if made == before:
                return made

    assert await spent() == 60
    now += 30.0
    assert await spent() == 30
    assert one.ready_in(needs) == pytest.approx(1.0, abs=0.01)
    now += 60.0
    assert await spent() == 60
    assert {one.processes, two.processes} == {2}
