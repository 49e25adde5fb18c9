"""Schemas of an OpenAPI document as JSON Schema 2020-12 for models and validators.

What is referred to becomes `$defs`, cycles included. Whatever a document contains, the result is a
valid schema: keywords with values that JSON Schema does not allow are left out.
"""

import hashlib
import re
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from seawall.tools.effort import PATTERN_BYTES
from seawall.tools.openapi.document import Document, DocumentFault, Node

__all__ = ["SchemaReader"]

_MAX_DEPTH = 64
_MAX_EXAMPLE = 200  # characters
_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
_IN_PLACE = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"})
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_TABLES = frozenset({"properties", "patternProperties", "dependentSchemas"})
_INNER = frozenset(
    {"items", "additionalProperties", "not", "contains", "propertyNames", "if", "then", "else"}
    | {"unevaluatedItems", "unevaluatedProperties"}
)
_unnamed = re.compile(r"[^A-Za-z0-9_.-]+")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_size(value: object) -> bool:
    return _is_number(value) and value >= 0 and value == int(value)  # type: ignore[operator,call-overload]


def _are_names(value: object) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(each, str) for each in value)
        and len(set(value)) == len(value)
    )


_CHECKS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(
        ("title", "description", "format", "contentEncoding", "contentMediaType"),
        lambda value: isinstance(value, str),
    ),
    **dict.fromkeys(("minimum", "maximum"), _is_number),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum"), _is_number),
    "multipleOf": lambda value: _is_number(value) and value > 0,
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), _is_size),
    **dict.fromkeys(("minProperties", "maxProperties", "minContains", "maxContains"), _is_size),
    **dict.fromkeys(("uniqueItems", "deprecated"), lambda value: isinstance(value, bool)),
    "enum": lambda value: isinstance(value, list) and bool(value),
    "required": _are_names,
    "dependentRequired": lambda value: (
        isinstance(value, dict) and all(map(_are_names, value.values()))
    ),
    "const": lambda _: True,
    "default": lambda _: True,
}

Key = tuple[str, str]  # file and JSON pointer of a schema


class _Definition(Struct):
    """A schema that others refer to.

    Attributes:
        name: In `$defs`.
        schema: As converted.
        refers: What it refers to.
        in_place: What it refers to for the same value, not for a member or item of it.
    """

    name: str
    schema: dict[str, Any] | bool
    refers: set[Key]
    in_place: set[Key]


class SchemaReader:
    """Converts schemas of requests; each that is referred to is converted once.

    Requests have no `readOnly` properties.
    """

    def __init__(self, document: Document) -> None:
        """Create a reader.

        Args:
            document: The document.
        """
        self._document = document
        self._names: dict[Key, str] = {}
        self._values: dict[Key, Any] = {}
        self._definitions: dict[Key, _Definition] = {}
        self._patterns: dict[str, bool] = {}
        self._ending: set[Key] = set()  # definitions that do not apply themselves

    def read(self, schema: object, file: str, refers: set[Key]) -> dict[str, Any]:
        """Convert a schema.

        Args:
            schema: The schema.
            file: The file that it is in.
            refers: What it refers to is added.

        Raises:
            DocumentFault: It is nested too deeply, or a reference leads nowhere.
        """
        conversion = _Conversion(self, self._document, file)
        converted = conversion.schema(schema)
        refers |= conversion.refers
        return {} if converted is True else {"not": {}} if converted is False else converted

    def definitions(self, refers: set[Key]) -> dict[str, Any]:
        """`$defs` of everything that is referred to, directly or not.

        Args:
            refers: Of the schemas; see `read`.

        Raises:
            DocumentFault: A schema cannot be converted, or refers to itself without end.
        """
        pending, found = list(refers), set(refers)
        while pending:
            definition = self._definition(pending.pop())
            pending += definition.refers - found
            found |= definition.refers
        self._check_ends(found)
        chosen = [self._definitions[key] for key in found]
        return {each.name: each.schema for each in sorted(chosen, key=lambda each: each.name)}

    def plain(self, schema: object, file: str) -> Node:
        """A schema itself, or the one that it refers to."""
        return self._document.follow(schema, file)

    def key_of(self, reference: str, file: str) -> Key:
        """Which schema a reference leads to."""
        node = self._document.resolve(reference, file)
        self._values[node.file, node.pointer] = node.value
        return node.file, node.pointer

    def name_of(self, key: Key) -> str:
        """The name of a schema in `$defs`; the same in every run."""
        if (known := self._names.get(key)) is not None:
            return known
        file, pointer = key
        last = pointer.rsplit("/", 1)[-1] or file.rsplit("/", 1)[-1].split(".", 1)[0]
        name = _unnamed.sub("_", last)[:64]
        if file or pointer != f"/components/schemas/{name}":
            digest = hashlib.sha256(f"{file}#{pointer}".encode("utf-8", "replace")).hexdigest()
            name = f"{name}_{digest[:8]}"
        self._names[key] = name
        return name

    def usable_pattern(self, pattern: str) -> bool:
        """Whether a pattern can be matched in linear time."""
        if pattern not in self._patterns:
            import jsonschema_rs  # noqa: PLC0415 - only for schemas with patterns

            try:
                jsonschema_rs.Draft202012Validator(
                    {"pattern": pattern},
                    pattern_options=jsonschema_rs.RegexOptions(size_limit=PATTERN_BYTES),
                )
                self._patterns[pattern] = True
            except ValueError:  # jsonschema_rs.ValidationError among them
                self._patterns[pattern] = False
        return self._patterns[pattern]

    def _definition(self, key: Key) -> _Definition:
        found = self._definitions.get(key)
        if found is None:
            conversion = _Conversion(self, self._document, key[0])
            schema = conversion.schema(self._values[key])
            found = _Definition(self.name_of(key), schema, conversion.refers, conversion.in_place)
            self._definitions[key] = found
        return found

    def _check_ends(self, keys: set[Key]) -> None:
        """No schema applies itself to the same value again: a validator would never end."""
        for start in keys - self._ending:
            path: dict[Key, list[Key]] = {start: list(self._definitions[start].in_place)}
            while path:
                key, ahead = next(reversed(path.items()))
                if not ahead:
                    self._ending.add(key)
                    del path[key]
                    continue
                after = ahead.pop()
                if after in path:
                    raise DocumentFault(
                        f"{self._document.name}: the schema {self.name_of(after)} refers to "
                        "itself without end"
                    )
                if after not in self._ending:
                    path[after] = list(self._definitions[after].in_place)


