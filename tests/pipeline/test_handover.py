"""Turns that wait for a person or a client: notified until it arrives, answered once."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest

from seawall import Orchestrator, ScriptedModel
from seawall.config import AgentSettings, Settings
from seawall.errors import AlreadyDecided, ConfigError, Forbidden, TurnNotFound
from seawall.events import Event, TurnPaused
from seawall.pipeline.decisions import hand_back, return_result
from seawall.settings import HandoverSettings
from seawall.storage.port import Wait
from seawall.storage.settings import SessionSettings
from seawall.tools.handover import HAND_OVER
from seawall.tools.policy import Approval, EffectPolicy
from seawall.transport.webhook import decode_secret, sign
from seawall.turn import Principal, ToolCall, ToolMessage
from tests.pipeline.shop import ANN, STAFF, Script, ask, stored, waits

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
ASK_PERSON = ToolCall("c1", HAND_OVER, '{"reason": "wants a person"}')
OTHER_STAFF = Principal("shop", "tom", ("staff",))


class Receiver:
    """A webhook on loopback; answers with the statuses that it is given, then with 204.

    Attributes:
        received: Headers and body of each request.
        statuses: Of the next answers; 0 for none, the connection stays open.
        again: Set by the second request.
        together: Whether the first is answered only after that.
    """

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.again = asyncio.Event()
        self.together = False
        self.port = 0

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[str, None]:
        """Serve; the URL."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{self.port}/hook"
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in head)}
        body = await reader.readexactly(int(headers["content-length"]))
        self.received.append((headers, body))
        if len(self.received) > 1:
            self.again.set()
        if self.together:
            await self.again.wait()
        status = self.statuses.pop(0) if self.statuses else 204
        if not status:
            await reader.read()  # until the sender gives up
        else:
            writer.write(f"HTTP/1.1 {status} X\r\nconnection: close\r\n".encode())
            writer.write(b"\r\n" if status == 204 else b"content-length: 0\r\n\r\n")
            with suppress(ConnectionError):  # the sender has given up
                await writer.drain()
        writer.close()


@asynccontextmanager
async def desk(
    place: SessionSettings,
    script: Script,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    seconds: float = 3_600.0,
) -> AsyncGenerator[Orchestrator, None]:
    """An agent that may hand over."""
    monkeypatch.setenv("DESK_SECRET", SECRET)
    handover = HandoverSettings(url=url, secret_env="DESK_SECRET", role="staff", seconds=seconds)
    app = Orchestrator(Settings(sessions=place, handover=handover))
    app.model("m", ScriptedModel(script))
    app.agent("a", AgentSettings(instructions="x", model="m", handover=True))
    async with app:
        yield app


async def _return(app: Orchestrator, wait: Wait) -> list[Event]:
    live = await app.engine.pipeline.wake(wait)
    assert live is not None
    return [event async for _, event in live.follow()]


async def _scan(app: Orchestrator, turn: str) -> None:
    """Scan as a server does, and follow what was recovered."""
    assert app.engine.orphan_recovery is not None
    await app.engine.orphan_recovery.recover_orphaned_turns()
    _ = [each async for each in app.engine.events(ANN, turn, after=0)]


def _result(script: Script) -> ToolMessage:
    return next(e for e in script.requests[-1].messages if isinstance(e, ToolMessage))


def test_the_signature_is_that_of_the_specification() -> None:
    key = decode_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["", "secret", "whsec_", "whsec_!!!", "whsec_c2hvcnQ="])
def test_a_weak_secret_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_ and 24 to 64") as refused:
        decode_secret(secret)
    assert secret in ("", "whsec_") or secret not in str(refused.value)


