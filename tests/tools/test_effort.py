"""Foreign schemas that would keep a validator busy for ever."""

import json
from typing import Any

import pytest

from seawall.tools.remote import ArgumentCheck, UnusableOperation


def doubling(levels: int, **keywords: Any) -> dict[str, Any]:
    """A schema of which each level applies the next one twice."""
    defs: dict[str, Any] = {"a0": {"$anchor": "n0", "type": "string"}}
    for each in range(1, levels + 1):
        refers = keywords.get("refer", "#/$defs/a{}").format(each - 1)
        defs[f"a{each}"] = {"$anchor": f"n{each}", "allOf": [{"$ref": refers}, {"$ref": refers}]}
    return {
        "$id": "https://example.com/a",
        "type": "object",
        "properties": {"x": {"$ref": f"#/$defs/a{levels}"}},
        "$defs": defs,
    }


@pytest.mark.parametrize("refer", ["#/$defs/a{}", "#n{}", "https://example.com/a#/$defs/a{}"])
def test_references_that_multiply_are_refused(refer: str) -> None:
    with pytest.raises(UnusableOperation, match="more than 100000 schemas apply to one value"):
        ArgumentCheck(doubling(200, refer=refer))
    check = ArgumentCheck(doubling(6, refer=refer))
    assert check.take('{"x": "y"}') == {"x": "y"}
    with pytest.raises(ValueError, match="is not of type"):
        check.take('{"x": 1}')


def test_what_is_evaluated_again_counts_again() -> None:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(40):
        schema = {"type": "object", "allOf": [schema], "unevaluatedProperties": True}
    with pytest.raises(UnusableOperation, match="more than 100000"):
        ArgumentCheck(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"x": {"$id": "b", "$defs": {}}}},
        {"properties": {"x": {"$ref": "other.json#/$defs/a"}}},
    ],
)
def test_what_leads_elsewhere_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(UnusableOperation):
        ArgumentCheck({"type": "object", **schema})


def test_schemas_that_contain_themselves_are_usable() -> None:
    node = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/n"}, {}]}}}
    check = ArgumentCheck(
        {"type": "object", "properties": {"x": {"$ref": "#/$defs/n"}}, "$defs": {"n": node}}
    )
    assert check.take('{"x": {"next": {"next": 1}}}')


def test_a_default_that_is_nested_too_deeply_is_refused() -> None:
    default: list[Any] = []
    for _ in range(20_000):
        default = [default]
    with pytest.raises(UnusableOperation, match="not usable"):
        ArgumentCheck({"type": "object", "properties": {"x": {"default": default}}})


def test_very_many_patterns_are_not_compiled() -> None:
    r"""A thousand of `\w{1,200}` take seconds and hundreds of megabytes."""
    members = {f"p{n}": {"type": "string", "pattern": f"^\\d{{{n + 1}}}$"} for n in range(51)}
    few = {name: members[name] for name in list(members)[:50]}
    with pytest.raises(ValueError, match="does not match"):
        ArgumentCheck({"type": "object", "properties": few}).take('{"p0": "x"}')
    assert ArgumentCheck({"type": "object", "properties": members}).take('{"p0": "x"}')
    names: dict[str, Any] = {f"^{n}$": {} for n in range(51)}
    with pytest.raises(UnusableOperation, match="more than 50 patterns of names"):
        ArgumentCheck({"type": "object", "patternProperties": names})
    with pytest.raises(ValueError, match="is not of type"):
        large = {"x": {"type": "string", "pattern": "^.{1,50000}$"}}
        ArgumentCheck({"type": "object", "properties": large}).take('{"x": 1}')


def test_the_dialect_is_that_which_the_schema_names() -> None:
    """A list of `items` is a tuple before 2020-12, and no schema since."""
    pair: dict[str, Any] = {
        "type": "object",
        "properties": {"x": {"items": [{"type": "string"}, {"type": "integer"}]}},
    }
    draft7 = {"$schema": "http://json-schema.org/draft-07/schema#", **pair}
    check = ArgumentCheck(draft7)
    assert check.take('{"x": ["a", 1]}')
    with pytest.raises(ValueError, match="is not of type"):
        check.take('{"x": [1, "a"]}')
    with pytest.raises(UnusableOperation):
        ArgumentCheck(pair)
    unknown = {"$schema": "https://example.com/mine", "type": "object"}
    assert ArgumentCheck(unknown).take('{"x": 1}') == {"x": 1}


def test_references_that_multiply_are_refused_in_tuples_too() -> None:
    schema = doubling(200)
    schema["$schema"] = "http://json-schema.org/draft-07/schema#"
    schema["properties"] = {"x": {"items": [schema["properties"]["x"]]}}
    with pytest.raises(UnusableOperation, match="more than 100000 schemas apply to one value"):
        ArgumentCheck(schema)


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def test_what_is_wrong_is_not_looked_for_in_exponential_time() -> None:
    """The validator says quickly whether a value fits, and not why."""
    again = {"properties": {"a": {"$ref": "#/$defs/n"}}}
    node = {"anyOf": [{**again, "required": ["x"]}, {**again, "required": ["y"]}]}
    check = ArgumentCheck({"type": "object", "$defs": {"n": node}, "$ref": "#/$defs/n"})
    with pytest.raises(ValueError, match="which refers to itself"):
        check.take(json.dumps(nested(60)))
    with pytest.raises(ValueError, match="is not valid under any of the schemas"):
        check.take(json.dumps(nested(1)))
    tree = {"type": "object", "properties": {"a": {"$ref": "#"}, "n": {"type": "integer"}}}
    with pytest.raises(ValueError, match=r'a\.a\.a\.n: "x" is not of type'):
        ArgumentCheck(tree).take('{"a": {"a": {"a": {"n": "x"}}}}')
