"""Operations are chosen by an allow-list, and get names that models accept."""

import re
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.tools.openapi.document import DocumentFault
from seawall.tools.openapi.operations import read_operations
from seawall.tools.openapi.request import UnsendableArgument, build_request
from tests.tools.openapi.documents import document_of, one_operation, operation_of

SHOP = {
    "/orders": {
        "get": {"operationId": "listOrders", "tags": ["orders"]},
        "post": {"operationId": "orders.create", "tags": ["orders", "changes"]},
    },
    "/orders/{id}": {"get": {"summary": "Get an order"}, "delete": {"deprecated": True}},
    "/returns": {"post": {"operationId": "createReturn", "tags": ["returns"]}},
    "x-internal": {"get": {}},
}


def names(*include: str, paths: dict[str, Any] = SHOP) -> list[str]:
    return [each.name for each in read_operations(document_of(paths), include).usable]


@pytest.mark.parametrize(
    ("include", "chosen"),
    [
        (["listOrders"], ["listOrders"]),
        (["orders.create"], ["orders_create"]),
        (["GET /orders/{id}"], ["get_orders_id"]),
        (["get  /orders/{id}", "listOrders"], ["listOrders", "get_orders_id"]),
        (["tag:orders"], ["listOrders", "orders_create"]),
        (["orders_create", "get_orders_id"], ["orders_create", "get_orders_id"]),
        (["tag:orders", "listOrders"], ["listOrders", "orders_create"]),
        (
            ["*"],
            ["listOrders", "orders_create", "get_orders_id", "delete_orders_id", "createReturn"],
        ),
    ],
)
def test_what_is_included(include: list[str], chosen: list[str]) -> None:
    assert names(*include) == chosen


@pytest.mark.parametrize("taken", ["GET /orders", "get  /orders", "tag:orders", "*"])
def test_an_operation_gets_in_by_no_entry_for_another(taken: str) -> None:
    """A document that changes must not add to what is included, or what an override is of."""
    paths = {
        "/orders": {"get": {"operationId": "listOrders", "tags": ["orders"]}},
        "/all": {"delete": {"operationId": taken}},
    }
    if taken != "*":
        assert names(taken, paths=paths) == ["listOrders"]
    operation = read_operations(document_of(paths), ["*"]).usable[1]
    assert (operation.name, operation.operation_id) == ("delete_all", "")


@pytest.mark.parametrize(
    ("entry", "near"),
    [
        ("listOrder", '; near are "listOrders"'),
        ("createreturn", '; near are "createReturn"'),
        ("returns", '"tag:returns"'),
        ("GET /order", '"GET /orders"'),
        ("tag:return", '"tag:returns"'),
        ("PUT /orders/{id}", '"GET /orders/{id}"'),
        ("zzz", "'zzz'$"),
        ("", "''$"),
    ],
)
def test_an_entry_that_names_nothing_is_an_error(entry: str, near: str) -> None:
    with pytest.raises(DocumentFault, match=r"api\.json: include: it has no operation") as error:
        names("listOrders", entry)
    assert re.search(near.replace("{", r"\{"), str(error.value))


@pytest.mark.parametrize(
    "paths",
    [
        {"/a": {"get": {"operationId": "x"}, "put": {"operationId": "x"}}},
        {"/a": {"get": {"operationId": "a.b"}, "put": {"operationId": "a_b"}}},
        {"/a": {"get": {"operationId": "get_b"}}, "/b": {"get": {}}},
        {"/a-b": {"get": {}}, "/a b": {"get": {"operationId": "get a-b"}}, "/a_b": {"get": {}}},
    ],
)
def test_operations_of_one_name_are_refused_and_can_be_chosen_apart(paths: dict[str, Any]) -> None:
    with pytest.raises(DocumentFault, match=r"would both be called '.*'; include one of them"):
        names("*", paths=paths)
    first, item = next(iter(paths.items()))
    assert len(names(f"{next(iter(item))} {first}", paths=paths)) == 1


@given(name=st.text(max_size=80), path=st.text(max_size=80).map(lambda text: f"/{text}"))
def test_any_operation_has_a_name_that_models_accept(name: str, path: str) -> None:
    document = document_of({path: {"get": {"operationId": name, "parameters": []}}})
    hypothesis.assume("{" not in path.partition("?")[2])
    for operation in read_operations(document, ["*"]).usable:
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", operation.name)
        assert all(
            re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", each) for each in operation.schema["properties"]
        )
        again = read_operations(document, ["*"]).usable[0]
        assert again.name == operation.name


def test_long_names_are_cut_and_stay_apart() -> None:
    paths = {"/a": {"get": {"operationId": "x" * 99 + "1"}, "put": {"operationId": "x" * 99 + "2"}}}
    found = names("*", paths=paths)
    assert len(set(found)) == 2
    assert {len(each) for each in found} == {64}


@pytest.mark.parametrize(
    "name",
    [
        "class",
        "__proto__",
        "constructor",
        "self",
        "None",
        "a b",
        "日本",
        "a[b][c]",
        "$",
        "",
        "x" * 99,
        "{x}",
        "a.b",
        "-",
        "body",
        "../x",
        "a\r\nb",
    ],
)
def test_parameters_may_be_called_anything(name: str) -> None:
    parameters = [
        {"name": name, "in": "query", "schema": {"type": "string"}},
        {"name": f"{name}!", "in": "query", "schema": {"type": "string"}},
    ]
    operation = operation_of(document_of(one_operation({"parameters": parameters})))
    first, second = operation.schema["properties"]
    assert re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", first)
    assert re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", second)
    url = build_request(operation, {first: "1", second: "2"}).url
    assert not re.search(r"[\s\[\]{}]", url)


