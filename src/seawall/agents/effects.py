"""Steps with effects: journaled before an effect runs, each outcome recorded as it comes.

Reads of a step run concurrently. Its effects run in the order of their calls, unless their tool
declares them independent. An effect that needs approval, and all after it in order, wait: the turn
pauses. An effect that has begun is never cut off; one that began in an earlier attempt and has no
outcome is settled by what its tool declares.
"""

import asyncio
import random
import time
from contextlib import suppress

from msgspec import Struct, structs

from seawall.agents import Agent
from seawall.agents.calls import (
    AgentTurn,
    Answer,
    Emit,
    Step,
    TurnPausing,
    call_tool,
    effect_key,
    tool_context,
)
from seawall.errors import DeadlineExceeded, EffectUnknown, Problem
from seawall.events import ToolCalled, ToolReturned
from seawall.spans import within_span
from seawall.tools.policy import redacted
from seawall.tools.port import PreparedCall, Tool, ToolContext, ToolError, ToolOutcome, truncate
from seawall.turn import ApprovalRequest, Effect, ToolCall

__all__ = ["DecidedMeanwhile", "run_step", "settle_step"]

_REPEATS = 2  # of a call whose service keeps its idempotency key
_FIRST_PAUSE_SECONDS = 0.2
_MAX_EFFECTS = 32  # of a step: all may end with one write, of which a store has a bound
_DUPLICATE = (
    "This call is the same as an earlier one of this step, so it was not executed. "
    "If it is meant to happen twice, call it again after the first."
)
_TOO_MANY = "There are too many changes in one step; this one was not executed. Ask again."
_NOT_ENDED = ("begun", "planned", "unknown", "waiting")


class DecidedMeanwhile(Exception):
    """The turn cannot pause: one of the decisions that it waits for has just been taken."""


class _Planned(Struct):
    """A call; with tool and arguments if it is an effect that can run."""

    call: ToolCall
    tool: Tool | None = None
    prepared: PreparedCall | None = None


async def run_step(
    agent: Agent, step: Step, turn: AgentTurn, answer: Answer, emit: Emit
) -> list[ToolOutcome]:
    """Run the calls of a step, or those that an earlier attempt has left; in their order.

    Args:
        agent: The agent that has the conversation.
        step: New, with the outcomes of calls that cannot run; or from the journal.
        turn: The turn; it has a journal.
        answer: The result so far, which ends with the model's message of this step.
        emit: Receives events.

    Returns:
        The outcomes of all calls.

    Raises:
        TurnPausing: Calls wait for decisions.
        EffectUnknown: The outcome of an effect is not known.
        DeadlineExceeded: The turn's time was over before all could begin.
        Problem: The journal could not be written, or the turn's lease was lost.
    """
    run = _StepRun(agent, step, turn, answer)
    if step.resumed:
        await run.take_decisions()
    else:
        await run.plan()
        shown = {each.call: each.shown for each in step.effects if each.shown}
        await emit(
            *(
                ToolCalled(each.id, each.name, shown.get(each.id, each.arguments))
                for each in step.calls
            )
        )
    while True:
        outcomes = await run.run(emit)
        if len(outcomes) == len(step.calls):
            return outcomes
        if all(each.status != "waiting" for each in step.effects):
            raise DeadlineExceeded("The turn's time is over; not all tools were called.")
        try:
            await run.save(pausing=True)
        except DecidedMeanwhile:
            await run.take_decisions()
            continue
        raise TurnPausing


async def settle_step(agent: Agent, step: Step, turn: AgentTurn, answer: Answer) -> None:
    """Settle effects that an earlier attempt has begun; begin no other.

    Args:
        agent: As of `run_step`.
        step: From the journal.
        turn: As of `run_step`.
        answer: As of `run_step`.

    Raises:
        Problem: The journal could not be written.
    """
    with suppress(EffectUnknown):
        await _StepRun(agent, step, turn, answer).settle()


