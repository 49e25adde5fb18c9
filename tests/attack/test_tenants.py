"""Two tenants at once through one process, tools included: nothing ever crosses.

The failures of others that this begins with: request state on an object that turns share, a
history that is written back without a condition, turns that wait for each other (seen in
agent-squad 1.1.4, 2026-11).
"""

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from seawall import Orchestrator, Principal, ToolContext
from seawall.agents import HAND_OFF
from seawall.config import parse_settings
from seawall.events import TextDelta, ToolReturned, TurnCompleted
from seawall.models import Finish, ModelEvent, ModelRequest, Text, ToolCalls
from seawall.requests import new_request
from seawall.turn import AssistantMessage, ToolCall, ToolMessage, Usage, UserMessage
from tests.hosts.conftest import identity
from tests.issuer import Issuer
from tests.servers import running_model, running_server

CONFIGURATION = """
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "none"

[routing]
default_agent = "supervisor"
sticky = "never"

[agents.supervisor]
instructions = "Find out who can help."
handoffs = ["shop"]

[agents.shop]
instructions = "Help."
tools = ["whoami", "remember", "secret"]
"""

TENANTS = ("acme", "globex")
SUBJECTS = ("ada", "bob")
WHAT = ("I am", "the secret of")


class EchoModel:
    """Hands over, calls all tools, returns everything in its prompt. Waits a little at times."""

    def __init__(self, delays: Sequence[float]) -> None:
        self._delays = delays
        self._calls = 0
        self._running = 0
        self.most_at_once = 0

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        del deadline
        self._calls += 1
        self._running += 1
        self.most_at_once = max(self.most_at_once, self._running)
        await asyncio.sleep(self._delays[self._calls % len(self._delays)])
        self._running -= 1
        if any(each.name == HAND_OFF for each in request.prompt.tools):
            yield ToolCalls((ToolCall("0", HAND_OFF, '{"agent": "shop"}'),))
            yield Finish("tool_calls", Usage(1, 1, 1))
            return
        last = request.messages[-1]
        if isinstance(last, ToolMessage) and last.name == HAND_OFF:
            asked = next(
                each.text for each in reversed(request.messages) if isinstance(each, UserMessage)
            )
            yield ToolCalls(
                (
                    ToolCall("1", "whoami", "{}"),
                    ToolCall("2", "remember", json.dumps({"what": asked})),
                    ToolCall("3", "secret", "{}"),
                )
            )
            yield Finish("tool_calls", Usage(1, 1, 1))
            return
        said = []
        for message in request.messages:
            if isinstance(message, ToolMessage):
                said.append(message.content)
            elif isinstance(message, UserMessage | AssistantMessage):
                said.append(message.text)
        yield Text("|".join(said))
        yield Finish("stop", Usage(1, 1, 1))

    async def warm(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""


class Wish(Struct, frozen=True):
    """A turn of a user in one of two conversations."""

    tenant: str
    subject: str
    conversation: int


wishes = st.lists(
    st.builds(Wish, st.sampled_from(TENANTS), st.sampled_from(SUBJECTS), st.integers(0, 1)),
    min_size=20,
    max_size=60,
)
delays = st.lists(st.sampled_from([0.0, 0.0, 0.001, 0.004]), min_size=3, max_size=9)


def build(folder: Path, model: EchoModel) -> Orchestrator:
    app = Orchestrator(
        parse_settings(f'[sessions]\npath = "{folder}/sessions.db"\n{CONFIGURATION}')
    )

    @app.tool
    async def whoami(context: ToolContext) -> str:
        """Return the caller."""
        await asyncio.sleep(0.001)
        caller = f"{context.principal.tenant}/{context.principal.subject}"
        return f"I am {caller} in {context.session}"

    @app.tool
    async def remember(what: str, context: ToolContext) -> str:
        """Store something; returns what was stored before."""
        before = context.state.get("kept", "nothing")
        context.state["kept"] = what
        return f"kept before: {before}"

    @app.tool
    def secret(context: ToolContext) -> str:
        """What only its owner may see; a plain function, which runs in a thread."""
        time.sleep(0.001)
        return _secret(Principal(context.principal.tenant, context.principal.subject))

    app.model("default", model)
    return app


def _secret(owner: Principal) -> str:
    return f"the secret of {owner.tenant}/{owner.subject}"


async def one_after_another(app: Orchestrator, wish: Wish, count: int) -> None:
    """The turns of one conversation: each sees all before it, and nothing else."""
    principal = Principal(wish.tenant, wish.subject)
    mark = f"{wish.tenant}/{wish.subject}/{wish.conversation}"
    session: str | None = None
    for number in range(count):
        text = f"{mark} says {number}"
        answer, tools = "", []
        async for event in app.run(new_request(text, session=session), principal=principal):
            if isinstance(event, TextDelta):
                answer += event.text
            elif isinstance(event, ToolReturned):
                tools.append(event.content)
            elif isinstance(event, TurnCompleted):
                assert event.version == number + 1
                session = event.session
        assert tools == [
            "shop",
            f"I am {wish.tenant}/{wish.subject} in {session}",
            f"kept before: {mark + f' says {number - 1}' if number else 'nothing'}",
            _secret(principal),
        ]
        for before in range(number + 1):
            assert f"{mark} says {before}" in answer
        assert _foreign_text(answer, wish) == []


def _foreign_text(answer: str, wish: Wish) -> list[str]:
    """Text of other users, or of the user's other conversation, in an answer."""
    mark = f"{wish.tenant}/{wish.subject}/{wish.conversation}"
    owners = [f"{tenant}/{subject}" for tenant in TENANTS for subject in SUBJECTS]
    signs = [f"{owner}/{each} says" for owner in owners for each in (0, 1)]
    signs += [f"{what} {owner}" for owner in owners for what in WHAT]
    own = (f"{mark} says", *(f"{what} {wish.tenant}/{wish.subject}" for what in WHAT))
    return [sign for sign in signs if sign in answer and sign not in own]


@given(wishes, delays)
@settings(max_examples=12, deadline=None)
def test_nothing_crosses_tenants_in_any_order(turns: list[Wish], pauses: list[float]) -> None:
    """Conversations of four users of two tenants, all at once, in any interleaving."""
    counts: dict[Wish, int] = {}
    for wish in turns:
        counts[wish] = counts.get(wish, 0) + 1

    async def scenario() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with build(Path(folder), EchoModel(pauses)) as app, asyncio.TaskGroup() as group:
                for wish, count in counts.items():
                    group.create_task(one_after_another(app, wish, min(count, 6)))

    asyncio.run(scenario())


def test_thousands_of_turns_at_once_do_not_wait_for_each_other() -> None:
    """2,000 turns of 250 users of two tenants; each model call waits, none for another."""

    model = EchoModel([0.05])

    async def scenario() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with build(Path(folder), model) as app, asyncio.TaskGroup() as group:
                for number in range(250):
                    wish = Wish(TENANTS[number % 2], f"user-{number}", 0)
                    group.create_task(one_after_another(app, wish, 8))

    asyncio.run(scenario())
    assert model.most_at_once > 100


@pytest.fixture
def issuer() -> Issuer:
    made = Issuer()
    made.add("one")
    return made


def test_over_http_another_tenants_data_does_not_exist(issuer: Issuer, tmp_path: Path) -> None:
    with (
        running_model("--first-token", "0.01", "--duration", "0.1") as model,
        running_server(
            tmp_path, model, SERVER__WORKERS="1", **identity(tmp_path, issuer)
        ) as server,
    ):

        def client(tenant: str) -> httpx2.Client:
            token = issuer.token("ada", tenant=tenant)  # the same subject, in both
            headers = {"authorization": f"Bearer {token}"}
            return httpx2.Client(base_url=server.url, headers=headers, timeout=20)

        with client("acme") as acme, client("globex") as globex:
            keyed = {"idempotency-key": "the-same"}
            mine = acme.post("/v1/turns", json={"text": "mine"}, headers=keyed).json()
            theirs = globex.post("/v1/turns", json={"text": "theirs"}, headers=keyed).json()
            assert theirs["replayed"] is False
            assert mine["session"] != theirs["session"]
            for path in (f"/v1/sessions/{mine['session']}", f"/v1/turns/{mine['turn']}/events"):
                assert acme.get(path).status_code == 200
                assert globex.get(path).status_code == 404
            into = {"text": "let me in", "session": mine["session"]}
            assert globex.post("/v1/turns", json=into).status_code == 404
            assert globex.delete(f"/v1/sessions/{mine['session']}").status_code == 404
            listed = globex.get("/v1/sessions").json()["sessions"]
            assert [each["session"] for each in listed] == [theirs["session"]]
            shown = acme.get(f"/v1/sessions/{mine['session']}").json()
            assert shown["version"] == 1
