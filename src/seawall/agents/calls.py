"""The turn that an agent runs in, and calls of its tools."""

import asyncio
import hashlib
from collections.abc import Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec import Struct

from seawall.agents import HAND_OFF, Agent
from seawall.events import Event
from seawall.models import Meter, TextSink
from seawall.spans import Span, within_span
from seawall.tools.arguments import decode_arguments
from seawall.tools.port import ToolContext, ToolError, ToolOutcome, truncate
from seawall.turn import (
    Decision,
    Effect,
    Message,
    PendingInput,
    Principal,
    ToolCall,
    Usage,
)

if TYPE_CHECKING:
    from seawall.models.attachments import Contents

__all__ = [
    "AgentTurn",
    "Answer",
    "Emit",
    "JournalSource",
    "Step",
    "StepJournal",
    "TurnPausing",
    "call_tool",
    "effect_key",
    "tool_context",
]


class Emit(Protocol):
    """Receives the next events of a turn; waits while the client is slow (backpressure).

    Does not raise: if its client disconnects, a host cancels the turn instead.
    """

    async def __call__(self, *events: Event) -> None:
        """Send events, in this order."""
        ...


class Step(Struct):
    """One step of a turn while its calls run.

    Attributes:
        number: Model calls of the turn so far, this step's included.
        calls: All calls of the model's message.
        outcomes: Of the calls that have ended, by id.
        effects: Of this step, in the order of the calls.
        reported: How many outcomes have been reported, in the order of the calls.
        resumed: Whether it was journaled by an earlier attempt.
        asking: Of calls that only read, what their servers ask the user, by id of the call.
    """

    number: int
    calls: tuple[ToolCall, ...]
    outcomes: dict[str, ToolOutcome]
    effects: list[Effect] = []
    reported: int = 0
    resumed: bool = False
    asking: dict[str, PendingInput] = {}


class StepJournal(Protocol):
    """The durable record of a turn's steps; see `pipeline.journal`."""

    @property
    def effects_before(self) -> int:
        """Number of effects of earlier steps."""
        ...

    async def save(self, step: Step, answer: "Answer", *, pausing: bool = False) -> None:
        """Write the turn up to this step, durably.

        Raises:
            Problem: It is not written.
        """
        ...

    async def keep_lease(self) -> None:
        """See that the attempt has its lease still, before an effect runs.

        Raises:
            Problem: It has lost it, or that is not known.
        """
        ...

    async def decisions(self, waiting: Sequence[Effect]) -> Mapping[str, Decision]:
        """Decisions about waiting effects, by id; one that has expired is a decision."""
        ...


class JournalSource(Protocol):
    """Where the journal of a turn comes from: most turns need none."""

    @property
    def begun(self) -> bool:
        """Whether the turn has been journaled."""
        ...

    def open(self) -> StepJournal:
        """The turn's journal, from now on."""
        ...


class TurnPausing(Exception):
    """The turn waits for decisions; its journal says which."""


class AgentTurn(Struct, frozen=True, kw_only=True):
    """The turn that an agent runs in.

    Attributes:
        turn: Id of the turn.
        session: Id of the session.
        principal: Tenant and subject.
        history: The conversation up to and including the user's message.
        effect_key: The same for every retry of this turn; keys of tool calls derive from it.
        deadline: In seconds on the event loop's clock.
        state: Notes of the session, changed in place.
        meter: Records what model calls cost; None for no record.
        journal: Of steps with effects; None if there can be none.
        pending: The step to continue with, of a turn that an earlier attempt has left.
        steps: Model calls of earlier attempts.
        interludes: What was said while a person had the conversation, by the index of the result
            among the answer's messages.
        approval_seconds: How long an approval is waited for, if the tool does not say.
        caller_token: See `ToolContext`.
        contents: Where the bytes of attachments are found; None if no message has any.
        sink: Takes text at once, in place of an event; None if all is to be emitted.
        memory: Shown before the history to agents with a memory.
    """

    turn: str
    session: str
    principal: Principal
    history: tuple[Message, ...]
    effect_key: str
    deadline: float
    state: MutableMapping[str, str]
    meter: Meter | None = None
    journal: JournalSource | None = None
    pending: Step | None = None
    steps: int = 0
    interludes: Mapping[int, tuple[Message, ...]] = {}
    approval_seconds: float = 86_400.0
    caller_token: str = ""
    contents: "Contents | None" = None
    sink: TextSink | None = None
    memory: tuple[Message, ...] = ()

    def __repr__(self) -> str:
        return f"AgentTurn(turn={self.turn!r}, session={self.session!r})"


