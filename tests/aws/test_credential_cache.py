"""Credential cache: when credentials are fetched, and how long they are used."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from seawall.aws import Credentials, CredentialsError, CredentialsUnavailable
from seawall.aws.credential_cache import CredentialCache

NOW = 1_700_000_000.0


class Source:
    """Issues credentials for an hour, fails, or is slow, as configured."""

    def __init__(self) -> None:
        self.now = NOW
        self.fetched = 0
        self.lifetime: float | None = 3_600.0
        self.down = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self, *, deadline: float) -> Credentials | None:
        assert deadline > asyncio.get_running_loop().time()
        self.fetched += 1
        number = self.fetched
        await self.gate.wait()
        if self.down:
            raise CredentialsUnavailable("the source is down")
        expires_at = None if self.lifetime is None else self.now + self.lifetime
        return Credentials(f"AKID{number}", "secret", "token", expires_at)


async def play(scene: Callable[[CredentialCache, Source], Awaitable[None]], **options: Any) -> None:
    source = Source()
    cache = CredentialCache(source, clock=lambda: source.now, **options)
    try:
        await scene(cache, source)
    finally:
        await cache.close()


async def get(cache: CredentialCache, seconds: float = 20.0) -> str:
    found = await cache.get(deadline=asyncio.get_running_loop().time() + seconds)
    return found.access_key


async def run_pending() -> None:
    """Let background tasks finish."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_hundred_callers_are_served_by_one_fetch() -> None:
    async def scene(cache: CredentialCache, source: Source) -> None:
        source.gate.clear()
        async with asyncio.TaskGroup() as group:
            callers = [group.create_task(get(cache)) for _ in range(100)]
            await run_pending()
            source.gate.set()
        assert {each.result() for each in callers} == {"AKID1"}
        assert source.fetched == 1

    await play(scene)


async def test_a_cancelled_caller_does_not_end_the_fetch() -> None:
    async def scene(cache: CredentialCache, source: Source) -> None:
        source.gate.clear()
        async with asyncio.TaskGroup() as group:
            first = group.create_task(get(cache))
            second = group.create_task(get(cache))
            await run_pending()
            first.cancel()
            await run_pending()
            source.gate.set()
        assert second.result() == "AKID1"
        assert source.fetched == 1

    await play(scene)


async def test_old_credentials_are_used_during_a_fetch() -> None:
    async def scene(cache: CredentialCache, source: Source) -> None:
        assert await get(cache) == "AKID1"
        source.now += 3_600 - 901
        assert cache.current() is not None
        source.now += 2
        assert cache.current() is None
        source.gate.clear()
        assert await get(cache) == "AKID1"
        assert await get(cache) == "AKID1"
        source.gate.set()
        await run_pending()
        assert await get(cache) == "AKID2"
        assert source.fetched == 2

    await play(scene)


async def test_callers_wait_shortly_before_expiry() -> None:
    async def scene(cache: CredentialCache, source: Source) -> None:
        assert await get(cache) == "AKID1"
        source.now += 3_600 - 599
        assert await get(cache) == "AKID2"

    await play(scene)


@pytest.mark.parametrize("left", [800.0, 300.0])
async def test_a_failing_source_does_no_harm_before_expiry(left: float) -> None:
    async def scene(cache: CredentialCache, source: Source) -> None:
        await get(cache)
        source.now += 3_600 - left
        source.down = True
        for _ in range(50):
            assert await get(cache) == "AKID1"
            await run_pending()
        assert source.fetched == 2  # and not again within the cool-down
        source.now += 6
        source.down = False
        await get(cache)
        await run_pending()
        assert await get(cache) == "AKID3"

    await play(scene)


async def test_a_hanging_source_does_no_harm_before_expiry() -> None:
    async def scene(cache: CredentialCache, source: Source) -> None:
        await get(cache)
        source.now += 3_600 - 300
        source.gate.clear()
        assert await get(cache, 0.05) == "AKID1"

    await play(scene)


async def test_expired_credentials_are_never_used() -> None:
    async def scene(cache: CredentialCache, source: Source) -> None:
        await get(cache)
        source.now += 3_601
        source.down = True
        for _ in range(3):  # the later ones within the cool-down
            with pytest.raises(CredentialsUnavailable, match="the source is down"):
                await get(cache)
        assert source.fetched == 2

    await play(scene)


async def test_callers_meet_their_deadline() -> None:
    async def scene(cache: CredentialCache, source: Source) -> None:
        source.gate.clear()
        with pytest.raises(CredentialsError):
            await get(cache, 0.05)
        source.gate.set()
        assert await get(cache) == "AKID1"

    await play(scene)


async def test_short_lived_credentials_are_not_fetched_for_every_call() -> None:
    async def scene(cache: CredentialCache, source: Source) -> None:
        source.lifetime = 60.0
        for _ in range(10):
            assert await get(cache) == "AKID1"
        source.now += 6
        assert await get(cache) == "AKID2"

    await play(scene)


async def test_permanent_credentials_are_fetched_once() -> None:
    async def scene(cache: CredentialCache, source: Source) -> None:
        source.lifetime = None
        await get(cache)
        source.now += 1e9
        assert cache.current() is not None
        assert source.fetched == 1

    await play(scene)


async def test_refused_credentials_are_renewed_once() -> None:
    async def scene(cache: CredentialCache, source: Source) -> None:
        deadline = asyncio.get_running_loop().time() + 20
        refused = await cache.get(deadline=deadline)
        renewed = await asyncio.gather(
            *[cache.renew(refused, deadline=deadline) for _ in range(100)]
        )
        assert {each.access_key for each in renewed} == {"AKID2"}
        assert source.fetched == 2

    await play(scene)


async def test_closing_ends_a_fetch() -> None:
    async def scene(cache: CredentialCache, source: Source) -> None:
        await get(cache)
        source.now += 3_600 - 800
        source.gate.clear()
        before = asyncio.all_tasks()
        await get(cache)
        assert asyncio.all_tasks() > before
        await cache.close()
        assert asyncio.all_tasks() == before

    await play(scene)
