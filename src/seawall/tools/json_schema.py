"""JSON Schema validation for schemas that clients send: bounded in time, without running code.

The schemas of agents are compiled to Python (see `agents/output.py`), which is not safe for
schemas of clients. Keywords: https://json-schema.org/draft/2020-12, as far as the description of
an answer needs them. `pattern` and `format` are not checked: a pattern can be written so that it
never ends. A schema with other keywords that would not be checked is refused.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

__all__ = ["SchemaFault", "UnusableSchema", "ValueCheck", "check_schema"]

_MAX_DEPTH = 64
_MAX_STEPS = 20_000
_BYTES_A_STEP = 16  # of a value that is compared as a whole
_UNCHECKED = frozenset(
    {"patternProperties", "propertyNames", "unevaluatedItems", "unevaluatedProperties"}
    | {"dependencies", "dependentRequired", "dependentSchemas", "contains", "minContains"}
    | {"maxContains", "if", "then", "else", "$dynamicRef", "$recursiveRef"}
)
_OF_SCHEMAS = frozenset({"properties", "$defs", "definitions"})
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_INNER = frozenset({"items", "additionalProperties", "not"})
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_BOUNDS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "minimum": (lambda value, bound: value >= bound, "must be at least"),
    "maximum": (lambda value, bound: value <= bound, "must be at most"),
    "exclusiveMinimum": (lambda value, bound: value > bound, "must be more than"),
    "exclusiveMaximum": (lambda value, bound: value < bound, "must be less than"),
}
_SIZES: dict[type, tuple[str, str, str]] = {
    str: ("minLength", "maxLength", "characters"),
    list: ("minItems", "maxItems", "items"),
    dict: ("minProperties", "maxProperties", "members"),
}

Path = tuple[str | int, ...]


class UnusableSchema(Exception):
    """A schema cannot be checked.

    Attributes:
        path: Dotted path of the fault.
        detail: What is wrong.
    """

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(detail)
        self.path = path
        self.detail = detail


class SchemaFault(Exception):
    """The value does not match the schema."""


def check_schema(schema: object) -> None:
    """Check that a schema is supported.

    Raises:
        UnusableSchema: It is malformed, nested too deeply, refers to another document, or has a
            keyword that would not be checked.
    """
    pending: list[tuple[Path, object]] = [((), schema)]
    checked: set[int] = set()
    while pending:
        path, each = pending.pop()
        if isinstance(each, bool) or id(each) in checked:
            continue
        checked.add(id(each))
        if not isinstance(each, dict):
            raise _unusable(path, "Must be an object: a schema.")
        if len(path) > 2 * _MAX_DEPTH:
            raise _unusable(path[:8], "The schema is nested too deeply.")
        for key, value in each.items():
            pending += _inner_schemas((*path, key), key, value)
            _check_keyword((*path, key), key, value)
            if key == "$ref":  # it may refer to a part that is not checked otherwise
                pending.append(((*path, key), _referred((*path, key), value, schema)))


def _inner_schemas(path: Path, key: str, value: object) -> list[tuple[Path, object]]:
    if key in _OF_SCHEMAS:
        if not isinstance(value, dict):
            raise _unusable(path, "Must be an object of schemas.")
        return [((*path, name), each) for name, each in value.items()]
    if key in _LISTS:
        if not isinstance(value, list) or not value:
            raise _unusable(path, "Must be a list of schemas.")
        return [((*path, index), each) for index, each in enumerate(value)]
    return [(path, value)] if key in _INNER else []


def _referred(path: Path, reference: object, root: object) -> object:
    found = _resolve(root, reference) if isinstance(reference, str) else None
    if found is None:
        raise _unusable(path, "Must refer to a part of this schema, such as #/$defs/name.")
    return found


def _check_keyword(path: Path, key: str, value: object) -> None:
    if key in _UNCHECKED:
        raise _unusable(path, "This keyword is not supported.")
    if (rule := _rules.get(key)) is not None and not rule[0](value):
        raise _unusable(path, f"Must be {rule[1]}.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _are_types(value: object) -> bool:
    kinds = value if isinstance(value, list) else [value]
    known = all(isinstance(each, str) and (each == "integer" or each in _TYPES) for each in kinds)
    return known and 0 < len(kinds) == len(set(kinds))


_rules: dict[str, tuple[Callable[[object], bool], str]] = {
    "type": (_are_types, "the name of a type, or a list of different ones"),
    "enum": (lambda value: isinstance(value, list), "a list"),
    "required": (_are_texts, "a list of names"),
    "multipleOf": (lambda value: _is_number(value) and value != 0, "a number that is not 0"),
    **dict.fromkeys(_BOUNDS, (_is_number, "a number")),
    **dict.fromkeys(
        [name for sizes in _SIZES.values() for name in sizes[:2]], (_is_number, "a number")
    ),
}


class ValueCheck:
    """Validates values against a schema that `check_schema` has accepted."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._root = schema
        self._steps = 0
        self._referred: dict[str, object] = {}
        self._offered: dict[int, tuple[frozenset[bytes], str]] = {}  # by the id of the list

    def __call__(self, value: object) -> None:
        """Validate a value.

        Raises:
            SchemaFault: It does not match the schema, or is too large to check.
        """
        self._steps = 0
        if (fault := self._fault(self._root, value, (), 0)) is not None:
            raise SchemaFault(fault)

    def _fault(self, schema: Any, value: Any, path: Path, depth: int) -> str | None:  # noqa: ANN401 - JSON
        self._steps += 1
        if self._steps > _MAX_STEPS or depth > _MAX_DEPTH:
            raise SchemaFault("It is too large or too deeply nested to be checked.")
        if isinstance(schema, bool):
            return None if schema else f"{_path_text(path)} must not be there"
        self._steps += len(schema.get("required", ()))
        if (reference := schema.get("$ref")) is not None:
            if reference not in self._referred:
                self._referred[reference] = _resolve(self._root, reference)
            fault = self._fault(self._referred[reference], value, path, depth + 1)
            if fault is not None:
                return fault
        fault = self._own_fault(schema, value, path)
        if fault is None and isinstance(value, dict):
            fault = self._members_fault(schema, value, path, depth)
        if fault is None and isinstance(value, list):
            fault = self._items_fault(schema, value, path, depth)
        return fault or self._combined_fault(schema, value, path, depth)

    def _members_fault(
        self, schema: dict[str, Any], value: dict[str, Any], path: Path, depth: int
    ) -> str | None:
        for name in schema.get("required", ()):
            if name not in value:
                return f"{_path_text((*path, name))} is missing"
        known = schema.get("properties", {})
        others = schema.get("additionalProperties", True)
        for name, each in value.items():
            inner = (*path, name)
            if name not in known and others is False:
                return f"{_path_text(inner)} must not be there"
            if (fault := self._fault(known.get(name, others), each, inner, depth + 1)) is not None:
                return fault
        return None

    def _items_fault(
        self, schema: dict[str, Any], value: list[Any], path: Path, depth: int
    ) -> str | None:
        first = schema.get("prefixItems", ())
        for index, each in enumerate(value):
            wanted = first[index] if index < len(first) else schema.get("items", True)
            fault = self._fault(wanted, each, (*path, index), depth + 1)
            if fault is not None:
                return fault
        if schema.get("uniqueItems") is True and len(set(map(self._canonical, value))) < len(value):
            return f"{_path_text(path)} must have no item twice"
        return None

    def _combined_fault(
        self, schema: dict[str, Any], value: object, path: Path, depth: int
    ) -> str | None:
        for each in schema.get("allOf", ()):
            if (fault := self._fault(each, value, path, depth + 1)) is not None:
                return fault
        for key in ("anyOf", "oneOf"):
            if key in schema:
                faults = [self._fault(each, value, path, depth + 1) for each in schema[key]]
                matching = faults.count(None)
                if not matching:
                    return (
                        faults[0]
                        if len(faults) == 1
                        else f"{_path_text(path)} matches none of {key}"
                    )
                if key == "oneOf" and matching > 1:
                    return f"{_path_text(path)} matches more than one of oneOf"
        if "not" in schema and self._fault(schema["not"], value, path, depth + 1) is None:
            return f"{_path_text(path)} must not match the schema in not"
        return None

    def _own_fault(self, schema: dict[str, Any], value: Any, path: Path) -> str | None:  # noqa: ANN401 - JSON
        """The fault of a value itself, apart from its members and items."""
        kinds = schema.get("type")
        if kinds is not None:
            listed = kinds if isinstance(kinds, list) else [kinds]
            if not any(_is_a(value, each) for each in listed):
                return f"{_path_text(path)} must be of type {' or '.join(listed)}"
        if "enum" in schema:
            offered, shown = self._offer(schema["enum"], schema["enum"])
            if self._canonical(value) not in offered:
                return f"{_path_text(path)} must be one of {shown}"
        if "const" in schema:
            offered, shown = self._offer(schema, [schema["const"]])
            if self._canonical(value) not in offered:
                return f"{_path_text(path)} must be {shown[1:-1]}"
        return _number_fault(schema, value, path) or _size_fault(schema, value, path)

    def _offer(self, owner: object, values: list[Any]) -> tuple[frozenset[bytes], str]:
        """The allowed values of a keyword: in canonical form, and as text for messages."""
        if id(owner) not in self._offered:  # once, however often the schema is referred to
            shown = msgspec.json.encode(values).decode()[:200]
            self._offered[id(owner)] = frozenset(map(_canonical, values)), shown
        return self._offered[id(owner)]

    def _canonical(self, value: object) -> bytes:
        data = _canonical(value)
        self._steps += len(data) // _BYTES_A_STEP
        return data


