"""Agents as tools of the Model Context Protocol: definitions, arguments, results, progress."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from seawall.agents import Agent
from seawall.config import ServerSettings
from seawall.errors import Problem
from seawall.events import (
    AgentSelected,
    ApprovalRequested,
    Event,
    TextDelta,
    ToolCalled,
    TurnQueued,
    TurnStarted,
)
from seawall.hosts.http.bodies import (
    IDENTIFIER_PATTERN,
    KEY_PATTERN,
    checked_key,
    checked_text,
    field_error,
    identifier,
)
from seawall.hosts.http.effects import requested_approval
from seawall.hosts.http.turns import Reply
from seawall.pipeline.decisions import Verdict
from seawall.requests import new_request
from seawall.turn import TurnRequest

__all__ = [
    "CallReply",
    "JsonObject",
    "agent_tool",
    "call_request",
    "failed_call",
    "read_verdicts",
    "wait_key",
]

_MAX_SHOWN_CHARACTERS = 2_000
_MAX_NOTE_CHARACTERS = 2_000
_PROGRESS_SECONDS = 0.5

_question = re.compile(r"(\d{1,3})\?")

JsonObject = dict[str, Any]

_TEXT: JsonObject = {"type": "string"}
_COUNT: JsonObject = {"type": "integer", "minimum": 0}
_OUTPUT: JsonObject = {
    "type": "object",
    "properties": {
        "status": {
            "enum": ["completed", "paused", "failed"],
            "description": "A paused call waits for what is in `waits`; it goes on by itself then.",
        },
        "session": _TEXT | {"description": "Names the conversation; an argument of the next call."},
        "turn": _TEXT,
        "agent": _TEXT,
        "answer": _TEXT,
        "finish_reason": _TEXT,
        "usage": {"type": "object", "additionalProperties": _COUNT},
        "cost": {"type": "object"},
        "waits": {"type": "array", "items": {"type": "object"}},
        "problem": {"type": "object", "description": "Why the call failed (RFC 9457)."},
    },
    "required": ["status"],
}
_DECISION: JsonObject = {
    "type": "object",
    "properties": {
        "decision": {"type": "string", "title": "Decision", "enum": ["approve", "reject"]},
        "note": {"type": "string", "title": "Note", "maxLength": _MAX_NOTE_CHARACTERS},
    },
    "required": ["decision"],
}


class _Arguments(Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of a call; null counts as absent."""

    message: str
    session: str | None = None
    idempotency_key: str | None = None


class _Decision(Struct, frozen=True):
    """The content of an elicitation form."""

    decision: Literal["approve", "reject"]
    note: Annotated[str, Meta(max_length=_MAX_NOTE_CHARACTERS)] = ""


def agent_tool(agent: Agent, agents: Mapping[str, Agent], settings: ServerSettings) -> JsonObject:
    """The definition of an agent as a tool.

    Args:
        agent: The agent.
        agents: All agents, to find those that it may hand over to.
        settings: Their limits apply.
    """
    message = {
        "type": "string",
        "minLength": 1,
        "maxLength": settings.max_text_characters,
        "description": "The message to the agent.",
    }
    session = {
        "type": "string",
        "pattern": IDENTIFIER_PATTERN,
        "description": "The session of an earlier result, to go on with that conversation.",
    }
    key = {
        "type": "string",
        "pattern": KEY_PATTERN,
        "description": "A new name for each call: if the call is repeated with the same key and "
        "arguments, the answer is that of the first, and nothing is done twice.",
    }
    changes = any(each.mutating for one in _reached(agent, agents) for each in one.tools.values())
    return {
        "name": agent.name,
        "description": agent.description,
        "inputSchema": {
            "type": "object",
            "properties": {"message": message, "session": session, "idempotency_key": key},
            "required": ["message"],
            "additionalProperties": False,
        },
        "outputSchema": _OUTPUT,
        "annotations": {"readOnlyHint": not changes, "openWorldHint": True},
    }


def _reached(agent: Agent, agents: Mapping[str, Agent]) -> Iterable[Agent]:
    """The agent, and those that it may hand over to."""
    found, pending = {agent.name: agent}, [agent]
    while pending:
        for name in pending.pop().handoffs:
            if name in agents and name not in found:
                found[name] = agents[name]
                pending.append(agents[name])
    return found.values()


def call_request(agent: str, arguments: object, settings: ServerSettings) -> TurnRequest:
    """The turn that a call asks for.

    Args:
        agent: Whose tool was called.
        arguments: Of the call, as sent.
        settings: Their limits apply.

    Raises:
        InvalidField: An argument is missing, unknown or outside its limits.
    """
    try:
        read = msgspec.convert(arguments, _Arguments)
    except msgspec.ValidationError as error:
        raise field_error(str(error)) from error
    key = read.idempotency_key
    return new_request(
        checked_text(read.message, "message", settings),
        session=identifier(read.session, "session"),
        agent=agent,
        idempotency_key=None if key is None else checked_key(key, "idempotency_key"),
    )


