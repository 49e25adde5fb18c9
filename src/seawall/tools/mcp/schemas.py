"""Schemas of a server's tools: checked once, when they are listed.

They are foreign data: patterns take linear time, no reference is followed to anywhere else, and
what is too deep or too large is refused.
"""

from typing import Any

import jsonschema_rs

__all__ = ["InvalidSchema", "Validator", "compile_schema", "fault_of"]

Validator = jsonschema_rs.Validator

_PATTERN_BYTES = 1 << 18
_MAX_FAULT_CHARACTERS = 500


class InvalidSchema(Exception):
    """A schema cannot be used."""


def compile_schema(schema: dict[str, Any] | bool) -> Validator:
    """A validator of a schema; of the dialect that it names, else of 2020-12.

    Raises:
        InvalidSchema: It is not a schema, refers to another document, or has a pattern that does
            not end in linear time.
    """
    try:
        return jsonschema_rs.validator_for(
            schema,
            validate_formats=False,
            offline=True,
            pattern_options=jsonschema_rs.RegexOptions(
                size_limit=_PATTERN_BYTES, dfa_size_limit=_PATTERN_BYTES
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
