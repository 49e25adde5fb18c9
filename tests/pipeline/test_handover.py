"""Turns that wait for a person or a client: notified until it arrives, answered once."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import pytest

from seawall import Orchestrator, ScriptedModel
from seawall.config import AgentSettings, IntentSettings, RoutingSettings, Settings
from seawall.errors import AlreadyDecided, ConfigError, Forbidden, TurnNotFound
from seawall.events import Event, TurnPaused
from seawall.pipeline.decisions import hand_back, return_result
from seawall.settings import HandoverSettings, SessionSettings
from seawall.storage.port import Wait
from seawall.tools.handover import HAND_OVER
from seawall.tools.policy import Approval, EffectPolicy
from seawall.transport.webhook import decode_secret, sign
from seawall.turn import Principal, ToolCall, ToolMessage, TurnRecord
from tests.pipeline.shop import ANN, STAFF, Script, ask, stored, waits

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
ASK_PERSON = ToolCall("c1", HAND_OVER, '{"reason": "wants a person"}')
OTHER_STAFF = Principal("shop", "tom", ("staff",))


class Receiver:
    """A webhook on loopback; answers with the statuses that it is given, then with 204.

    Attributes:
        received: Headers and body of each request.
        statuses: Of the next answers; 0 for none, the connection stays open.
        changed: Notified by each request.
    """

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.changed = asyncio.Condition()
        self.port = 0

    async def until(self, count: int) -> list[dict[str, Any]]:
        """Wait for so many requests; the bodies of all."""
        async with asyncio.timeout(30), self.changed:
            await self.changed.wait_for(lambda: len(self.received) >= count)
        return self.bodies

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """What was received, decoded."""
        return [json.loads(body) for _, body in self.received]

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
        status = self.statuses.pop(0) if self.statuses else 204
        async with self.changed:
            self.received.append((headers, body))
            self.changed.notify_all()
        with suppress(ConnectionError):  # the sender is killed
            if not status:
                await reader.read()  # until the sender gives up
            else:
                writer.write(f"HTTP/1.1 {status} X\r\nconnection: close\r\n".encode())
                writer.write(b"\r\n" if status == 204 else b"content-length: 0\r\n\r\n")
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
    notice: str = "",
    judge: Script | None = None,
) -> AsyncGenerator[Orchestrator, None]:
    """An agent that may hand over."""
    monkeypatch.setenv("DESK_SECRET", SECRET)
    handover = HandoverSettings(
        url=url, secret_env="DESK_SECRET", role="staff", seconds=seconds, notice=notice
    )
    settings = Settings(sessions=place, handover=handover)
    if judge is not None:  # which is asked for the intent
        settings.intents["return"] = IntentSettings(description="Return something.")
        settings = msgspec.structs.replace(settings, routing=RoutingSettings(intent_model="judge"))
    app = Orchestrator(settings)
    app.model("m", ScriptedModel(script))
    if judge is not None:
        app.model("judge", ScriptedModel(judge))
    app.agent("a", AgentSettings(instructions="x", model="m", handover=True))
    async with app:
        yield app


async def resume(app: Orchestrator, wait: Wait) -> list[Event]:
    """Continue the turn of a wait that was decided; its events."""
    live = await app.engine.pipeline.wake(wait)
    assert live is not None
    return [event async for _, event in live.follow()]


async def scan(app: Orchestrator, turn: str) -> None:
    """Scan as a server does; follow what was recovered, and wait for deliveries."""
    assert app.engine.orphan_recovery is not None
    await app.engine.orphan_recovery.scan()
    _ = [each async for each in app.engine.events(ANN, turn, after=0)]
    await settled(app)


async def settled(app: Orchestrator) -> None:
    """Wait for the deliveries that have begun."""
    notifications = app.engine.pipeline.ports.notifications
    assert notifications is not None
    await notifications.settle(30)


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
        await receiver.until(1)
        ((headers, body),) = receiver.received
        notice = json.loads(body)
        assert (notice["type"], notice["reason"]) == ("handover.requested", "wants a person")
        assert (notice["turn"], notice["subject"]) == (paused.request.id, "ann")
        assert headers["webhook-signature"] == sign(
            decode_secret(SECRET), headers["webhook-id"], int(headers["webhook-timestamp"]), body
        )
        (wait,) = await waits(app)
        assert (wait.kind, wait.id) == ("person", headers["webhook-id"])
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
        assert taken.decision is not None
        by = Principal("shop", taken.decision.by, ("staff",))
        text, note = taken.decision.result, taken.decision.note
        retried = await hand_back(ports, by, session, turn, text=text, note=note)
        assert retried.decision == taken.decision
        events = await resume(app, taken)
        assert type(events[-1]).__name__ == "TurnCompleted"
        assert _result(script).content == taken.decision.result
        assert not _result(script).failed
        audit = (await app.engine.store.audit(limit=10)).records
        assert [each.status for each in audit] == ["return", "done"]
        assert audit[0].decision is not None
        assert audit[0].decision.by == taken.decision.by
        ended = (await receiver.until(2))[1]
        assert (ended["type"], ended["outcome"]) == ("handover.ended", "returned")
        assert (ended["turn"], ended["by"]) == (turn, by.subject)
        await settled(app)
        assert len(receiver.received) == 2
        assert not await waits(app)
        assert (await ask(app, "Thanks", session=session)).problem is None


async def test_a_notification_is_repeated_by_another_server_until_it_arrives(
    place: SessionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seawall.pipeline.delivery._FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr("seawall.pipeline.delivery._SENDING_SECONDS", 0.05)
    receiver, script = Receiver(500, 503), Script((ASK_PERSON,))
    async with receiver.open() as url, desk(place, script, url, monkeypatch) as app:
        turn = (await ask(app)).request
    assert len(receiver.received) == 1
    (before,) = await _turns(place, script, url, turn.session, monkeypatch)
    async with desk(place, script, url, monkeypatch) as app:  # refused: nothing listens
        await asyncio.sleep(0.2)
        await scan(app, turn.id)
    assert len(receiver.received) == 1
    async with receiver.open(), desk(place, script, url, monkeypatch) as app:
        for _ in range(3):  # the first is answered with a failure; after the second there is none
            await asyncio.sleep(0.4)
            await scan(app, turn.id)
        assert len(receiver.received) == 3
        assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 1
        assert await stored(app, turn.session) == [before]  # deliveries leave no trace in the turn
        wait = await hand_back(
            app.engine.pipeline.ports, STAFF, turn.session, turn.id, text="Helped."
        )
        events = await resume(app, wait)
        assert type(events[-1]).__name__ == "TurnCompleted"
        assert len(script.requests) == 2


async def _turns(
    place: SessionSettings, script: Script, url: str, session: str, monkeypatch: pytest.MonkeyPatch
) -> list[TurnRecord]:
    async with desk(place, script, url, monkeypatch) as app:
        return await stored(app, session)


async def test_the_first_delivery_is_after_the_pause_is_stored(
    place: SessionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver that hands back while it answers is not too early."""
    receiver, script = Receiver(0), Script((ASK_PERSON,))
    async with receiver.open() as url, desk(place, script, url, monkeypatch) as app:
        asking = asyncio.create_task(ask(app))
        (notice,) = await receiver.until(1)
        ports = app.engine.pipeline.ports
        wait = await hand_back(ports, STAFF, notice["session"], notice["turn"], text="Done.")
        assert wait.decision is not None
        assert isinstance((await asking).events[-1], TurnPaused)


