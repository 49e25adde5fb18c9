"""OpenAI-compatible endpoints: chat completions and models.

Format: https://platform.openai.com/docs/api-reference/chat/create. `model` is an agent or "auto".
The response header `Seawall-Session` names the session; sent back as that header or as
`metadata.session`, it continues the session.

A turn that pauses is answered as if it had stopped: its text so far, or a sentence that says what
it waits for; the member `seawall` has what a program needs to decide.
"""

import time
from typing import TYPE_CHECKING

import msgspec

from seawall.errors import Problem, UnknownAgent
from seawall.events import (
    AgentSelected,
    Event,
    TextDelta,
    TurnCompleted,
    TurnQueued,
    TurnStarted,
    UsageReported,
)
from seawall.hosts.http.bodies import decode, idempotency_key
from seawall.hosts.http.chat_body import ChatBody, chat_request
from seawall.hosts.http.exchange import Exchange, encode, problem_body
from seawall.hosts.http.sessions import authenticated_owner
from seawall.hosts.http.turns import EVENT_STREAM, Pause, check_capacity, run_turn
from seawall.identity import Credential
from seawall.turn import TurnRequest, Usage

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = ["answer_chat", "answer_model", "answer_models"]

_decoder = msgspec.json.Decoder(ChatBody)


async def answer_chat(orchestrator: "Orchestrator", exchange: Exchange) -> None:
    """`POST /v1/chat/completions`: one turn. See `run_turn` for what it raises."""
    check_capacity(orchestrator, exchange)  # before the body is read and a token verified
    settings = orchestrator.settings.server
    credential = exchange.credential()
    key = idempotency_key(exchange.headers.get(b"idempotency-key"))
    raw = await exchange.body(limit=settings.max_body_bytes, seconds=settings.body_seconds)
    body = decode(_decoder, raw)
    session = exchange.headers.get(b"seawall-session", b"").decode("latin-1") or None
    request = exchange.with_deadline(
        chat_request(body, session=session, key=key, settings=settings)
    )
    try:
        if body.stream:
            with_usage = bool(body.stream_options and body.stream_options.include_usage)
            await _respond_stream(
                orchestrator, exchange, request, credential, with_usage=with_usage
            )
        else:
            await _respond_json(orchestrator, exchange, request, credential)
    except UnknownAgent as problem:  # the field has another name in this format
        raise UnknownAgent(problem.detail, field="model") from problem


async def answer_models(orchestrator: "Orchestrator", exchange: Exchange) -> None:
    """`GET /v1/models`: the agents, and "auto", as a list of models."""
    await authenticated_owner(orchestrator, exchange)
    entries = [_model(name) for name in ("auto", *orchestrator.engine.agents)]
    await exchange.answer({"object": "list", "data": entries})


async def answer_model(orchestrator: "Orchestrator", exchange: Exchange, name: str) -> None:
    """`GET /v1/models/{id}`: an agent as a model.

    Raises:
        UnknownAgent: There is no such agent.
    """
    await authenticated_owner(orchestrator, exchange)
    if name != "auto" and name not in orchestrator.engine.agents:
        raise UnknownAgent(f"There is no agent {name[:64]!r}.", field="model")
    await exchange.answer(_model(name))


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "seawall"}


async def _respond_stream(
    orchestrator: "Orchestrator",
    exchange: Exchange,
    request: TurnRequest,
    credential: Credential,
    *,
    with_usage: bool,
) -> None:
    reply = _Reply(request.id)

    async def emit(*events: Event) -> None:
        for event in events:
            reply.take(event)
            if type(event) is TextDelta:
                await exchange.write_text(reply.delta({"content": event.text}))
            elif isinstance(event, TurnQueued | TurnStarted):
                await _open_stream(exchange, request, event)
            elif type(event) is AgentSelected and event.reason != "handoff":
                await exchange.write(reply.delta({"role": "assistant", "content": ""}))

    try:
        await run_turn(orchestrator, exchange, request, credential, emit)
    except Problem as problem:
        if not exchange.started:
            raise
        await exchange.end(b"data: %b\n\n" % encode(problem_body(problem, exchange.request.id)))
        return
    parts = []
    if explanation := reply.explanation():
        parts.append(reply.delta({"content": explanation}))
    end = {"index": 0, "delta": {}, "finish_reason": reply.finish_reason}
    parts.append(reply.chunk([end], **reply.extension()))
    if with_usage:
        parts.append(reply.chunk([], usage=reply.usage()))
    await exchange.end(b"".join([*parts, b"data: [DONE]\n\n"]))


