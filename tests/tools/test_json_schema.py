"""JSON Schema validation: agrees with an independent validator, in bounded time."""

import time
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.tools.json_schema import SchemaFault, UnusableSchema, ValueCheck, check_schema
from tests.properties import examples

SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([1.0, 0.5, "", "a", "ab"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=8,
)
TYPES = st.sampled_from(["object", "array", "string", "number", "integer", "boolean", "null"])
SIZE = st.integers(0, 3)


def _schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from("abc")
    return st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
            "enum": st.lists(VALUES, min_size=1, max_size=3),
            "const": VALUES,
            "properties": st.dictionaries(names, inner, max_size=3),
            "required": st.lists(names, max_size=2, unique=True),
            "additionalProperties": inner,
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "uniqueItems": st.booleans(),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "minimum": SIZE,
            "exclusiveMaximum": SIZE,
            "multipleOf": st.sampled_from([1, 2, 0.5]),
            "minLength": SIZE,
            "maxItems": SIZE,
            "minProperties": SIZE,
            "$ref": st.just("#/$defs/d"),
        },
    )


def fault_of(schema: Any, value: Any) -> str:
    try:
        ValueCheck(schema)(value)
    except SchemaFault as fault:
        return str(fault)
    return ""


SCHEMAS = st.recursive(st.booleans() | _schemas(st.booleans()), _schemas, max_leaves=4)


@examples(30, 2_000)
@given(_schemas(SCHEMAS), st.fixed_dictionaries({}, optional={"type": TYPES}), VALUES)
def test_it_agrees_with_another_validator(schema: Any, definition: Any, value: Any) -> None:
    schema |= {"$defs": {"d": definition}}
    check_schema(schema)
    expected = jsonschema.Draft202012Validator(schema).is_valid(value)
    assert not expected if fault_of(schema, value) else expected


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ([], ""),
        ({"type": "thing"}, "type"),
        ({"type": [{}]}, "type"),
        ({"properties": {"a": {"$ref": "https://evil.example/schema"}}}, "properties.a.$ref"),
        ({"$ref": "#/nowhere"}, "$ref"),
        ({"$ref": 5}, "$ref"),
        ({"properties": []}, "properties"),
        ({"anyOf": []}, "anyOf"),
        ({"anyOf": [5]}, "anyOf.0"),
        ({"items": [{}]}, "items"),
        ({"patternProperties": {"(a+)+$": {}}}, "patternProperties"),
        ({"if": {}}, "if"),
        ({"required": "a"}, "required"),
        ({"minimum": "0"}, "minimum"),
        ({"multipleOf": 0}, "multipleOf"),
        ({"minLength": True}, "minLength"),
        ({"enum": "a"}, "enum"),
        ({"type": ["string", "string"]}, "type"),
        ({"$ref": "#/default", "default": {"type": 5}}, "$ref.type"),
        ({"$ref": "#/const", "const": {"if": {}}}, "$ref.if"),
        ({"not": {"$ref": "#/examples"}, "examples": {"minimum": "x"}}, "not.$ref.minimum"),
    ],
)
def test_unsupported_keywords_are_refused_by_name(schema: Any, path: str) -> None:
    with pytest.raises(UnusableSchema) as refused:
        check_schema(schema)
    assert refused.value.path == path


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"$ref": "#"}, 1),
        ({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}, 1),
        ({"oneOf": [{"items": {"$ref": "#"}}] * 8}, [[[[[[[[1]]]]]]]]),
        ({"items": {"enum": list(range(20_000))}}, [-1] * 20_000),
        ({"items": {"required": ["a"] * 20_000}}, [{}] * 20_000),
        ({"pattern": "(a+)+$"}, "a" * 40 + "b"),
        ({"anyOf": [{"const": each} for each in range(5_000)]}, list(range(10_000))),
        ({"allOf": [{"uniqueItems": True}] * 5_000}, [{}, *range(10_000)]),
        (
            {
                "anyOf": [{"$ref": "#/$defs/a"}] * 5_000,
                "$defs": {"a": {"enum": [list(range(20_000))]}},
            },
            {},
        ),
    ],
)
def test_validation_time_is_bounded(schema: Any, value: Any) -> None:
    check_schema(schema)
    began = time.process_time()
    fault_of(schema, value)
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize(
    ("step", "value", "fits"),
    [
        (5e-324, 5, False),
        (1e-300, 1e300, False),
        (0.5, 10**400, False),
        (2, 2**60 + 1, False),
        (2, 2**60, True),
    ],
)
def test_numbers_whose_quotient_overflows(step: float, value: float, fits: bool) -> None:
    assert (not fault_of({"multipleOf": step}, value)) is fits


def test_a_deep_schema_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(500):
        schema = {"items": schema}
    with pytest.raises(UnusableSchema, match="deeply"):
        check_schema(schema)


@examples(66, 1_000)
@given(st.recursive(VALUES, lambda inner: st.dictionaries(st.text(max_size=12), inner, max_size=4)))
def test_any_document_is_accepted_or_refused(schema: Any) -> None:
    schema = msgspec.json.decode(msgspec.json.encode(schema))
    try:
        check_schema(schema)
    except UnusableSchema:
        return
    if isinstance(schema, dict):
        fault_of(schema, {"a": [1, "b"]})
