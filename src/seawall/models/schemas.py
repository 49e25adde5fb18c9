"""JSON Schemas in the subset that each provider enforces.

What a provider would refuse is moved into the description for the model. The agent loop checks
answers against the whole schema in any case.
"""

import copy
from typing import Any

import msgspec

from seawall.models import OutputFormat, Prompt

__all__ = ["ANY_OBJECT", "is_strict", "schema_instructions", "simplify_schema", "split_output"]

ANY_OBJECT: dict[str, Any] = {"type": "object"}
"""Any JSON object: a schema that providers which require closed objects cannot express."""

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
    """Return the schema as Anthropic's models enforce it, also on Bedrock.

    Objects are closed; bounds, patterns and the like are moved into the description.
    """
    if "$ref" in schema:  # only definitions may stand beside it
        kept: dict[str, Any] = {key: schema[key] for key in ("$ref", "$defs") if key in schema}
        rest: dict[str, Any] = {}
    else:
        kept, rest = _partition(schema)
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
        rules = ", ".join(f"{key}: {value}" for key, value in rest.items())
        before = f"{kept['description']}\n\n" if "description" in kept else ""
        kept["description"] = f"{before}{{{rules}}}"
    return kept


def _partition(schema: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
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
    """Return whether OpenAI enforces the schema: objects are closed, all properties required.

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


def split_output(prompt: Prompt, *, in_instructions: bool) -> tuple[str, OutputFormat | None]:
    """Return the instructions to send, and the output format for the provider's own field.

    Args:
        prompt: The agent's.
        in_instructions: Describe the schema in the instructions. So is `ANY_OBJECT` always.
    """
    output = prompt.output
    if output is None:
        return prompt.instructions, None
    if in_instructions or output.schema == ANY_OBJECT:
        return f"{prompt.instructions}\n\n{schema_instructions(output)}", None
    return prompt.instructions, output


def schema_instructions(output: OutputFormat) -> str:
    """Return the output format as an instruction to the model."""
    schema = msgspec.json.encode(output.schema).decode()
    return (
        "Your final answer must be one JSON document and nothing else: no text around it, no code "
        f"fence. It must be valid against this JSON Schema: {schema}"
    )
