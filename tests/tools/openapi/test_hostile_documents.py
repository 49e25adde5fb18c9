"""Whatever is in a document: operations are read, skipped or refused, in bounded time."""

import copy
import json
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from seawall.tools.openapi.document import Document, DocumentFault
from seawall.tools.openapi.operations import Operation, read_operations
from seawall.tools.openapi.request import UnsendableArgument, build_request
from tests.properties import number_of_examples
from tests.tools.openapi.documents import document_of, fitting, one_operation

SEED: dict[str, Any] = {
    "openapi": "3.1.0",
    "servers": [{"url": "https://{a}.example.com", "variables": {"a": {"default": "x"}}}],
    "security": [{"key": []}],
    "paths": {
        "/a/{id}": {
            "summary": "s",
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {}}],
            "get": {
                "operationId": "get",
                "tags": ["t"],
                "description": "d",
                "parameters": [
                    {"$ref": "#/components/parameters/Q"},
                    {
                        "name": "h",
                        "in": "header",
                        "style": "simple",
                        "explode": True,
                        "schema": {"$ref": "#/components/schemas/A"},
                    },
                    {"name": "c", "in": "cookie", "content": {"application/json": {"schema": {}}}},
                ],
                "responses": {"200": {"content": {"application/json": {}}}, "default": {}},
            },
            "post": {
                "requestBody": {
                    "required": True,
                    "content": {
                        "multipart/form-data": {
                            "schema": {"$ref": "#/components/schemas/B"},
                            "encoding": {"a": {"contentType": "text/plain", "style": "form"}},
                        }
                    },
                }
            },
        },
        "/b": {"$ref": "#/paths/~1a~1{id}"},
    },
    "components": {
        "parameters": {"Q": {"name": "q", "in": "query", "style": "deepObject", "schema": {}}},
        "schemas": {
            "A": {
                "type": "object",
                "properties": {"a": {"$ref": "#/components/schemas/B"}, "b": {"readOnly": True}},
                "required": ["a"],
                "oneOf": [{"$ref": "#/components/schemas/B"}, {"allOf": [{"nullable": True}]}],
                "discriminator": {"propertyName": "a", "mapping": {"x": "B"}},
            },
            "B": {
                "type": "object",
                "properties": {"a": {"type": "string", "pattern": "^a+$", "format": "binary"}},
                "patternProperties": {"^x": {"enum": [1]}},
                "items": {"$ref": "#/components/schemas/A"},
            },
        },
        "securitySchemes": {"key": {"type": "apiKey", "in": "query", "name": "key"}},
    },
}
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 10**30, "", "x", "/", "{id}", "#/components/schemas/A"),
    *([], [None], ["a", "a"], [[]], {}, {"a": None}, {"$ref": "#/paths"}, {"$ref": ""}, "\ud7ff"),
    *({"$ref": "#/components/schemas/A"}, {"$ref": 1}, {"type": [[]]}, {"type": {}}, "a\r\nb: c"),
    *({"": {"": {}}}, ["tag", 1, {}], {"application/json": 1}, {"*/*": {}}, "multipart/form-data"),
)


def mutated(random: Random) -> Any:
    """The seed with some values replaced, removed, or under other names."""
    found = copy.deepcopy(SEED)
    for _ in range(random.randint(1, 4)):
        places = list(_places(found))
        holder, key = random.choice(places)
        what = random.random()
        if what < 0.6:
            holder[key] = copy.deepcopy(random.choice(VALUES))
        elif what < 0.8:
            del holder[key]
        elif isinstance(holder, dict):
            holder[str(random.choice(VALUES))] = holder.pop(key)
    return found


def _places(value: Any) -> Any:
    entries = enumerate(value) if isinstance(value, list) else value.items()
    for key, each in list(entries):
        yield value, key
        if isinstance(each, dict | list):
            yield from _places(each)


@pytest.mark.parametrize("seed", range(4))
def test_a_document_with_anything_in_it_is_read_or_refused(seed: int) -> None:
    random = Random(seed)
    read = 0
    for _ in range(number_of_examples(150, 20_000)):
        text = json.dumps(mutated(random)).encode()
        with suppress(DocumentFault):
            for operation in read_operations(Document("api.json", text, None), ["*"]).usable:
                _use(operation)
                read += 1
    assert read > 30


def _use(operation: Operation) -> None:
    fits = fitting(operation.schema)
    for value in ("a", 1, {"a": "b"}, ["c"], None):
        arguments = dict.fromkeys(operation.schema["properties"], value)
        fits(arguments)
        try:
            request = build_request(operation, arguments, "key")
        except UnsendableArgument:
            continue
        assert request.url.startswith(operation.server)
        assert not any(b"\r" in each or b"\n" in each for _, each in request.headers)


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"properties": {"a": schema}}
    return schema


def with_schema(schema: Any, **schemas: Any) -> Document:
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    return document_of(one_operation({"requestBody": body}), components={"schemas": schemas})


def test_schemas_nested_too_deeply_are_refused() -> None:
    assert read_operations(with_schema(nested(50)), ["op"]).usable
    with pytest.raises(DocumentFault, match="nested more than 64 levels deep"):
        read_operations(with_schema(nested(200)), ["op"])


def test_a_chain_of_many_references_is_followed() -> None:
    schemas: dict[str, Any] = {
        f"S{n}": {"properties": {"next": {"$ref": f"#/components/schemas/S{n + 1}"}}}
        for n in range(3_000)
    }
    document = with_schema({"$ref": "#/components/schemas/S0"}, **schemas, S3000={})
    (operation,) = read_operations(document, ["op"]).usable
    assert len(operation.schema["$defs"]) == 3_000


def test_many_references_to_many_schemas_stay_small() -> None:
    """What 200 schemas that each refer to all others would be if they were written out is 200!."""
    names = [f"S{n}" for n in range(200)]
    schemas = {
        name: {"properties": {each: {"$ref": f"#/components/schemas/{each}"} for each in names}}
        for name in names
    }
    (operation,) = read_operations(
        with_schema({"type": "array", "items": {"$ref": "#/components/schemas/S0"}}, **schemas),
        ["op"],
    ).usable
    assert len(operation.schema["$defs"]) == 200


def test_a_document_of_50_mb_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(DocumentFault, match="more than 16 MiB"):
        Document("api.yaml", b"a: [" + b"x, " * (17 << 20), None)