class _StepRun:
    """The calls of one step while they run."""

    def __init__(self, agent: Agent, step: Step, turn: AgentTurn, answer: Answer) -> None:
        assert turn.journal is not None  # noqa: S101 - steps with effects have one
        self._agent = agent
        self._step = step
        self._turn = turn
        self._answer = answer
        self._journal = turn.journal.open()
        self._writing = asyncio.Lock()
        self._stopping = False
        self._planned = {each.id: self._plan_call(each) for each in step.calls}
        self._begun_before = {each.id for each in step.effects if each.began_at}
        self._may_run = set(self._begun_before)  # effects that the journal has as begun
        loop = asyncio.get_running_loop()
        self._ended: dict[str, asyncio.Future[ToolOutcome]] = {
            each.id: loop.create_future() for each in step.calls
        }

    def _plan_call(self, call: ToolCall) -> _Planned:
        tool = self._agent.tools.get(call.name)
        if tool is None or tool.policy is None or call.id in self._step.outcomes:
            return _Planned(call)
        arguments = call.arguments
        for effect in self._step.effects:
            if effect.call == call.id:  # what was journaled, and perhaps approved, is what runs
                arguments = effect.arguments
        try:
            return _Planned(call, tool, tool.prepare(arguments))
        except ToolError as refusal:
            if not self._step.resumed:
                self._step.outcomes[call.id] = ToolOutcome(str(refusal), failed=True)
            return _Planned(call)

    async def plan(self) -> None:
        """Journal the step: what it will do, under which keys, and what needs approval."""
        seen: set[tuple[str, bytes]] = set()
        step = self._step
        for index, call in enumerate(step.calls):
            planned = self._planned[call.id]
            tool, prepared = planned.tool, planned.prepared
            if tool is None or prepared is None or tool.policy is None:
                continue
            if len(step.effects) >= _MAX_EFFECTS:
                step.outcomes[call.id] = ToolOutcome(_TOO_MANY, failed=True)
                continue
            same = (tool.name, prepared.canonical)
            if same in seen and tool.policy.duplicates == "refuse":
                step.outcomes[call.id] = ToolOutcome(_DUPLICATE, failed=True)
                continue
            seen.add(same)
            key = effect_key(self._turn.effect_key, step.number, index)
            context = tool_context(self._agent, call, self._turn, key, None)
            request = None
            approval = tool.policy.approval
            if approval is not None and await tool.needs_approval(prepared, context):
                expires_at = time.time() + (approval.expires_seconds or self._turn.approval_seconds)
                request = ApprovalRequest(
                    expires_at, approval.role, approval.own, tool.policy.waits_for
                )
            step.effects.append(
                Effect(
                    id=f"{self._turn.turn}.{self._journal.effects_before + len(step.effects) + 1}",
                    key=key,
                    call=call.id,
                    tool=tool.name,
                    agent=self._agent.name,
                    arguments=(arguments := prepared.canonical.decode()),
                    step=step.number,
                    shown=redacted(tool.policy, arguments) if tool.policy.redact else "",
                    status="planned" if request is None else "waiting",
                    request=request,
                )
            )
        self._begin_next()
        await self.save()

    async def take_decisions(self) -> None:
        """Continue a step of the journal: apply what was decided, and begin what may run now."""
        step = self._step
        waiting = [each for each in step.effects if each.status == "waiting"]
        decisions = await self._journal.decisions(waiting) if waiting else {}
        for index, effect in enumerate(step.effects):
            decision = decisions.get(effect.id)
            if decision is not None and effect.request is not None:
                request = structs.replace(effect.request, decision=decision)
                step.effects[index] = self._decided(structs.replace(effect, request=request))
            elif effect.status == "unknown":  # it is settled again
                step.effects[index] = structs.replace(effect, status="begun")
        self._begin_next()
        await self.save()

    def _decided(self, effect: Effect) -> Effect:
        request = effect.request
        assert request is not None  # noqa: S101 - it was decided
        assert request.decision is not None  # noqa: S101 - as above
        decision = request.decision
        if decision.verdict == "approve":
            return structs.replace(effect, status="planned")
        if decision.verdict == "edit":
            tool = self._planned[effect.call].tool
            policy = tool.policy if tool is not None else None
            effect = structs.replace(
                effect,
                status="planned",
                arguments=decision.arguments,
                shown=redacted(policy, decision.arguments) if policy and policy.redact else "",
                asked=effect.asked or effect.shown,
            )
            self._step.effects = [
                effect if each.id == effect.id else each for each in self._step.effects
            ]
            self._planned[effect.call] = self._plan_call(self._planned[effect.call].call)
            return effect
        if decision.verdict == "return":
            outcome = ToolOutcome(decision.result)
            self._step.outcomes[effect.call] = outcome
            return structs.replace(effect, status="done", ended_at=decision.at)
        note = f": {decision.note}" if decision.note else "."
        if decision.verdict == "expire":
            approval = request.kind == "approval"
            missed = "approved in time; not executed." if approval else "answered in time."
            return self._refused(effect, f"{effect.tool} was not {missed}")
        return self._refused(effect, truncate(f"{effect.tool} was rejected, not executed{note}"))

    def _refused(self, effect: Effect, text: str) -> Effect:
        self._step.outcomes[effect.call] = ToolOutcome(text, failed=True)
        return structs.replace(effect, status="rejected", ended_at=time.time())

    def _begin_next(self) -> None:
        """Mark effects that start as soon as this is written."""
        if self._stopping or asyncio.get_running_loop().time() >= self._turn.deadline:
            return
        blocked = False
        for index, effect in enumerate(self._step.effects):
            tool = self._planned[effect.call].tool
            independent = tool is not None and tool.policy is not None and tool.policy.independent
            if effect.status == "planned" and (independent or not blocked):
                begun = structs.replace(effect, status="begun", began_at=time.time())
                self._step.effects[index] = begun
            blocked = blocked or (not independent and effect.status in _NOT_ENDED)

    async def save(self, *, pausing: bool = False) -> None:
        """Write the step as it is now.

        Raises:
            DecidedMeanwhile: The turn was to pause.
            Problem: It is not written.
        """
        async with self._writing:
            begun = {each.id for each in self._step.effects if each.status == "begun"}
            await self._journal.save(self._step, self._answer, pausing=pausing)
            self._may_run |= begun

    async def run(self, emit: Emit) -> list[ToolOutcome]:
        """Run what can run; report outcomes in the order of the calls.

        Returns:
            The outcomes up to the first call that waits for a decision.
        """
        step = self._step
        for call_id, outcome in step.outcomes.items():
            self._finish(call_id, outcome)
        effects_of = {each.call for each in step.effects}
        reads = [
            asyncio.create_task(self._read(index, each))
            for index, each in enumerate(step.calls)
            if each.id not in step.outcomes and each.id not in effects_of
        ]
        effects = asyncio.create_task(self._run_effects())
        outcomes: list[ToolOutcome] = []
        try:
            for index, call in enumerate(step.calls):
                ended = await self._outcome_of(call, (effects, *reads))
                if ended is None:
                    break
                outcomes.append(ended)
                if index >= step.reported:
                    step.reported = index + 1
                    await emit(ToolReturned(call.id, call.name, ended.content, ended.failed))
        finally:
            if len(outcomes) < len(step.calls) and not effects.done():
                self._stopping = True
            await _end(effects, reads)
        effects.result()
        return outcomes

    async def settle(self) -> None:
        """See `settle_step`."""
        self._stopping = True
        await self._run_effects()

    async def _outcome_of(
        self, call: ToolCall, tasks: tuple[asyncio.Task[None], ...]
    ) -> ToolOutcome | None:
        """The outcome of a call; None if all else is done and it waits for a decision."""
        ended = self._ended[call.id]
        running: set[asyncio.Future[None]] = set(tasks)
        while not ended.done() and running:
            await asyncio.wait({ended, *running}, return_when="FIRST_COMPLETED")  # type: ignore[type-var]
            for task in [each for each in running if each.done()]:
                running.discard(task)
                task.result()
        return ended.result() if ended.done() else None

    async def _read(self, index: int, call: ToolCall) -> None:
        key = effect_key(self._turn.effect_key, self._step.number, index)
        self._finish(call.id, await call_tool(self._agent, call, self._turn, key))

    def _finish(self, call: str, outcome: ToolOutcome) -> None:
        self._step.outcomes[call] = outcome
        if not self._ended[call].done():
            self._ended[call].set_result(outcome)

    async def _run_effects(self) -> None:
        """Run effects that have begun, until none is left that may begin.

        Raises:
            Problem: The first one, after all that were running have ended.
        """
        running: dict[str, asyncio.Task[None]] = {}
        problems: list[BaseException] = []
        while True:
            for effect in self._step.effects:
                waits = effect.id not in running and effect.id in self._may_run
                if effect.status == "begun" and waits:
                    running[effect.id] = asyncio.create_task(self._run_effect(effect))
            active = [task for task in running.values() if not task.done()]
            if not active:
                break
            done, _ = await asyncio.wait(active, return_when="FIRST_COMPLETED")
            for task in done:
                if (problem := task.exception()) is not None:
                    problems.append(problem)
                    self._stopping = True
        if problems:
            raise next((each for each in problems if isinstance(each, Problem)), problems[0])

    async def _run_effect(self, effect: Effect) -> None:
        planned = self._planned[effect.call]
        with within_span(f"execute_tool {effect.tool}") as span:
            context = tool_context(self._agent, planned.call, self._turn, effect.key, span)
            outcome = await self._perform(planned, effect, context)
            if span is not None:
                span.put("gen_ai.operation.name", "execute_tool")
                span.put("gen_ai.tool.name", effect.tool)
                span.put("gen_ai.tool.call.id", effect.call)
                if outcome.failed or outcome.unknown:
                    span.end("tool_failed")
        if _is_edited(effect):
            arguments = truncate(effect.shown or effect.arguments)
            note = f"[The arguments were changed before approval: {arguments}]\n"
            outcome = structs.replace(outcome, content=note + outcome.content)
        status = "unknown" if outcome.unknown else "failed" if outcome.failed else "done"
        index = self._step.effects.index(effect)
        self._step.effects[index] = structs.replace(effect, status=status, ended_at=time.time())
        if outcome.unknown:
            self._stopping = True
            await self.save()
            raise EffectUnknown(
                f"{effect.tool} was called and its outcome is not known. It is not repeated; the "
                f"effect {effect.id} has to be reconciled."
            )
        self._step.outcomes[effect.call] = outcome
        self._begin_next()
        await self.save()
        self._finish(effect.call, outcome)

    async def _perform(
        self, planned: _Planned, effect: Effect, context: ToolContext
    ) -> ToolOutcome:
        """The outcome of an effect: of its call, or settled as its tool declares."""
        tool, prepared = planned.tool, planned.prepared
        again = effect.id in self._begun_before
        if tool is None or prepared is None or tool.policy is None:  # it is not configured any more
            return ToolOutcome(f"{effect.tool} is not available.", failed=True, unknown=again)
        policy = tool.policy
        unknown = ToolOutcome(f"The outcome of {tool.name} is not known.", True, unknown=True)
        if again and policy.retry != "key":
            found = await self._check(tool, prepared, context)
            if found is None:
                return unknown
            if not found.failed:
                return found
            again = False
        clock = asyncio.get_running_loop().time
        for repeat in range(_REPEATS + 1):
            called = await tool.call_prepared(prepared, context)
            if not (called.unknown if called.started else again or repeat):
                return called
            pause = _FIRST_PAUSE_SECONDS * 2**repeat * random.uniform(0.5, 1.0)  # noqa: S311
            if (
                policy.retry != "key"
                or repeat == _REPEATS
                or self._stopping
                or clock() + pause >= self._turn.deadline
            ):
                break
            await asyncio.sleep(pause)
            context = tool_context(self._agent, planned.call, self._turn, effect.key, None)
        found = await self._check(tool, prepared, context)
        if found is None or (found.failed and called.running):  # it may change something yet
            return unknown
        return found

    async def _check(
        self, tool: Tool, prepared: PreparedCall, context: ToolContext
    ) -> ToolOutcome | None:
        """See `Tool.check`; it has a call's time, also if the turn's or the call's is over."""
        seconds = self._agent.limits.tool_seconds
        deadline = asyncio.get_running_loop().time() + seconds
        return await tool.check(prepared, structs.replace(context, deadline=deadline))


def _is_edited(effect: Effect) -> bool:
    """Whether its arguments are not those that the model wrote."""
    decision = effect.request.decision if effect.request is not None else None
    return decision is not None and decision.verdict == "edit"


async def _end(effects: asyncio.Task[None], reads: list[asyncio.Task[None]]) -> None:
    """Wait until an effect that runs has ended, also if this task is cancelled meanwhile."""
    for each in reads:
        each.cancel()
    cancelled: asyncio.CancelledError | None = None
    waiting: set[asyncio.Task[None]] = {effects, *reads}
    while waiting:
        try:
            _, waiting = await asyncio.wait(waiting)
        except asyncio.CancelledError as error:
            cancelled = error
            waiting = {each for each in waiting if not each.done()}
    if cancelled is not None:
        if not effects.cancelled():
            effects.exception()  # the cancellation counts
        raise cancelled
