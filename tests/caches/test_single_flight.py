"""Single flight: one execution at a time, and every caller that waits for it ends once."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seawall.caches import SingleFlight, Sink
from seawall.errors import UpstreamFailed


async def run_pending() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


class World:
    """Executions controlled by the test, and the callers that wait for them."""

    def __init__(self) -> None:
        self.flights: SingleFlight[str, str] = SingleFlight()
        self.orders: asyncio.Queue[str] = asyncio.Queue()
        self.running = self.most = self.started = 0
        self.callers: dict[int, asyncio.Task[tuple[str, bool]]] = {}
        self.received: dict[int, str] = {}
        self.left: set[int] = set()

    async def work(self, take: Sink[str]) -> str:
        self.started += 1
        number = self.started
        self.running += 1
        self.most = max(self.most, self.running)
        said = ""
        try:
            while True:
                order = await self.orders.get()
                if order == "fail":
                    raise UpstreamFailed(str(number))
                if order == "done":
                    return said
                piece = f"{number}:{len(said)} "
                said += piece
                await take(piece)
        finally:
            self.running -= 1

    async def do(self, what: str, caller: int) -> None:
        """One step of a plan."""
        if what == "join":
            self.join(caller)
        elif what == "cancel" and caller in self.callers:
            if self.callers[caller].cancel():
                self.left.add(caller)
        elif what == "run pending":
            await run_pending()
        elif what != "cancel" and self.running:
            self.orders.put_nowait(what)
            await run_pending()

    def join(self, caller: int) -> None:
        if caller in self.callers:
            return
        self.received[caller] = ""

        async def take(*pieces: str) -> None:
            self.received[caller] += "".join(pieces)

        self.callers[caller] = asyncio.create_task(self.flights.join("key", self.work, take))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["join", "join", "cancel"]), st.integers(0, 7)),
        st.tuples(st.sampled_from(["piece", "fail", "done", "run pending"]), st.just(0)),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(steps=STEPS)
def test_every_caller_ends_once_and_one_execution_runs_at_a_time(
    steps: list[tuple[str, int]],
) -> None:
    async def scenario() -> None:
        world = World()
        for what, caller in steps:
            await world.do(what, caller)
        await run_pending()
        while world.running:
            world.orders.put_nowait("done")
            await run_pending()
        async with asyncio.timeout(5):
            ends = await asyncio.gather(*world.callers.values(), return_exceptions=True)
        assert world.most <= 1
        payers = 0
        for caller, end in zip(world.callers, ends, strict=True):
            if isinstance(end, BaseException):
                left = isinstance(end, asyncio.CancelledError) and caller in world.left
                assert left or isinstance(end, UpstreamFailed)
            else:
                result, mine = end
                assert world.received[caller] == result
                payers += mine
        assert payers <= world.started

    asyncio.run(scenario())


async def test_the_first_caller_may_be_cancelled() -> None:
    world = World()
    for caller in range(3):
        world.join(caller)
    await run_pending()
    world.orders.put_nowait("piece")
    await run_pending()
    world.callers[0].cancel()
    await run_pending()
    world.orders.put_nowait("piece")
    world.orders.put_nowait("done")
    ends = await asyncio.gather(world.callers[1], world.callers[2])
    assert [result for result, _ in ends] == ["1:0 1:4 "] * 2
    assert sorted(mine for _, mine in ends) == [False, True]
    assert world.started == 1


async def test_cancelling_the_last_caller_cancels_the_execution() -> None:
    world = World()
    world.join(0)
    world.join(1)
    await run_pending()
    for caller in (0, 1):
        assert world.running == 1
        world.callers[caller].cancel()
        await run_pending()
    assert world.running == 0


@pytest.mark.parametrize(("orders", "started"), [(["fail", "done"], 2), (["fail", "fail"], 2)])
async def test_one_caller_without_pieces_takes_over(orders: list[str], started: int) -> None:
    """Once: a model that is down is not asked by each in turn."""

    world = World()
    for caller in range(10):
        world.join(caller)
    for order in orders:
        await run_pending()
        world.orders.put_nowait(order)
    ends = await asyncio.gather(*world.callers.values(), return_exceptions=True)
    failed = sum(isinstance(end, UpstreamFailed) for end in ends)
    assert failed == (1 if orders[1] == "done" else 10)
    assert world.started == started


async def test_callers_that_got_a_part_get_the_failure() -> None:
    world = World()
    world.join(0)
    world.join(1)
    await run_pending()
    world.orders.put_nowait("piece")
    world.orders.put_nowait("fail")
    ends = await asyncio.gather(*world.callers.values(), return_exceptions=True)
    assert [type(end) for end in ends] == [UpstreamFailed] * 2
    assert world.started == 1
