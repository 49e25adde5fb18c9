"""A document as a source of tools: what a model reads when something goes wrong."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from seawall.errors import ConfigError
from seawall.tools.port import Tool, ToolOutcome
from seawall.tools.settings import OpenApiSettings, TenantTables
from seawall.tools.sources import open_catalog
from tests.tools.openapi.services import context, opened, served


async def answer(request: Request) -> Response:
    """What the path says."""
    kind = request.path_params["kind"]
    status = int(request.query_params.get("status", 200))
    body = await request.body()
    seen = {
        "method": request.method,
        "headers": {
            name: value
            for name, value in request.headers.items()
            if name in ("idempotency-key", "x-shop", "x-session", "content-type")
        },
        "body": body.decode(),
    }
    answers: dict[str, Any] = {
        "echo": lambda: JSONResponse(seen),
        "problem": lambda: JSONResponse(
            {"title": "Out of stock", "detail": "Only 2 are left."},
            status,
            media_type="application/problem+json",
        ),
        "page": lambda: Response(b"<html>secret</html>", status, media_type="text/html"),
        "busy": lambda: PlainTextResponse("busy", 429, {"retry-after": "7"}),
        "elsewhere": lambda: RedirectResponse("http://127.0.0.2:1/", status),
        "nowhere": lambda: Response(status_code=302, headers={"location": "http://[::1/"}),
        "none": lambda: Response(status_code=204),
        "list": lambda: JSONResponse({"items": [{"id": n, "text": "x" * 50} for n in range(500)]}),
        "image": lambda: Response(b"\x89PNG", media_type="image/png"),
        "broken": lambda: Response(b"{", media_type="application/json"),
        "long": lambda: PlainTextResponse("x" * 3_000_000, status),
    }
    found: Response = answers[kind]()
    return found


app = Starlette(routes=[Route("/{kind}", answer, methods=["GET", "POST", "DELETE"])])
PARAMETERS = [
    {"name": "kind", "in": "path", "required": True, "schema": {"type": "string"}},
    {"name": "status", "in": "query", "schema": {"type": "integer"}},
]
DOCUMENT = {
    "openapi": "3.1.0",
    "paths": {
        "/{kind}": {
            "parameters": PARAMETERS,
            "get": {"operationId": "look"},
            "post": {
                "operationId": "change",
                "requestBody": {
                    "content": {
                        "application/json": {
                            "schema": {"type": "object", "properties": {"amount": {}}}
                        }
                    }
                },
            },
            "delete": {"parameters": [{"name": "x", "in": "bad"}]},
        }
    },
}


def written(folder: Path, **changes: Any) -> dict[str, Any]:
    """Settings whose document is in the folder."""
    (folder / "api.json").write_text(json.dumps({**DOCUMENT, **changes}))
    return {"folder": folder, "openapi": "api.json"}


async def call(tool: Tool, **arguments: Any) -> ToolOutcome:
    return await tool.call(json.dumps(arguments), context())


async def test_effects_carry_their_key_and_reads_none(tmp_path: Path) -> None:
    settings = written(tmp_path) | {
        "headers": {"X-Shop": "de"},
        "session_header": "X-Session",
        "overrides": {"look": {"name": "see", "changes": True}},
    }
    async with served(app) as address, opened(base_url=address, **settings) as tools:
        assert set(tools) == {"see", "change"}
        seen = json.loads((await call(tools["change"], kind="echo", amount=5)).content)
        assert seen["headers"] == {
            "idempotency-key": "key-1",
            "x-shop": "de",
            "x-session": "s",
            "content-type": "application/json",
        }
        assert seen["body"] == '{"amount":5}'
        assert tools["see"].mutating
        seen = json.loads((await call(tools["see"], kind="echo")).content)
        assert seen["headers"]["idempotency-key"] == "key-1"
    async with (
        served(app) as address,
        opened(
            **written(tmp_path), base_url=address, overrides={"POST /{kind}": {"changes": False}}
        ) as tools,
    ):
        assert not tools["change"].mutating
        seen = json.loads((await call(tools["change"], kind="echo")).content)
        assert "idempotency-key" not in seen["headers"]


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ({"kind": "problem", "status": 409}, "409 Conflict. {.*Only 2 are left"),
        ({"kind": "problem", "status": 422}, "422 Unprocessable .*. {.*Only 2 are left"),
        ({"kind": "problem", "status": 403}, "403 Forbidden. {.*Only 2 are left"),
        ({"kind": "page", "status": 404}, "^The service refused the call: 404 Not Found.$"),
        ({"kind": "problem", "status": 401}, "^look is not permitted for this user now"),
        ({"kind": "problem", "status": 500}, "^look is not available now"),
        ({"kind": "busy"}, "^look is not available now. It may work again in 7 seconds"),
        ({"kind": "elsewhere", "status": 302}, "^look is not available now"),
        ({"kind": "nowhere"}, "^look is not available now"),
        ({"kind": "long"}, "^No result: the answer has more than 1048576 bytes"),
        ({"kind": "long", "status": 500}, "^look is not available now"),
        ({"kind": "long", "status": 404}, "^The service refused the call: 404 Not Found.$"),
        ({"kind": "..", "status": 200}, "kind must not"),
        ({"status": 200}, "Invalid arguments for look"),
        ({"kind": "echo", "x": 1}, "Invalid arguments for look"),
    ],
)
async def test_what_a_model_reads_of_a_call_that_failed(
    tmp_path: Path, arguments: dict[str, Any], shown: str
) -> None:
    limits = {"attempts": 1}
    async with (
        served(app) as address,
        opened(**written(tmp_path), base_url=address, limits=limits) as tools,
    ):
        outcome = await call(tools["look"], **arguments)
        assert outcome.failed
        assert not outcome.unknown

        assert re.search(shown, outcome.content), outcome.content


async def test_an_effect_whose_answer_is_lost_is_unknown(tmp_path: Path) -> None:
    async with served(app) as address, opened(**written(tmp_path), base_url=address) as tools:
        assert (await call(tools["change"], kind="problem", status=500)).unknown
        assert (await call(tools["change"], kind="problem", status=503)).unknown
        assert (await call(tools["change"], kind="elsewhere", status=307)).unknown
        refused = await call(tools["change"], kind="problem", status=409)
        assert refused.failed
        assert not refused.unknown
        done = await call(tools["change"], kind="long", status=201)
        assert done == ToolOutcome(
            "Done (201), but the answer has more than 1048576 bytes, so that it cannot be shown."
        )


async def test_answers_that_are_too_long_open_no_circuit_breaker(tmp_path: Path) -> None:
    limits = {"min_calls": 2}
    async with (
        served(app) as address,
        opened(**written(tmp_path), base_url=address, limits=limits) as tools,
    ):
        for _ in range(3):
            assert "No result" in (await call(tools["look"], kind="long")).content
        assert not (await call(tools["look"], kind="echo")).failed


@pytest.mark.parametrize("changes", [True, False])
async def test_only_a_read_is_sent_again_on_another_connection(
    tmp_path: Path, *, changes: bool
) -> None:
    """What matters is whether something changes, not the method."""
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while True:
            try:
                await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            asked += 1
            if asked == 2:  # it is read, perhaps done, and not answered
                break
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        overrides = {"look": {"changes": changes}}
        async with opened(
            **written(tmp_path), base_url=address, overrides=overrides, limits={"attempts": 1}
        ) as tools:
            assert not (await call(tools["look"], kind="a")).failed
            outcome = await call(tools["look"], kind="a")
    assert (asked, outcome.unknown) == ((2, True) if changes else (3, False))


async def test_a_name_that_no_host_can_have(tmp_path: Path) -> None:
    async with opened(**written(tmp_path), base_url=f"http://{'a' * 70}.example") as tools:
        outcome = await call(tools["change"], kind="a")
    assert "Nothing was changed" in outcome.content
    assert not outcome.unknown


async def test_without_a_connection_nothing_was_changed(tmp_path: Path) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # the beginning of TLS, which is not answered
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        address = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with opened(
            **written(tmp_path), base_url=address, limits={"connect_seconds": 0.05}
        ) as tools:
            outcome = await call(tools["change"], kind="a")
    assert outcome.failed
    assert not outcome.unknown
    assert "Nothing was changed" in outcome.content


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("none", "Done: the service answered 204 without content."),
        ("image", "The answer is 4 bytes of image/png; it cannot be shown."),
        ("broken", "{"),
    ],
)
async def test_answers_that_are_no_json(tmp_path: Path, kind: str, shown: str) -> None:
    async with served(app) as address, opened(**written(tmp_path), base_url=address) as tools:
        assert await call(tools["look"], kind=kind) == ToolOutcome(shown)


async def test_answers_are_reduced_and_bounded(tmp_path: Path) -> None:
    settings = written(tmp_path) | {"max_result_bytes": 1_000}
    async with served(app) as address:
        async with opened(**settings, base_url=address) as tools:
            outcome = await call(tools["look"], kind="list")
            assert not outcome.failed
            assert len(outcome.content.encode()) <= 1_000
            assert "of 500 items" in outcome.content
        reduced = {"look": {"select": "items[:3].id"}}
        async with opened(**settings, base_url=address, overrides=reduced) as tools:
            assert (await call(tools["look"], kind="list")).content == "[0,1,2]"
        async with opened(**settings, base_url=address, select="length(items)") as tools:
            assert (await call(tools["look"], kind="list")).content == "500"


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"include": ["lok"]}, r"tools.api: api.json: include: .*'lok'; near are \"look\""),
        ({"include": ["DELETE /{kind}"]}, "tools.api: api.json: DELETE /{kind}: a parameter is in"),
        ({"openapi": "other.yaml"}, "tools.api: .*other.yaml: it cannot be read"),
        ({"overrides": {"lok": {"name": "a"}}}, "tools.api.overrides: .*lok"),
        ({"select": "a["}, "tools.api: select of look: 'a\\['"),
        ({"base_url": ""}, "tools.api: api.json: .*set base_url"),
    ],
)
async def test_a_mistake_in_the_configuration_is_named(
    tmp_path: Path, settings: dict[str, Any], fault: str
) -> None:
    table = written(tmp_path) | {"base_url": "http://127.0.0.1:1", **settings}
    with pytest.raises(ConfigError, match=fault):
        async with opened(**table):
            pass


@pytest.mark.parametrize("server", ["http://example.com", "https://example.com/v1"])
async def test_a_document_from_an_address_sends_nobody_elsewhere(server: str) -> None:
    document = {**DOCUMENT, "servers": [{"url": server}]}

    async def described(_: Request) -> Response:
        return JSONResponse(document)

    async with served(Starlette(routes=[Route("/api.json", described)])) as address:
        with pytest.raises(ConfigError, match="set base_url"):
            async with opened(openapi=f"{address}/api.json"):
                pass


async def test_a_document_from_a_file_reaches_no_private_address(tmp_path: Path) -> None:
    async with served(app) as address:
        port = address.rpartition(":")[2]
        server = [{"url": f"https://localhost:{port}"}]
        async with opened(**written(tmp_path, servers=server)) as tools:
            outcome = await call(tools["look"], kind="echo")
            assert outcome.failed
            assert "not available" in outcome.content


async def test_the_header_of_credentials_is_no_argument(tmp_path: Path) -> None:
    auth = {"kind": "static", "secret_env": "SECRET", "header": "x-shop", "scheme": ""}
    parameters = [*PARAMETERS, {"name": "X-Shop", "in": "header", "required": True, "schema": {}}]
    paths = {"/{kind}": {"get": {"operationId": "look", "parameters": parameters}}}
    async with (
        served(app) as address,
        opened(**written(tmp_path, paths=paths), base_url=address, auth=auth) as tools,
    ):
        seen = json.loads((await call(tools["look"], kind="echo")).content)
        assert seen["headers"] == {"x-shop": "s"}


async def test_a_document_that_is_not_there_leaves_no_tools() -> None:
    async with served(app) as address, opened(openapi=f"{address}/missing/api.json") as tools:
        assert tools == {}


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"base_url": "https://api.example.com/v1?version=1"}, "base_url must have no query"),
        ({"base_url": "https://bücher.example"}, "base_url must be ASCII"),
        ({"base_url": "https://api.example.com:99999"}, "base_url: Port out of range"),
        ({"base_url": "https://api.example.com/a b"}, "base_url: a URL must not contain spaces"),
        ({"openapi": "https://ann:secret@example.com/a"}, "openapi must be an absolute URL"),
        ({"headers": {"X-Key": "s"}}, "headers need base_url"),
        ({"session_header": "X-Session"}, "headers need base_url"),
    ],
)
def test_addresses_are_checked_before_anything_is_opened(
    settings: dict[str, Any], fault: str
) -> None:
    with pytest.raises(msgspec.ValidationError, match=fault) as raised:
        msgspec.convert({"openapi": "api.json", "include": ["*"], **settings}, OpenApiSettings)
    assert "secret" not in str(raised.value)


async def test_the_server_of_a_document_gets_no_headers() -> None:
    seen: list[str] = []

    async def described(request: Request) -> Response:
        seen.extend(request.headers)
        return JSONResponse(DOCUMENT)

    documents = Starlette(routes=[Route("/api.json", described)])
    async with (
        served(documents) as elsewhere,
        served(app) as address,
        opened(openapi=f"{elsewhere}/api.json", base_url=address, headers={"X-Shop": "s"}) as tools,
    ):
        shown = json.loads((await call(tools["look"], kind="echo")).content)
    assert shown["headers"] == {"x-shop": "s"}
    assert "accept" in seen
    assert "x-shop" not in seen


async def test_a_model_sends_no_header_beside_the_credentials_of_a_tenant(tmp_path: Path) -> None:
    parameters = [*PARAMETERS, {"name": "X-Shop", "in": "header", "schema": {"type": "string"}}]
    paths = {"/{kind}": {"get": {"operationId": "look", "parameters": parameters}}}
    auth = {"kind": "static", "secret_env": "SECRET", "header": "X-Shop", "scheme": ""}
    own = msgspec.convert({"tools": {"api": {"auth": auth}}}, TenantTables)
    async with served(app) as address:
        settings = written(tmp_path, paths=paths) | {"base_url": address, "include": ["*"]}
        folder = str(settings.pop("folder"))
        catalog = open_catalog(
            {"api": msgspec.convert(settings, OpenApiSettings)},
            folder=folder,
            environment={"SECRET": "s"},
            tenants={"shop": own},
        )
        await catalog.list_all()
        (tool,) = catalog.tools["api"]
        seen = json.loads((await call(tool, kind="echo", **{"X-Shop": "mine"})).content)
        await catalog.close()
    assert seen["headers"] == {"x-shop": "s"}


async def test_a_selection_without_a_value_does_not_hide_what_was_done(tmp_path: Path) -> None:
    async with (
        served(app) as address,
        opened(**written(tmp_path), base_url=address, select="&body") as tools,
    ):
        outcome = await call(tools["change"], kind="echo")
    assert not outcome.unknown
    assert outcome.content.startswith("Done (200), but the answer is not as expected: it is an")
