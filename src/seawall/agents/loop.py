"""Agent loop: calls the model and its tools in turn, until there is an answer or a limit is met."""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any, Self

import msgspec
from msgspec import Struct

from seawall.agents import HAND_OFF, Agent
from seawall.agents.calls import AgentTurn, Answer, Emit, Step, call_tool, effect_key
from seawall.agents.window import with_newest_images
from seawall.errors import InvalidOutput, TurnLimitReached, UpstreamFailed
from seawall.events import (
    AgentSelected,
    ReasoningDelta,
    TextDelta,
    ToolCalled,
    ToolReturned,
    TurnQueued,
)
from seawall.models import (
    AnswerText,
    DirectText,
    Finish,
    FinishReason,
    ModelRequest,
    Progress,
    Text,
    ToolCalls,
)
from seawall.spans import current_span, within_span
from seawall.tools.port import ToolOutcome
from seawall.turn import (
    AssistantMessage,
    Message,
    ToolCall,
    UserMessage,
)

__all__ = ["run_agent"]


_log = logging.getLogger("seawall.agents")

_EMPTY_ANSWER_ATTEMPTS = 2
_CUT_OFF = (
    "This call was cut off by the limit on your output tokens, and was not executed. "
    "Repeat it in fewer words, or answer without it."
)
_NO_JSON = "The arguments of this call are not complete JSON; it was not executed."


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


class _Caller(Struct, frozen=True):
    """Implements `Caller`: notifies the client of the turn that its call waits."""

    turn: AgentTurn
    emit: Emit

    @property
    def tenant(self) -> str:
        """See `Caller`."""
        return self.turn.principal.tenant

    @property
    def deadline(self) -> float:
        """See `Caller`."""
        return self.turn.deadline

    async def queued(self, position: int, seconds: float) -> None:
        """See `Caller`."""
        await self.emit(TurnQueued(self.turn.turn, "quota", position, seconds))


class _AgentSpan:
    """The span of the agent that has the conversation; without tracing there is none.

    Names as in OpenTelemetry's gen-ai-agent-spans.md.
    """

    __slots__ = ("_within",)

    def __init__(self) -> None:
        self._within: within_span | None = None

    def begin(self, agent: Agent, turn: AgentTurn) -> None:
        """Begin the span of an agent, and end that of the one before."""
        self.__exit__(None, None, None)
        if current_span.get() is None:
            return
        self._within = within_span(f"invoke_agent {agent.name}")
        span = self._within.__enter__()
        if span is not None:
            span.put("gen_ai.operation.name", "invoke_agent")
            span.put("gen_ai.agent.name", agent.name)
            span.put("gen_ai.conversation.id", turn.session)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        within, self._within = self._within, None
        if within is not None:
            within.__exit__(kind, error, traceback)


class _Run(Struct, frozen=True):
    """The run of a turn's agents."""

    agents: Mapping[str, Agent]
    start: str
    turn: AgentTurn
    answer: Answer
    emit: Emit
    span: _AgentSpan


def run_agent(
    agents: Mapping[str, Agent],
    start: str,
    turn: AgentTurn,
    emit: Emit,
    answer: Answer | None = None,
) -> Coroutine[Any, Any, Answer]:
    """Run an agent, and the agents that it hands over to, until there is an answer.

    Args:
        agents: All agents by name.
        start: The agent that begins.
        turn: The turn.
        emit: Receives events.
        answer: The result of an earlier attempt, to be continued.

    Raises:
        TurnPausing: It waits for decisions.
        EffectUnknown: The outcome of an effect is not known.
        TurnLimitReached: A limit of the agent was met before there was an answer; on the last step
            the model is called without tools, so that this is rare.
        InvalidOutput: The answer does not match the agent's schema.
        UpstreamFailed: The model failed, or its answer is unusable.
        DeadlineExceeded: The model did not answer in time.
    """
    return _run(_Run(agents, start, turn, answer or Answer(start), emit, _AgentSpan()))


async def _run(run: _Run) -> Answer:
    """Run the loop and fill the answer."""
    agents, start, turn, answer, emit = run.agents, run.start, run.turn, run.answer, run.emit
    loop = asyncio.get_running_loop()
    agent = agents[answer.agent]
    repair: tuple[Message, ...] = ()
    cut_off = False
    with run.span:
        run.span.begin(agent, turn)
        if turn.pending is not None:
            agent = await _run_step(run, agent, turn.pending)
        for step in range(turn.steps, agents[start].limits.steps):
            began = loop.time()
            answer.steps = step + 1
            last = step + 1 == agents[start].limits.steps
            choice = (
                agent.tool_choice if step == turn.steps and not _resumes_own_step(turn) else "auto"
            )
            reply = await _ask(agent, turn, answer, repair, emit, choice=choice, last=last)
            answered_at = loop.time()
            if choice not in ("auto", "none"):
                _check_choice(reply, choice)
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
                return answer
            if last:
                break
            if cut_off and reply.unfinished:
                raise TurnLimitReached("The token limit cut off the model's tool calls again.")
            cut_off = bool(reply.unfinished) and reply.reason == "length"
            calls = reply.calls + reply.unfinished
            # Text beside tool calls is dropped if the answer must be JSON.
            answer.messages += (AssistantMessage("" if agent.output else reply.text, calls),)
            outcomes = dict.fromkeys((each.id for each in reply.unfinished), _not_executed(reply))
            pending = Step(step + 1, calls, outcomes, [])
            agent = await _run_step(run, agent, pending)
    raise TurnLimitReached(f"There was no answer after {agents[start].limits.steps} model calls.")


