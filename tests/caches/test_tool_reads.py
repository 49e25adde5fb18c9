"""Tool read cache."""

import asyncio
from collections.abc import Callable

import pytest

from seawall import Principal, ToolContext, ToolError, tool
from seawall.caches.tool_reads import cached_tools, share_of_limits
from seawall.settings import CacheLimits
from seawall.tools.port import Tool


class Shelf:
    """Counts how often it is looked at."""

    def __init__(self) -> None:
        self.looks: list[str] = []
        self.price = 1

    async def price_of(self, item: str, currency: str = "EUR") -> str:
        """The price of an item."""
        self.looks.append(item)
        await asyncio.sleep(0.05)
        if item == "none":
            raise ToolError("There is none.")
        return f"{self.price} {currency}"

    async def mine(self, context: ToolContext) -> str:
        """What is mine."""
        self.looks.append("mine")
        return f"{context.principal.tenant}/{context.principal.subject}"

    async def note(self, context: ToolContext) -> str:
        """Keep a note, which is not permitted."""
        context.state["a"] = "b"
        return "kept"

    async def raise_price(self) -> str:
        """Raise all prices."""
        self.price += 1
        return "done"


def _context(tenant: str = "acme", subject: str = "ada") -> ToolContext:
    return ToolContext(
        principal=Principal(tenant, subject),
        session="s",
        turn="t",
        agent="a",
        call="c",
        idempotency_key="k",
        deadline=asyncio.get_running_loop().time() + 5,
        state={},
    )


def _tools(shelf: Shelf, seconds: float = 60.0) -> dict[str, Tool]:
    made = (
        tool(shelf.price_of, cache_seconds=seconds, shared=True),
        tool(shelf.mine, cache_seconds=seconds),
        tool(shelf.note, cache_seconds=seconds),
        tool(shelf.raise_price, mutating=True),
    )
    return {each.name: each for each in cached_tools(made, CacheLimits())}


async def test_concurrent_reads_share_one_call_and_later_ones_make_none() -> None:
    shelf = Shelf()
    price = _tools(shelf)["price_of"]
    spelled = ['{"item": "mug"}', '{"currency":"EUR","item":"mug"}'] * 5
    outcomes = await asyncio.gather(
        *(price.call(each, _context(f"t{number}")) for number, each in enumerate(spelled))
    )
    assert {each.content for each in outcomes} == {"1 EUR"}
    assert (await price.call(spelled[1], _context())).content == "1 EUR"
    assert shelf.looks == ["mug"]
    await price.call('{"item": "cup"}', _context())
    assert shelf.looks == ["mug", "cup"]


async def test_results_that_are_not_shared_belong_to_one_subject() -> None:
    shelf = Shelf()
    mine = _tools(shelf)["mine"]
    for _ in range(2):
        for tenant, subject in (("acme", "ada"), ("acme", "bob"), ("other", "ada")):
            outcome = await mine.call("{}", _context(tenant, subject))
            assert outcome.content == f"{tenant}/{subject}"
    assert len(shelf.looks) == 3


async def test_a_change_invalidates_cached_and_pending_reads_of_its_toolset() -> None:
    shelf = Shelf()
    tools = _tools(shelf)
    price, dearer = tools["price_of"], tools["raise_price"]
    reading = asyncio.create_task(price.call('{"item": "mug"}', _context()))
    await asyncio.sleep(0.01)
    await dearer.call("{}", _context())
    assert (await price.call('{"item": "mug"}', _context())).content == "2 EUR"
    await reading
    assert len(shelf.looks) == 2
    assert (await price.call('{"item": "mug"}', _context())).content == "2 EUR"
    assert len(shelf.looks) == 2


async def test_results_expire_and_failures_are_not_cached() -> None:
    shelf = Shelf()
    price = _tools(shelf, 0.1)["price_of"]
    await price.call('{"item": "mug"}', _context())
    await asyncio.sleep(0.15)
    await price.call('{"item": "mug"}', _context())
    assert shelf.looks == ["mug", "mug"]
    for _ in range(2):
        outcome = await price.call('{"item": "none"}', _context())
        assert (outcome.content, outcome.failed) == ("There is none.", True)
    assert shelf.looks[2:] == ["none", "none"]


async def test_a_cacheable_tool_cannot_change_the_state() -> None:
    context = _context()
    outcome = await _tools(Shelf())["note"].call("{}", context)
    assert (outcome.failed, context.state) == (True, {})


@pytest.mark.parametrize(
    "make",
    [
        lambda: tool(Shelf().price_of, shared=True),
        lambda: tool(Shelf().price_of, cache_seconds=0),
        lambda: tool(Shelf().raise_price, cache_seconds=1, mutating=True),
        lambda: tool(Shelf().mine, cache_seconds=1, shared=True),
    ],
)
def test_invalid_declarations_are_refused(make: Callable[[], Tool]) -> None:
    with pytest.raises(TypeError, match="cacheable"):
        make()


def test_all_toolsets_together_stay_within_the_limits() -> None:
    sets = [tuple(_tools(Shelf()).values()) for _ in range(3)]
    plain = tool(Shelf().price_of)
    part = share_of_limits(CacheLimits(entries=100, bytes=1_000), [*sets, (plain,)])
    assert (part.entries, part.bytes) == (33, 333)
    assert share_of_limits(CacheLimits(), [(plain,)]) == CacheLimits()
    assert share_of_limits(CacheLimits(entries=1, bytes=1), sets) == CacheLimits(1, 1)
