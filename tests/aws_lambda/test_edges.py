"""What every answer and every failed turn has, on Lambda too: a request id, CORS, a line."""

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from seawall.config import AgentSettings, CorsSettings, ServerSettings, Settings
from seawall.errors import UpstreamFailed
from seawall.hosts.aws_lambda.dispatch import Dispatcher
from seawall.hosts.aws_lambda.runtime_api import InvocationContext
from seawall.hosts.aws_lambda.target import LambdaSettings, Target
from seawall.hosts.http.app import HttpApplication
from seawall.identity.settings import IdentitySettings
from seawall.models import ModelRequest
from seawall.models.scripted import ScriptedModel
from seawall.orchestrator import Orchestrator
from seawall.settings import SessionSettings

ORIGIN = "https://shop.example"
Json = dict[str, Any]


class Answer:
    """Collects what the Runtime API would get."""

    def __init__(self) -> None:
        self.said = b""

    async def begin(self, content_type: str) -> None:
        assert content_type

    async def write(self, piece: bytes) -> None:
        self.said += piece

    async def respond(self, payload: bytes) -> None:
        self.said += payload

    async def end(self) -> None:
        return


def _fails(_: ModelRequest) -> str:
    raise UpstreamFailed("The model 'default' answered with status 500.") from OSError("reset")


@asynccontextmanager
async def dispatching(folder: Path) -> AsyncIterator[Callable[[Json], Awaitable[Json]]]:
    app = Orchestrator(
        Settings(
            server=ServerSettings(cors=CorsSettings(origins=(ORIGIN,))),
            identity=IdentitySettings(),
            sessions=SessionSettings(path=str(folder / "sessions.db")),
            agents={"one": AgentSettings(instructions="Help.")},
        )
    )
    app.model("default", ScriptedModel(_fails))
    target = Target(app=HttpApplication(app, manage_lifespan=False), orchestrator=app)
    settings = LambdaSettings(authorizer=True, direct=True, queue=True, stream="never")
    async with app:
        dispatcher = Dispatcher(target, settings)

        async def ask(event: Json) -> Json:
            answer = Answer()
            deadline = asyncio.get_running_loop().time() + 20
            context = InvocationContext("invocation-1", deadline)
            await dispatcher.answer(json.dumps(event).encode(), context, answer)  # type: ignore[arg-type]
            said: Json = json.loads(answer.said)
            return said

        yield ask


async def run(folder: Path, event: Json) -> Json:
    async with asyncio.timeout(20), dispatching(folder) as ask:
        return await ask(event)


def http(method: str, path: str, claims: Json | None = None, **headers: str) -> Json:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    context: Json = {"http": {"method": method, "path": path}, "domainName": "x.execute-api"}
    if claims is not None:
        context["authorizer"] = {"jwt": {"claims": claims}}
    return {
        "version": "2.0",
        "rawPath": path,
        "headers": {"origin": ORIGIN, **names},
        "requestContext": context,
        "body": '{"text": "a secret"}' if method == "POST" else None,
    }


CLAIMS = {"tenant": "acme", "sub": "ada"}
BAD_CLAIMS = {"tenant": 5}


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (http("GET", "/livez"), 200),
        (http("GET", "/nowhere"), 404),
        (http("POST", "/v1/turns"), 401),
        (http("POST", "/v1/turns", BAD_CLAIMS), 401),
        (http("POST", "/v1/turns", CLAIMS), 502),
        (http("DELETE", "/v1/turns"), 405),
    ],
)
async def test_every_answer_has_a_request_id_and_cors(
    tmp_path: Path, event: Json, status: int
) -> None:
    answer = await run(tmp_path, event)
    assert answer["statusCode"] == status, answer
    assert answer["headers"]["x-request-id"] == "invocation-1"
    assert answer["headers"]["access-control-allow-origin"] == ORIGIN
    if status >= 400:
        assert json.loads(_body(answer))["request_id"] == "invocation-1"


def _body(answer: Json) -> bytes:
    body = answer["body"].encode()
    return base64.b64decode(body) if answer.get("isBase64Encoded") else body


async def test_an_invalid_event_gets_a_request_id(tmp_path: Path) -> None:
    answer = await run(tmp_path, http("GET", "/livez") | {"headers": 5})
    assert answer["statusCode"] == 400
    assert answer["headers"]["x-request-id"] == "invocation-1"


async def test_a_preflight_request(tmp_path: Path) -> None:
    answer = await run(tmp_path, http("OPTIONS", "/v1/turns", access_control_request_method="POST"))
    assert answer["statusCode"] == 204
    assert answer["headers"]["access-control-allow-origin"] == ORIGIN


def _record(text: str) -> Json:
    principal = {"tenant": "acme", "subject": "ada"}
    body = json.dumps({"text": text, "principal": principal})
    return {"eventSource": "aws:sqs", "messageId": "message-7", "body": body}


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (http("POST", "/v1/turns", CLAIMS), "invocation-1"),
        (http("POST", "/v1/turns", CLAIMS, x_request_id="own-5"), "own-5"),
        ({"Records": [_record("a secret")]}, "message-7"),
    ],
)
async def test_a_failed_turn_leaves_a_line(
    tmp_path: Path, event: Json, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "seawall.turns"):
        await run(tmp_path, event)
    (line,) = [each for each in caplog.records if each.name == "seawall.turns"]
    result = vars(line)
    assert result["code"] == "upstream-failed"
    assert (result["tenant"], result["agent"], result["request_id"]) == ("acme", "one", name)
    assert result["cause"] == "OSError: reset"
    assert "The model 'default' answered with status 500." in line.getMessage()
    assert "secret" not in line.getMessage()
