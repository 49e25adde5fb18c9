"""Agent loop: calls the model and its tools in turn, until there is an answer or a limit is met."""

import asyncio
import logging
from collections.abc import Mapping, MutableMapping
from contextlib import ExitStack, aclosing
from typing import Protocol

import msgspec
from msgspec import Struct

from seawall.agents.definition import HAND_OFF, Agent
from seawall.errors import InvalidOutput, TurnLimitReached, UpstreamFailed
from seawall.events import (
    AgentSelected,
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCalled,
    ToolReturned,
)
from seawall.models.port import (
    Finish,
    FinishReason,
    Meter,
    ModelRequest,
    Progress,
    Text,
    ToolCalls,
)
from seawall.spans import Span, within_span
from seawall.tools.arguments import decode_arguments
from seawall.tools.effects import EffectKeys
from seawall.tools.toolset import ToolContext, ToolError, ToolOutcome, truncate
from seawall.turn import (
    AssistantMessage,
    Message,
    Principal,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)

__all__ = ["AgentTurn", "Answer", "Emit", "run_agent"]


_log = logging.getLogger("seawall.agents")

_EMPTY_ANSWER_ATTEMPTS = 2
_CUT_OFF = (
    "This call was cut off by the limit on your output tokens, and was not executed. "
    "Repeat it in fewer words, or answer without it."
)
_NO_JSON = "The arguments of this call are not complete JSON; it was not executed."


class Emit(Protocol):
    """Receives the next events of a turn; waits while the client is slow (backpressure).

    Does not raise: if its client disconnects, a host cancels the turn instead.
    """

    async def __call__(self, *events: Event) -> None:
        """Send events, in this order."""
        ...


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
    """

    turn: str
    session: str
    principal: Principal
    history: tuple[Message, ...]
    effect_key: str
    deadline: float
    state: MutableMapping[str, str]
    meter: Meter | None = None


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
    """

    agent: str
    messages: tuple[Message, ...] = ()
    usage: Usage = Usage()
    model_seconds: float = 0.0
    tool_seconds: float = 0.0
    first_text_at: float | None = None
    cached: bool = False
    finish_reason: str = "stop"


class _Reply(Struct):
    """The answer of the model in one step. `unfinished` calls are not executed."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    unfinished: tuple[ToolCall, ...] = ()
    reason: FinishReason = "other"

    @property
    def requests_tools(self) -> bool:
        """Whether there are tool calls."""
        return bool(self.calls or self.unfinished)


class _HandOffArguments(Struct, forbid_unknown_fields=True):
    agent: str


async def run_agent(agents: Mapping[str, Agent], start: str, turn: AgentTurn, emit: Emit) -> Answer:
    """Run an agent, and the agents that it hands over to, until there is an answer.

    Args:
        agents: All agents by name.
        start: The agent that begins.
        turn: The turn.
        emit: Receives events.

    Raises:
        TurnLimitReached: A limit of the agent was met before there was an answer; on the last step
            the model is called without tools, so that this is rare.
        InvalidOutput: The answer does not match the agent's schema.
        UpstreamFailed: The model failed, or its answer is unusable.
        DeadlineExceeded: The model did not answer in time.
    """
    answer = Answer(start)
    with ExitStack() as agent_span:
        await _run(agents, turn, answer, emit, agent_span)
    return answer


async def _run(
    agents: Mapping[str, Agent], turn: AgentTurn, answer: Answer, emit: Emit, agent_span: ExitStack
) -> None:
    """Run the loop and fill `answer`; `agent_span` has the span of the current agent."""
    clock = asyncio.get_running_loop().time
    start = answer.agent
    agent = agents[start]
    repair: tuple[Message, ...] = ()
    keys = EffectKeys(turn.effect_key)
    _invoke(agent, turn, agent_span)
    cut_off = False
    for step in range(agent.limits.steps):
        began = clock()
        last = step + 1 == agents[start].limits.steps
        reply = await _ask(agent, turn, answer, repair, emit, last=last)
        answered_at = clock()
        answer.model_seconds += answered_at - began
        if last and reply.text.strip():  # it was called without tools, so this is its answer
            reply.calls = reply.unfinished = ()
        if not reply.requests_tools and agent.output is not None:
            fault = agent.output.fault(reply.text)
            if fault is not None:
                repair = _repair_messages(agent, reply.text, fault, last=bool(repair) or last)
                continue
            await _emit_text(reply.text, answer, emit)
        if not reply.requests_tools:
            answer.messages += (AssistantMessage(reply.text),)
            answer.finish_reason = _public_reason(reply.reason)
            return
        if last:
            break
        if cut_off and reply.unfinished:
            raise TurnLimitReached("The token limit cut off the model's tool calls again.")
        cut_off = bool(reply.unfinished) and reply.reason == "length"
        calls = reply.calls + reply.unfinished
        # Text beside tool calls is dropped if the answer must be JSON.
        answer.messages += (AssistantMessage("" if agent.output else reply.text, calls),)
        outcomes = await _call_tools(agent, reply, turn, keys, emit)
        answer.tool_seconds += clock() - answered_at
        answer.messages += tuple(
            ToolMessage(call.id, call.name, outcome.content, outcome.failed)
            for call, outcome in zip(calls, outcomes, strict=True)
        )
        successor = _successor(agent, calls, outcomes)
        if successor is not None:
            await emit(AgentSelected(successor, "handoff", agent.name))
            agent = agents[successor]
            answer.agent = successor
            agent_span.close()
            _invoke(agent, turn, agent_span)
    raise TurnLimitReached(f"There was no answer after {agents[start].limits.steps} model calls.")


def _invoke(agent: Agent, turn: AgentTurn, agent_span: ExitStack) -> None:
    """Begin the span of an agent; names as in OpenTelemetry's gen-ai-agent-spans.md."""
    span = agent_span.enter_context(within_span(f"invoke_agent {agent.name}"))
    if span is not None:
        span.put("gen_ai.operation.name", "invoke_agent")
        span.put("gen_ai.agent.name", agent.name)
        span.put("gen_ai.conversation.id", turn.session)


