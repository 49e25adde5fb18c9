"""The pipeline: one turn from admission to the durable end, over ports only."""

import asyncio
import hashlib
import time
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from seawall.admission.gate import Gate
from seawall.agents.definition import Agent
from seawall.agents.loop import AgentTurn, Answer, Emit, run_agent
from seawall.errors import InternalError, KeyReused, Problem, TurnLimitReached
from seawall.events import (
    AgentSelected,
    IntentDetected,
    TextDelta,
    TurnCompleted,
    TurnStarted,
    UsageReported,
)
from seawall.identity.port import Authenticator, Credential
from seawall.intents.cascade import IntentDetector
from seawall.pipeline.identifiers import new_session_id
from seawall.pipeline.opening import Opened, Opening
from seawall.pipeline.report import Observe, TurnReport
from seawall.pipeline.routing import Routing, choose_agent
from seawall.pipeline.stages import Stage, StageLimits, StageTimings
from seawall.sessions.port import Commit, Replay, SessionStore
from seawall.sessions.settings import SessionSettings
from seawall.sessions.window import history_window
from seawall.turn import Message, ToolMessage, TurnRecord, TurnRequest, Usage, UserMessage

__all__ = ["Pipeline", "Ports"]

_MAX_NOTES = 32
_MAX_NOTE_CHARACTERS = 1_024


class Ports(Struct, frozen=True, kw_only=True):
    """What the pipeline stands on; composed once at start."""

    authenticator: Authenticator
    store: SessionStore
    detector: IntentDetector
    agents: Mapping[str, Agent]
    routing: Routing
    gate: Gate
    limits: StageLimits
    sessions: SessionSettings
    observe: Observe


class _Running(Struct):
    """One turn while it runs; nobody else's."""

    request: TurnRequest
    credential: Credential
    emit: Emit
    deadline: float
    timings: StageTimings
    report: TurnReport


