"""Declarations of tools that change something: contradictions, approval, what is shown."""

import asyncio
import json
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall import Approval, Principal, Tool, ToolContext, tool
from seawall.tools.policy import EffectPolicy, make_policy, redacted, without_redacted


def _context(*roles: str) -> ToolContext:
    return ToolContext(
        principal=Principal("shop", "ann", roles),
        session="s",
        turn="t",
        agent="orders",
        call="c",
        idempotency_key="k",
        deadline=asyncio.get_running_loop().time() + 5,
        state={},
    )


def _refund(**options: Any) -> Tool:
    def refund(order: str, amount: float, context: ToolContext, reason: str | None = None) -> str:
        """Refund an order."""
        return f"{order} {amount} {reason} {context.call}"

    return tool(refund, mutating=True, **options)


async def _asks(made: Tool, *roles: str, **arguments: Any) -> bool:
    prepared = made.prepare(json.dumps({"order": "#7", "amount": 150} | arguments))
    return await made.needs_approval(prepared, _context(*roles))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"retry": "always"}, 'retry must be "key"'),
        ({"duplicates": "merge"}, 'duplicates must be "refuse" or "allow"'),
        ({"check": "found"}, "check must be a function"),
        ({"redact": ("card",)}, "redact names 'card'"),
        ({"redact": ("card.number",)}, "redact names 'card.number'"),
        ({"approve": 100}, "approve must be text, a function or an Approval"),
        ({"approve": Approval(None)}, "approve must be text"),  # type: ignore[arg-type]
        ({"approve": "amout > 100"}, "uses 'amout'"),
        ({"approve": "context.turn == 't'"}, "uses 'context'"),
        ({"approve": "amount >"}, "is not an expression"),
        ({"approve": Approval("amount ** 9 > 1")}, "has Pow"),
    ],
)
def test_mistakes_are_found_where_they_are_made(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match="tool refund: ") as raised:
        _refund(**options)
    assert said in str(raised.value)


class Holder(msgspec.Struct, rename="camel"):
    full_name: str


class Card(msgspec.Struct):
    number: str
    holder: Holder


@pytest.mark.parametrize(
    ("path", "exists"),
    [
        ("cards", True),
        ("cards.number", True),
        ("cards.holder.fullName", True),
        ("cards.holder.full_name", False),  # in JSON it has the other name
        ("cards.numbr", False),
        ("pair.number", True),
        ("by_name.ann.number", True),
        ("by_name.ann.pin", False),
        ("anything.at.all", True),
        ("order.number", False),
        ("amount", False),
    ],
)
def test_what_redact_names_exists(path: str, exists: bool) -> None:
    def pay(
        order: Annotated[str, msgspec.Meta(max_length=9)],
        cards: list[Card] | None,
        pair: tuple[str, Card],
        by_name: dict[str, Card],
        anything: Any,
    ) -> None:
        """Pay."""

    if exists:
        assert tool(pay, mutating=True, redact=(path,)).policy
        return
    with pytest.raises(TypeError, match=f"redact names '{path}'"):
        tool(pay, mutating=True, redact=(path,))


@pytest.mark.parametrize(
    "options",
    [
        {"retry": "key"},
        {"check": print},
        {"duplicates": "allow"},
        {"duplicates": "refuse"},
        {"independent": True},
        {"approve": "always"},
        {"redact": ("order",)},
    ],
    ids=lambda options: next(iter(options)),
)
def test_a_tool_that_reads_has_no_policy(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="only for a tool that changes something"):
        tool(lambda: None, name="read", **options)


def test_what_is_not_declared_is_the_careful_choice() -> None:
    assert _refund().policy == EffectPolicy(None, None, "refuse", False, None, ())
    assert make_policy("read", (), lambda _: False, mutating=False) is None


async def test_an_approval_function_whose_answer_is_none_asks() -> None:
    class Neither:
        def __bool__(self) -> bool:
            raise ValueError("neither")

    def approve(**_: object) -> Any:
        return Neither()

    assert await _asks(_refund(approve=approve))


async def test_who_is_asked_depends_on_arguments_and_caller() -> None:
    made = _refund(approve="amount > 100 and 'staff' not in caller.roles and agent == 'orders'")
    assert await _asks(made)
    assert not await _asks(made, "staff")
    assert not await _asks(made, amount=100)
    assert not await _asks(made, amount="1e2")  # it is compared by value
    assert not await _asks(_refund())
    assert await _asks(_refund(approve="always"), amount=0)