class Answer(Struct):
    """The result of an agent loop; complete when `run_agent` returns it.

    Attributes:
        agent: The agent that has the conversation.
        messages: Messages since the user's, ending with the final answer.
        usage: Tokens of all model calls.
        model_seconds: Time spent in model calls.
        tool_seconds: Time spent in tool calls.
        first_text_at: When the first text arrived, on the event loop's clock; None for none.
        cached: Whether it was produced for another turn, which was charged for it.
        finish_reason: Why the final answer ended.
        steps: Model calls that led to it.
    """

    agent: str
    messages: tuple[Message, ...] = ()
    usage: Usage = Usage()
    model_seconds: float = 0.0
    tool_seconds: float = 0.0
    first_text_at: float | None = None
    cached: bool = False
    finish_reason: str = "stop"
    steps: int = 0


class _HandOffArguments(Struct, forbid_unknown_fields=True):
    agent: str


async def call_tool(agent: Agent, call: ToolCall, turn: AgentTurn, key: str) -> ToolOutcome:
    """Call a tool of an agent; a tool that does not exist, or fails, is an outcome.

    Args:
        agent: The agent.
        call: What the model wrote.
        turn: The turn.
        key: The call's idempotency key.
    """
    with within_span(f"execute_tool {call.name}") as span:
        outcome = await _call_tool(agent, call, turn, key, span)
        if span is not None:
            _describe_call(span, call, outcome)
        return outcome


def _describe_call(span: Span, call: ToolCall, outcome: ToolOutcome) -> None:
    span.put("gen_ai.operation.name", "execute_tool")
    span.put("gen_ai.tool.name", call.name)
    span.put("gen_ai.tool.call.id", call.id)
    span.put("gen_ai.tool.type", "function")
    if span.content:
        span.put("gen_ai.tool.call.arguments", call.arguments)
        span.put("gen_ai.tool.call.result", outcome.content)
    if outcome.failed:
        span.end("tool_failed")


async def _call_tool(
    agent: Agent, call: ToolCall, turn: AgentTurn, key: str, span: Span | None
) -> ToolOutcome:
    if call.name == HAND_OFF and agent.handoffs:
        return _hand_off(agent, call)
    tool = agent.tools.get(call.name)
    if tool is None:
        known = ", ".join(sorted(agent.tools)) or "none"
        unknown = truncate(call.name, 100)
        return ToolOutcome(f"There is no tool {unknown!r}; known: {known}.", failed=True)
    try:
        prepared = tool.prepare(call.arguments)
    except ToolError as refusal:
        return ToolOutcome(str(refusal), failed=True)
    return await tool.call_prepared(prepared, tool_context(agent, call, turn, key, span))


def _hand_off(agent: Agent, call: ToolCall) -> ToolOutcome:
    """The outcome of a hand-off; its content is the name of the next agent."""
    known = ", ".join(agent.handoffs)
    try:
        decoded = decode_arguments(call.arguments, _HandOffArguments)
    except msgspec.DecodeError as error:
        return ToolOutcome(truncate(f"Invalid arguments for {HAND_OFF}: {error}"), failed=True)
    if decoded.agent not in agent.handoffs:
        unknown = truncate(decoded.agent, 100)
        return ToolOutcome(f"There is no agent {unknown!r} here; known: {known}.", failed=True)
    return ToolOutcome(decoded.agent)


def tool_context(
    agent: Agent,
    call: ToolCall,
    turn: AgentTurn,
    key: str,
    span: Span | None,
    *,
    may_ask: bool = True,
    given: PendingInput | None = None,
) -> ToolContext:
    """The context of a call.

    Args:
        agent: As of `call_tool`, like the next three.
        call: What the model wrote.
        turn: The turn.
        key: The call's idempotency key.
        span: Of the call.
        may_ask: Whether it may ask the user something, in a turn that can pause.
        given: See `ToolContext`.
    """
    now = asyncio.get_running_loop().time()
    tool = agent.tools.get(call.name)
    return ToolContext(
        principal=turn.principal,
        session=turn.session,
        turn=turn.turn,
        agent=agent.name,
        call=call.id,
        idempotency_key=key,
        deadline=min(turn.deadline, now + agent.limits.tool_seconds),
        state=turn.state,
        traceparent=span.traceparent.decode() if span is not None else "",
        caller_token=turn.caller_token,
        may_ask=may_ask and turn.journal is not None,
        may_repeat=tool is not None and (tool.policy is None or tool.policy.retry == "key"),
        given=given,
    )


def effect_key(turn: str, step: int, index: int) -> str:
    """The idempotency key of a call: of its place in the turn, not of how a model words it.

    Args:
        turn: The same for every attempt at the turn, and of no other.
        step: Number of model calls of the turn so far.
        index: Of the call in the step, from 0.
    """
    digest = hashlib.sha256(b"%b\0%d\0%d" % (turn.encode("utf-8", "replace"), step, index))
    return digest.hexdigest()[:32]