class Pipeline:
    """Runs turns. Holds no state of any turn: everything of a turn travels with it."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def execute(self, request: TurnRequest, credential: Credential, emit: Emit) -> TurnReport:
        """Run one turn and emit its events as they happen, `turn.completed` last.

        Cancelling the caller's task cancels the turn down to the model's socket. Whatever ends
        the turn early leaves the session as it was.

        Raises:
            Problem: the turn has failed; nothing of it is stored.
        """
        clock = asyncio.get_running_loop().time
        started = clock()
        deadline = started + self._ports.limits.turn
        if request.deadline is not None:
            deadline = min(deadline, request.deadline)
        timings = StageTimings(started)
        report = TurnReport(request.id)
        running = _Running(request, credential, emit, deadline, timings, report)
        try:
            async with self._ports.gate.place(deadline):
                timings.since_start("admission", clock())
                await self._run(running)
        except Problem as problem:
            report.outcome = problem.code
            raise
        except Exception:
            report.outcome = InternalError.code
            raise
        finally:
            timings.since_start("total", clock())
            report.timings = timings.as_dict()
            self._ports.observe(report)
        return report

    async def _run(self, running: _Running) -> None:
        ports, request, emit = self._ports, running.request, running.emit
        clock = asyncio.get_running_loop().time
        opened = await Opening(
            request=request,
            credential=running.credential,
            session=request.session or new_session_id(),
            authenticator=ports.authenticator,
            store=ports.store,
            detector=ports.detector,
            history_turns=ports.sessions.history_turns,
            limits=ports.limits,
            deadline=running.deadline,
            timings=running.timings,
        ).run()
        running.timings.since_start("opening", clock())
        if opened.snapshot.replay is not None:
            await _replay(running, opened.snapshot.replay)
            return
        session, detection = opened.snapshot.session, opened.detection
        route = choose_agent(
            ports.routing,
            ports.agents,
            requested=request.agent,
            intent=detection.intent,
            current=session.agent if session else None,
        )
        running.report.agent = route.agent
        running.report.intent, running.report.intent_by = detection.intent, detection.by
        await emit(
            TurnStarted(request.id, opened.key.session, session is None),
            IntentDetected(detection.intent, detection.confidence, detection.by),
            AgentSelected(route.agent, route.reason),
        )
        notes = dict(session.state) if session else {}
        answer = await run_agent(
            ports.agents, route.agent, self._agent_turn(running, opened, notes), emit
        )
        _report_answer(running, answer, detection.usage)
        await emit(UsageReported(running.report.usage))
        commit = _commit(running, opened, answer, notes, ports.sessions.ttl_seconds)
        async with Stage("commit", ports.limits.commit, running.deadline, running.timings):
            await ports.store.commit(commit)
        await _complete(running, opened.key.session, commit.turn, replayed=False)

    def _agent_turn(self, running: _Running, opened: Opened, notes: dict[str, str]) -> AgentTurn:
        request, principal = running.request, opened.principal
        settings = self._ports.sessions
        history: tuple[Message, ...] = request.history or history_window(
            opened.snapshot.turns,
            max_turns=settings.history_turns,
            max_tokens=settings.history_tokens,
        )
        retry = request.idempotency_key or request.id
        return AgentTurn(
            turn=request.id,
            session=opened.key.session,
            principal=principal,
            history=(*history, UserMessage(request.text)),
            effect_key=f"{principal.tenant}\0{principal.subject}\0{retry}",
            deadline=running.deadline,
            state=notes,
        )


def _fingerprint(request: TurnRequest) -> str:
    """Digest of what a request asks for; the same key with another digest is a mistake."""
    asked = msgspec.json.encode((request.text, request.session, request.agent, request.history))
    return hashlib.sha256(asked).hexdigest()


async def _replay(running: _Running, replay: Replay) -> None:
    """Give the stored answer; nothing is spent."""
    if replay.fingerprint != _fingerprint(running.request):
        raise KeyReused(
            "This idempotency key was used before with another request; use a new key.",
            field="idempotency_key",
        )
    turn = replay.turn
    running.report.agent, running.report.intent = turn.agent, turn.intent
    await running.emit(
        TurnStarted(turn.id, replay.session, turn.number == 1),
        TextDelta(turn.answer),
        UsageReported(turn.usage),
    )
    await _complete(running, replay.session, turn, replayed=True)


async def _complete(running: _Running, session: str, turn: TurnRecord, *, replayed: bool) -> None:
    running.report.outcome = "replayed" if replayed else "completed"
    running.timings.since_start("total", asyncio.get_running_loop().time())
    await running.emit(
        TurnCompleted(
            turn=turn.id,
            session=session,
            version=turn.number,
            agent=turn.agent,
            replayed=replayed,
            timings=running.timings.as_dict(),
        )
    )


def _report_answer(running: _Running, answer: Answer, routing_usage: Usage) -> None:
    report, timings = running.report, running.timings
    report.agent = answer.agent
    report.usage = answer.usage + routing_usage
    tools = [message for message in answer.messages if isinstance(message, ToolMessage)]
    report.tool_calls = len(tools)
    report.failed_tool_calls = sum(message.failed for message in tools)
    timings.record("model", answer.model_seconds)
    if tools:
        timings.record("tools", answer.tool_seconds)
    if answer.first_text_at is not None:
        timings.since_start("first_text", answer.first_text_at)


def _commit(
    running: _Running, opened: Opened, answer: Answer, notes: dict[str, str], ttl_seconds: float
) -> Commit:
    request, session = running.request, opened.snapshot.session
    if len(notes) > _MAX_NOTES or any(
        len(name) + len(text) > _MAX_NOTE_CHARACTERS for name, text in notes.items()
    ):
        raise TurnLimitReached(
            f"The tools keep more notes than a session may hold: {_MAX_NOTES} of "
            f"{_MAX_NOTE_CHARACTERS} characters."
        )
    version = session.version if session else 0
    now = time.time()
    keyed = request.idempotency_key is not None
    return Commit(
        key=opened.key,
        expected_version=version,
        turn=TurnRecord(
            id=request.id,
            number=version + 1,
            created_at=now,
            agent=answer.agent,
            intent=opened.detection.intent,
            messages=(UserMessage(request.text), *answer.messages),
            usage=running.report.usage,
        ),
        agent=answer.agent,
        state=notes,
        expires_at=now + ttl_seconds,
        idempotency_key=request.idempotency_key,
        fingerprint=_fingerprint(request) if keyed else None,
    )
