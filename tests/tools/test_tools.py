"""Tools: schema from the signature, validated arguments, failures reported to the model."""

import asyncio
import gc
import time
import weakref
from typing import Annotated, Any, Literal

import msgspec
import pytest

from seawall import Cited, Principal, Source, ToolContext, ToolError, tool
from seawall.tools.port import shown_sources


class Address(msgspec.Struct):
    street: str
    zip: Annotated[str, msgspec.Meta(pattern=r"^\d{5}$")]


def _context(seconds: float = 5.0) -> ToolContext:
    return ToolContext(
        principal=Principal("shop", "ann"),
        session="s",
        turn="t",
        agent="a",
        call="c",
        idempotency_key="k",
        deadline=asyncio.get_running_loop().time() + seconds,
        state={},
    )


@tool(mutating=True)
def move(
    order: str, to: Address, context: ToolContext, speed: Literal["slow", "fast"] = "slow"
) -> dict[str, str]:
    """Send an order
    to another address.

    Not part of the description.

    Args:
        order: The order's number,
            beginning with #.
        to: Where to.
        speed: How.
    """
    context.state["moved"] = order
    return {"order": order, "to": to.street, "speed": speed, "by": context.principal.subject}


def test_the_schema_is_what_the_signature_and_docstring_say() -> None:
    assert move.name == "move"
    assert move.mutating
    assert move.spec.description == "Send an order to another address."
    assert move.spec.parameters == {
        "type": "object",
        "properties": {
            "order": {"type": "string", "description": "The order's number, beginning with #."},
            "to": {"$ref": "#/$defs/Address", "description": "Where to."},
            "speed": {"enum": ["fast", "slow"], "default": "slow", "description": "How."},
        },
        "required": ["order", "to"],
        "additionalProperties": False,
        "$defs": {
            "Address": {
                "title": "Address",
                "type": "object",
                "properties": {
                    "street": {"type": "string"},
                    "zip": {"type": "string", "pattern": r"^\d{5}$"},
                },
                "required": ["street", "zip"],
            }
        },
    }


async def test_a_call_gets_validated_arguments_and_the_turns_context() -> None:
    context = _context()
    outcome = await move.call('{"order":"#1","to":{"street":"A","zip":"12345"}}', context)
    assert not outcome.failed
    assert msgspec.json.decode(outcome.content) == {
        "order": "#1",
        "to": "A",
        "speed": "slow",
        "by": "ann",
    }
    assert context.state == {"moved": "#1"}


@pytest.mark.parametrize(
    "arguments",
    [
        "not json",
        "[]",
        "{}",
        '{"order":1,"to":{"street":"A","zip":"12345"}}',
        '{"order":"#1","to":{"street":"A","zip":"1"}}',
        '{"order":"#1","to":{"street":"A","zip":"12345"},"speed":"warp"}',
        '{"order":"#1","to":{"street":"A","zip":"12345"},"context":{}}',
        '{"order":"\ud800"}',
        '{"order":"' + "x" * 70_000 + '"}',
    ],
)
async def test_invalid_arguments_are_reported_to_the_model_and_nothing_is_called(
    arguments: str,
) -> None:
    context = _context()
    outcome = await move.call(arguments, context)
    assert outcome.failed
    assert "rguments" in outcome.content
    assert context.state == {}


async def test_a_tool_error_is_reported_verbatim_and_a_defect_is_not() -> None:
    @tool
    def refuse() -> str:
        raise ToolError("The order is on its way.")

    @tool
    async def crash() -> str:
        raise KeyError("secret")

    refused = await refuse.call("{}", _context())
    assert (refused.content, refused.failed) == ("The order is on its way.", True)
    crashed = await crash.call("", _context())
    assert (crashed.content, crashed.failed) == ("crash failed.", True)


async def test_a_slow_tool_ends_at_its_deadline_and_blocks_nothing() -> None:
    @tool
    def plain() -> str:
        time.sleep(0.3)
        return "late"

    @tool
    async def asynchronous() -> str:
        await asyncio.sleep(10)
        return "late"

    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    for slow in (plain, asynchronous):
        outcome = await slow.call("{}", _context(0.1))
        assert (outcome.content, outcome.failed) == (
            f"{slow.name} did not answer in time.",
            True,
        )
    ticking.cancel()
    assert ticks > 4, "the loop went on while the tools were slow"


