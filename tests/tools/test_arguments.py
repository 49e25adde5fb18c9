"""Lenient decoding of tool arguments: accepted if nothing is lost, refused otherwise."""

import json
import math
import time
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.tools.arguments import decode_arguments


class Arguments(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    count: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)] = 0
    share: float = 0.0
    sure: bool = False
    name: str = ""
    items: list[int] = []
    pair: tuple[int, float] = (0, 0.0)


@pytest.mark.parametrize("text", ["", " ", "null", " null\n", "{}", "{ }"])
def test_no_arguments(text: str) -> None:
    assert decode_arguments(text, Arguments) == Arguments()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"count": 3.0}, Arguments(count=3)),
        ({"count": "3"}, Arguments(count=3)),
        ({"count": "3.0"}, Arguments(count=3)),
        ({"share": "2.5"}, Arguments(share=2.5)),
        ({"share": 2}, Arguments(share=2.0)),
        ({"sure": "true"}, Arguments(sure=True)),
        ({"sure": "False"}, Arguments(sure=False)),
        ({"items": [1.0, "2", 3]}, Arguments(items=[1, 2, 3])),
        ({"name": "3"}, Arguments(name="3")),
        ({"count": 3.0, "name": "null"}, Arguments(count=3, name="null")),
        ({"count": 3, "name": None}, Arguments(count=3)),
        ({"count": "3", "share": None, "items": None}, Arguments(count=3)),
    ],
)
def test_the_same_value_in_another_type(written: dict[str, Any], meant: Arguments) -> None:
    assert decode_arguments(json.dumps(written), Arguments) == meant


@pytest.mark.parametrize(
    "written",
    [
        {"count": 3.7},
        {"count": "3.7"},
        {"count": "three"},
        {"count": ""},
        {"count": True},
        {"count": -1},
        {"count": "-1"},
        {"count": [3]},
        {"share": "nan"},
        {"share": "inf"},
        {"sure": "perhaps"},
        {"sure": 2},
        {"name": 3},
        {"items": "1,2"},
        {"pair": [1, "nan"]},
        {"pair": [1, "-inf"]},
        {"pair": [90071992547409930.0, 1]},
        {"unknown": 3.0},
        {"items": [None]},
        {"count": None, "name": 3},
        [],
        "text",
        7,
    ],
)
def test_ambiguous_values_are_refused(written: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_arguments(json.dumps(written), Arguments)


def test_a_refusal_says_what_was_written() -> None:
    with pytest.raises(
        msgspec.ValidationError, match=r"Expected `int`, got `float` - at `\$.count`"
    ):
        decode_arguments('{"count": 3.7}', Arguments)


@given(st.integers(0, 1 << 40), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_quoted_values_are_the_same_values(count: int, share: float, sure: bool) -> None:
    quoted = {"count": str(count), "share": repr(share), "sure": str(sure).lower()}
    found = decode_arguments(json.dumps(quoted), Arguments)
    assert (found.count, found.sure) == (count, sure)
    assert math.isclose(found.share, share, rel_tol=0.0)


@pytest.mark.parametrize("written", ["9007199254740993.0", '"9007199254740993.0"', "-1e17"])
def test_no_whole_number_is_rounded_on_its_way_through_a_float(written: str) -> None:
    kind = msgspec.defstruct("Account", [("number", int)])
    with pytest.raises(msgspec.ValidationError):
        decode_arguments(f'{{"number": {written}, "note": "1234567890123456.5"}}', kind)
    for whole in (9007199254740993, -12345678901234567890123):
        for form in (str(whole), f'"{whole}"'):
            taken = decode_arguments(f'{{"number": {form}, "x": "1234567890123456.5"}}', kind)
            assert taken == kind(whole)


@pytest.mark.parametrize("filler", ["1", "1234567890123456 ", "1."])
def test_long_numbers_are_searched_for_in_linear_time(filler: str) -> None:
    name = filler * (60_000 // len(filler))
    began = time.process_time()
    assert decode_arguments(json.dumps({"name": name}), Arguments).name == name
    assert time.process_time() - began < 1


@pytest.mark.parametrize("text", ["9007199254740993.0", "9007199254740993e0"])
def test_a_whole_number_that_a_decimal_cannot_say_is_refused(text: str) -> None:
    class Large(msgspec.Struct):
        count: int

    with pytest.raises(msgspec.ValidationError):
        decode_arguments(f'{{"count": {text}}}', Large)