async def _run_step(run: _Run, agent: Agent, step: Step) -> Agent:
    """Run the calls of a step and add their results to the answer; the agent that goes on."""
    turn, answer, emit = run.turn, run.answer, run.emit
    clock = asyncio.get_running_loop().time
    began = clock()
    if turn.journal is not None and (turn.journal.begun or _has_effects(agent, step)):
        from seawall.agents.effects import run_step  # noqa: PLC0415 - only with effects

        outcomes = await run_step(agent, step, turn, answer, emit)
    else:
        outcomes = await _call_tools(agent, step, turn, emit)
        if step.asking:
            from seawall.agents.effects import run_step  # noqa: PLC0415 - only where one asks

            outcomes = await run_step(agent, step, turn, answer, emit)
    answer.tool_seconds += clock() - began
    results = [
        outcome.message(call.id, call.name)
        for call, outcome in zip(step.calls, outcomes, strict=True)
    ]
    answer.messages += tuple(results)
    if any([each.images for each in results]):  # noqa: C419 - a generator takes longer
        answer.messages = with_newest_images(answer.messages)
    successor = _successor(agent, step.calls, outcomes)
    if successor is None:
        return agent
    await emit(AgentSelected(successor, "handoff", agent.name))
    answer.agent = successor
    run.span.begin(run.agents[successor], turn)
    return run.agents[successor]


def _resumes_own_step(turn: AgentTurn) -> bool:
    """Whether the turn continues without a new request: behind a step that no client had to run."""
    return turn.pending is not None and not any(
        each.request is not None and each.request.kind == "client" for each in turn.pending.effects
    )


def _check_choice(reply: _Reply, choice: str) -> None:
    """Check that the model has called what the client requires.

    Raises:
        InvalidOutput: It has not.
    """
    called = {each.name for each in (*reply.calls, *reply.unfinished)}
    if not called if choice == "required" else choice not in called:
        wanted = "a tool" if choice == "required" else f"the tool {choice}"
        raise InvalidOutput(f"The model did not call {wanted}, as tool_choice requires.")


def _has_effects(agent: Agent, step: Step) -> bool:
    """Whether one of the calls is of a tool that changes something."""
    for each in step.calls:
        tool = agent.tools.get(each.name)
        if tool is not None and tool.policy is not None:
            return True
    return False


def _not_executed(reply: _Reply) -> ToolOutcome:
    return ToolOutcome(_CUT_OFF if reply.reason == "length" else _NO_JSON, failed=True)


