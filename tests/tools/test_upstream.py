"""Discipline of calls to one upstream: bulkhead, rate, retries, pauses, circuit breaker."""

import asyncio
import time

import pytest

from seawall.identity.outbound.settings import StaticAuth
from seawall.tools.port import ToolOutcome
from seawall.tools.settings import McpSettings, SourceLimits, TenantSource, TenantTables
from seawall.tools.sources import open_catalog
from seawall.tools.upstream import FaultKind, ToolUpstream, UpstreamFault
from seawall.turn import Principal

DONE = ToolOutcome("done")


class Service:
    """Fails in the given ways, one an attempt, then answers."""

    def __init__(self, *faults: UpstreamFault) -> None:
        self.faults = list(faults)
        self.attempts = 0

    async def attempt(self, deadline: float) -> ToolOutcome:
        assert deadline >= asyncio.get_running_loop().time()
        self.attempts += 1
        if self.faults:
            raise self.faults.pop(0)
        return DONE


async def call(
    upstream: ToolUpstream, service: Service, *, read: bool = True, seconds: float = 5.0
) -> ToolOutcome:
    deadline = asyncio.get_running_loop().time() + seconds
    return await upstream.call(service.attempt, deadline=deadline, read=read)


def fault(kind: FaultKind, *, sent: bool = True) -> UpstreamFault:
    return UpstreamFault(kind, "x", sent=sent)


@pytest.mark.parametrize(
    ("kind", "read", "attempts"),
    [
        ("failed", True, 2),
        ("broken", True, 2),
        ("unreachable", True, 2),
        ("unreachable", False, 2),  # it has certainly not arrived
        ("throttled", False, 2),
        ("failed", False, 1),
        ("broken", False, 1),
        ("late", True, 1),  # a hung service gets no second call
        ("refused", True, 1),
    ],
)
async def test_only_what_is_safe_is_repeated(kind: FaultKind, read: bool, attempts: int) -> None:
    upstream = ToolUpstream("x", SourceLimits(backoff_seconds=0.001))
    service = Service(fault(kind))
    if attempts == 2:
        assert await call(upstream, service, read=read) == DONE
    else:
        with pytest.raises(UpstreamFault) as raised:
            await call(upstream, service, read=read)
        assert raised.value.kind == kind
    assert service.attempts == attempts


@pytest.mark.parametrize("second", ["throttled", "unreachable"])
async def test_what_may_have_arrived_stays_so(second: FaultKind) -> None:
    """A repetition that is refused says nothing about the attempt before it."""
    upstream = ToolUpstream("x", SourceLimits(backoff_seconds=0.001))
    with pytest.raises(UpstreamFault) as raised:
        await call(upstream, Service(fault("broken"), fault(second)))
    assert raised.value.kind == second
    assert raised.value.sent


async def test_a_hung_upstream_holds_only_its_own_calls() -> None:
    limits = SourceLimits(concurrency=4, wait_seconds=0.05, answer_seconds=30.0, min_calls=100)
    hung, other = ToolUpstream("hung", limits), ToolUpstream("other", limits)
    ended = asyncio.Event()

    async def hang(_: float) -> ToolOutcome:
        await ended.wait()
        return DONE

    deadline = asyncio.get_running_loop().time() + 60.0
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(hung.call(hang, deadline=deadline, read=True))
        await asyncio.sleep(0)
        assert hung.in_flight == 4
        with pytest.raises(UpstreamFault, match="4 calls are in flight") as raised:
            await hung.call(hang, deadline=deadline, read=True)
        assert not raised.value.sent
        assert await call(other, Service()) == DONE
        ended.set()
    assert hung.in_flight == 0
    assert hung.attempts == {"answered": 4}


async def test_an_attempt_can_say_why_it_did_not_end_in_time() -> None:
    """A token that does not come until the deadline: nothing was sent."""
    upstream = ToolUpstream("x", SourceLimits(answer_seconds=1.0))

    async def wait_for_token(deadline: float) -> ToolOutcome:
        await asyncio.sleep(deadline - asyncio.get_running_loop().time())
        raise fault("refused", sent=False)

    with pytest.raises(UpstreamFault, match="refused") as raised:
        await upstream.call(
            wait_for_token, deadline=asyncio.get_running_loop().time() + 9.0, read=False
        )
    assert not raised.value.sent


async def test_no_answer_in_time() -> None:
    upstream = ToolUpstream("x", SourceLimits(answer_seconds=0.05))

    async def hang(_: float) -> ToolOutcome:
        await asyncio.sleep(30.0)
        return DONE

    with pytest.raises(UpstreamFault, match="no answer in time") as raised:
        await upstream.call(hang, deadline=asyncio.get_running_loop().time() + 9.0, read=True)
    assert raised.value.sent
    assert upstream.attempts == {"late": 1}


async def test_the_breaker_opens_and_recovers() -> None:
    limits = SourceLimits(min_calls=4, open_seconds=0.1, probes=1, attempts=1)
    upstream = ToolUpstream("x", limits)
    service = Service(*(fault("failed") for _ in range(4)))
    for _ in range(4):
        with pytest.raises(UpstreamFault):
            await call(upstream, service)
    assert upstream.state() == "open"
    with pytest.raises(UpstreamFault, match="circuit breaker is open") as raised:
        await call(upstream, service)
    assert service.attempts == 4
    assert raised.value.retry_after is not None
    await asyncio.sleep(0.11)
    assert await call(upstream, service) == DONE
    assert upstream.state() == "closed"