def _number_fault(schema: dict[str, Any], value: Any, path: Path) -> str | None:  # noqa: ANN401 - JSON
    if not _is_number(value):
        return None
    for key, (satisfied, phrase) in _BOUNDS.items():
        if key in schema and not satisfied(value, schema[key]):
            return f"{_path_text(path)} {phrase} {schema[key]}"
    step = schema.get("multipleOf")
    if step is not None and not _is_multiple(value, step):
        return f"{_path_text(path)} must be a multiple of {step}"
    return None


def _is_multiple(value: float, step: float) -> bool:
    if isinstance(value, int) and isinstance(step, int):
        return value % step == 0
    try:
        return abs(value / step - round(value / step)) <= 1e-9
    except OverflowError:  # too large to decide
        return False


def _size_fault(schema: dict[str, Any], value: Any, path: Path) -> str | None:  # noqa: ANN401 - JSON
    sizes = _SIZES.get(type(value))
    if sizes is None:
        return None
    least, most, what = sizes
    if len(value) < schema.get(least, 0):
        return f"{_path_text(path)} must have at least {schema[least]} {what}"
    if most in schema and len(value) > schema[most]:
        return f"{_path_text(path)} must have at most {schema[most]} {what}"
    return None


def _is_a(value: object, kind: str) -> bool:
    if kind == "integer":
        return type(value) is int or (type(value) is float and value.is_integer())
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind])


def _resolve(root: object, reference: str) -> object:
    """The part of a schema that a reference points to; None if there is none."""
    if not reference.startswith("#"):
        return None
    found = root
    for step in reference[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return found if isinstance(found, dict | bool) else None


def _canonical(value: object) -> bytes:
    """Canonical form: equal for values that are equal in JSON (1 and 1.0, not 1 and true)."""
    return msgspec.json.encode(_plain(value), order="sorted")


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return int(value)
    return value


def _path_text(path: Path) -> str:
    return ".".join(map(str, path))[:200] or "the answer"


def _unusable(path: Path, detail: str) -> UnusableSchema:
    return UnusableSchema(".".join(map(str, path))[:200], detail)