@pytest.mark.parametrize(
    "path",
    [
        "/a.*b(c)+/{id}",
        "/a{id}b",
        "/{id}.json",
        "/^$[a-z]/{id}",
        "/{id}/{id}",
        "/ä ö/{id}",
        "//{id}",
    ],
)
def test_paths_may_have_any_characters(path: str) -> None:
    operation = operation_of(document_of(one_operation({}, path)))
    url = build_request(operation, {"id": "x/y"}).url
    assert url.isascii()
    assert url.count("x%2Fy") == path.count("{id}")
    assert list(operation.schema["properties"]) == ["id"]  # though the document forgot it


def test_a_parameter_without_a_place_in_the_path_is_left_out() -> None:
    parameters = [{"name": "id", "in": "path", "required": True, "schema": {}}]
    operation = operation_of(document_of(one_operation({"parameters": parameters})))
    assert operation.schema["properties"] == {}
    assert build_request(operation, {}).url == "https://api.example.com/v1/things"


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        ({"parameters": [{"in": "query"}]}, "a parameter has no name"),
        ({"parameters": [{"name": "a", "in": "body"}]}, "a parameter is in 'body'"),
        ({"parameters": [{"name": "a", "in": "querystring"}]}, "is in 'querystring'"),
        ({"parameters": [{"name": "a\nb", "in": "header"}]}, "is no name of a header"),
        ({"parameters": [{"name": "a", "in": "query", "style": "simple"}]}, "the style 'simple'"),
        (
            {"requestBody": {"required": True, "content": {"image/png": {}}}},
            "its body is required, in a form not supported: image/png",
        ),
        ({"servers": [{"url": "/v1"}]}, "no server with a whole address .*; set base_url"),
        ({"servers": [{"url": "https://{host}/v1"}]}, "'host' of its server has no default"),
        ({"servers": [{"url": "ftp://a.example"}]}, "no server with a whole address"),
        ({"servers": [{"url": "https://bücher.example"}]}, "no server with a whole address"),
        ({"servers": [{"url": "https://a:b@c.example"}]}, "no server with a whole address"),
        ({"servers": [{"url": "https://a.example/\r\nx"}]}, "no server with a whole address"),
        ({"servers": [{"url": "https://a.example/?k=1"}]}, "has a query or a fragment"),
        ({"servers": [{"url": "https://[a.example"}]}, "no server with a whole address"),
    ],
)
def test_an_operation_that_cannot_be_used(operation: dict[str, Any], fault: str) -> None:
    paths = one_operation(operation, get={"operationId": "other"})
    with pytest.raises(DocumentFault, match=f"api.json: POST /things: .*{fault}"):
        read_operations(document_of(paths), ["*", "op"])
    found = read_operations(document_of(paths), ["*"])
    assert [each.name for each in found.usable] == ["other"]
    assert re.search(f"POST /things: .*{fault}", found.skipped[0])


def test_servers_have_variables_and_the_closest_one_counts() -> None:
    variables = {"region": {"default": "eu"}, "port": {"default": 8443}}
    server = {"url": "https://{region}.example.com:{port}/v1/", "variables": variables}
    paths = {"/a": {"servers": [server], "get": {}, "put": {"servers": [{"url": "/v9"}]}}}
    at = "https://docs.example.com/api/openapi.json"
    get, put = read_operations(document_of(paths), ["*"], location=at).usable
    assert build_request(get, {}).url == "https://eu.example.com:8443/v1/a"
    assert build_request(put, {}).url == "https://docs.example.com/v9/a"
    broken = document_of({"/a": {"get": {"servers": [{"url": "https://[a"}]}}})
    with pytest.raises(DocumentFault, match="no server with a whole address"):
        read_operations(broken, ["GET /a"], location=at)
    (moved, _) = read_operations(document_of(paths), ["*"], base_url="http://127.0.0.1:1/x/").usable
    assert build_request(moved, {}).url == "http://127.0.0.1:1/x/a"


def test_a_crowd_of_operations_is_refused() -> None:
    paths: dict[str, Any] = {f"/p{each}": {"get": {}} for each in range(30_000)}
    document = document_of(paths)
    with pytest.raises(DocumentFault, match="30000 operations are chosen; at most 2000 can be"):
        read_operations(document, ["*"])
    assert len(read_operations(document, ["GET /p29999"]).usable) == 1
    with pytest.raises(DocumentFault, match="it has no operation"):
        read_operations(document, ["GET /q29999"])


def test_a_path_may_have_a_query_or_a_fragment() -> None:
    parameters = [{"name": "q", "in": "query", "schema": {}}]
    paths = one_operation({"parameters": parameters}, "/responses?beta=true")
    url = build_request(operation_of(document_of(paths)), {"q": "a&b"}).url
    assert url.endswith("/responses?beta=true&q=a%26b")
    url = build_request(operation_of(document_of(one_operation({}, "/token#refresh"))), {}).url
    assert url.endswith("/token")


def test_descriptions_are_bounded() -> None:
    found = operation_of(document_of(one_operation({"summary": "Do.", "description": "x" * 5_000})))
    assert found.description.startswith("Do.\n\nxxx")
    assert len(found.description) == 1_024
    assert operation_of(document_of(SHOP), "DELETE /orders/{id}").description == (
        "Deprecated. DELETE /orders/{id}"
    )


def test_an_empty_path_value_is_refused() -> None:
    operation = operation_of(document_of(SHOP), "GET /orders/{id}")
    with pytest.raises(UnsendableArgument, match="id must not be empty"):
        build_request(operation, {"id": ""})