async def test_an_answer_too_long_for_a_model_is_refused() -> None:
    @tool
    def flood() -> str:
        return "x" * 40_000

    outcome = await flood.call("{}", _context())
    assert outcome.failed
    assert "32768" in outcome.content


def test_a_parameter_without_a_schema_is_refused_at_definition() -> None:
    def unannotated(order) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001 - the point
        return str(order)

    def variadic(*orders: str) -> str:
        return "".join(orders)

    for function, said in ((unannotated, "annotation"), (variadic, "no JSON Schema")):
        with pytest.raises(TypeError, match=said):
            tool(function)


async def test_half_characters_in_an_answer_do_not_end_the_turn() -> None:
    @tool
    def echo() -> str:
        """Say it."""
        return "a\ud800b"

    assert (await echo.call("{}", _context())).content == "a?b"


async def test_a_result_may_have_sources() -> None:
    @tool
    def find(count: int) -> Cited:
        """Find."""
        return Cited({"found": "x" * count}, (Source("Page", url="https://x.example"),) * 30)

    @tool
    async def find_later() -> Cited:
        """Find."""
        return Cited("text", (Source("Page"),))

    outcome = await find.call('{"count": 1}', _context())
    assert (outcome.content, len(outcome.sources)) == ('{"found":"x"}', 20)
    assert outcome.message("c", "find").sources[0].title == "Page"
    too_long = await find.call('{"count": 40000}', _context())
    assert (too_long.failed, too_long.sources) == (True, ())
    assert (await find_later.call("{}", _context())).sources == (Source("Page"),)


@pytest.mark.parametrize(
    "source",
    [
        Source(["Page"]),  # type: ignore[arg-type]  # as tools may make it
        Source("Page", media_type=7),  # type: ignore[arg-type]
        {"title": "Page"},
    ],
)
async def test_a_source_that_is_not_text_is_an_error_of_its_tool(source: Any) -> None:
    """Regression: it was stored with the turn, and the session could not be read again."""

    @tool
    def find() -> Cited:
        """Find."""
        return Cited("text", (source,))

    outcome = await find.call("{}", _context())
    assert (outcome.failed, outcome.sources) == (True, ())


def test_sources_are_bounded_and_addresses_are_pages() -> None:
    long = Source("Page", section="x" * 20_000)
    assert shown_sources([long, long]) == (long,)
    script = Source("Page", url="javascript:alert(1)", path="page.md")
    assert shown_sources([script]) == (Source("Page", path="page.md"),)
    media_type = Source("Page", media_type="x" * 40_000)
    assert shown_sources([media_type]) == ()


class _Shop:
    def find(self, order: int) -> str:
        """Find an order.

        Args:
            order: Its number.
        """
        return f"{id(self)} {order}"

    def other(self, order: int) -> None:
        """Other."""


class _Branch(_Shop):
    def other(self, order: int) -> None: ...


class _Office(_Shop):
    """Without its own methods."""


def test_the_signature_of_a_method_is_read_once() -> None:
    first, second = tool(_Shop().find), tool(_Office().find, name="search")
    assert first.arguments is second.arguments
    assert first.spec.parameters is second.spec.parameters
    assert (first.spec.name, second.spec.name) == ("find", "search")
    assert first.function != second.function
    assert tool(_Branch().other).arguments is not tool(_Shop().other).arguments
    assert tool(_Branch().other).spec.description == "Other."


def test_a_changed_docstring_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = _Shop()
    assert tool(shop.find).spec.description == "Find an order."
    monkeypatch.setattr(_Shop.find, "__doc__", "Search.")
    assert tool(shop.find).spec.description == "Search."
    assert "description" not in str(tool(shop.find).spec.parameters)


def test_a_signature_is_forgotten_with_its_method() -> None:
    class Local:
        def find(self, order: int) -> None:
            """Find."""

    tool(Local().find)
    gone = weakref.ref(Local.find)
    del Local
    gc.collect()
    assert gone() is None
