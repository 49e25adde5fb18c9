"""Documents of tests, and arguments that fit a schema."""

import functools
import json
from collections.abc import Callable
from random import Random
from typing import Any

import jsonschema_rs

from seawall.tools.openapi.document import Document
from seawall.tools.openapi.operations import Operation, read_operations

__all__ = ["document_of", "fitting", "one_operation", "operation_of", "sample"]

_TEXTS = (
    *(
        "",
        "a",
        "x y",
        "äß",
        "日本",
        "a/b",
        "../..",
        "?q=1&r=2#f",
        "100%",
        "a+b",
        "1,2;3",
        "[a]={b}",
    ),
    *("line\r\nbreak", '"quoted"', "'", "\\", "a|b~c.d-e_f", "\U0001f600", "true", "0"),
)
_CANDIDATES = (
    *("1", "A", "a", "AA", "US", "USD", "en-US", "10.00", "1234567890", "a@b.co", "abc-DEF_1"),
    *("2026-11-29", "2026-11-29T10:00:00Z", "2026-11", "https://a.example/b", "/a/b", "PT1H"),
    *("x" * 13, "12", "123", "1234", "12345", "A" * 17, "Ab1" * 8, "A" * 30, "123456", "2" * 13),
    *("upi_collect", "https://a.example/b.png", "DEUTDEFF"),
)
_FORMATS = {
    "date-time": "2026-11-29T10:00:00Z",
    "date": "2026-11-29",
    "uri": "https://a.example/b",
    "byte": "YWI=",
    "email": "a@b.co",
}
_ANY: tuple[Any, ...] = (None, True, -1, 2.5, "text", [], {}, [1, "a"], {"a": 1})


def document_of(
    paths: dict[str, Any],
    *,
    version: str = "3.1.0",
    read_file: Callable[[str], bytes] | None = None,
    **more: Any,
) -> Document:
    """A document with these paths and a server."""
    root = {"openapi": version, "info": {"title": "t", "version": "1"}, "paths": paths, **more}
    root.setdefault("servers", [{"url": "https://api.example.com/v1"}])
    return Document("api.json", json.dumps(root).encode(), read_file)


def one_operation(operation: dict[str, Any], path: str = "/things", **more: Any) -> dict[str, Any]:
    """Paths with one operation, a POST."""
    return {path: {"post": {"operationId": "op", **operation}, **more}}


def operation_of(document: Document, include: str = "*", **settings: Any) -> Operation:
    """The one operation that is included."""
    (found,) = read_operations(document, [include], **settings).usable
    return found


def fitting(schema: dict[str, Any]) -> Callable[[Any], bool]:
    """Whether a value is valid, as the arguments of tools are checked."""
    options = jsonschema_rs.RegexOptions()
    return jsonschema_rs.Draft202012Validator(schema, pattern_options=options).is_valid


def sample(schema: dict[str, Any], random: Random) -> Any:
    """A value that is valid by a schema that `SchemaReader` has made; optional members or not.

    Hypothesis' strategies take a hundred times as long for schemas of this size. Texts with a
    pattern are chosen from a list: one has to be there for each pattern of the real documents.
    """
    fits = fitting(schema)
    values = _Values(schema, random)
    for attempt in range(200):
        value = values.of(schema, 0, attempt / 20)
        if fits(value):
            return value
    raise AssertionError(f"no value was found for {json.dumps(schema)[:2_000]}")


@functools.cache
def _matching(pattern: str, least: int, most: int) -> tuple[str, ...]:
    matches = fitting({"type": "string", "pattern": pattern, "minLength": least, "maxLength": most})
    return tuple(each for each in _CANDIDATES if matches(each))


class _Values:
    def __init__(self, root: dict[str, Any], random: Random) -> None:
        self._definitions = root.get("$defs", {})
        self._random = random

    def of(self, schema: Any, depth: int, spare: float) -> Any:
        """A value; the more `spare`, the fewer members that need not be there."""
        if isinstance(schema, bool):
            return self._random.choice(_ANY)
        schema = self._merged([schema])
        for key in ("oneOf", "anyOf"):
            if key in schema:
                rest = {name: each for name, each in schema.items() if name != key}
                one = self._merged([rest, self._random.choice(schema[key])])
                return self.of(one, depth, spare)
        if "enum" in schema:
            return self._random.choice(schema["enum"])
        if "const" in schema:
            return schema["const"]
        kinds = schema.get("type", "object" if "properties" in schema else "any")
        kind = kinds if isinstance(kinds, str) else self._random.choice(kinds)
        return getattr(self, f"_{kind}")(schema, depth, spare)

    def _merged(self, schemas: list[Any]) -> dict[str, Any]:
        """All keywords of schemas that apply together, references and `allOf` resolved."""
        merged: dict[str, Any] = {}
        pending = list(reversed(schemas))
        while pending:
            each = pending.pop()
            if isinstance(each, bool):
                continue
            if "$ref" in each:
                pending.append(self._definitions[each["$ref"].removeprefix("#/$defs/")])
            pending += reversed(each.get("allOf", ()))
            for key, value in each.items():
                if key == "properties":
                    merged[key] = {**value, **merged.get(key, {})}
                elif key == "required":
                    merged[key] = [*merged.get(key, []), *value]
                elif key not in ("$ref", "allOf"):
                    merged.setdefault(key, value)
        return merged

    def _object(self, schema: dict[str, Any], depth: int, spare: float) -> Any:
        properties = schema.get("properties", {})
        required = schema.get("required", ())
        names = {*required}
        for name in properties:
            if depth < 6 and self._random.random() > 0.3 + spare / 10 + depth / 8:
                names.add(name)
        while len(names) < min(schema.get("minProperties", 0), len(properties)):
            names.add(self._random.choice(list(properties)))
        while len(names) > schema.get("maxProperties", 99) and names - {*required}:
            names.discard(self._random.choice(sorted(names - {*required})))
        return {name: self.of(properties.get(name, True), depth + 1, spare) for name in names}

    def _array(self, schema: dict[str, Any], depth: int, spare: float) -> Any:
        least = schema.get("minItems", 0)
        most = max(least, min(schema.get("maxItems", 3), 3 if depth < 4 else 0))
        number = self._random.randint(least, most)
        return [self.of(schema.get("items", True), depth + 1, spare) for _ in range(number)]

    def _string(self, schema: dict[str, Any], _: int, __: float) -> Any:
        least, most = schema.get("minLength", 0), schema.get("maxLength", 64)
        if "pattern" not in schema and schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        if "pattern" in schema:
            return self._random.choice(_matching(schema["pattern"], least, most))
        return (self._random.choice(_TEXTS) + "x" * least)[: max(most, least)]

    def _integer(self, schema: dict[str, Any], _: int, __: float) -> Any:
        least, most = _bounds(schema)
        return self._random.randint(int(least), int(max(least, most)))

    def _number(self, schema: dict[str, Any], depth: int, spare: float) -> Any:
        least, most = _bounds(schema)
        if self._random.random() < 0.5:
            return self._integer(schema, depth, spare)
        return self._random.uniform(least, most)

    def _boolean(self, _: Any, __: int, ___: float) -> Any:
        return self._random.random() < 0.5

    def _null(self, _: Any, __: int, ___: float) -> Any:
        return None

    def _any(self, _: Any, __: int, ___: float) -> Any:
        return self._random.choice(_ANY)


def _bounds(schema: dict[str, Any]) -> tuple[float, float]:
    least = schema.get("minimum", schema.get("exclusiveMinimum", -1_000))
    most = schema.get("maximum", schema.get("exclusiveMaximum", max(1_000, least)))
    return least, most