async def test_refusals_of_credentials_do_not_open_the_breaker() -> None:
    upstream = ToolUpstream("x", SourceLimits(min_calls=2, attempts=1))
    for _ in range(5):
        with pytest.raises(UpstreamFault):
            await call(upstream, Service(fault("refused")))
    assert upstream.state() == "closed"


async def test_a_pause_that_was_asked_for_is_kept_by_all() -> None:
    upstream = ToolUpstream("x", SourceLimits(attempts=1, wait_seconds=0.2))
    long = UpstreamFault("throttled", "x", retry_after=30.0)
    with pytest.raises(UpstreamFault):
        await call(upstream, Service(long))
    service = Service()
    with pytest.raises(UpstreamFault, match="asked for a pause"):
        await call(upstream, service)
    assert service.attempts == 0


async def test_a_turn_does_not_wait_for_a_long_pause() -> None:
    upstream = ToolUpstream("x", SourceLimits(answer_seconds=2.0))
    service = Service(UpstreamFault("throttled", "x", retry_after=30.0))
    with pytest.raises(UpstreamFault) as raised:
        await call(upstream, service, seconds=60.0)
    assert (service.attempts, raised.value.retry_after) == (1, 30.0)


async def test_the_rate_spreads_calls() -> None:
    upstream = ToolUpstream("x", SourceLimits(rate_per_second=50.0, wait_seconds=5.0))
    service = Service()
    began = time.monotonic()
    await asyncio.gather(*(call(upstream, service) for _ in range(11)))
    assert time.monotonic() - began >= 0.19  # ten intervals
    limited = ToolUpstream("x", SourceLimits(rate_per_second=0.1, wait_seconds=0.1))
    assert await call(limited, service) == DONE
    with pytest.raises(UpstreamFault, match="rate is used up"):
        await call(limited, service)


async def test_retries_are_a_share_of_calls() -> None:
    limits = SourceLimits(
        attempts=10, backoff_seconds=0.0001, retry_budget=0.1, failure_rate=1.0, min_calls=1_000
    )
    upstream = ToolUpstream("x", limits)
    service = Service(*(fault("failed") for _ in range(1_000)))
    for _ in range(50):
        with pytest.raises(UpstreamFault):
            await call(upstream, service)
    assert service.attempts <= 50 + 5 + 5  # a few at first, then a tenth


ANN, BOB = Principal("t", "ann"), Principal("t", "bob")


def _itself(principal: Principal | None) -> Principal | None:
    return principal


@pytest.mark.parametrize("by_subject", [False, True])
async def test_a_pause_is_that_of_the_subject_whose_credentials_were_used(by_subject: bool) -> None:
    limits = SourceLimits(attempts=1)
    upstream = ToolUpstream("x", limits, payer=_itself) if by_subject else ToolUpstream("x", limits)
    asked = UpstreamFault("throttled", "status 429", retry_after=60.0)

    async def ask(service: Service, owner: Principal) -> ToolOutcome:
        deadline = asyncio.get_running_loop().time() + 5.0
        return await upstream.call(service.attempt, deadline=deadline, read=True, principal=owner)

    with pytest.raises(UpstreamFault):
        await ask(Service(asked), ANN)
    service = Service()
    with pytest.raises(UpstreamFault, match="it asked for a pause"):
        await ask(service, ANN)
    if by_subject:
        assert await ask(service, BOB) == DONE
    else:
        with pytest.raises(UpstreamFault, match="it asked for a pause"):
            await ask(service, BOB)
    assert service.attempts == by_subject


async def test_a_pause_is_that_of_the_tenant_with_credentials_of_its_own() -> None:
    """Its key is used up; the others' is not."""
    own = TenantTables(tools={"crm": TenantSource(auth=StaticAuth(secret_env="OWN"))})
    catalog = open_catalog(
        {"crm": McpSettings(mcp="http://127.0.0.1:9/mcp", auth=StaticAuth(secret_env="COMMON"))},
        folder=".",
        environment={"OWN": "key-1", "COMMON": "key-2"},
        tenants={"acme": own},
    )
    upstream = catalog.upstreams["crm"]

    async def ask(service: Service, tenant: str) -> ToolOutcome:
        deadline = asyncio.get_running_loop().time() + 5.0
        owner = Principal(tenant, "ann")
        return await upstream.call(service.attempt, deadline=deadline, read=False, principal=owner)

    with pytest.raises(UpstreamFault):
        await ask(Service(UpstreamFault("throttled", "429", retry_after=60.0)), "acme")
    with pytest.raises(UpstreamFault, match="it asked for a pause"):
        await ask(Service(), "acme")
    assert await ask(Service(), "other") == DONE
    with pytest.raises(UpstreamFault):
        await ask(Service(UpstreamFault("throttled", "429", retry_after=60.0)), "other")
    with pytest.raises(UpstreamFault, match="it asked for a pause"):
        await ask(Service(), "third")
    await catalog.close()


async def test_pauses_of_subjects_are_bounded() -> None:
    upstream = ToolUpstream("x", SourceLimits(), payer=_itself)
    for number in range(10_050):
        upstream._pause(Principal("t", str(number)), 0.0, 60.0)
    assert len(upstream._paused_until) == 10_000
