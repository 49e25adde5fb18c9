"""The effort of checking a value by a foreign JSON Schema, before the first value is checked."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from msgspec import Struct

__all__ = ["MOST_PATTERNS", "PATTERN_BYTES", "Effort", "check_effort", "count_patterns"]

MOST_PATTERNS = 50
"""Of a schema: each takes milliseconds and some 100 KB to compile."""

PATTERN_BYTES = 1 << 18
"""Of a compiled pattern."""

_MOST_AT_ONCE = 100_000  # schemas that apply to one value
_SAME_LISTS = ("allOf", "anyOf", "oneOf")
_SAME = ("not", "if", "then", "else")
_PARTS = ("items", "contains", "additionalProperties", "propertyNames", "additionalItems")
_UNEVALUATED = ("unevaluatedItems", "unevaluatedProperties")
_PART_TABLES = ("properties", "patternProperties")


class Effort(Struct, frozen=True):
    """The effort of a schema.

    Attributes:
        most: Schemas that apply to one value at most; what leads back to itself is counted once.
        recursive: Whether some part leads back to itself.
    """

    most: int
    recursive: bool

    def allows_explanation(self, value: Any) -> bool:  # noqa: ANN401 - any JSON
        """Whether all that is wrong with a value can be looked for.

        Args:
            value: JSON; what refers to itself is followed as deep as it is nested.
        """
        return not self.recursive or self.most ** min(_depth(value), 32) <= _MOST_AT_ONCE


def check_effort(schema: dict[str, Any]) -> Effort:
    """Refuse a schema that applies too many schemas to one value.

    A few references, each twice to the next, are as many as atoms: a validator visits them all.

    Args:
        schema: JSON Schema.

    Raises:
        ValueError: It does; or it refers to something that is not in it.
        RecursionError: It is nested too deeply.
    """
    efforts = _Efforts(schema)
    most, recursive = 1, False
    entered: set[int] = set()
    open_now: set[int] = set()
    pending = [(schema, False)]  # and whether all that is below it has been looked at
    while pending:
        each, done = pending.pop()
        if done:
            open_now.discard(id(each))
            continue
        if id(each) in entered:
            recursive = recursive or id(each) in open_now
            continue
        most = max(most, efforts.of(each))
        if most > _MOST_AT_ONCE:
            raise ValueError(f"more than {_MOST_AT_ONCE} schemas apply to one value")
        entered.add(id(each))
        open_now.add(id(each))
        pending.append((each, True))
        pending += [(part, False) for part in (*efforts.same(each), *_parts(each))]
    return Effort(most, recursive)


def _depth(value: Any) -> int:  # noqa: ANN401 - any JSON
    """How deep a value is nested."""
    depth, level = 0, [value]
    while level := [
        inner
        for each in level
        if isinstance(each, dict | list)
        for inner in (each.values() if isinstance(each, dict) else each)
    ]:
        depth += 1
    return depth


def count_patterns(schema: dict[str, Any]) -> tuple[int, int]:
    """How many patterns of values and of names of members a schema has.

    Args:
        schema: JSON Schema.
    """
    values = names = 0
    for each in _objects(schema):
        values += isinstance(each.get("pattern"), str)
        table = each.get("patternProperties")
        names += len(table) if isinstance(table, dict) else 0
    return values, names


class _Efforts:
    """How many schemas apply to a value together with each schema of a document."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._anchors: dict[str, dict[str, Any]] = {}
        self._known: dict[int, int] = {}
        for each in _objects(root):
            if each is not root and isinstance(each.get("$id"), str):
                raise ValueError("it has parts with addresses of their own ($id)")
            for key in ("$anchor", "$dynamicAnchor"):
                if isinstance(name := each.get(key), str):
                    self._anchors[name] = each

    def of(self, schema: dict[str, Any]) -> int:
        """The number for a schema; what leads back to itself is counted once."""
        if (known := self._known.get(id(schema))) is not None:
            return known
        self._known[id(schema)] = 1
        count = 1 + sum(map(self.of, self.same(schema)))
        if any(key in schema for key in _UNEVALUATED):  # asks again what has been evaluated
            count *= 2
        self._known[id(schema)] = min(count, _MOST_AT_ONCE + 1)
        return self._known[id(schema)]

    def same(self, schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The schemas that apply to the same value."""
        for key in ("$ref", "$dynamicRef", "$recursiveRef"):
            if isinstance(reference := schema.get(key), str):
                found = self._target(reference)
                if isinstance(found, dict):
                    yield found
        for key in _SAME_LISTS:
            yield from _dicts(schema.get(key))
        for key in _SAME:
            yield from _dicts([schema.get(key)])
        for key in ("dependentSchemas", "dependencies"):
            if isinstance(table := schema.get(key), dict):
                yield from _dicts(list(table.values()))

    def _target(self, reference: str) -> object:
        address, _, fragment = reference.partition("#")
        if address.startswith(("https://json-schema.org/", "http://json-schema.org/")):
            return None  # known, and harmless
        if address and address != self._root.get("$id"):
            raise ValueError(f"it refers to {reference[:200]!r}, which is not in it")
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            return self._anchors.get(fragment)
        value: object = self._root
        for step in fragment.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict):
                value = value.get(name)
            elif isinstance(value, list) and name.isdecimal() and int(name[:9]) < len(value):
                value = value[int(name[:9])]
            else:
                return None  # which the validator refuses
        return value


def _parts(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schemas that apply to members and items."""
    yield from _dicts(schema.get("prefixItems"))
    yield from _dicts(schema.get("items"))  # a list before 2020-12
    for key in (*_PARTS, *_UNEVALUATED):
        yield from _dicts([schema.get(key)])
    for key in _PART_TABLES:
        if isinstance(table := schema.get(key), dict):
            yield from _dicts(list(table.values()))


def _dicts(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _objects(value: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - JSON
    """All objects in a value, itself included."""
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            yield each
            pending += each.values()
        elif isinstance(each, list):
            pending += each