async def test_a_notification_is_given_up(
    place: SessionSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("seawall.pipeline.delivery._FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("seawall.pipeline.delivery._SENDING_SECONDS", 0.0)
    monkeypatch.setattr("seawall.pipeline.delivery._MAX_DELIVERIES", 3)
    receiver, script = Receiver(*[500] * 9), Script((ASK_PERSON,))
    async with receiver.open() as url, desk(place, script, url, monkeypatch) as app:
        turn = (await ask(app)).request
        for _ in range(5):
            await settled(app)
            await scan(app, turn.id)
        assert len(receiver.received) == 3
        assert await app.engine.store.due_notifications(limit=9) == ()
        assert "given up after 3 deliveries" in caplog.text
        wait = await hand_back(
            app.engine.pipeline.ports, STAFF, turn.session, turn.id, text="Helped."
        )
        assert type((await resume(app, wait))[-1]).__name__ == "TurnCompleted"


async def test_a_person_who_does_not_answer_in_time(
    place: SessionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, script = Receiver(), Script((ASK_PERSON,))
    async with (
        receiver.open() as url,
        desk(place, script, url, monkeypatch, seconds=0.5) as app,
    ):
        turn = (await ask(app)).request
        await receiver.until(1)
        await asyncio.sleep(0.6)
        with pytest.raises(AlreadyDecided):
            await hand_back(app.engine.pipeline.ports, STAFF, turn.session, turn.id, text="late")
        await scan(app, turn.id)
        assert "not answered in time" in _result(script).content
        ended = (await receiver.until(2))[1]
        assert (ended["type"], ended["outcome"], ended["by"]) == ("handover.ended", "expired", "")


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
        await resume(app, wait)
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