async def _ask(
    agent: Agent,
    turn: AgentTurn,
    answer: Answer,
    repair: tuple[Message, ...],
    emit: Emit,
    *,
    last: bool,
) -> _Reply:
    """Call the model for one step; an empty answer is requested once more.

    Configured models retry empty answers themselves, so they never return one.

    Args:
        agent: The agent that has the conversation.
        turn: The turn.
        answer: The result so far.
        repair: Messages after the conversation that are not stored.
        emit: Receives events.
        last: No further step is allowed: the model has to answer without tools.

    Raises:
        UpstreamFailed: The second answer was empty as well.
        TurnLimitReached: A limit was met before there was an answer.
    """
    for _ in range(_EMPTY_ANSWER_ATTEMPTS):
        reply = await _call_model(agent, turn, answer, repair, emit, last=last)
        if (
            reply.requests_tools
            or reply.text.strip()
            or (agent.may_be_empty and reply.reason == "stop")
        ):
            return reply
        if reply.reason == "content_filter":
            raise UpstreamFailed("The model's content filter withheld the answer.")
        if reply.reason == "length":
            raise TurnLimitReached(
                "The model used all its output tokens before there was an answer."
            )
    raise UpstreamFailed("The model's answer was empty twice.")


async def _call_model(
    agent: Agent,
    turn: AgentTurn,
    answer: Answer,
    repair: tuple[Message, ...],
    emit: Emit,
    *,
    last: bool,
) -> _Reply:
    """Call the model once; text is streamed, unless it must be validated first."""
    clock = asyncio.get_running_loop().time
    tokens = agent.limits.completion_tokens - answer.usage.completion_tokens
    if tokens <= 0:
        raise TurnLimitReached("The agent has used all its output tokens of this turn.")
    tokens = min(tokens, agent.limits.call_tokens or tokens)
    messages = turn.history + answer.messages + repair
    prompt = agent.closing_prompt if last else agent.prompt
    request = ModelRequest(prompt, messages, tokens, agent.temperature, turn.meter)
    deadline = min(turn.deadline, clock() + agent.limits.model_seconds)
    pieces: list[str] = []
    reply = _Reply()
    async with aclosing(agent.model.stream(request, deadline=deadline)) as stream:
        async for event in stream:
            if type(event) is Text:
                pieces.append(event.text)
                if agent.output is None:
                    await _emit_text(event.text, answer, emit)
            elif type(event) is Progress and agent.reasoning and event.reasoning:
                await emit(ReasoningDelta(event.reasoning))
            elif type(event) is ToolCalls:
                reply.calls, reply.unfinished = event.calls, event.unfinished
            elif type(event) is Finish:
                answer.usage += event.usage
                reply.reason = event.reason
    reply.text = "".join(pieces)
    return _checked(agent, reply)


