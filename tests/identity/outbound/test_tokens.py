"""The cache of tokens: one fetch for many, renewal before expiry, and nothing of anybody else."""

import asyncio
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.identity.outbound.port import CredentialsUnavailable
from seawall.identity.outbound.tokens import Token, TokenCache


class Server:
    """Issues numbered tokens of a hundred seconds, and counts."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.issued: Counter[object] = Counter()
        self.failing = ""
        self.gate = asyncio.Event()
        self.gate.set()
        self.cache = TokenCache(fetch_seconds=5, entries=4, clock=lambda: self.now)

    async def get(self, key: str = "ada", *, seconds: float = 5.0) -> str:
        async def fetch(_deadline: float) -> Token:
            self.issued[key] += 1
            number = self.issued[key]
            await self.gate.wait()
            if self.failing:
                raise CredentialsUnavailable(self.failing)
            return Token(f"{key}-{number}", self.now + 100)

        deadline = asyncio.get_running_loop().time() + seconds
        return await self.cache.get(key, fetch, deadline=deadline)


@pytest.fixture
async def server() -> Server:
    return Server()


async def run_pending() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


async def test_many_callers_share_one_fetch(server: Server) -> None:
    server.gate.clear()
    callers = [asyncio.create_task(server.get()) for _ in range(200)]
    await run_pending()
    server.gate.set()
    assert set(await asyncio.gather(*callers)) == {"ada-1"}
    assert await server.get() == "ada-1"
    assert server.issued["ada"] == 1


async def test_a_token_is_renewed_in_the_background_before_it_expires(server: Server) -> None:
    await server.get()
    server.now += 79
    assert await server.get() == "ada-1"
    await run_pending()
    assert server.issued["ada"] == 1
    server.now += 2  # a fifth of its life is left
    assert await server.get() == "ada-1"
    await run_pending()
    assert await server.get() == "ada-2"
    assert server.issued["ada"] == 2


async def test_an_expired_token_is_never_returned(server: Server) -> None:
    await server.get()
    server.now += 96  # on its way to the upstream it would expire
    assert await server.get() == "ada-2"


async def test_while_the_server_is_down_a_valid_token_is_used(server: Server) -> None:
    await server.get()
    server.now += 85
    server.failing = "down"
    for _ in range(3):
        assert await server.get() == "ada-1"
        await run_pending()
    assert server.issued["ada"] == 2  # a failure is remembered
    server.now += 11
    with pytest.raises(CredentialsUnavailable, match="down"):
        await server.get()


async def test_a_failure_is_remembered_briefly_and_reaches_every_caller(server: Server) -> None:
    server.failing = "the server said no"
    server.gate.clear()
    callers = [asyncio.create_task(server.get()) for _ in range(50)]
    await run_pending()
    server.gate.set()
    said = await asyncio.gather(*callers, return_exceptions=True)
    assert {str(each) for each in said} == {"the server said no"}
    assert len(set(map(id, said))) == 50  # an exception of its own for each
    with pytest.raises(CredentialsUnavailable, match="said no"):
        await server.get()
    assert server.issued["ada"] == 1
    server.now += 3
    server.failing = ""
    assert await server.get() == "ada-2"


async def test_a_caller_waits_no_longer_than_its_deadline(server: Server) -> None:
    server.gate.clear()
    with pytest.raises(CredentialsUnavailable, match="in time"):
        await server.get(seconds=0.01)
    server.gate.set()
    await run_pending()
    assert await server.get() == "ada-1"  # the fetch went on for the next one


async def test_a_cancelled_caller_does_not_end_the_fetch_of_the_others(server: Server) -> None:
    server.gate.clear()
    first = asyncio.create_task(server.get())
    second = asyncio.create_task(server.get())
    await run_pending()
    first.cancel()
    await run_pending()
    server.gate.set()
    assert await second == "ada-1"


async def test_exactly_the_refused_token_is_dropped(server: Server) -> None:
    first = await server.get()
    assert server.cache.reject("ada", first)
    second = await server.get()
    assert second == "ada-2"
    assert server.cache.reject("ada", first)  # of a call that began earlier
    assert await server.get() == second


async def test_an_upstream_that_refuses_every_token_does_not_cause_endless_fetches(
    server: Server,
) -> None:
    assert server.cache.reject("ada", await server.get())
    for _ in range(20):
        assert not server.cache.reject("ada", await server.get())
    assert server.issued["ada"] == 2
    server.now += 11
    assert server.cache.reject("ada", await server.get())


async def test_the_least_recently_used_is_dropped_beyond_the_bound(server: Server) -> None:
    for key in ("a", "b", "c", "d"):
        await server.get(key)
    await server.get("a")
    await server.get("e")
    assert len(server.cache) == 4
    await server.get("a")
    await server.get("b")
    assert server.issued == Counter({"a": 1, "b": 2, "c": 1, "d": 1, "e": 1})


async def test_closing_ends_a_fetch_that_hangs(server: Server) -> None:
    server.gate.clear()
    caller = asyncio.create_task(server.get())
    await run_pending()
    await server.cache.close()
    with pytest.raises(CredentialsUnavailable):
        await caller


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(Token("secret", 1.0))


@given(st.integers(0, 1 << 32))
async def test_nobody_ever_gets_a_token_of_another(seed: int) -> None:
    """Any order of calls, renewals, refusals, failures and evictions."""
    server = Server()
    steps = random.Random(seed)
    subjects = [f"subject{number}" for number in range(8)]  # more than the cache holds

    async def call(subject: str) -> None:
        for _ in range(steps.randrange(3)):
            await asyncio.sleep(0)
        try:
            got = await server.get(subject)
        except CredentialsUnavailable:
            return
        assert got.startswith(f"{subject}-")
        if steps.random() < 0.2:
            server.cache.reject(subject, got)

    for _ in range(12):
        server.now += steps.choice([0, 1, 30, 80, 120])
        server.failing = "down" if steps.random() < 0.1 else ""
        await asyncio.gather(*(call(steps.choice(subjects)) for _ in range(10)))
    assert len(server.cache) <= 4
    await server.cache.close()