async def _open_stream(
    exchange: Exchange, request: TurnRequest, event: TurnQueued | TurnStarted
) -> None:
    """Send the headers, and while the turn waits a comment, which clients ignore."""
    if not exchange.started:
        session = event.session if isinstance(event, TurnStarted) else request.session
        if isinstance(event, TurnQueued) and request.idempotency_key is not None:
            return  # the session to name may be that of an earlier request
        await exchange.start(200, [*EVENT_STREAM, (b"seawall-session", session.encode())])
    if isinstance(event, TurnQueued):
        await exchange.write(b": turn.queued %b\n\n" % encode(event))


async def _respond_json(
    orchestrator: "Orchestrator", exchange: Exchange, request: TurnRequest, credential: Credential
) -> None:
    reply = _Reply(request.id)
    text: list[str] = []

    async def emit(*events: Event) -> None:
        for event in events:
            reply.take(event)
            if type(event) is TextDelta:
                text.append(event.text)

    await run_turn(orchestrator, exchange, request, credential, emit)
    content = "".join(text) or reply.explanation()
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason}
    body = reply.body("chat.completion", [choice]) | {"usage": reply.usage()}
    body |= reply.extension()
    await exchange.answer(body, headers=[reply.session_header])


class _Reply:
    """Builds the parts of one completion."""

    __slots__ = (
        "_created",
        "_head",
        "_id",
        "_model",
        "_pause",
        "_session",
        "_text",
        "_usage",
        "_with_person",
        "finish_reason",
    )

    def __init__(self, turn: str) -> None:
        self._id = turn
        self._created = int(time.time())
        self._model = ""
        self._session = ""
        self._usage = Usage()
        self._head = b""
        self._pause = Pause()
        self._text = False
        self._with_person = False
        self.finish_reason = "stop"

    def take(self, event: Event) -> None:
        """Record what later parts repeat."""
        if type(event) is TextDelta:
            self._text = True
        elif type(event) is TurnStarted:
            self._id, self._session = event.turn, event.session
        elif type(event) is AgentSelected:
            self._model, self._head = event.agent, b""
        elif type(event) is UsageReported:
            self._usage = event.usage
        elif type(event) is TurnCompleted:
            self._model = event.agent
            self._with_person = event.finish_reason == "person"
            self.finish_reason = "stop" if self._with_person else event.finish_reason or "stop"
        else:
            self._pause.take(event)

    def explanation(self) -> str:
        """Of a turn that has paused without a text: what it waits for, and where that is decided.

        Empty for any other.
        """
        if self._pause.paused is None or self._text:
            return ""
        kinds = self._pause.kinds()
        waits = ", ".join(
            f"{each['tool']} (decide at {each['decide']})" for each in self._pause.approvals()
        )
        if waits:
            waited = "an answer" if "input" in kinds else "approval"
            return f"This waits for {waited}: {waits}."
        person = "person" in kinds
        return "A person has this conversation now." if person else "This waits for its client."

    def extension(self) -> dict[str, object]:
        """The member `seawall` of a turn that has paused, or while a person has the conversation.

        Empty for any other.
        """
        paused = self._pause.paused
        if paused is None:
            return {"seawall": {"status": "person", "turn": self._id}} if self._with_person else {}
        approvals = self._pause.approvals()
        return {"seawall": {"status": "paused", "turn": paused.turn, "approvals": approvals}}

    @property
    def session_header(self) -> tuple[bytes, bytes]:
        """The response header that names the session."""
        return (b"seawall-session", self._session.encode())

    def body(self, kind: str, choices: list[dict[str, object]]) -> dict[str, object]:
        """A completion, or a chunk of one."""
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }

    def chunk(self, choices: list[dict[str, object]], **more: object) -> bytes:
        """A frame of the stream."""
        return b"data: %b\n\n" % encode(self.body("chat.completion.chunk", choices) | more)

    def delta(self, delta: dict[str, object]) -> bytes:
        """A frame with a piece of the message; their common beginning is encoded once."""
        if not self._head:
            encoded = encode(self.body("chat.completion.chunk", []))
            self._head = b"data: %b" % encoded.removesuffix(b"]}")
        return b'%b{"index":0,"delta":%b,"finish_reason":null}]}\n\n' % (self._head, encode(delta))

    def usage(self) -> dict[str, int]:
        """Token counts in OpenAI's format."""
        usage = self._usage
        return {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        }
