"""Schemas of documents become JSON Schema 2020-12 that says the same."""

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.tools.openapi.document import DocumentFault
from seawall.tools.openapi.operations import read_operations
from seawall.tools.openapi.schemas import SchemaReader
from tests.tools.openapi.documents import document_of, fitting, one_operation, operation_of


def converted(schema: Any, *, version: str = "3.0.3", **schemas: Any) -> dict[str, Any]:
    """A schema with its `$defs`."""
    document = document_of({"/": {}}, version=version, components={"schemas": schemas})
    reader = SchemaReader(document)
    refers: set[Any] = set()
    found = reader.read(schema, "", refers)
    return {**found, "$defs": reader.definitions(refers)} if refers else found


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"type": "string", "nullable": True}, ["a", None], [1]),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, [2], [1, None]),
        ({"type": "integer", "maximum": 1, "exclusiveMaximum": False}, [1], [2]),
        ({"type": "integer", "exclusiveMaximum": 3}, [2], [3]),
        ({"nullable": True, "oneOf": [{"type": "string"}, {"type": "integer"}]}, [None, 1], [True]),
        ({"nullable": True, "allOf": [ref("Name")]}, [None, "a"], [1]),
        ({**ref("Name"), "nullable": True}, [None, "a"], [1]),
        ({"type": ["string", "null"], "const": "a"}, ["a"], [None, "b"]),
        ({"type": "file"}, ["a", 1], []),
        ({"type": "array", "items": [{"type": "string"}]}, [["a", 1]], [[1]]),
        ({"type": "string", "pattern": "^(?!a)"}, ["b", "a"], [1]),  # for the model only
        ({"type": "object", "required": True, "properties": {"a": ref("Name")}}, [{}], [{"a": 1}]),
        ({"enum": ["a", None], "nullable": True}, ["a", None], ["b"]),
    ],
)
def test_the_dialect_of_3_0_is_understood(
    schema: Any, valid: list[Any], invalid: list[Any]
) -> None:
    fits = fitting(converted(schema, Name={"type": "string"}))
    assert [each for each in valid if not fits(each)] == []
    assert [each for each in invalid if fits(each)] == []


def test_a_model_reads_what_a_validator_cannot_check() -> None:
    found = converted({"type": "string", "description": "A name.", "pattern": "^(?!a)"})
    assert found["description"] == "A name. Pattern: ^(?!a)"


THING = {
    "type": "object",
    "required": ["id", "name", "secret", "kind"],
    "properties": {
        "id": {"type": "string", "readOnly": True},
        "kind": ref("Kind"),
        "name": {"type": "string"},
        "secret": {"type": "string", "writeOnly": True},
    },
}


def test_requests_have_no_read_only_properties() -> None:
    request = converted(THING, Kind={"type": "string", "readOnly": True})
    assert list(request["properties"]) == ["name", "secret"]
    assert request["required"] == ["name", "secret"]


def test_what_is_left_out_is_not_required_by_a_schema_that_extends_it() -> None:
    extended = {"allOf": [ref("Thing"), {"required": ["id", "name"]}], "required": ["id"]}
    found = converted(extended, Thing=THING, Kind={"type": "string"})
    assert fitting(found)({"name": "a", "secret": "b", "kind": "c"})
    assert not fitting(found)({"secret": "b", "kind": "c"})


def test_a_schema_that_contains_itself_is_kept() -> None:
    tree = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string"},
            "children": {"type": "array", "items": ref("Tree")},
        },
    }
    found = converted(ref("Tree"), Tree=tree)
    assert list(found["$defs"]) == ["Tree"]
    fits = fitting(found)
    assert fits({"name": "a", "children": [{"name": "b", "children": []}]})
    assert not fits({"name": "a", "children": [{"name": "b", "children": [{}]}]})


@pytest.mark.parametrize(
    "schemas",
    [
        {"A": ref("A")},
        {"A": ref("B"), "B": ref("A")},
        {"A": {"allOf": [ref("B")]}, "B": {"allOf": [{"oneOf": [ref("A")]}]}},
        {"A": {"allOf": [{"not": ref("A")}]}},
        {"A": {"properties": {"a": ref("B")}}, "B": {"anyOf": [ref("A"), ref("B")]}},
    ],
)
def test_a_schema_that_never_ends_is_refused(schemas: dict[str, Any]) -> None:
    parameter = {"name": "q", "in": "query", "schema": ref("A")}
    document = document_of(
        one_operation({"parameters": [parameter]}), components={"schemas": schemas}
    )
    with pytest.raises(DocumentFault, match=r"POST /things: .*itself"):
        read_operations(document, ["op"])


def test_a_discriminator_says_which_alternative_is_meant() -> None:
    card = {"type": "object", "properties": {"type": {"type": "string"}}, "required": ["number"]}
    bank = {"type": "object", "properties": {"type": {"type": "string"}}, "required": ["iban"]}
    method = {
        "oneOf": [ref("Card"), ref("Bank")],
        "discriminator": {
            "propertyName": "type",
            "mapping": {"card": "#/components/schemas/Card", "giro": "Bank", "sepa": "Bank"},
        },
    }
    fits = fitting(converted(method, Card=card, Bank=bank))
    assert fits({"type": "card", "number": "4"})
    assert fits({"type": "sepa", "iban": "DE"})
    assert fits({"number": "4", "iban": "DE"})  # both alternatives
    assert not fits({"type": "card", "iban": "DE"})


