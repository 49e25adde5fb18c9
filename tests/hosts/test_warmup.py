"""What a server does before it is ready."""

import sqlite3
from contextlib import closing
from pathlib import Path

import httpx2

from seawall.composition import isolated_engine
from seawall.hosts.http.warmup import _ask, warm_up
from seawall.models import ModelRequest
from seawall.models.scripted import ScriptedModel
from seawall.orchestrator import Orchestrator
from seawall.turn import Principal, ToolCall, ToolMessage
from tests.hosts.conftest import identity
from tests.issuer import Issuer
from tests.servers import STORE, command, running_model, running_server


def test_a_warm_up_leaves_no_trace(tmp_path: Path, issuer: Issuer) -> None:
    with (
        running_model() as model,
        running_server(
            tmp_path,
            model,
            log=str(tmp_path / "log"),
            SERVER__WORKERS="1",
            SERVER__WARM_UP="true",
            MODELS__DEFAULT__WARM="3",
            ROUTING__INTENT_MODEL="default",
            **identity(tmp_path, issuer),
        ) as server,
    ):
        assert httpx2.get(f"{server.url}/readyz").status_code == 200
        stats = httpx2.get(f"{model.url.removesuffix('/v1')}/sim/stats").json()
        assert stats["started"] == 0
        assert stats["connections"] == 3 + 1  # the warm ones, and this question
        metrics = httpx2.get(f"{server.url}/metrics").text
        assert "seawall_turns_total{" not in metrics
        with closing(sqlite3.connect(tmp_path / "sessions.db")) as database:
            for table in ("turns", "sessions", "idempotency", "pending"):
                assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
        assert "warm-up" not in (tmp_path / "log").read_text()


def test_an_unreachable_upstream_does_not_prevent_readiness(tmp_path: Path, issuer: Issuer) -> None:
    with running_model() as model:
        gone = model
    with running_server(
        tmp_path,
        gone,
        log=str(tmp_path / "log"),
        SERVER__WORKERS="1",
        SERVER__WARM_UP="true",
        **identity(tmp_path, issuer)
        | {"IDENTITY__JWT__JWKS_FILE": "", "IDENTITY__JWT__JWKS_URL": "http://127.0.0.1:9/keys"},
    ) as server:
        assert httpx2.get(f"{server.url}/readyz").status_code == 200
    log = (tmp_path / "log").read_text()
    assert "cannot be reached yet" in log
    assert "warm-up" not in log


def test_a_wrong_configuration_ends_the_server(tmp_path: Path) -> None:
    environment = {
        "SEAWALL_SERVER__PORT": "0",
        "SEAWALL_SESSIONS__PATH": str(tmp_path / "sessions.db"),
        "SEAWALL_TOOLS__STORE__DATABASE": str(tmp_path / "store.db"),
        "SEAWALL_AGENTS__ORDERS__TOOLS": '["no_such_tool"]',
    }
    ended = command("serve", STORE, "--json", environment=environment)
    assert ended.returncode == 2
    assert "no_such_tool" in ended.stderr
    assert ended.stdout == ""


async def test_the_warm_up_uses_real_agents_without_effect(tmp_path: Path) -> None:
    """Answers come from the script; the agents, their prompts and the rules are the real ones."""
    (tmp_path / "seawall.toml").write_text(
        f"""
[sessions]
path = "{tmp_path}/sessions.db"
[identity]
anonymous = true
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "real"
[agents.helper]
instructions = "Help."
"""
    )

    def refuse(_: ModelRequest) -> str:
        raise AssertionError("the real model was asked")

    real = ScriptedModel(refuse)
    app = Orchestrator.from_config(tmp_path / "seawall.toml")
    app.model("default", real)
    async with app:
        await warm_up(app)
        async with isolated_engine(app.engine) as engine:
            stage = Orchestrator(app.settings, engine=engine)
            said = await _ask(stage.asgi(), "/v1/turns", {"text": "hello"})
            assert said["content-type"] == "application/json"
            page = await engine.store.sessions(Principal("seawall", "warm-up"), limit=5)
            assert len(page.sessions) == 1
        page = await app.engine.store.sessions(Principal("seawall", "warm-up"), limit=5)
        assert page.sessions == ()
    assert real.requests == []


async def test_an_agent_is_tried_with_a_scripted_model(tmp_path: Path) -> None:
    """As users test theirs."""

    def script(request: ModelRequest) -> str | tuple[ToolCall, ...]:
        last = request.messages[-1]
        if isinstance(last, ToolMessage):
            return f"We are open {last.content}"
        return (ToolCall("1", "opening_hours", '{"city": "Oslo"}'),)

    (tmp_path / "seawall.toml").write_text(
        f"""
[sessions]
path = "{tmp_path}/sessions.db"
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "real"
[agents.helper]
instructions = "Help."
tools = ["opening_hours"]
"""
    )

    app = Orchestrator.from_config(tmp_path / "seawall.toml")

    @app.tool
    async def opening_hours(city: str) -> str:
        """The opening hours of our shop in a city."""
        return f"9 to 17 in {city}"

    model = ScriptedModel(script)
    app.model("default", model)
    async with app:
        events = [each async for each in app.run("When?", principal=Principal("shop", "ada"))]
    assert len(model.requests) == 2
    text = [each.text for each in events if hasattr(each, "text")]
    assert "".join(text) == "We are open 9 to 17 in Oslo"
