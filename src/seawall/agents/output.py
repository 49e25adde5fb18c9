"""Structured output: an agent's JSON schema, and validation of its answers.

Validation is by fastjsonschema, imported only if an agent has a schema: of three validators it
was the quickest to import and the smallest (docs/decisions/006-json-schema.md).
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from seawall.errors import ConfigError
from seawall.models import OutputFormat
from seawall.settings import OutputSettings

__all__ = ["OutputCheck", "build_output"]

_MAX_FAULT_CHARACTERS = 500
_name = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Keywords of later drafts, which the validator would ignore.
_UNCHECKED = frozenset(
    {"prefixItems", "unevaluatedItems", "unevaluatedProperties", "dependentRequired"}
    | {"dependentSchemas", "minContains", "maxContains", "$dynamicRef", "$recursiveRef"}
)
_TABLES = frozenset({"properties", "patternProperties", "$defs", "definitions"})


class OutputCheck(Struct, frozen=True, eq=False):
    """An output format with its validator.

    Attributes:
        format: What providers get.
        validate: Raises `invalid` for a value that does not match.
        invalid: The exception of `validate`.
    """

    format: OutputFormat
    validate: Callable[[object], object]
    invalid: type[Exception]

    def fault(self, text: str) -> str | None:
        """What is wrong with an answer, for the model to read; None if it is valid."""
        try:
            self.validate(msgspec.json.decode(text))
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            return f"It is not a JSON document: {error}"
        except RecursionError:
            return "It is nested too deeply."
        except self.invalid as error:
            return str(error)[:_MAX_FAULT_CHARACTERS]
        return None


def build_output(agent: str, settings: OutputSettings) -> OutputCheck:
    """Build the validator of an agent.

    Args:
        agent: Name of the agent, for errors.
        settings: Its settings.

    Raises:
        ConfigError: The schema cannot be read, or is invalid.
    """
    import fastjsonschema  # noqa: PLC0415 - only where an agent has a schema

    where = f"agents.{agent}.output"
    if (settings.schema is None) == (not settings.schema_file):
        raise ConfigError(f"{where}: set either schema or schema_file")
    if not _name.fullmatch(settings.name):
        raise ConfigError(f"{where}.name: letters, digits, _ and -, at most 64")
    schema = settings.schema
    if schema is None:
        try:
            text = Path(settings.schema_file).read_bytes()
            schema = msgspec.json.decode(text, type=dict[str, Any])
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{where}.schema_file: {settings.schema_file}: {error}") from error
    for fault in _unsupported(schema):
        raise ConfigError(f"{where}: {fault}")
    try:
        validate = fastjsonschema.compile(schema, use_default=False)
    except (fastjsonschema.JsonSchemaDefinitionException, re.error, AttributeError) as error:
        raise ConfigError(f"{where}: is not a JSON Schema: {error}") from error
    return OutputCheck(
        OutputFormat(settings.name, schema), validate, fastjsonschema.JsonSchemaValueException
    )


def _unsupported(schema: object) -> Iterator[str]:
    """Parts of a schema that would not be checked, or would be fetched."""
    if isinstance(schema, list):
        for each in schema:
            yield from _unsupported(each)
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        if key in _UNCHECKED:
            yield f"{key} is not supported (drafts 4, 6 and 7 of JSON Schema are)"
        elif key == "$ref" and not str(value).startswith("#"):
            yield f"$ref must point into the schema, not to {value}"
        elif key in _TABLES and isinstance(value, dict):
            for each in value.values():
                yield from _unsupported(each)
        elif key not in ("enum", "const", "default", "examples"):
            yield from _unsupported(value)