def test_siblings_of_a_reference_count_since_3_1() -> None:
    schema = {**ref("Name"), "maxLength": 1, "description": "Short."}
    assert not fitting(converted(schema, version="3.1.0", Name={"type": "string"}))("ab")
    before = converted(schema, version="3.0.3", Name={"type": "string"})
    assert fitting(before)("ab")
    assert before["description"] == "Short."


def test_names_of_definitions_are_safe_and_do_not_collide() -> None:
    schemas: dict[str, Any] = {
        "A b": {"type": "string"},
        "A_b": {"type": "integer"},
        "日本": {},
        "a/b~c": {},
    }
    escaped = ["A b", "A_b", "%E6%97%A5%E6%9C%AC", "a~1b~0c"]
    found = converted({"prefixItems": [ref(each) for each in escaped]}, **schemas)
    assert len(found["$defs"]) == 4
    assert all(each.replace("_", "").isascii() for each in found["$defs"])
    assert fitting(found)(["a", 1])
    assert not fitting(found)([1, 1])


KEYWORDS = st.sampled_from(
    [
        *("type", "enum", "const", "properties", "required", "items", "allOf", "oneOf", "anyOf"),
        *("additionalProperties", "pattern", "minimum", "exclusiveMinimum", "multipleOf", "not"),
        *("minLength", "maxItems", "readOnly", "discriminator", "example", "examples", "default"),
        *("format", "description", "title", "$ref", "$defs", "$id", "$schema", "prefixItems"),
        *("patternProperties", "dependentSchemas", "dependentRequired", "x-y", "deprecated"),
        *("propertyName", "mapping", "uniqueItems", "contains", "unevaluatedProperties", "if"),
        "nullable",
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(-2, 2)
    | st.sampled_from(
        ["string", "object", "null", "a", "", "[", "(a+)+$", "#/components/schemas/A"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYWORDS, inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize("version", ["3.0.0", "3.1.0"])
@given(schema=VALUES, other=VALUES)
def test_whatever_a_document_says_the_result_is_a_schema(
    version: str, schema: Any, other: Any
) -> None:
    try:
        found = converted(schema, version=version, A=other)
    except DocumentFault:
        return
    jsonschema_rs.meta.validate(
        {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
    )
    fitting(found)({"a": 1})


def test_arguments_of_an_operation_are_one_flat_object() -> None:
    operation = operation_of(
        document_of(
            {
                "/shops/{shop}/things/{id}": {
                    "parameters": [
                        {"name": "shop", "in": "path", "required": True, "schema": {}},
                        {"name": "id", "in": "path", "required": True, "schema": {}},
                        {"name": "dry", "in": "query", "schema": {"type": "string"}},
                    ],
                    "put": {
                        "parameters": [
                            {"name": "dry", "in": "query", "schema": {"type": "boolean"}},
                            {"name": "id", "in": "query", "required": True, "schema": {}},
                            {"name": "page[size]", "in": "query", "schema": {}},
                            {"name": "Authorization", "in": "header", "schema": {}},
                            {"name": "idempotency-key", "in": "header", "schema": {}},
                            {"name": "X-Shop", "in": "header", "schema": {}},
                            {"name": "key", "in": "query", "required": True, "schema": {}},
                        ],
                        "requestBody": {
                            "required": True,
                            "content": {"application/json": {"schema": ref("Thing")}},
                        },
                    },
                }
            },
            components={
                "schemas": {"Thing": {**THING, "required": ["name"]}, "Kind": {"type": "string"}},
                "securitySchemes": {"k": {"type": "apiKey", "in": "query", "name": "key"}},
            },
        ),
        headers=["x-shop"],
    )
    assert list(operation.schema["properties"]) == [
        *("shop", "id", "dry", "id_query", "page_size", "kind", "name", "secret")
    ]
    assert operation.schema["required"] == ["shop", "id", "id_query", "name"]
    assert operation.schema["properties"]["dry"] == {"type": "boolean"}
    assert operation.schema["additionalProperties"] is False
    assert list(operation.schema["$defs"]) == ["Kind"]
    assert operation.name == "put_shops_shop_things_id"


@pytest.mark.parametrize(
    "body",
    [
        {"schema": {"type": "array", "items": {"type": "string"}}},
        {"schema": {"type": "object", "additionalProperties": True, "properties": {"a": {}}}},
        {"schema": {"type": "object", "properties": {"id": {}}}},  # the name is taken
        {"schema": {"allOf": [{"properties": {"a": {}}}]}},
        {"schema": {"type": "object", "properties": {"a": {}}, "required": ["a"]}, "needed": False},
        {},
    ],
)
def test_other_bodies_are_one_argument(body: dict[str, Any]) -> None:
    content = {"application/json": {"schema": body["schema"]} if "schema" in body else {}}
    operation = operation_of(
        document_of(
            one_operation(
                {
                    "parameters": [{"name": "id", "in": "query", "schema": {}}],
                    "requestBody": {"required": body.get("needed", True), "content": content},
                }
            )
        )
    )
    assert list(operation.schema["properties"]) == ["id", "body"]