class CallReply:
    """What the events of a turn add up to: the result of its call, and reports of its progress.

    Attributes:
        agent: That answers.
    """

    __slots__ = ("_characters", "_reply", "_reported_at", "_session", "_turn", "agent")

    def __init__(self, agent: str, turn: str = "") -> None:
        """Begin without events.

        Args:
            agent: Whose tool was called.
            turn: Id of the turn.
        """
        self.agent = agent
        self._reply = Reply()
        self._turn = turn
        self._session = ""
        self._characters = 0
        self._reported_at = float("-inf")

    def take(self, event: Event, now: float) -> str:
        """Add an event.

        Args:
            event: What happened.
            now: Seconds, to report the growing text now and then only.

        Returns:
            The text of the report; empty for none.
        """
        self._reply.take(event)
        if type(event) is TurnStarted:
            self._turn, self._session = event.turn, event.session
        elif type(event) is AgentSelected:
            self.agent = event.agent
            return f"{event.agent} answers"
        elif type(event) is TurnQueued:
            return f"waits at position {event.position}, for about {event.seconds:g} s"
        elif type(event) is ToolCalled:
            return f"{self.agent} uses {event.name}"
        elif type(event) is TextDelta:
            self._characters += len(event.text)
            if now >= self._reported_at + _PROGRESS_SECONDS:
                self._reported_at = now
                return f"{self.agent} has written {self._characters} characters"
        return ""

    def waits(self) -> list[ApprovalRequested]:
        """What the turn waits for; empty if it has not paused."""
        return self._reply.pause.waits()

    def modes(self) -> set[str]:
        """In which ways the turn's own subject is asked, if it waits for nothing else; or none."""
        waits = self.waits()
        if any(each.kind not in ("approval", "input") or each.role is not None for each in waits):
            return set()
        return {"url" if each.question and each.question.url else "form" for each in waits}

    def input_required(self) -> JsonObject:
        """The result of a call that waits for decisions or answers of its client's user.

        https://modelcontextprotocol.io/specification/2026-07-28/basic/patterns/mrtr. The state is
        the turn's id: a client that changes it gets no further than with the turns API.
        """
        asked = {wait_key(each): self._elicitation(each) for each in self.waits()}
        return {"resultType": "input_required", "inputRequests": asked, "requestState": self._turn}

    def _elicitation(self, wait: ApprovalRequested) -> JsonObject:
        if (question := wait.question) is not None:
            message = f"{question.source} asks, for {self.agent} to use {wait.name}:"
            message = f"{message} {question.message}"
            asked: JsonObject = {"mode": "form", "requestedSchema": question.schema}
            if question.url:
                asked = {"mode": "url", "url": question.url}
            return {"method": "elicitation/create", "params": asked | {"message": message}}
        shown = wait.arguments[:_MAX_SHOWN_CHARACTERS]
        message = f"{self.agent} asks for approval to use {wait.name} with {shown}"
        form = {"mode": "form", "message": message, "requestedSchema": _DECISION}
        return {"method": "elicitation/create", "params": form}

    def result(self) -> JsonObject:
        """The result of a call whose turn is complete, or waits for others."""
        answer = self._reply.answer
        text = "".join(self._reply.text)
        content: JsonObject = {"session": self._session, "turn": self._turn, "agent": self.agent}
        content["answer"] = text
        for name in ("usage", "cost", "finish_reason"):
            if name in answer:
                content[name] = answer[name]
        shown = [text]
        waits = self.waits()
        if waits:
            content |= {"status": "paused", "waits": list(map(requested_approval, waits))}
            shown = [*filter(None, shown), f"This waits for {', '.join(map(_waited_for, waits))}."]
        else:
            content["status"] = "completed"
        hint = f'To go on with this conversation, call with session "{self._session}".'
        return {
            "content": [
                *({"type": "text", "text": each} for each in shown),
                {"type": "text", "text": hint, "annotations": {"audience": ["assistant"]}},
            ],
            "structuredContent": content,
            "isError": False,
        }

    def failed(self, problem: Problem) -> JsonObject:
        """The result of a call whose turn has failed."""
        result = failed_call(problem)
        result["structuredContent"]["turn"] = self._turn
        if problem.effects:  # the session has them
            result["structuredContent"]["session"] = self._session
        return result


def wait_key(wait: ApprovalRequested) -> str:
    """The name of what a call waits for: its id, and the number of a question."""
    return wait.id if wait.question is None else f"{wait.question.number}?{wait.id}"


def _waited_for(wait: ApprovalRequested) -> str:
    if wait.kind == "person":
        return "a person, who has been notified"
    if wait.question is not None:
        return f"an answer of the user to {wait.name}: {wait.question.message}"
    by = f"the role {wait.role}" if wait.role is not None else "the user"
    return f"approval of {wait.name} by {by}"


def failed_call(problem: Problem) -> JsonObject:
    """The result of a call that has failed."""
    text = f"{problem.code}: {problem.detail}"
    if problem.field is not None:
        text = f"{problem.code}: {problem.field}: {problem.detail}"
    if problem.retry_after is not None:
        text += f" Try again in {max(1, round(problem.retry_after))} s."
    if problem.effects:
        done = ", ".join(f"{each['tool']} ({each['status']})" for each in problem.effects)
        text += f" Before it failed: {done}."
    return {
        "content": [{"type": "text", "text": text}],
        "structuredContent": {"status": "failed", "problem": problem.as_dict()},
        "isError": True,
    }


def read_verdicts(responses: object) -> dict[str, Verdict]:
    """The decisions and answers in the responses to elicitations, by `wait_key`.

    A dismissed form decides nothing about an approval. What is not understood is ignored.
    """
    verdicts: dict[str, Verdict] = {}
    for call, response in responses.items() if isinstance(responses, dict) else ():
        action = response.get("action") if isinstance(response, dict) else None
        if (question := _question.match(call)) is not None:
            content = response.get("content") if action == "accept" else None
            if action in ("accept", "decline", "cancel") and isinstance(content, dict | None):
                number = int(question[1])
                verdicts[call] = Verdict(decision=action, question=number, content=content)
        elif action == "decline":
            verdicts[call] = Verdict(decision="reject")
        elif action == "accept":
            try:
                verdict = msgspec.convert(response.get("content"), _Decision)
            except msgspec.ValidationError:
                continue
            verdicts[call] = Verdict(decision=verdict.decision, note=verdict.note)
    return verdicts
