"""A failed turn leaves one line in the log, on every interface."""

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from seawall.config import AgentSettings, Settings
from seawall.models import ModelRequest
from seawall.models.scripted import ScriptedModel
from seawall.orchestrator import Orchestrator
from seawall.settings import SessionSettings
from seawall.turn import Principal
from tests.hosts.conftest import API_KEY, Pair, identity
from tests.hosts.test_interruptions import eventually
from tests.issuer import Issuer
from tests.servers import running_model, running_server


class Failing(Pair):
    """A server whose model cannot be reached, and its log."""

    log: Path

    def failures(self, own: str) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [each for each in lines if each.get("request_id") == own and "code" in each]


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Failing]:
    folder = tmp_path_factory.mktemp("failing")
    with (
        running_model() as model,
        running_server(
            folder,
            model,
            log=str(folder / "log"),
            SERVER__WORKERS="1",
            LOG_FORMAT="json",
            MODELS__DEFAULT__BASE_URL="http://127.0.0.1:9/v1",
            **identity(folder, issuer),
        ) as server,
    ):
        pair = Failing(server, model, issuer, folder)
        pair.log = folder / "log"
        yield pair


CHAT: dict[str, object] = {"model": "auto", "messages": [{"role": "user", "content": "a secret"}]}
WAYS: list[tuple[str, dict[str, object]]] = [
    ("/v1/turns", {"text": "a secret"}),
    ("/v1/turns", {"text": "a secret", "stream": True}),
    ("/v1/turns", {"text": "a secret", "background": True}),
    ("/v1/chat/completions", CHAT),
    ("/v1/chat/completions", CHAT | {"stream": True}),
]


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize(("path", "body"), WAYS)
def test_each_way(failing: Failing, path: str, body: dict[str, object], keyed: bool) -> None:
    own = f"way-{time.monotonic_ns()}"
    headers = {"authorization": f"Bearer {API_KEY}", "x-request-id": own}
    headers |= {"idempotency-key": own} if keyed else {}
    httpx2.post(failing.url + path, json=body, headers=headers, timeout=20)
    eventually(lambda: bool(failing.failures(own)))
    (line,) = failing.failures(own)
    assert str(line["turn"]).startswith("trn_")
    assert str(line["session"]).startswith("ses_")
    assert line["tenant"] == "acme"
    assert str(line["code"]).startswith("upstream-")
    assert line["agent"]
    assert line["level"] == "WARNING"
    # Once the endpoint is known to fail it is not asked, and nothing lies behind the failure.
    assert "ConnectFailed" in str(line["cause"]) or line["code"] == "upstream-unavailable"
    assert "model 'default'" in str(line["message"])  # which upstream it was
    assert "secret" not in failing.log.read_text()


async def test_a_defect_is_logged_as_a_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def defective(_: ModelRequest) -> str:
        raise ZeroDivisionError("by zero")

    app = Orchestrator(
        Settings(
            sessions=SessionSettings(path=str(tmp_path / "sessions.db")),
            agents={"one": AgentSettings(instructions="Help.")},
        )
    )
    app.model("default", ScriptedModel(defective))

    with caplog.at_level(logging.WARNING, "seawall.turns"), pytest.raises(ZeroDivisionError):
        async with app:
            async for _ in app.run("hi", principal=Principal("acme", "ada")):
                pass
    (line,) = [vars(each) for each in caplog.records if each.name == "seawall.turns"]
    assert (line["code"], line["tenant"]) == ("internal-error", "acme")
    assert line["cause"] == "ZeroDivisionError: by zero"


def test_errors_of_the_caller_are_logged(failing: Failing) -> None:
    headers = {"authorization": f"Bearer {API_KEY}", "x-request-id": "unknown"}
    body = {"text": "hi", "agent": "unknown"}
    assert httpx2.post(f"{failing.url}/v1/turns", json=body, headers=headers).status_code == 404
    (line,) = failing.failures("unknown")
    assert line["code"] == "unknown-agent"


def test_unauthenticated_requests_do_not_fill_the_log(failing: Failing) -> None:
    before = failing.log.read_text()
    for _ in range(3):
        assert httpx2.post(f"{failing.url}/v1/turns", json={"text": "hi"}).status_code == 401
    assert failing.log.read_text() == before