def _checked(agent: Agent, reply: _Reply) -> _Reply:
    """Check that a reply can be acted on; tool calls of a withheld answer are dropped."""
    if reply.reason == "content_filter":
        if agent.output is not None or not reply.text:
            raise UpstreamFailed("The model's content filter withheld the answer.")
        reply.calls = reply.unfinished = ()
    if (requested := len(reply.calls) + len(reply.unfinished)) > agent.limits.tool_calls:
        raise TurnLimitReached(
            f"The model requested {requested} tool calls in one step; "
            f"the limit of agent {agent.name} is {agent.limits.tool_calls}."
        )
    return reply


def _public_reason(reason: FinishReason) -> str:
    """The finish reason of a turn, as clients know it."""
    return reason if reason in ("length", "content_filter") else "stop"


async def _emit_text(text: str, answer: Answer, emit: Emit) -> None:
    if answer.first_text_at is None:
        answer.first_text_at = asyncio.get_running_loop().time()
    await emit(TextDelta(text))


def _repair_messages(agent: Agent, text: str, fault: str, *, last: bool) -> tuple[Message, ...]:
    """Messages that make the model repair an invalid answer; clients do not see them.

    Raises:
        InvalidOutput: It has been asked before, or no step is left.
    """
    if last:
        _log.warning("agent %s: invalid output: %s", agent.name, fault)
        raise InvalidOutput(f"The answer of agent {agent.name} is not valid: {fault}")
    instruction = (
        f"Your answer is not valid. {fault} Answer again, with nothing but the valid JSON."
    )
    return AssistantMessage(text), UserMessage(instruction)


async def _call_tools(
    agent: Agent, reply: _Reply, turn: AgentTurn, keys: EffectKeys, emit: Emit
) -> list[ToolOutcome]:
    """Run all calls of one step concurrently; outcomes and events keep the order of the calls.

    So a turn's events have one order, in which they can be replayed. Unfinished calls come last and
    are not executed, which the model reads.
    """
    calls = reply.calls
    await emit(
        *(ToolCalled(call.id, call.name, call.arguments) for call in calls + reply.unfinished)
    )
    outcomes: list[ToolOutcome] = []
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_spanned_call(agent, call, turn, keys)) for call in calls]
        for call, task in zip(calls, tasks, strict=True):
            outcome = await task
            outcomes.append(outcome)
            await emit(ToolReturned(call.id, call.name, outcome.content, outcome.failed))
    not_executed = ToolOutcome(_CUT_OFF if reply.reason == "length" else _NO_JSON, failed=True)
    for call in reply.unfinished:
        outcomes.append(not_executed)
        await emit(ToolReturned(call.id, call.name, not_executed.content, failed=True))
    return outcomes


async def _spanned_call(
    agent: Agent, call: ToolCall, turn: AgentTurn, keys: EffectKeys
) -> ToolOutcome:
    with within_span(f"execute_tool {call.name}") as span:
        outcome = await _call_tool(agent, call, turn, keys, span)
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
    agent: Agent, call: ToolCall, turn: AgentTurn, keys: EffectKeys, span: Span | None
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
    claim = keys.claim(tool.name, prepared.canonical)
    context = _context(agent, call, turn, claim.key, span)
    outcome = await tool.call_prepared(prepared, context)
    if outcome.failed:
        keys.release(claim)
    return outcome


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


def _successor(
    agent: Agent, calls: tuple[ToolCall, ...], outcomes: list[ToolOutcome]
) -> str | None:
    if not agent.handoffs:
        return None
    for call, outcome in zip(calls, outcomes, strict=True):
        if call.name == HAND_OFF and not outcome.failed:
            return outcome.content
    return None


def _context(
    agent: Agent, call: ToolCall, turn: AgentTurn, effect_key: str, span: Span | None
) -> ToolContext:
    now = asyncio.get_running_loop().time()
    return ToolContext(
        principal=turn.principal,
        session=turn.session,
        turn=turn.turn,
        agent=agent.name,
        call=call.id,
        idempotency_key=effect_key,
        deadline=min(turn.deadline, now + agent.limits.tool_seconds),
        state=turn.state,
        traceparent=span.traceparent.decode() if span is not None else "",
    )
