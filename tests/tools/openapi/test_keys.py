"""API keys in the query and in cookies, of a service whose document says so."""

import json
import logging
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Cookie, FastAPI, HTTPException, Query, Request, Security
from fastapi.responses import RedirectResponse
from fastapi.security import APIKeyCookie, APIKeyQuery

from seawall.tools.port import ToolOutcome
from tests.tools.openapi.services import context, opened, served

SECRET = "k&y with/ünd"
COOKIE_SECRET = "cookie-secret"
app = FastAPI()
by_query = APIKeyQuery(name="apiKey", auto_error=False)
by_cookie = APIKeyCookie(name="SID", auto_error=False)


@app.get("/query")
async def query(
    request: Request,
    key: Annotated[str | None, Security(by_query)],
    apikey: Annotated[str, Query()] = "",
    q: str = "",
) -> dict[str, Any]:
    keys = request.query_params.getlist("apiKey")
    return {"right": key == SECRET, "count": len(keys), "q": q, "apikey": apikey}


@app.get("/cookie")
async def cookie(
    request: Request,
    key: Annotated[str | None, Security(by_cookie)],
    visit: Annotated[str, Cookie()] = "",
) -> dict[str, Any]:
    count = request.headers.get("cookie", "").count("SID=")
    return {"right": key == COOKIE_SECRET, "count": count, "visit": visit}


@app.get("/echo")
async def echo(request: Request) -> Any:
    """As gateways and debugging pages answer: with all of the request."""
    return {"headers": dict(request.headers), "url": str(request.url)}


@app.get("/moved")
async def moved(request: Request, key: Annotated[str | None, Security(by_query)]) -> Any:
    del key
    return RedirectResponse(f"/query?q=moved&{request.url.query}")


@app.get("/nowhere")
async def nowhere(request: Request, key: Annotated[str | None, Security(by_query)]) -> Any:
    del key
    return RedirectResponse(f"http://[{request.url.query}")


@app.get("/refused")
async def refused(request: Request, key: Annotated[str | None, Security(by_query)]) -> Any:
    raise HTTPException(400, f"no page {request.url} for {key}")


@pytest.fixture
def document(tmp_path: Path) -> Path:
    (tmp_path / "api.json").write_text(json.dumps(app.openapi()))
    (tmp_path / "key of the query").write_text(SECRET, encoding="utf-8")
    (tmp_path / "key of the cookie").write_text(COOKIE_SECRET)
    return tmp_path


async def called(
    folder: Path, url: str, auth: dict[str, str], *calls: tuple[str, dict[str, Any]]
) -> list[ToolOutcome]:
    options: dict[str, Any] = {"openapi": "api.json", "base_url": url}
    [place] = auth
    options["auth"] = {"kind": "static", "secret_file": f"key of the {place}", **auth}
    async with opened(folder, **options) as tools:
        for each in tools.values():
            properties: Any = each.spec.parameters["properties"]
            assert not {"apiKey", "SID"} & properties.keys()
        by_path = {each.operation.aliases[0]: each for each in tools.values()}  # type: ignore[attr-defined]  # of a remote tool
        return [await by_path[name].call(json.dumps(given), context()) for name, given in calls]


async def test_a_key_in_the_query(document: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with served(app) as url:
        plain, moved, nowhere, refused = await called(
            document,
            url,
            {"query": "apiKey"},
            ("GET /query", {"q": "a b&apiKey=mine", "apikey": "other"}),
            ("GET /moved", {}),
            ("GET /nowhere", {}),
            ("GET /refused", {}),
        )
    expected = {"right": True, "count": 1, "q": "a b&apiKey=mine", "apikey": "other"}
    assert json.loads(plain.content) == expected
    assert json.loads(moved.content)["right"] is True
    assert json.loads(moved.content)["count"] == 1  # the service repeats the query
    assert nowhere.failed
    assert refused.failed
    assert "no page" in refused.content
    ours = "\n".join(each.getMessage() for each in caplog.records if "seawall" in each.name)
    assert "it redirects to nowhere" in ours
    for text in (nowhere.content, refused.content, ours):
        assert SECRET not in text
        assert "k%26y" not in text


async def test_a_key_in_a_cookie(document: Path) -> None:
    async with served(app) as url:
        [found] = await called(
            document, url, {"cookie": "SID"}, ("GET /cookie", {"visit": "first"})
        )
    assert json.loads(found.content) == {"right": True, "count": 1, "visit": "first"}


@pytest.mark.parametrize(
    "auth",
    [
        {"cookie": "SID"},
        {"header": "X-Key", "scheme": ""},
        {"header": "authorization", "scheme": "Token"},
    ],
)
async def test_what_a_service_repeats_of_a_request(auth: dict[str, str], document: Path) -> None:
    table = {"kind": "static", "secret_file": "key of the cookie", **auth}
    async with (
        served(app) as url,
        opened(document, openapi="api.json", base_url=url, auth=table) as tools,
    ):
        [echoed] = [each for each in tools.values() if each.name.startswith("echo")]
        outcome = await echoed.call("{}", context())
    assert not outcome.failed
    assert "redacted" in outcome.content
    assert COOKIE_SECRET not in outcome.content
