"""Canonical form of tool arguments, whatever their wording."""

import json
import subprocess
import sys
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from seawall.tools.arguments import canonical, decode_arguments


class Given(Struct, kw_only=True, forbid_unknown_fields=True):
    """Some parameters."""

    count: int
    price: float = 0.0
    text: str = ""
    note: str | None = None
    rest: dict[str, Any] = {}


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
arguments = st.fixed_dictionaries(
    {"count": st.integers(-1_000, 1_000)},
    optional={
        "price": st.floats(allow_nan=False, allow_infinity=False, width=32),
        "text": st.text(max_size=12),
        "note": st.none() | st.text(max_size=4),
        "rest": st.dictionaries(st.text(max_size=4), plain, max_size=4),
    },
)


def _reworded(value: Any, random: Any) -> Any:
    """The same value with other types of numbers and another order of keys."""
    if isinstance(value, dict):
        items = [(key, _reworded(each, random)) for key, each in value.items()]
        random.shuffle(items)
        return dict(items)
    if isinstance(value, list):
        return [_reworded(each, random) for each in value]
    if type(value) is int and random.random() < 0.5:
        return float(value)
    return value


@given(asked=arguments, random=st.randoms())
def test_all_wordings_of_the_same_have_one_form(asked: dict[str, Any], random: Any) -> None:
    first = decode_arguments(json.dumps(asked), Given)
    again = _reworded(asked, random)
    if random.random() < 0.5:
        again = {**msgspec.to_builtins(Given(count=0)), **again}  # the defaults are written out
    text = json.dumps(
        again, ensure_ascii=random.random() < 0.5, indent=random.choice([None, 1]), sort_keys=False
    )
    assert canonical(decode_arguments(text, Given)) == canonical(first)


@given(one=arguments, other=arguments)
def test_different_values_have_different_forms(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = (decode_arguments(json.dumps(each), Given) for each in (one, other))
    assert (canonical(first) == canonical(second)) == (first == second)


def test_sets_have_one_form_in_every_process() -> None:
    code = (
        "import msgspec; from seawall.tools.arguments import canonical;"
        "kind = msgspec.defstruct('A', [('tags', set[str])]);"
        "print(canonical(kind({'b', 'a', 'cc', 'zz', 'q', 'ü'})))"
    )
    forms = {
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(forms) == 1
    assert b'"a","b"' in forms.pop()


def test_long_decimals_stay_different() -> None:
    kind = msgspec.defstruct("Price", [("amount", Decimal)])
    first, other = Decimal("123456789012345678901234567890.12"), Decimal("1e-40")
    assert canonical(kind(first)) != canonical(kind(Decimal("123456789012345678901234567890.13")))
    assert canonical(kind(other)) == canonical(kind(Decimal("10e-41")))
    assert canonical(kind(Decimal("-0.0"))) == canonical(kind(Decimal(0)))
