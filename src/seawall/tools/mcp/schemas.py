"""Schemas of a server's results: checked once, when its tools are listed.

They are foreign data: patterns take linear time, no reference is followed to anywhere else, and
what is too deep or too large is refused. Schemas of arguments are checked in `tools.remote`, whose
bounds are those of `tools.effort`.
"""

from typing import Any
from urllib.parse import unquote

import jsonschema_rs

from seawall.tools.effort import MOST_PATTERNS, PATTERN_BYTES, count_patterns

__all__ = ["InvalidSchema", "Validator", "check_references", "compile_schema", "fault_of"]

Validator = jsonschema_rs.Validator

_MAX_FAULT_CHARACTERS = 500
_MAX_EXPANDED = 10_000  # parts of a schema, with references followed


class InvalidSchema(Exception):
    """A schema cannot be used."""


def check_references(schema: dict[str, Any]) -> bool:
    """Check how often references repeat parts: a few lines of them can double a work forty times.

    Args:
        schema: Of a tool.

    Returns:
        Whether that is bounded; what refers to itself depends on the values.

    Raises:
        InvalidSchema: It is too often.
    """
    sizes: dict[int, int] = {}
    active: set[int] = set()
    bounded = True

    def size_of(node: Any) -> int:  # noqa: ANN401 - any JSON
        nonlocal bounded
        if not isinstance(node, dict | list):
            return 0
        if (known := sizes.get(id(node))) is not None:
            return known
        if id(node) in active:
            bounded = False
            return 0
        active.add(id(node))
        size = 1 + sum(map(size_of, node.values() if isinstance(node, dict) else node))
        if isinstance(node, dict):
            for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
                if isinstance(reference := node.get(keyword), str):
                    target = _target(schema, reference)
                    bounded = bounded and target is not None
                    size += size_of(target)
        active.discard(id(node))
        sizes[id(node)] = size
        if size > _MAX_EXPANDED:
            raise InvalidSchema(f"more than {_MAX_EXPANDED} parts, with its references followed")
        return size

    try:
        size_of(schema)
    except RecursionError:
        raise InvalidSchema("its references are nested too deeply") from None
    return bounded


def _target(schema: dict[str, Any], reference: str) -> Any:  # noqa: ANN401 - any JSON
    """What a reference within a schema names (RFC 6901); None if that is not known."""
    if reference != "#" and not reference.startswith("#/"):
        return None
    node: Any = schema
    for part in unquote(reference.removeprefix("#")).split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        try:
            node = node[int(name)] if isinstance(node, list) else node[name]
        except (ValueError, LookupError, TypeError):
            return None
    return node


def compile_schema(schema: dict[str, Any] | bool) -> Validator:
    """A validator of a schema; of the dialect that it names, else of 2020-12.

    Raises:
        InvalidSchema: It is not a schema, refers to another document, or has a pattern that does
            not end in linear time.
    """
    if isinstance(schema, dict) and max(count_patterns(schema)) > MOST_PATTERNS:
        raise InvalidSchema(f"more than {MOST_PATTERNS} patterns")
    try:
        return jsonschema_rs.validator_for(
            schema,
            validate_formats=False,
            offline=True,
            pattern_options=jsonschema_rs.RegexOptions(
                size_limit=PATTERN_BYTES, dfa_size_limit=PATTERN_BYTES
            ),
        )
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise InvalidSchema(_first_line(error)) from None


def fault_of(validator: Validator, value: Any) -> str:  # noqa: ANN401 - any JSON
    """What is wrong with a value; empty if nothing is."""
    try:
        validator.validate(value)
    except ValueError as error:
        return _first_line(error)
    return ""


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:_MAX_FAULT_CHARACTERS]