async def test_rules_compare_decimal_numbers_by_value() -> None:
    def pay(amount: Decimal, parts: tuple[Decimal, ...] = ()) -> None:
        """Pay."""

    made = tool(pay, mutating=True, approve="amount > 100 or parts != [] and parts[0] > 1")
    for arguments, asks in (
        ('{"amount": "100.00"}', False),
        ('{"amount": 100.01}', True),
        ('{"amount": "1e3"}', True),
        ('{"amount": 5, "parts": ["1.50"]}', True),
    ):
        prepared = made.prepare(arguments)
        assert await made.needs_approval(prepared, _context()) is asks


async def test_a_rule_that_cannot_be_evaluated_asks() -> None:
    assert await _asks(_refund(approve="reason == 'late' and amount > order"), reason="late")
    assert await _asks(_refund(approve="len(reason) > 10"))  # it is None
    assert not await _asks(_refund(approve="len(reason) > 10"), reason="late")
    assert await _asks(_refund(approve="caller.roles[0] == 'guest'"))


async def test_a_function_decides_or_fails_and_asks() -> None:
    def much(order: str, amount: float, context: ToolContext, reason: str | None) -> bool:
        if order == "#9":
            raise LookupError(order)
        return amount > 100 and context.principal.subject == "ann" and reason is None

    async def never(**_: object) -> bool:
        return False

    made = _refund(approve=Approval(much, role="staff"))
    assert await _asks(made)
    assert not await _asks(made, amount=5)
    assert await _asks(made, amount=5, order="#9")
    assert not await _asks(_refund(approve=never))


CARD = {"number": "4711", "holder": {"name": "Ann", "city": "Oslo"}}


@pytest.mark.parametrize(
    ("paths", "arguments", "shown"),
    [
        ((), {"card": "4711"}, {"card": "4711"}),
        (("card",), {"card": "4711", "amount": 5}, {"card": "[redacted]", "amount": 5}),
        (("card",), {"card": CARD}, {"card": "[redacted]"}),
        (("card.number",), {"card": CARD}, {"card": CARD | {"number": "[redacted]"}}),
        (
            ("card.holder.name", "card.number"),
            {"card": CARD},
            {
                "card": {
                    "number": "[redacted]",
                    "holder": {"name": "[redacted]", "city": "Oslo"},
                }
            },
        ),
        (
            ("card.number",),
            {"card": [CARD, None, "4711"]},
            {"card": [CARD | {"number": "[redacted]"}, None, "[redacted]"]},
        ),
        (("card.number",), {"card": "4711"}, {"card": "[redacted]"}),
        (("card.number",), {"card": None}, {"card": None}),
        (("card.absent",), {"card": CARD}, {"card": CARD}),
    ],
)
def test_what_is_redacted(
    paths: tuple[str, ...], arguments: dict[str, Any], shown: dict[str, Any]
) -> None:
    assert json.loads(redacted(EffectPolicy(redact=paths), json.dumps(arguments))) == shown


names = st.sampled_from(["card", "number", "holder", "amount"])
secret = "4711-0815"
documents = st.recursive(
    st.none() | st.integers() | st.just(secret),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("paid with 4711 0815 of Ann", "paid with [redacted] of [redacted]"),
        ("Annual fee of 12", "Annual fee of [redacted]"),
        ('{"holder":"Ann","cvc":120,"number":"4711 0815"}', None),
        ("to x@y.example\\n, at 4711", "to [redacted], at 4711"),
        ("", ""),
    ],
)
def test_outcomes_do_not_repeat_what_is_redacted(text: str, said: str | None) -> None:
    paths = ("card", "cvc", "to.mail", "lines.note")
    arguments = {
        "card": {"number": "4711 0815", "holder": "Ann", "valid": True, "old": None},
        "cvc": 12,
        "to": {"mail": "x@y.example\n", "city": "Oslo"},
        "lines": [{"note": " "}, {"amount": 4711}],
    }
    plain = json.dumps(arguments)
    shown = redacted(EffectPolicy(redact=paths), plain)
    expected = '{"holder":"[redacted]","cvc":120,"number":"[redacted]"}' if said is None else said
    assert without_redacted(text, plain, shown) == expected
    assert without_redacted(text, plain, "") == text


@given(card=documents, amount=st.integers())
def test_nothing_of_a_redacted_argument_is_shown(card: Any, amount: int) -> None:
    written = msgspec.json.encode({"amount": amount, "card": card}).decode()
    shown = redacted(EffectPolicy(redact=("card",)), written)
    assert secret not in shown
    assert json.loads(shown)["amount"] == amount


@given(card=documents)
def test_nothing_at_a_path_is_shown_whatever_is_around_it(card: Any) -> None:
    written = msgspec.json.encode({"card": {"number": card, "holder": 1}}).decode()
    shown = redacted(EffectPolicy(redact=("card.number",)), written)
    assert secret not in shown
    assert json.loads(shown)["card"]["holder"] == 1