class _Conversion:
    """The conversion of one schema with what is in it."""

    def __init__(self, reader: SchemaReader, document: Document, file: str) -> None:
        self._reader = reader
        self._document = document
        self._file = file
        self.refers: set[Key] = set()
        self.in_place: set[Key] = set()

    def schema(
        self,
        schema: object,
        depth: int = 0,
        *,
        same: bool = True,
        absent: frozenset[str] = frozenset(),
    ) -> dict[str, Any] | bool:
        """Convert.

        Args:
            schema: As the document has it.
            depth: How many schemas it is in.
            same: Whether it applies to the value of the outermost schema, not to a part of it.
            absent: Properties that are left out elsewhere, which it must not require.
        """
        if not isinstance(schema, dict):
            return schema if isinstance(schema, bool) else True
        if depth > _MAX_DEPTH:
            raise DocumentFault(
                f"{self._file or self._document.name}: a schema is nested more than {_MAX_DEPTH} "
                "levels deep"
            )
        if isinstance(schema.get("$ref"), str):
            return self._referring(schema, depth, same=same, absent=absent)
        return self._keywords(schema, depth, same=same, absent=absent)

    def _referring(
        self, schema: dict[str, Any], depth: int, *, same: bool, absent: frozenset[str]
    ) -> dict[str, Any]:
        """A reference with what is beside it.

        3.0 says that everything beside it is ignored, but documents mean what they say.
        """
        key = self._reader.key_of(schema["$ref"], self._file)
        self.refers.add(key)
        if same:
            self.in_place.add(key)
        counts = schema if self._document.siblings else {"description": schema.get("description")}
        beside = {
            name: value
            for name, value in counts.items()
            if name not in ("$ref", "nullable") and value is not None
        }
        target: dict[str, Any] = {"$ref": f"#/$defs/{self._reader.name_of(key)}"}
        if beside:
            target |= self._keywords(beside, depth, same=same, absent=absent)
        return {"anyOf": [target, {"type": "null"}]} if schema.get("nullable") is True else target

    def _keywords(
        self, schema: dict[str, Any], depth: int, *, same: bool, absent: frozenset[str]
    ) -> dict[str, Any]:
        absent |= self._absent(schema)
        kept: dict[str, Any] = {}
        for name, value in schema.items():
            inner = same and name in _IN_PLACE
            if name in _LISTS and isinstance(value, list) and value:
                also = absent if name == "allOf" else frozenset[str]()
                kept[name] = [
                    self.schema(each, depth + 1, same=inner, absent=also) for each in value
                ]
            elif name in _TABLES and isinstance(value, dict):
                kept[name] = self._table(name, value, depth, same=inner)
            elif name in _INNER and isinstance(value, dict | bool):
                kept[name] = self.schema(value, depth + 1, same=inner)
            elif name == "items" and isinstance(value, list) and value:  # before 2020-12
                kept["prefixItems"] = [self.schema(each, depth + 1, same=False) for each in value]
            elif name in _CHECKS and _CHECKS[name](value):
                kept[name] = value
        self._require(kept, absent)
        self._examples(schema, kept)
        self._pattern(schema, kept)
        self._discriminate(schema, kept)
        _bound(schema, kept, "exclusiveMinimum", "minimum")
        _bound(schema, kept, "exclusiveMaximum", "maximum")
        return _typed(schema, kept)

    def _table(self, name: str, table: dict[str, Any], depth: int, *, same: bool) -> dict[str, Any]:
        return {
            each: self.schema(value, depth + 1, same=same)
            for each, value in table.items()
            if not (name == "properties" and self._is_read_only(value))
            and not (name == "patternProperties" and not self._reader.usable_pattern(each))
        }

    def _is_read_only(self, schema: object) -> bool:
        if not isinstance(schema, dict):
            return False
        if "$ref" in schema and not (self._document.siblings and "readOnly" in schema):
            schema = self._document.follow(schema, self._file).value
        return isinstance(schema, dict) and schema.get("readOnly") is True

    def _absent(self, schema: dict[str, Any]) -> frozenset[str]:
        """Properties that are left out of it, or of a schema that it is all of."""
        found: set[str] = set()
        pending, seen = [Node(schema, self._file, "")], 0
        while pending and seen < _MAX_DEPTH:
            seen += 1
            node = pending.pop()
            if not isinstance(node.value, dict):
                continue
            properties = node.value.get("properties")
            if isinstance(properties, dict):
                conversion = self
                if node.file != self._file:
                    conversion = _Conversion(self._reader, self._document, node.file)
                found |= {
                    name for name, each in properties.items() if conversion._is_read_only(each)
                }
            if isinstance(every := node.value.get("allOf"), list):
                pending += [self._document.follow(each, node.file) for each in every[:_MAX_DEPTH]]
        return frozenset(found)

    def _require(self, kept: dict[str, Any], absent: frozenset[str]) -> None:
        if "required" in kept:
            kept["required"] = [each for each in kept["required"] if each not in absent]
            if not kept["required"]:
                del kept["required"]

    def _examples(self, schema: dict[str, Any], kept: dict[str, Any]) -> None:
        """Examples of single values; objects are long, and their properties have their own."""
        given = schema.get("examples")
        examples = given if isinstance(given, list) else []
        if "example" in schema:
            examples = [schema["example"]]
        short = [
            each
            for each in examples
            if isinstance(each, str | int | float) and len(str(each)) <= _MAX_EXAMPLE
        ]
        if short:
            kept["examples"] = short[:3]

    def _pattern(self, schema: dict[str, Any], kept: dict[str, Any]) -> None:
        """A pattern that cannot be matched in linear time is for the model only."""
        pattern = schema.get("pattern")
        if not isinstance(pattern, str):
            return
        if self._reader.usable_pattern(pattern):
            kept["pattern"] = pattern
        elif len(pattern) <= _MAX_EXAMPLE:
            kept["description"] = f"{kept.get('description', '')} Pattern: {pattern}".strip()

    def _discriminate(self, schema: dict[str, Any], kept: dict[str, Any]) -> None:
        """What a discriminator's mapping says of the alternatives, for each of them."""
        discriminator = schema.get("discriminator")
        by = "oneOf" if "oneOf" in kept else "anyOf"
        if not isinstance(discriminator, dict) or by not in kept:
            return
        name, mapping = discriminator.get("propertyName"), discriminator.get("mapping")
        values: dict[str, list[str]] = {}
        for value, target in mapping.items() if isinstance(mapping, dict) else ():
            if isinstance(target, str) and (reference := self._mapped(target)):
                values.setdefault(reference, []).append(value)
        alternatives = kept.pop(by)
        if isinstance(name, str):
            for index, each in enumerate(alternatives):
                of = values.get(each.get("$ref", "")) if isinstance(each, dict) else None
                if of and "properties" not in each:
                    alternatives[index] = {**each, "properties": {name: {"enum": of}}}
        kept["anyOf"] = alternatives  # without the property, several may match

    def _mapped(self, target: str) -> str:
        components = self._document.root.get("components")
        schemas = components.get("schemas") if isinstance(components, dict) else None
        if isinstance(schemas, dict) and target in schemas:
            escaped = target.replace("~", "~0").replace("/", "~1")
            return f"#/$defs/{self._reader.name_of(('', f'/components/schemas/{escaped}'))}"
        try:
            return f"#/$defs/{self._reader.name_of(self._reader.key_of(target, self._file))}"
        except DocumentFault:  # nothing depends on it
            return ""


def _bound(schema: dict[str, Any], kept: dict[str, Any], exclusive: str, inclusive: str) -> None:
    """`exclusiveMinimum: true` of 3.0."""
    if schema.get(exclusive) is True and inclusive in kept:
        kept[exclusive] = kept.pop(inclusive)


def _typed(schema: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    """With its type, and null where `nullable` allows it."""
    given = schema.get("type")
    names = given if isinstance(given, list) else [given]
    types = [each for each in dict.fromkeys(map(str, names)) if each in _TYPES]
    nullable = schema.get("nullable") is True
    if types:
        if nullable and "null" not in types:
            types.append("null")
        kept["type"] = types[0] if len(types) == 1 else types
        return kept
    if nullable and (_IN_PLACE & kept.keys() or "enum" in kept or not kept):
        said: dict[str, Any] = {
            name: kept.pop(name) for name in ("title", "description") if name in kept
        }
        return {**said, "anyOf": [kept, {"type": "null"}]}
    return kept
