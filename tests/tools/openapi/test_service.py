"""A service's own document, called with what schemathesis generates: all comes back as sent."""

import json
from typing import Annotated, Any

import hypothesis
import pytest
import schemathesis
from fastapi import Cookie, FastAPI, Form, Header, Path, Query
from hypothesis import HealthCheck, given
from pydantic import BaseModel, Field

from seawall.tools.port import ToolOutcome
from seawall.tools.remote import RemoteTool
from tests.properties import number_of_examples
from tests.tools.openapi.documents import fitting
from tests.tools.openapi.services import context, opened, served

app = FastAPI()


class Money(BaseModel, extra="forbid"):
    amount: int = Field(ge=0, le=10**9)
    currency: str = Field(pattern="^[A-Z]{3}$")


class Thing(BaseModel, extra="forbid"):
    name: str = Field(min_length=1)
    price: Money
    tags: list[str] = []
    note: str | None = None
    parent: "Thing | None" = None
    ratio: float | int | bool = 1


@app.get("/things/{shop}/{number}")
async def find(  # noqa: PLR0917 - parameters of a query
    shop: Annotated[str, Path(min_length=1)],
    number: int,
    q: str | None = None,
    tag: Annotated[list[str] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    exact: bool = False,
    x_note: Annotated[str | None, Header()] = None,
    visit: Annotated[str | None, Cookie(pattern=r"^[!#-+\--:<-\[\]-~]*$")] = None,
) -> dict[str, Any]:
    return {
        "shop": shop, "number": number, "q": q, "tag": tag, "limit": limit, "exact": exact,
        "x-note": x_note, "visit": visit,
    }  # fmt: skip


@app.post("/things", status_code=201)
async def create(thing: Thing, dry: bool = False) -> dict[str, Any]:
    return {**thing.model_dump(exclude_unset=True), "dry": dry}


@app.put("/batches/{number}")
async def replace(number: int, things: list[Thing]) -> dict[str, Any]:
    return {"number": number, "body": [each.model_dump(exclude_unset=True) for each in things]}


@app.post("/forms")
async def form(
    name: Annotated[str, Form(min_length=1)],
    amount: Annotated[int, Form()],
    tag: Annotated[list[str] | None, Form()] = None,
) -> dict[str, Any]:
    return {"name": name, "amount": amount, "tag": tag or []}


def generated(document: dict[str, Any], path: str, method: str) -> list[Any]:
    """What schemathesis would send."""
    cases: list[Any] = []

    @hypothesis.settings(
        max_examples=number_of_examples(25, 1_000),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @given(schemathesis.openapi.from_dict(document)[path][method].as_strategy())
    def collect(case: Any) -> None:
        cases.append(case)

    collect()
    return cases


def arguments_of(tool: RemoteTool, case: Any) -> dict[str, Any]:
    """A generated case as arguments."""
    found = {
        **dict(case.path_parameters or {}),
        **dict(case.query or {}),
        **dict(case.headers or {}),
        **dict(case.cookies or {}),
    }
    if case.body is not schemathesis.core.NOT_SET:
        flat = "body" not in tool.parameters
        found |= case.body if flat else {"body": case.body}
    schema = tool.operation.schema
    fits = {
        name: fitting({"$defs": schema.get("$defs", {}), **each})
        for name, each in schema["properties"].items()
    }
    return {  # schemathesis has numbers in queries and paths as text already
        name: each if fits[name](each) else json.loads(each)
        for name, each in found.items()
        if name in fits
    }


@pytest.mark.parametrize(
    ("path", "method", "defaults"),
    [
        (
            "/things/{shop}/{number}",
            "GET",
            {"q": None, "tag": None, "limit": 10, "exact": False, "x-note": None, "visit": None},
        ),
        ("/things", "POST", {"dry": False}),
        ("/batches/{number}", "PUT", {}),
        ("/forms", "POST", {"tag": []}),
    ],
)
async def test_everything_generated_comes_through_and_back(
    path: str, method: str, defaults: dict[str, Any]
) -> None:
    document = app.openapi()
    async with (
        served(app) as address,
        opened(openapi=f"{address}/openapi.json", max_result_bytes=1 << 20) as tools,
    ):
        name = document["paths"][path][method.lower()]["operationId"]
        tool = tools[name]
        assert isinstance(tool, RemoteTool)
        came = 0
        for case in generated(document, path, method):
            arguments = arguments_of(tool, case)
            outcome = await tool.call(json.dumps(arguments), context())
            if outcome.failed and "must not" in outcome.content:
                continue  # '..' in a path, a line break in a header
            assert not outcome.failed, (arguments, outcome)
            shown = json.loads(outcome.content)
            assert same(shown, {**defaults, **arguments}), (arguments, outcome)
            came += 1
        assert came > 5


def same(shown: Any, sent: Any) -> bool:
    """Whether a service has read what was sent; numbers by value, headers without outer spaces."""
    if isinstance(sent, dict):
        return shown.keys() == sent.keys() and all(same(shown[key], sent[key]) for key in sent)
    if sent in ([], None):  # neither is sent in a query
        return shown in ([], None)
    if isinstance(sent, list):
        return len(shown) == len(sent) and all(map(same, shown, sent))
    if isinstance(sent, str):
        return bool(shown in (sent, sent.strip()))
    return bool(shown == sent)


async def outcome_of(tools: dict[str, Any], name: str, arguments: Any) -> ToolOutcome:
    found: ToolOutcome = await tools[name].call(json.dumps(arguments), context())
    return found
