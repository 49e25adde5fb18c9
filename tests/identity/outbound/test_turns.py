"""Whole turns on behalf of many users: each tool call reaches the service as its own user."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest

from seawall import (
    Event,
    Orchestrator,
    ScriptedModel,
    ToolCall,
    ToolContext,
    ToolMessage,
    new_request,
)
from seawall.identity import Bearer
from seawall.identity.authenticator import new_key
from seawall.models import ModelRequest
from tests.faulty_server import Answer, Request, serving
from tests.identity.outbound.provider import EXCHANGE, ORDERS, Provider, claims_of, client
from tests.issuer import ISSUER, Issuer

TURNS = 2_000
SUBJECTS = 50
AT_ONCE = 64
DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "Orders", "version": "1"},
    "paths": {
        "/me": {"get": {"operationId": "whoAmI", "responses": {"200": {"description": "."}}}}
    },
}


def configuration(service: str, provider: Provider, folder: Path) -> str:
    (folder / "orders.json").write_text(json.dumps(DOCUMENT))
    (folder / "keys.json").write_bytes(b"")
    return f"""
        [admission]
        in_flight = {AT_ONCE}
        min_in_flight = {AT_ONCE}
        loop_target_seconds = 10.0
        lag_seconds = 0.0
        wait_seconds = 200.0
        overload_wait_seconds = 200.0
        [turn]
        turn = 250
        [identity.jwt]
        issuer = "{ISSUER}"
        jwks_file = "keys.json"
        [models.default]
        base_url = "http://127.0.0.1:1"
        model = "m"
        warm_connections = 0
        [agents.helper]
        instructions = "Help."
        tools = ["orders.*"]
        [tools.orders]
        openapi = "orders.json"
        base_url = "{service}"
        include = ["*"]
        limits = {{ answer_seconds = 60, wait_seconds = 60 }}
        [tools.orders.auth]
        kind = "token-exchange"
        token_url = "{provider.token_url}"
        client_id = "basic"
        client_secret_env = "ORDERS_SECRET"
        resource = "{ORDERS}"
        scope = "orders.read"
        timeout_seconds = 60
    """


def script(request: ModelRequest) -> str | tuple[ToolCall, ...]:
    """Ask the service who the user is, and repeat what it says."""
    last = request.messages[-1]
    return last.content if isinstance(last, ToolMessage) else (ToolCall("1", "whoAmI", "{}"),)


async def test_2000_interleaved_turns_of_50_subjects(
    provider: Provider, callers: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORDERS_SECRET", client("basic")["client_secret"])
    keys = await provider.keys()
    verified: dict[str, str] = {}

    def answer(request: Request) -> Answer:
        token = request.headers["authorization"].removeprefix("Bearer ")
        if token not in verified:
            verified[token] = claims_of(token, keys)["sub"]
        body = json.dumps({"you": verified[token]}).encode()
        return Answer(body=body, headers={"content-type": "application/json"})

    steps = random.Random(19)
    tokens = {name: callers.token(name) for name in (f"user{n:02}" for n in range(SUBJECTS))}
    before = await provider.calls(EXCHANGE)
    async with serving(answer) as service:
        file = tmp_path / "seawall.toml"
        file.write_text(configuration(service.url, provider, tmp_path))
        (tmp_path / "keys.json").write_bytes(callers.key_set())
        app = Orchestrator.from_config(file)
        app.model("default", ScriptedModel(script))
        places = asyncio.Semaphore(AT_ONCE)
        async with app:

            async def turn(subject: str) -> None:
                said: list[Event] = []

                async def emit(*events: Event) -> None:
                    said.extend(events)

                async with places:
                    credential = Bearer(tokens[subject])
                    report = await app.engine.execute(new_request("Who am I?"), credential, emit)
                assert report.outcome == "completed"
                assert f'{{"you":"{subject}"}}' in str(said).replace(" ", "")

            names = steps.choices(list(tokens), k=TURNS - SUBJECTS) + list(tokens)
            async with asyncio.TaskGroup() as group:
                for subject in names:
                    group.create_task(turn(subject))
        assert len(service.requests) == TURNS
    assert await provider.calls(EXCHANGE) == before + SUBJECTS
    assert set(verified.values()) == set(tokens)


async def test_a_token_of_somebody_else_beside_an_api_key_is_not_the_callers(
    callers: Issuer, tmp_path: Path
) -> None:
    key, digest = new_key()
    file = tmp_path / "seawall.toml"
    file.write_text(f"""
        [identity.jwt]
        issuer = "{ISSUER}"
        jwks_file = "keys.json"
        [[identity.api_keys]]
        sha256 = "{digest}"
        tenant = "acme"
        subject = "ada"
        [models.default]
        base_url = "http://127.0.0.1:1"
        model = "m"
        warm_connections = 0
        [agents.helper]
        instructions = "Help."
        tools = ["whoAmI"]
    """)
    (tmp_path / "keys.json").write_bytes(callers.key_set())
    app = Orchestrator.from_config(file)
    app.model("default", ScriptedModel(script))
    seen: list[str] = []

    @app.tool
    async def whoAmI(context: ToolContext) -> str:  # noqa: N802 - as the script calls it
        """Who is it?"""
        seen.append(context.caller_token)
        return "noted"

    own, other = callers.token("ada"), callers.token("bob")
    credentials = [
        *(Bearer(own), Bearer(own, key), Bearer(other, key), Bearer(other, "foreign key")),
        Bearer(key),  # with it, a tool could act as the caller here
    ]

    async def emit(*_: Event) -> None:
        """Events are ignored."""

    async with app:
        for each in credentials:
            report = await app.engine.execute(new_request("Who am I?"), each, emit)
            assert report.outcome == "completed"
    assert seen == [own, own, "", other, ""]
