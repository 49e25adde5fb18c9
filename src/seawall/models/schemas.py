"""JSON Schemas as providers take them: each enforces only a part of the language.

What a provider would refuse is told to the model in the description instead. The agent loop checks
answers against the whole schema in any case.
"""

import copy
from typing import Any

import msgspec

from seawall.models.port import OutputFormat

__all__ = ["ANY_OBJECT", "is_strict", "schema_instructions", "simplify_schema"]

ANY_OBJECT: dict[str, Any] = {"type": "object"}
"""Any JSON object: no schema can say that to a provider that wants objects closed."""

# https://platform.claude.com/docs/en/build-with-claude/structured-outputs, and what Anthropic's own
# client leaves in a schema (anthropic/lib/_parse/_transform.py, 2.13).
_KEPT = frozenset(
    {"$ref", "$defs", "type", "enum", "const", "anyOf", "allOf", "description", "title"}
    | {"properties", "required", "additionalProperties", "items", "format", "minItems"}
)
_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)
_IN_TABLES = ("properties", "$defs")
_IN_LISTS = ("anyOf", "allOf")


def simplify_schema(schema: dict[str, Any]) -> dict[str, object]:
    """The schema as Anthropic's models enforce it, also on Bedrock.

    Objects are closed; bounds, patterns and the like become words of the description.
    """
    if "$ref" in schema:  # nothing may stand beside it but definitions
        kept: dict[str, Any] = {key: schema[key] for key in ("$ref", "$defs") if key in schema}
        rest: dict[str, Any] = {}
    else:
        kept, rest = _sorted_out(schema)
    for key in _IN_TABLES:
        if key in kept:
            kept[key] = {name: simplify_schema(each) for name, each in kept[key].items()}
    for key in _IN_LISTS:
        if key in kept:
            kept[key] = [simplify_schema(each) for each in kept[key]]
    if isinstance(kept.get("items"), dict):
        kept["items"] = simplify_schema(kept["items"])
    if kept.get("type") == "object":
        kept.setdefault("properties", {})
        kept["additionalProperties"] = False
    if rest:
        said = ", ".join(f"{key}: {value}" for key, value in rest.items())
        before = f"{kept['description']}\n\n" if "description" in kept else ""
        kept["description"] = f"{before}{{{said}}}"
    return kept


def _sorted_out(schema: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    kept: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "oneOf":
            kept["anyOf"] = value
        elif key == "additionalProperties":
            pass
        elif (
            key not in _KEPT
            or (key == "format" and value not in _FORMATS)
            or (key == "minItems" and value not in (0, 1))
        ):
            rest[key] = value
        else:
            kept[key] = copy.copy(value)
    return kept, rest


def is_strict(schema: object) -> bool:
    """Whether OpenAI enforces the schema: every object is closed and all that it has is required.

    https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
    """
    if isinstance(schema, list):
        return all(is_strict(each) for each in schema)
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        wanted = set(schema.get("required", ()))
        if schema.get("additionalProperties") is not False or wanted != set(
            schema.get("properties", {})
        ):
            return False
    if "oneOf" in schema or "allOf" in schema:
        return False
    inner = [value for key, value in schema.items() if key not in ("enum", "const", *_IN_TABLES)]
    tables = [each for key in _IN_TABLES for each in schema.get(key, {}).values()]
    return is_strict(inner) and is_strict(tables)


def schema_instructions(output: OutputFormat) -> str:
    """The format as an instruction, for providers that cannot be told otherwise."""
    schema = msgspec.json.encode(output.schema).decode()
    return (
        "Your final answer must be one JSON document and nothing else: no text around it, no code "
        f"fence. It must be valid against this JSON Schema: {schema}"
    )