async def test_a_person_is_notified_and_hands_back(
    place: SessionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, script = Receiver(), Script((ASK_PERSON,))
    async with receiver.open() as url, desk(place, script, url, monkeypatch) as app:
        paused = await ask(app)
        assert isinstance(paused.events[-1], TurnPaused)
        ((headers, body),) = receiver.received
        notice = json.loads(body)
        assert (notice["type"], notice["reason"]) == ("handover.requested", "wants a person")
        assert (notice["turn"], notice["subject"]) == (paused.request.id, "ann")
        assert headers["webhook-signature"] == sign(
            decode_secret(SECRET), headers["webhook-id"], int(headers["webhook-timestamp"]), body
        )
        (wait,) = await waits(app)
        assert (wait.kind, wait.id) == ("person", headers["webhook-id"])
        silent = await ask(app, "Hello?", session=notice["session"])
        assert silent.problem is not None
        assert silent.problem.code == "turn-paused"
        assert len(script.requests) == 1
        ports, session, turn = app.engine.pipeline.ports, notice["session"], notice["turn"]
        for caller, problem in (
            (Principal("other", "sam", ("staff",)), TurnNotFound),
            (Principal("shop", "bob"), TurnNotFound),
            (ANN, Forbidden),
            (Principal("shop", "ann", ("staff",)), Forbidden),
        ):
            with pytest.raises(problem):
                await hand_back(ports, caller, session, turn, text="no")
        with pytest.raises(TurnNotFound):
            await hand_back(ports, STAFF, "ses_other", turn, text="no")
        answers = await asyncio.gather(
            hand_back(ports, STAFF, session, turn, text="Sam has helped.", note="by phone"),
            hand_back(ports, OTHER_STAFF, session, turn, text="Tom has helped."),
            return_exceptions=True,
        )
        (taken,) = (each for each in answers if isinstance(each, Wait))
        assert sum(isinstance(each, AlreadyDecided) for each in answers) == 1
        events = await _return(app, taken)
        assert type(events[-1]).__name__ == "TurnCompleted"
        assert taken.decision is not None
        assert _result(script).content == taken.decision.result
        assert not _result(script).failed
        audit = (await app.engine.store.audit(limit=10)).records
        assert [each.status for each in audit] == ["return", "done"]
        assert audit[0].decision is not None
        assert audit[0].decision.by == taken.decision.by
        assert len(receiver.received) == 1
        assert not await waits(app)
        assert (await ask(app, "Thanks", session=session)).problem is None


async def test_a_notification_is_repeated_by_another_server_until_it_arrives(
    place: SessionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seawall.pipeline.handover._FIRST_PAUSE_SECONDS", 0.02)
    receiver, script = Receiver(500, 0), Script((ASK_PERSON,))
    async with receiver.open() as url, desk(place, script, url, monkeypatch) as app:
        turn = (await ask(app)).request
    assert len(receiver.received) == 1
    async with desk(place, script, url, monkeypatch) as app:  # refused: nothing listens
        await asyncio.sleep(0.1)
        await _scan(app, turn.id)
    assert len(receiver.received) == 1
    async with receiver.open(), desk(place, script, url, monkeypatch) as app:
        for _ in range(2):  # the first is not answered
            await asyncio.sleep(0.2)
            await _scan(app, turn.id)
        assert len(receiver.received) == 3
        assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 1
        await asyncio.sleep(0.2)
        await _scan(app, turn.id)
        assert len(receiver.received) == 3
        wait = await hand_back(
            app.engine.pipeline.ports, STAFF, turn.session, turn.id, text="Helped."
        )
        events = await _return(app, wait)
        assert type(events[-1]).__name__ == "TurnCompleted"
        assert len(script.requests) == 2


async def test_notifications_of_a_step_do_not_wait_for_each_other(
    place: SessionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = Receiver()
    receiver.together = True
    calls = (ASK_PERSON, ToolCall("c2", HAND_OVER, '{"reason": "and about another order"}'))
    async with receiver.open() as url, desk(place, Script(calls), url, monkeypatch) as app:
        asked = await ask(app)
        (turn,) = await stored(app, asked.request.session)
        assert turn.journal
        effects = turn.journal.effects
        assert [each.request and each.request.notified for each in effects] == [True, True]


async def test_a_person_who_does_not_answer_in_time(
    place: SessionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, script = Receiver(), Script((ASK_PERSON,))
    async with (
        receiver.open() as url,
        desk(place, script, url, monkeypatch, seconds=0.3) as app,
    ):
        turn = (await ask(app)).request
        await asyncio.sleep(0.4)
        with pytest.raises(AlreadyDecided):
            await hand_back(app.engine.pipeline.ports, STAFF, turn.session, turn.id, text="late")
        await _scan(app, turn.id)
        assert "not answered in time" in _result(script).content


async def test_a_client_returns_the_result_of_its_tool(place: SessionSettings) -> None:
    def locate() -> str:
        """Where the user is; the client knows."""
        raise AssertionError

    script = Script((ToolCall("c1", "locate", "{}"),))
    app = Orchestrator(Settings(sessions=place))
    app.model("m", ScriptedModel(script))
    made = app.tool(locate, mutating=True)
    policy = EffectPolicy(approval=Approval(), waits_for="client")
    app._tools["locate"] = msgspec.structs.replace(made, policy=policy)  # no public face has it yet
    app.agent("a", AgentSettings(instructions="x", model="m", tools=("locate",)))
    async with app:
        turn = (await ask(app)).request.id
        ports = app.engine.pipeline.ports
        with pytest.raises(TurnNotFound):
            await return_result(ports, STAFF, turn, "c1", "x")
        wait = await return_result(ports, ANN, turn, "c1", "in Kiel")
        with pytest.raises(AlreadyDecided):
            await return_result(ports, ANN, turn, "c1", "in Rome")
        await _return(app, wait)
        assert _result(script).content == "in Kiel"


async def test_an_agent_cannot_hand_over_where_nothing_is_configured() -> None:
    app = Orchestrator(Settings())
    app.model("m", ScriptedModel(Script()))
    app.agent("a", AgentSettings(instructions="x", model="m", handover=True))
    with pytest.raises(ConfigError, match=r"handover\.url"):
        await app.open()


async def test_the_name_of_the_tool_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def mine() -> str:
        """Another tool."""
        return ""

    monkeypatch.setenv("DESK_SECRET", SECRET)
    handover = HandoverSettings(url="https://d.example", secret_env="DESK_SECRET", role="staff")
    app = Orchestrator(Settings(handover=handover))
    app.model("m", ScriptedModel(Script()))
    app.tool(mine, name=HAND_OVER)
    app.agent("a", AgentSettings(instructions="x", model="m", tools=(HAND_OVER,)))
    with pytest.raises(ConfigError, match=HAND_OVER):
        await app.open()


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"url": "http://desk.example", "secret_env": "S", "role": "staff"}, "url"),
        ({"url": "https://u:p@desk.example", "secret_env": "S", "role": "staff"}, "url"),
        ({"url": "https://desk.example", "secret_env": "S"}, "role"),
        ({"url": "https://desk.example", "role": "staff"}, "secret_env"),
        (
            {"url": "https://d.example", "role": "r", "secret_env": "S", "secret_file": "f"},
            "secret_file",
        ),
    ],
)
def test_settings_that_are_refused(table: dict[str, str], named: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=named):
        msgspec.convert(table, HandoverSettings)