async def _ask(
    agent: Agent,
    turn: AgentTurn,
    answer: Answer,
    repair: tuple[Message, ...],
    emit: Emit,
    *,
    choice: str,
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
        choice: As `ModelRequest.tool_choice`.
        last: No further step is allowed: the model has to answer without tools.

    Raises:
        UpstreamFailed: The second answer was empty as well.
        TurnLimitReached: A limit was met before there was an answer.
    """
    for _ in range(_EMPTY_ANSWER_ATTEMPTS):
        reply = await _call_model(agent, turn, answer, repair, emit, choice=choice, last=last)
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


def _request(
    agent: Agent,
    turn: AgentTurn,
    answer: Answer,
    repair: tuple[Message, ...],
    emit: Emit,
    *,
    choice: str,
    last: bool,
) -> ModelRequest:
    """The request of one step.

    Raises:
        TurnLimitReached: No output tokens are left.
    """
    tokens = agent.limits.completion_tokens - answer.usage.completion_tokens
    if tokens <= 0:
        raise TurnLimitReached("The agent has used all its output tokens of this turn.")
    tokens = min(tokens, agent.limits.call_tokens or tokens)
    said = answer.messages
    if turn.interludes:
        from seawall.agents.interludes import with_interludes  # noqa: PLC0415 - seldom

        said = with_interludes(said, turn.interludes)
    messages = turn.history + said + repair
    if turn.memory and agent.memory:
        messages = turn.memory + messages
    prompt = agent.closing_prompt if last else agent.prompt
    caller = _Caller(turn, emit)
    request = ModelRequest(
        prompt,
        messages,
        tokens,
        agent.temperature,
        turn.meter,
        caller=caller,
        contents=turn.contents,
        sink=DirectText(turn.sink) if turn.sink is not None and agent.output is None else None,
    )
    if choice != "auto" or not agent.parallel_tool_calls:
        request = msgspec.structs.replace(
            request,
            tool_choice="auto" if last else choice,
            parallel_tool_calls=agent.parallel_tool_calls,
        )
    return request


async def _call_model(
    agent: Agent,
    turn: AgentTurn,
    answer: Answer,
    repair: tuple[Message, ...],
    emit: Emit,
    *,
    choice: str,
    last: bool,
) -> _Reply:
    """Call the model once; text is streamed, unless it must be validated first."""
    request = _request(agent, turn, answer, repair, emit, choice=choice, last=last)
    deadline = min(turn.deadline, asyncio.get_running_loop().time() + agent.limits.model_seconds)
    text = AnswerText(request.sink)
    reply = _Reply()
    stream = agent.model.stream(request, deadline=deadline)
    del request  # a model that wraps another makes requests of its own
    try:
        async for event in stream:
            if type(event) is Text:
                text.add(event.text)
                if agent.output is None:
                    await _emit_text(event.text, answer, emit)
            elif type(event) is Progress and agent.reasoning and event.reasoning:
                await emit(ReasoningDelta(event.reasoning))
            elif type(event) is ToolCalls:
                reply.calls, reply.unfinished = event.calls, event.unfinished
            elif type(event) is Finish:
                answer.usage += event.usage
                reply.reason = event.reason
    finally:
        await stream.aclose()
    reply.text = text.whole()
    if not agent.parallel_tool_calls:  # whatever the provider makes of it
        reply.unfinished = reply.unfinished[: 0 if reply.calls else 1]
        reply.calls = reply.calls[:1]
    _make_ids_unique(reply, answer.messages)
    return _checked(agent, reply)


def _make_ids_unique(reply: _Reply, messages: tuple[Message, ...]) -> None:
    """Give calls ids that no other call of the turn has: by them outcomes and decisions are known.

    Args:
        reply: Its calls are renamed where that is needed.
        messages: Of the turn so far.
    """
    calls = reply.calls + reply.unfinished
    if not calls:
        return
    seen = {
        call.id for each in messages if type(each) is AssistantMessage for call in each.tool_calls
    }
    names = seen | {each.id for each in calls}
    if len(names) == len(seen) + len(calls):
        return
    renamed: list[ToolCall] = []
    for call in calls:
        name = call.id
        if name in seen:
            free = (f"{call.id}_{number}" for number in range(1, len(names) + 2))
            name = next(each for each in free if each not in names)
            names.add(name)
        seen.add(name)
        renamed.append(msgspec.structs.replace(call, id=name))
    reply.calls = tuple(renamed[: len(reply.calls)])
    reply.unfinished = tuple(renamed[len(reply.calls) :])


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


async def _call_tools(agent: Agent, step: Step, turn: AgentTurn, emit: Emit) -> list[ToolOutcome]:
    """Run all calls of one step concurrently; outcomes and events keep the order of the calls.

    So a turn's events have one order, in which they can be replayed. From a call on whose server
    asks the user something, nothing is reported.
    """
    await emit(*[ToolCalled(call.id, call.name, call.arguments) for call in step.calls])
    if len(step.calls) == 1 and not step.outcomes:  # nothing runs beside it
        key = effect_key(turn.effect_key, step.number, 0)
        outcome = await call_tool(agent, step.calls[0], turn, key)
        return [*await _report_outcome(step, step.calls[0], outcome, emit)]
    async with asyncio.TaskGroup() as group:
        tasks = {
            call.id: group.create_task(
                call_tool(agent, call, turn, effect_key(turn.effect_key, step.number, index))
            )
            for index, call in enumerate(step.calls)
            if call.id not in step.outcomes
        }
        outcomes: list[ToolOutcome] = []
        for call in step.calls:
            task = tasks.get(call.id)
            outcome = await task if task is not None else step.outcomes[call.id]
            outcomes += await _report_outcome(step, call, outcome, emit)
    return outcomes


async def _report_outcome(
    step: Step, call: ToolCall, outcome: ToolOutcome, emit: Emit
) -> tuple[ToolOutcome, ...]:
    """Take the next outcome of a step and report it, unless it asks something or one before did."""
    if outcome.asks is not None:
        step.asking[call.id] = outcome.asks
        return ()
    step.outcomes[call.id] = outcome
    if step.asking:
        return ()
    step.reported += 1
    await emit(ToolReturned(call.id, call.name, outcome.content, outcome.failed, outcome.sources))
    return (outcome,)


def _successor(
    agent: Agent, calls: tuple[ToolCall, ...], outcomes: list[ToolOutcome]
) -> str | None:
    if not agent.handoffs:
        return None
    for call, outcome in zip(calls, outcomes, strict=True):
        if call.name == HAND_OFF and not outcome.failed:
            return outcome.content
    return None
